//! Flags of the command line.

use super::*;

#[test]
fn flags_override_the_file() {
    let overrides = Overrides {
        interfaces: vec!["lo".to_owned(), "br-*".to_owned()],
        hook: Some(HookChoice::Xdp),
        stdout: Some(TextFormat::Text.into()),
        log_level: Some(LogLevel::Error),
        log_format: Some(LogFormat::Json),
        ..Overrides::default()
    };
    let config = parse_with(FULL, &overrides).unwrap();
    let include: Vec<_> = config.interfaces.include.iter().map(Selector::as_str).collect();
    assert_eq!(include, ["lo", "br-*"]);
    assert_eq!(config.interfaces.exclude.len(), 1, "exclusion stays");
    assert_eq!(config.capture.hook, HookChoice::Xdp);
    assert_eq!(config.log, LogConfig { level: LogLevel::Error, format: LogFormat::Json });
    assert_eq!(config.sinks.len(), 3, "the file's stdout sink is used");
    assert!(matches!(&config.sinks[0], SinkConfig::Stdout(s) if s.format == TextFormat::Text));
}

#[test]
fn the_stdout_flag_adds_a_sink_to_the_others() {
    let overrides = Overrides { stdout: Some(TextFormat::Json.into()), ..Overrides::default() };
    let text = "interfaces: {include: [lo]}\nsinks: [{type: file, directory: /, name: stdout}]";
    let config = parse_with(text, &overrides).unwrap();
    let names: Vec<_> = config.sinks.iter().map(SinkConfig::name).collect();
    assert_eq!(names, ["stdout", "stdout-flag"]);
}

#[test]
fn a_bad_flag_is_named_as_the_flag() {
    let overrides = Overrides { interfaces: vec!["eth[".to_owned()], ..Overrides::default() };
    let error = Config::parse(Some(Path::new("tap53.yaml")), "", &overrides).unwrap_err();
    assert_eq!(
        error.to_string(),
        "--interface: \"eth[\": is not a shell pattern: invalid range pattern at character 4"
    );
}
