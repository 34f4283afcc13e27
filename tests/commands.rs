//! The command line: formats of what commands show, suggestions, completions, man pages, versions.
//! None of this needs root.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tap53_harness::agent;
use tempfile::TempDir;

const REFUSED: i32 = 2;

fn tap53(arguments: &[&str]) -> Result<String> {
    let output = agent::run(arguments)?;
    ensure!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    Ok(String::from_utf8(output.stdout)?)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The commands that the help of a command lists.
fn commands(arguments: &[&str]) -> Result<Vec<String>> {
    commands_in(&tap53(&[arguments, &["--help"]].concat())?)
}

fn commands_in(help: &str) -> Result<Vec<String>> {
    let list = help.split("Commands:").nth(1).context("a list of commands")?;
    let lines = list.split("\n\n").next().unwrap_or_default().lines();
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split_once("  "));
    let names = names.map(|(name, _)| name.trim().to_owned());
    Ok(names.filter(|name| !name.is_empty() && name != "help").collect())
}

#[test]
fn each_command_has_a_man_page() -> Result<()> {
    let directory = TempDir::new()?;
    let path = directory.path().join("man1");
    tap53(&["man", "--dir", path.to_str().context("UTF-8")?])?;
    let mut pages = vec!["tap53".to_owned()];
    pages.extend(commands(&[])?.iter().map(|name| format!("tap53-{name}")));
    pages.extend(commands(&["spool"])?.iter().map(|name| format!("tap53-spool-{name}")));
    let help = plugin(directory.path())?.arg("--help").output()?;
    pages.push("kubectl-tap53".to_owned());
    let of_plugin = commands_in(&String::from_utf8(help.stdout)?)?;
    pages.extend(of_plugin.iter().map(|name| format!("kubectl-tap53-{name}")));
    ensure!(pages.len() > 18, "too few commands: {pages:?}");
    for page in &pages {
        let text = fs::read_to_string(path.join(format!("{page}.1"))).context(page.clone())?;
        for part in [&format!(".TH {page} 1"), ".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS"] {
            assert!(text.contains(part), "{part} is missing in {page}.1:\n{text}");
        }
    }
    assert_eq!(fs::read_dir(&path)?.count(), pages.len());
    // Examples keep their lines.
    let run = fs::read_to_string(path.join("tap53-run.1"))?;
    assert!(run.contains(".nf\nExamples:\n  sudo tap53 run \\-i eth0 \\-\\-stdout\n"), "{run}");
    assert!(tap53(&["man"])?.contains(".TH tap53 1"));
    Ok(())
}

/// The plugin of kubectl, which is the same program by another name.
fn plugin(directory: &Path) -> Result<Command> {
    let path = directory.join("kubectl-tap53");
    if !path.exists() {
        symlink(agent::binary()?, &path)?;
    }
    Ok(Command::new(path))
}

#[test]
fn the_plugin_of_kubectl_is_the_program_by_another_name() -> Result<()> {
    let directory = TempDir::new()?;
    let run = |arguments: &[&str]| -> Result<Output> {
        let mut plugin = plugin(directory.path())?;
        // There is no kubectl.
        Ok(plugin.args(arguments).env("PATH", directory.path()).output()?)
    };
    let help = run(&["--help"])?;
    ensure!(help.status.success(), "{}", stderr(&help));
    let help = String::from_utf8(help.stdout)?;
    assert_eq!(commands_in(&help)?, ["status", "tail", "top", "enable", "disable", "reset"]);
    assert!(help.contains("Usage: kubectl tap53 [OPTIONS] <COMMAND>"), "{help}");
    let without = run(&["status"])?;
    assert_eq!(without.status.code(), Some(1));
    assert!(stderr(&without).contains("cannot run kubectl: No such file"), "{}", stderr(&without));
    // A command that is for one agent only.
    assert_eq!(run(&["run"])?.status.code(), Some(2));
    Ok(())
}

#[test]
fn bash_accepts_the_completions_and_completes_with_them() -> Result<()> {
    let script = tap53(&["completions", "bash"])?;
    let complete = format!(
        "{script}\nCOMP_WORDS=(tap53 stat)\nCOMP_CWORD=1\n_tap53 tap53 stat tap53\n\
         echo \"${{COMPREPLY[@]}}\"\n"
    );
    for (option, script, expected) in [("-n", &script, ""), ("-s", &complete, "status\n")] {
        let mut child = Command::new("bash")
            .args(["--norc", option])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("stdin is piped")?.write_all(script.as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "bash {option}: {}", stderr(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{}", stderr(&output));
    }
    for (shell, part) in [("zsh", "#compdef tap53"), ("fish", "complete -c tap53")] {
        let script = tap53(&["completions", shell])?;
        assert!(script.contains(part) && script.contains("check-config"), "{script}");
    }
    Ok(())
}

#[test]
fn commands_and_flags_that_were_probably_meant_are_suggested() -> Result<()> {
    for (arguments, meant) in [
        (&["stauts"][..], "'status'"),
        (&["run", "--interfce", "eth0"], "'--interface'"),
        (&["schema", "--profile", "flatt"], "'flat'"),
        (&["status", "-o", "jsn"], "'json'"),
    ] {
        let output = agent::run(arguments)?;
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(REFUSED), "{arguments:?}: {message}");
        assert!(message.contains(meant), "{arguments:?}: {message}");
    }
    Ok(())
}

#[test]
fn json_as_a_flag_is_refused_where_it_would_do_nothing() -> Result<()> {
    for command in [
        &["check-config"][..],
        &["interfaces"],
        &["doctor"],
        &["status"],
        &["probe"],
        &["verify", "x"],
        &["schema"],
        &["spool", "ls", "x"],
        &["enable", "x"],
    ] {
        let output = agent::run(&[command, &["--json"]].concat())?;
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(REFUSED), "{command:?}: {message}");
        assert!(message.contains("unexpected argument '--json'"), "{command:?}: {message}");
    }
    Ok(())
}

#[test]
fn json_and_yaml_of_a_command_have_the_same_content() -> Result<()> {
    let spool = TempDir::new()?;
    let spool = spool.path().to_str().context("UTF-8")?;
    for command in [
        &["check-config", "-i", "lo"][..],
        &["interfaces", "--socket", "/nonexistent/control.sock"],
        &["schema"],
        &["schema", "--summary"],
        &["spool", "ls", spool],
        &["spool", "verify", spool],
    ] {
        let json = tap53(&[command, &["-o", "json"]].concat())?;
        let json: Value = serde_json::from_str(&json).with_context(|| json.clone())?;
        let yaml = tap53(&[command, &["-o", "yaml"]].concat())?;
        let yaml: Value = serde_saphyr::from_str(&yaml).with_context(|| yaml.clone())?;
        assert_eq!(json, yaml, "{command:?}");
        assert!(!json.is_null(), "{command:?}");
    }
    // Their content differs from one run to the next.
    for command in [
        &["doctor", "-i", "lo"][..],
        &["verify", "/nonexistent"],
        &["probe", "--socket", "/nonexistent/control.sock", "--server", "127.0.0.1"],
    ] {
        for (format, beginning) in [("json", "{"), ("yaml", "verdict:")] {
            let output = agent::run(&[command, &["-o", format]].concat())?;
            assert_ne!(output.status.code(), Some(REFUSED), "{command:?}: {}", stderr(&output));
            let text = String::from_utf8(output.stdout)?;
            assert!(text.is_empty() || text.starts_with(beginning), "{command:?}: {text}");
        }
    }
    Ok(())
}

#[test]
fn a_configuration_is_checked_offline_without_its_files() -> Result<()> {
    let directory = TempDir::new()?;
    let path = directory.path().join("tap53.yaml");
    let path = path.to_str().context("UTF-8")?;
    let yaml = "interfaces: {include: [\"kind:pods\"]}\nsinks:\n  - type: kafka\n    \
                brokers: [\"kafka.invalid:9093\"]\n    topic: dns\n    \
                tls: {ca_file: /etc/tap53/only-in-the-pod.pem}\n    \
                registry: {urls: [\"https://registry.invalid\"]}\n";
    fs::write(path, yaml)?;
    let here = agent::run(&["check-config", "-c", path])?;
    assert_eq!(here.status.code(), Some(REFUSED), "{}", stderr(&here));
    assert!(stderr(&here).contains("only-in-the-pod.pem"), "{}", stderr(&here));
    let shown = tap53(&["check-config", "-c", path, "--offline", "-o", "json"])?;
    let shown: Value = serde_json::from_str(&shown)?;
    assert_eq!(shown["sinks"][0]["tls"]["ca_file"], "/etc/tap53/only-in-the-pod.pem");
    fs::write(path, yaml.replace("topic: dns", "topik: dns"))?;
    let wrong = agent::run(&["check-config", "-c", path, "--offline"])?;
    assert_eq!(wrong.status.code(), Some(REFUSED), "{}", stderr(&wrong));
    assert!(stderr(&wrong).contains("did you mean topic?"), "{}", stderr(&wrong));
    // Errors of the syntax have the same form: file, line and column, what, and the line.
    fs::write(path, "interfaces: [lo\nnode: x\n")?;
    let broken = agent::run(&["check-config", "-c", path, "--offline"])?;
    let message = stderr(&broken);
    assert!(message.starts_with(&format!("tap53: {path}:")), "{message}");
    let [line, column, _] =
        message[format!("tap53: {path}:").len()..].splitn(3, ':').collect::<Vec<_>>()[..]
    else {
        panic!("{message}")
    };
    assert!(line.parse::<u32>().is_ok() && column.parse::<u32>().is_ok(), "{message}");
    assert_eq!(message.lines().count(), 2, "{message}");
    Ok(())
}

#[test]
fn the_version_names_the_revision_and_the_schema() -> Result<()> {
    let text = tap53(&["--version"])?;
    let (_, rest) = text.split_once("(revision ").context(text.clone())?;
    let (revision, rest) = rest.split_once(", ").context(text.clone())?;
    assert!(rest.starts_with("record schema version "), "{text}");
    let is_commit = revision.len() == 12 && revision.bytes().all(|c| c.is_ascii_hexdigit());
    let tracked = Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR"), "ls-files", "--error-unmatch", "commands.rs"])
        .output();
    // Outside of a checkout the revision is unknown, unless a packager has set it.
    if tracked.is_ok_and(|output| output.status.success()) {
        assert!(is_commit, "{text}");
    }
    assert!(!revision.is_empty(), "{text}");
    Ok(())
}
