//! Refusals of the agent: one clear message, the right exit code, and nothing left attached.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use anyhow::Result;
use nix::sys::signal::Signal;
use tap53_harness::{
    agent::{self, Agent},
    bpf,
    client::Transport,
    lab::{ANSWERED, Lab},
    namespace::Namespace,
    process::Process,
};

const DEADLINE: Duration = Duration::from_secs(30);
const FAILED: i32 = 1;
const REFUSED: i32 = 2;

const TO_STDOUT: &str = "interfaces:\n  include: [s0]\nsinks:\n  - type: stdout\n";

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Standard error without the first line of the log, which names what starts.
fn after_start(stderr: &str) -> &str {
    match stderr.split_once('\n') {
        Some((first, rest)) if first.contains("event=\"starting\"") => rest,
        _ => stderr,
    }
}

/// Configurations with one fault each, the parts of the message, and the reason.
const FAULTS: [(&str, &[&str]); 12] = [
    ("", &["interfaces.include"]),
    ("interfaces:\n  include: []\n", &["interfaces.include"]),
    ("interfaces:\n  include: [s0]\n  inclde: [s1]\n", &["interfaces.inclde"]),
    ("interfaces:\n  include: [s0]\ncapture:\n  hook: xpd\n", &["capture.hook", "xpd"]),
    (
        "interfaces:\n  include: [s0]\ncapture:\n  ring_bytes: 5000\n",
        &["capture.ring_bytes", "5000"],
    ),
    ("interfaces:\n  include: [s0]\ncapture:\n  ports: [70000]\n", &["capture.ports[0]", "70000"]),
    ("interfaces:\n  include: [s0]\ncapture:\n  snap_length: 0\n", &["capture.snap_length"]),
    ("interfaces:\n  include: [s0]\npair:\n  timeout_ms: -1\n", &["pair.timeout_ms", "-1"]),
    ("interfaces:\n  include: [s0]\nsinks:\n  - type: fax\n", &["sinks[0].type", "fax"]),
    ("interfaces:\n  include: [s0]\nsinks:\n  - type: file\n", &["sinks[0].directory"]),
    (
        "interfaces:\n  include: [s0]\nsinks:\n  - type: kafka\n    topic: t\n",
        &["sinks[0].brokers"],
    ),
    ("interfaces: [s0\n", &[":1:13: ", "interfaces: [s0"]),
];

#[test]
fn a_fault_in_the_configuration_is_named_by_its_key_and_nothing_runs() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("tap53.yaml");
    let path_text = path.to_str().expect("a temporary path in UTF-8");
    for (yaml, parts) in FAULTS {
        fs::write(&path, yaml)?;
        for command in ["check-config", "run"] {
            let output = agent::run(&[command, "--config", path_text])?;
            let message = stderr(&output);
            assert_eq!(output.status.code(), Some(REFUSED), "{command} {yaml:?}: {message}");
            for part in parts {
                assert!(
                    message.contains(part),
                    "{yaml:?} is refused without naming {part}: {message}"
                );
            }
            assert!(message.contains(path_text), "which file? {message}");
        }
    }
    Ok(())
}

/// Text from outside that would move a terminal's cursor, turn what follows it, or not be seen.
const HOSTILE: &str = "x\x1b[2K\u{202e}\u{9b}1A\u{2066}";

/// Nothing but lines that can be read as they are.
fn require_visible(bytes: &[u8]) -> Result<String> {
    let text = String::from_utf8(bytes.to_vec())?;
    let hidden = |character: char| {
        let moves = character.is_control() && character != '\n';
        moves || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(!text.contains(hidden), "{text:?}");
    Ok(text)
}

#[test]
fn control_characters_in_keys_and_values_are_escaped() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("tap53.yaml");
    let path_text = path.to_str().expect("a temporary path in UTF-8");
    let quoted = serde_json::to_string(HOSTILE)?;
    for yaml in [
        format!("interfaces: {{include: [s0]}}\n{quoted}: 1\n"),
        format!("interfaces: {{include: [s0], {quoted}: 1}}\n"),
        format!("interfaces: {{include: [s0]}}\ncapture: {{hook: {quoted}}}\n"),
        format!("interfaces: {{include: [s0]}}\nsinks: [{{type: stdout, name: {quoted}}}]\n"),
        format!("interfaces: {{include: [s0]}}\nsinks: [{{type: {quoted}}}]\n"),
        "interfaces: \u{202e}[s0\n".to_owned(),
    ] {
        fs::write(&path, &yaml)?;
        let output = agent::run(&["check-config", "--config", path_text])?;
        assert_eq!(output.status.code(), Some(REFUSED), "{yaml:?}");
        require_visible(&output.stderr)?;
        require_visible(&output.stdout)?;
    }
    Ok(())
}

#[test]
fn control_characters_in_an_interface_name_are_escaped() -> Result<()> {
    let namespace = Namespace::new()?;
    let name = "v\u{202e}\x1b[2K\u{9b}";
    namespace.ip(&["link", "add", name, "type", "veth", "peer", "name", "peer"])?;
    let mut command = namespace.command(agent::binary()?);
    let output = command.args(["interfaces", "--interface", "v*"]).output()?;
    let table = require_visible(&output.stdout)?;
    assert!(table.contains("v\\u202e\\u001b[2K\\u009b"), "{table}");
    require_visible(&output.stderr)?;
    let mut command = namespace.command(agent::binary()?);
    let output = command.args(["doctor", "--interface", "v*"]).output()?;
    let report = require_visible(&output.stdout)?;
    assert!(report.contains("v\\u202e\\u001b[2K\\u009b"), "{report}");
    Ok(())
}

#[test]
fn every_fault_is_reported_at_once() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("tap53.yaml");
    fs::write(
        &path,
        "interfaces:\n  include: [s0]\ncapture:\n  hook: xpd\n  ports: [0]\nlog:\n  level: loud\n",
    )?;
    let output = agent::run(&["check-config", "--config", path.to_str().expect("UTF-8")])?;
    for key in ["capture.hook", "capture.ports[0]", "log.level"] {
        assert!(stderr(&output).contains(key), "{key} is missing in: {}", stderr(&output));
    }
    Ok(())
}

#[test]
fn a_configuration_file_that_is_not_there_is_refused() -> Result<()> {
    let output = agent::run(&["run", "--config", "/nonexistent/tap53.yaml"])?;
    assert_eq!(output.status.code(), Some(REFUSED), "{}", stderr(&output));
    assert!(stderr(&output).contains("/nonexistent/tap53.yaml"), "{}", stderr(&output));
    Ok(())
}

#[test]
fn check_config_prints_a_configuration_that_it_accepts_again() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("tap53.yaml");
    let path_text = path.to_str().expect("UTF-8");
    fs::write(&path, TO_STDOUT)?;
    let first = agent::run(&["check-config", "--config", path_text])?;
    assert!(first.status.success(), "{}", stderr(&first));
    fs::write(&path, &first.stdout)?;
    let second = agent::run(&["check-config", "--config", path_text])?;
    assert!(second.status.success(), "{}", stderr(&second));
    assert_eq!(first.stdout, second.stdout);
    Ok(())
}

#[test]
fn check_config_names_the_readers_that_need_a_registry() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("tap53.yaml");
    let path_text = path.to_str().expect("UTF-8");
    let kafka = "type: kafka, brokers: [\"127.0.0.1:9\"], topic: dns";
    for (registry, warned) in [("", true), (", registry: {urls: [\"http://127.0.0.1:9\"]}", false)]
    {
        let yaml = format!("interfaces: {{include: [s0]}}\nsinks: [{{{kafka}{registry}}}]\n");
        fs::write(&path, yaml)?;
        let output = agent::run(&["check-config", "--config", path_text])?;
        assert!(output.status.success(), "{}", stderr(&output));
        let said = stderr(&output);
        assert_eq!(said.contains("warning: sinks[0]: without `registry`"), warned, "{said}");
        assert_eq!(said.contains("Vertica's KafkaAvroParser"), warned, "{said}");
        assert_eq!(said.is_empty(), !warned, "{said}");
    }
    Ok(())
}

#[test]
fn an_interface_that_does_not_exist_is_named_beside_those_that_do_and_waited_for() -> Result<()> {
    let namespace = Namespace::new()?;
    let yaml = TO_STDOUT.replace("s0", "eth7");
    let agent = Agent::start(&namespace, &yaml, &[])?;
    let log = agent.process().stderr().text();
    assert!(log.contains("ready interfaces=0"), "{log}");
    let warning = log.lines().find(|line| line.contains("WARN")).unwrap_or_default();
    for part in ["nothing is captured", "eth7", "present are lo"] {
        assert!(warning.contains(part), "{part:?} is missing in: {log}");
    }
    namespace.ip(&["link", "add", "eth7", "type", "veth", "peer", "name", "eth8"])?;
    agent.process().wait_for_line("capturing interface=\"eth7\"", 0, DEADLINE)?;
    assert_eq!(agent.stop()?.status.code(), Some(0));
    Ok(())
}

#[test]
fn an_interface_that_cannot_be_captured_from_is_refused() -> Result<()> {
    let namespace = Namespace::new()?;
    namespace.ip(&["tuntap", "add", "tun7", "mode", "tun"])?;
    let mut command = namespace.command(agent::binary()?);
    let output = command.args(["run", "--interface", "tun7", "--stdout"]).output()?;
    assert_eq!(output.status.code(), Some(FAILED), "{}", stderr(&output));
    for part in ["tun7", "no Ethernet header"] {
        assert!(stderr(&output).contains(part), "{part} is missing in: {}", stderr(&output));
    }
    Ok(())
}

#[test]
fn a_sink_directory_that_cannot_be_used_is_refused_before_anything_attaches() -> Result<()> {
    let lab = Lab::new()?;
    let yaml = "interfaces:\n  include: [s0]\nsinks:\n  - type: file\n    directory: /proc/tap53\n";
    let mut agent = Agent::launch(lab.server.command(agent::binary()?), yaml, &[])?;
    let status = agent.process_mut().wait(DEADLINE)?;
    let log = agent.process().stderr().text();
    assert_eq!(status.code(), Some(REFUSED), "{log}");
    for part in ["sinks[0].directory", "/proc/tap53"] {
        assert!(log.contains(part), "{part} is missing in: {log}");
    }
    bpf::require_bare(&lab.server, "s0")
}

/// `tap53` as a user without any privilege but these capabilities, in the resolver's namespace.
fn unprivileged(lab: &Lab, binary: &Path, capabilities: &str) -> Command {
    let mut command = lab.server.command("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(format!("--inh-caps={capabilities}"))
        .arg(format!("--ambient-caps={capabilities}"))
        .arg(format!("--bounding-set={capabilities}"))
        .arg(binary);
    command
}

#[test]
fn each_missing_capability_is_named_in_one_line() -> Result<()> {
    let lab = Lab::new()?;
    let (_directory, binary) = agent::binary_for_everyone()?;
    for (capabilities, expected) in [
        ("-all", "making BPF maps: not permitted: missing CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON"),
        ("-all,+net_admin,+perfmon", "making BPF maps: not permitted: missing CAP_BPF"),
        ("-all,+bpf,+perfmon", "program tap53_xdp_frags: not permitted: missing CAP_NET_ADMIN"),
        ("-all,+bpf,+net_admin", "program tap53_xdp_frags: not permitted: missing CAP_PERFMON"),
    ] {
        let mut command = unprivileged(&lab, &binary, capabilities);
        let output = command.args(["run", "--interface", "s0", "--stdout"]).output()?;
        assert_eq!(output.status.code(), Some(FAILED), "with {capabilities}");
        let stderr = stderr(&output);
        assert_eq!(after_start(&stderr), format!("tap53: {expected}\n"), "with {capabilities}");
        bpf::require_bare(&lab.server, "s0")?;
    }
    Ok(())
}

#[test]
fn a_user_other_than_root_captures_with_three_capabilities_in_force() -> Result<()> {
    let lab = Lab::new()?;
    let (_directory, binary) = agent::binary_for_everyone()?;
    let mut command = unprivileged(&lab, &binary, "-all,+bpf,+net_admin,+perfmon");
    command.args(["run", "--interface", "s0", "--stdout"]);
    let mut process = Process::spawn("tap53", command)?;
    process.wait_for_line("ready interfaces=", 0, DEADLINE)?;
    lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    process.stdout().wait_for_line("www.tap53.test", 0, DEADLINE)?;
    process.signal(Signal::SIGTERM)?;
    let status = process.wait(DEADLINE)?;
    assert_eq!(status.code(), Some(0), "{}", process.stderr().text());
    bpf::require_bare(&lab.server, "s0")
}

#[test]
fn a_seccomp_filter_and_a_missing_capability_are_distinguished() -> Result<()> {
    let lab = Lab::new()?;
    let mut command = lab.server.command(agent::binary()?);
    command.args(["run", "--interface", "s0", "--stdout"]);
    bpf::deny(&mut command);
    let output = command.output()?;
    assert_eq!(output.status.code(), Some(FAILED));
    assert_eq!(
        after_start(&stderr(&output)),
        "tap53: making BPF maps: not permitted: the capabilities are there, but a user namespace, \
         a seccomp profile or a security module denies it\n"
    );
    Ok(())
}

/// The programs have no relocations by the kernel's types, so that its BTF is not missed.
#[test]
fn a_kernel_that_shows_no_btf_is_captured_on_all_the_same() -> Result<()> {
    let lab = Lab::new()?;
    let mut command = lab.server.command("unshare");
    let script = "mount -t tmpfs none /sys/kernel/btf && exec \"$@\"";
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(agent::binary()?);
    let agent = Agent::launch(command, TO_STDOUT, &[])?;
    agent.wait_until_ready()?;
    lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    agent.wait_for_output("www.tap53.test", 0, DEADLINE)?;
    let ended = agent.stop()?;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    Ok(())
}

#[test]
fn without_arguments_the_usage_is_shown() -> Result<()> {
    let output = agent::run(&[])?;
    assert_eq!(output.status.code(), Some(REFUSED));
    for part in ["Usage: tap53", "tap53 run -i eth0", "tap53 replay capture.pcapng"] {
        assert!(stderr(&output).contains(part), "{part:?} is not in: {}", stderr(&output));
    }
    Ok(())
}

#[test]
fn every_command_shows_how_it_is_used() -> Result<()> {
    for (command, part) in [
        ("run", "tap53 run -c tap53.yaml"),
        ("replay", "| tap53 replay -"),
        ("doctor", "tap53 doctor -i 'eth*'"),
    ] {
        let output = agent::run(&[command, "--help"])?;
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{help}");
        for part in [part, "Examples:", "Exit status:"] {
            assert!(help.contains(part), "{part:?} is not in: {help}");
        }
    }
    Ok(())
}

#[test]
fn the_schema_is_printed_as_json() -> Result<()> {
    let output = agent::run(&["schema"])?;
    assert!(output.status.success());
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(schema["name"], "DnsTransaction");
    Ok(())
}

#[test]
fn interfaces_lists_the_selection_and_the_programs_at_the_hooks() -> Result<()> {
    let lab = Lab::new()?;
    let _holder = bpf::XdpHolder::attach(&lab.server, "s0", bpf::XdpMode::Native)?;
    let mut command: Command = lab.server.command(agent::binary()?);
    let output = command.args(["interfaces", "--interface", "s*"]).output()?;
    assert!(output.status.success(), "{}", stderr(&output));
    let listing = String::from_utf8_lossy(&output.stdout).into_owned();
    for name in ["s0", "lo"] {
        assert!(listing.contains(name), "{name} is missing in:\n{listing}");
    }
    let line = listing.lines().find(|line| line.contains("s0")).unwrap_or_default();
    assert!(line.to_lowercase().contains("xdp"), "who holds XDP on s0?\n{listing}");
    Ok(())
}

#[test]
fn sigusr1_prints_the_ledger_and_the_capture_goes_on() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab.server, TO_STDOUT, &[])?;
    lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    agent.wait_for_output("www.tap53.test", 0, DEADLINE)?;
    for _ in 0..2 {
        let from = agent.process().stderr().len();
        agent.process().signal(Signal::SIGUSR1)?;
        agent.process().stderr().wait_for_line("balanced", from, DEADLINE)?;
    }
    let from = agent.process().stdout().len();
    lab.client_v4().ask(Transport::Udp, ANSWERED[1])?;
    agent.wait_for_output("AAAA", from, DEADLINE)?;
    let ended = agent.stop()?;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert_eq!(ended.ledger["balanced"], true);
    Ok(())
}

#[test]
fn sighup_stops_an_agent_without_a_file() -> Result<()> {
    let namespace = Namespace::new()?;
    let mut command = namespace.command(agent::binary()?);
    command.args(["run", "--interface", "lo", "--stdout"]);
    let mut process = Process::spawn("tap53", command)?;
    process.wait_for_line("ready interfaces=1", 0, DEADLINE)?;
    process.signal(Signal::SIGHUP)?;
    assert_eq!(process.wait(DEADLINE)?.code(), Some(0), "{}", process.stderr().text());
    Ok(())
}

#[test]
fn sigint_stops_as_cleanly_as_sigterm() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab.server, TO_STDOUT, &[])?;
    agent.process().signal(Signal::SIGINT)?;
    let ended = agent.ended()?;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert_eq!(ended.ledger["balanced"], true);
    bpf::require_bare(&lab.server, "s0")
}
