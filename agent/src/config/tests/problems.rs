//! Problems of a file and their messages.

use super::*;

#[test]
fn all_problems_are_reported_at_once_with_their_paths() {
    let text = r#"
node: 7
interfaces:
  include: ["eth[", ""]
  includes: [lo]
capture:
  hook: xpd
  ports: [0, 53, 70000, "53"]
  tunnels:
    - interfaces: ["eth["]
      types: [vxlan, 6in4]
      port: 4789
    - types: []
  vxlan_ports: [0]
  snap_length: 0
  ring_bytes: 1000000
  kernel_log: "yes"
pair:
  timeout_ms: 0
sinks:
  - type: file
    directory: /no/such/directory
    rotate_bytes: -1
  - type: kafka
    topic: "dns transactions"
  - type: smoke-signal
    hill: high
  - format: text
shutdown: soon
log: {level: loud}
dns_metrics: {by: pod, max_series: 31, top: 257}
signals: {enabled: yes, internal_suffixes: ["*.corp"], max_memory_mib: 3, tunnel: true}
sink: []
"#;
    assert_eq!(
        problems(text),
        [
            "node: 7: must be text: put it in quotes",
            "interfaces.include[0]: \"eth[\": is not a shell pattern: invalid range pattern at character 4",
            "interfaces.include[1]: \"\": must not be empty",
            "interfaces.includes: no such key; did you mean include?",
            "capture.hook: \"xpd\": must be one of auto, xdp, tc; did you mean xdp?",
            "capture.ports[0]: 0: must be a whole number from 1 to 65535, or one of mdns, llmnr",
            "capture.ports[2]: 70000: must be a whole number from 1 to 65535, or one of mdns, llmnr",
            "capture.ports[3]: \"53\": must be a whole number from 1 to 65535, or one of mdns, llmnr",
            "capture.tunnels[0].interfaces[0]: \"eth[\": is not a shell pattern: invalid range pattern at character 4",
            "capture.tunnels[0].types[1]: \"6in4\": must be one of vxlan, geneve, gre, ipip",
            "capture.tunnels[0].port: no such key",
            "capture.tunnels[1].interfaces: missing",
            "capture.tunnels[1].types: must not be empty",
            "capture.vxlan_ports[0]: 0: must be a whole number from 1 to 65535",
            "capture.snap_length: 0: must be a whole number from 1 to 65557",
            "capture.ring_bytes: 1000000: must be a power of two, such as 1048576",
            "capture.kernel_log: \"yes\": must be true or false",
            "pair.timeout_ms: 0: must be a whole number from 1 to 600000",
            "sinks[0].directory: \"/no/such/directory\": cannot be used: No such file or directory (os error 2)",
            "sinks[0].rotate_bytes: -1: must be a whole number from 4096 to 1099511627776",
            "sinks[1].brokers: missing: name at least one, host:port",
            "sinks[1].topic: \"dns transactions\": must not contain ' ': Kafka takes letters, digits, '.', '_' and '-'",
            "sinks[2].type: \"smoke-signal\": must be one of stdout, file, kafka",
            "sinks[3].type: missing",
            "shutdown: \"soon\": must be a section of keys and values",
            "log.level: \"loud\": must be one of error, warn, info, debug, trace",
            "dns_metrics.by: \"pod\": must be one of workload, namespace",
            "dns_metrics.max_series: 31: must be a whole number from 32 to 20000",
            "dns_metrics.top: 257: must be a whole number from 1 to 256",
            "signals.enabled: \"yes\": must be true or false",
            "signals.internal_suffixes[0]: \"*.corp\": must begin with a label: names below are meant anyway",
            "signals.max_memory_mib: 3: must be a whole number from 4 to 256",
            "signals.tunnel: no such key; did you mean tunnels?",
            "sink: no such key; did you mean sinks?",
        ]
    );
}

#[test]
fn a_message_names_file_and_line() {
    let error = parse("interfaces:\n  include: [lo]\ncapture:\n  workers: 65\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "tap53.yaml:4:12: capture.workers: 65: must be a whole number from 0 to 64"
    );
    let error = parse("pair: {}").unwrap_err();
    assert_eq!(
        error.to_string(),
        "tap53.yaml: interfaces.include: missing: name the interfaces to capture from, here or \
         with --interface"
    );
}

#[test]
fn names_that_were_probably_meant_are_suggested() {
    let found = problems(
        "interfaces: {include: [lo]}\ncaptur: {}\nsinks:\n  - {type: kafak, broker: [b]}\n  \
         - {type: kafka, brokrs: [\"b:1\"], topic: t, compresion: zstd, frobnicate: 1}\n",
    );
    assert_eq!(
        found,
        [
            "captur: no such key; did you mean capture?",
            "sinks[0].type: \"kafak\": must be one of stdout, file, kafka; did you mean kafka?",
            "sinks[1].brokers: missing: name at least one, host:port",
            "sinks[1].brokrs: no such key; did you mean brokers?",
            "sinks[1].compresion: no such key; did you mean compression?",
            "sinks[1].frobnicate: no such key",
        ]
    );
}

#[test]
fn offline_no_file_that_the_configuration_names_is_looked_at() {
    let text = r#"
interfaces: {include: [eth0]}
privacy: {client_address: {hash: {key_file: /nonexistent/key}}}
state: {directory: /etc/passwd}
sinks:
  - {type: file, directory: /nonexistent/out}
  - type: kafka
    brokers: ["kafka:9093"]
    topic: dns
    tls: {ca_file: /nonexistent/ca.pem}
    sasl: {mechanism: scram-sha-512, username: u, password_file: /nonexistent/password}
    registry: {urls: ["https://registry:8081"], ca_file: /nonexistent/ca.pem}
    summary: {topic: ledger, chain: true, signing_key_file: /nonexistent/key.pem}
"#;
    let offline = Overrides { machine: Machine::Other, ..Overrides::default() };
    let config = parse_with(text, &offline).unwrap();
    assert_eq!(config.node, "unknown");
    let yaml = config.to_yaml().unwrap();
    for path in ["/nonexistent/key", "/nonexistent/out", "/nonexistent/key.pem", "/etc/passwd"] {
        assert!(yaml.contains(path), "{path} is missing in {yaml}");
    }
    // Syntax and meaning are checked as always.
    for wrong in ["brokers: []", "topic: \"a b\"", "spool: {directory: relative}"] {
        let text = text.replace("    topic: dns\n", &format!("    {wrong}\n"));
        assert!(parse_with(&text, &offline).is_err(), "{wrong}");
    }
    let here = problems(text);
    for key in ["key_file", "state.directory", "sinks[0].directory", "ca_file", "password_file"] {
        assert!(here.iter().any(|problem| problem.contains(key)), "{key}: {here:?}");
    }
}

#[test]
fn a_missing_file_is_named_with_the_error() {
    let error = Config::load(Some(Path::new("/no/such.yaml")), &Overrides::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/no/such.yaml: cannot be read: No such file or directory (os error 2)"
    );
}

#[test]
fn broken_yaml_and_duplicate_keys_are_refused_with_their_line() {
    for (text, place, line) in
        [("interfaces: [", ":1:13: ", "interfaces: ["), ("node: a\nnode: b\n", ":2:1: ", "node: b")]
    {
        let message = parse(text).unwrap_err().to_string();
        assert!(message.starts_with(&format!("tap53.yaml{place}")), "{message}");
        let (reason, quoted) = message.split_once('\n').unwrap();
        assert_eq!(quoted, format!("  {line}"));
        assert!(!reason.contains(" line "), "the place is named once: {message}");
    }
    assert_eq!(problems("- just\n- a list\n")[0], "a list: must be a section of keys and values");
}

#[test]
fn empty_lists_are_refused_if_an_entry_is_required() {
    assert_eq!(
        problems(
            "interfaces: {include: []}\ncapture: {ports: []}\n\
             sinks: [{type: kafka, topic: t, brokers: []}]"
        ),
        [
            "interfaces.include: must not be empty",
            "capture.ports: must not be empty",
            "sinks[0].brokers: must not be empty",
        ]
    );
}

#[test]
fn sinks_do_not_share_a_name_or_a_file() {
    let text = r#"
interfaces: {include: [lo]}
sinks:
  - {type: file, directory: /, prefix: a}
  - {type: file, directory: /, prefix: b}
  - {type: file, directory: /, prefix: a, name: other}
  - {type: stdout}
  - {type: stdout, name: more}
"#;
    assert_eq!(
        problems(text),
        [
            "sinks[1].name: \"file\": another sink has this name: give each its own",
            "sinks[2].prefix: \"a\": sink \"file\" writes files of this name in the same directory",
            "sinks[4].type: \"stdout\": there is a stdout sink already, and their lines would mix",
        ]
    );
}

#[test]
fn huge_files_are_refused_with_a_short_message() {
    let message = |text: &str| parse(text).unwrap_err().to_string();
    // Each repeats the one before ten times.
    let mut bomb = "a0: &a0 [x]\n".to_owned();
    for number in 1..12 {
        let before = vec![format!("*a{}", number - 1); 10].join(", ");
        bomb.push_str(&format!("a{number}: &a{number} [{before}]\n"));
    }
    assert!(message(&bomb).contains("too large or too complex"), "{}", message(&bomb));
    let deep = format!("a: {}1{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(message(&deep).contains("limit"), "{}", message(&deep));
    let keys: String = (0..5_000).map(|number| format!("key{number}: 1\n")).collect();
    let message_text = message(&keys);
    assert_eq!(message_text.lines().count(), 101, "{message_text}");
    assert!(message_text.ends_with("and 4901 more"), "{message_text}");
    let long = message(&format!("interfaces: {{include: [lo]}}\nnode: {}", "n".repeat(100_000)));
    assert!(long.len() < 400 && long.contains('…'), "{long}");
    let sinks = "{type: stdout}, ".repeat(1_000);
    let message_text = message(&format!("interfaces: {{include: [lo]}}\nsinks: [{sinks}]"));
    assert!(
        message_text.contains("one more than the 64 sinks") || message_text.contains("and "),
        "{message_text}"
    );
    let mut file = tempfile::NamedTempFile::new().unwrap();
    io::Write::write_all(&mut file, &vec![b'#'; 5 << 20]).unwrap();
    let error = Config::load(Some(file.path()), &Overrides::default()).unwrap_err();
    assert!(error.to_string().contains("is longer than 4 MiB"), "{error}");
}

#[test]
fn the_flat_profile_is_refused_without_a_sink_for_avro() {
    let profile = "interfaces: {include: [lo]}\nrecord: {profile: flat}\n";
    for sinks in ["", "sinks: [{type: stdout, format: json}]\n"] {
        let found = problems(&format!("{profile}{sinks}"));
        let [problem] = &found[..] else { panic!("{found:?}") };
        assert!(problem.contains("record.profile") && problem.contains("no sink writes Avro"));
    }
    let kafka = "sinks: [{type: stdout}, {type: kafka, brokers: [\"b:1\"], topic: dns}]\n";
    let config = parse(&format!("{profile}{kafka}")).unwrap();
    assert!(matches!(&config.sinks[1], SinkConfig::Kafka(kafka) if kafka.profile == Profile::Flat));
    assert!(parse("interfaces: {include: [lo]}\nrecord: {profile: wide}\n").is_err());
}

#[test]
fn chains_need_one_record_for_each_exchange() {
    let text = "interfaces: {include: [eth0]}\nchains: {enabled: true}\nsinks: [{type: stdout}]\n";
    assert!(parse(text).unwrap().chains.tracker().is_some());
    let separate = format!("{text}pair: {{merge_interfaces: false}}\n");
    let found = problems(&separate);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("chains.enabled"), "{found:?}");
}
