//! `tap53 status`.

mod enrichment;
mod export;
mod health;
mod interfaces;
mod watch;

use std::{
    io::{self, Write},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use glob::Pattern;
use jiff::{
    SignedDuration,
    fmt::friendly::{Designator, Spacing, SpanPrinter},
};
use serde_json::Value;
use tap53::control::{
    Bypass, ConfigStatus,
    client::{Client, StatusAnswer},
};
use tap53_base::{
    visible::visible,
    vitals::{Health, Probe},
};
use tap53_capture::interfaces::InterfaceStatus;

use super::{
    output::{Format, Output},
    switch::{Socket, lasting},
    table::{Color, colored, paint, print},
};
use crate::exit;
use enrichment::enrichment_text;
use export::export_text;
use health::health_table;
use interfaces::folded_table;
pub(super) use interfaces::interface_table;

pub(super) const EXAMPLES: &str = "\
Examples:
  sudo tap53 status
  sudo tap53 status eth0
  sudo tap53 status --watch
  sudo tap53 status -o json | jq '.interfaces[] | select(.ingress.capturing)'
  tap53 status --check || echo not ready
  tap53 status --check live || echo restart it
  tap53 status --check --wait 30s && echo ready

Health comes first: since when, and why. Interfaces without packets, and those that are absent, are a
line each if there are several; 'tap53 status PATTERN' shows them with their packets. --watch redraws
the status every 2 seconds until Ctrl-C; where standard output is no terminal, it is appended.

--check prints nothing to standard output. An agent is live if it answers and its workers read their
rings. It is ready if it also captures on all desired interfaces and its sinks store records. If it
is not, standard error has the reasons.

Exit status: 0 an agent answers (with --check: and is live or ready); 1 no agent answers (or it is
not live or ready); 2 invalid arguments.";

/// Interval between two checks of --wait.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// The kind of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ProbeKind {
    /// Fails if the agent should be restarted.
    Live,
    /// Fails if the agent does not do everything that is desired.
    Ready,
}

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Show only these interfaces, with their packets: a name or a shell pattern
    #[arg(value_name = "IFACE|PATTERN")]
    interface: Option<Pattern>,
    #[command(flatten)]
    output: Output,
    /// Show the status again and again, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
    /// Interval of --watch, such as 500ms or 10s
    #[arg(long, value_name = "DURATION", value_parser = lasting, default_value = "2s",
        requires = "watch")]
    interval: Duration,
    /// Check whether the agent is live or ready, and report it as the exit status; for probes.
    /// Without a value: ready
    #[arg(
        long,
        value_enum,
        value_name = "live|ready",
        num_args = 0..=1,
        default_missing_value = "ready",
        hide_possible_values = true,
        conflicts_with_all = ["interface", "watch", "format"]
    )]
    check: Option<ProbeKind>,
    /// Retry --check until it succeeds, for at most this time
    #[arg(long, value_name = "DURATION", value_parser = lasting, requires = "check")]
    wait: Option<Duration>,
    #[command(flatten)]
    socket: Socket,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let client = arguments.socket.client();
    if let Some(kind) = arguments.check {
        return Ok(outcome(&checked(&client, kind, arguments.wait.unwrap_or_default())?));
    }
    if arguments.watch {
        return watch::watch(arguments.interval, || view(arguments, &client));
    }
    print(&view(arguments, &client)?)
}

/// Returns the status, or that of some interfaces, in the requested format.
fn view(arguments: &Arguments, client: &Client) -> anyhow::Result<String> {
    let answer = client.status()?;
    let output = arguments.output;
    let Some(pattern) = &arguments.interface else {
        return match output.format {
            Format::Text => text(&answer),
            Format::Json | Format::Yaml => output.render(&answer.status, String::new),
        };
    };
    let interfaces = matching(&answer.status, pattern)?;
    let shown = Value::Array(interfaces.clone());
    match output.format {
        Format::Text => interfaces_text(interfaces),
        Format::Json | Format::Yaml => output.render(&shown, String::new),
    }
}

/// Returns the interfaces of a status that match, each with its packets in the ledger.
///
/// # Errors
/// If there is none.
fn matching(status: &Value, pattern: &Pattern) -> anyhow::Result<Vec<Value>> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let ledger = list(&status["ledger"]["interfaces"]);
    let (mut found, mut names) = (Vec::new(), Vec::new());
    for mut interface in list(&status["interfaces"]) {
        let name = interface["name"].as_str().unwrap_or_default().to_owned();
        if pattern.matches(&name) {
            let packets = ledger.iter().find(|of| of["ifindex"] == interface["ifindex"]);
            interface["packets"] = packets.map_or(
                Value::Null,
                |of| serde_json::json!({"ingress": of["ingress"], "egress": of["egress"]}),
            );
            found.push(interface);
        }
        names.push(name);
    }
    if found.is_empty() {
        let others = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        bail!("the agent has no interface {:?}; it has: {others}", pattern.as_str());
    }
    Ok(found)
}

fn interfaces_text(interfaces: Vec<Value>) -> anyhow::Result<String> {
    let packets: Vec<_> = interfaces.iter().map(|it| it["packets"].clone()).collect();
    let interfaces: Vec<InterfaceStatus> = serde_json::from_value(Value::Array(interfaces))
        .context("the agent's status has invalid interfaces")?;
    let mut text = interface_table(&interfaces);
    for (interface, packets) in interfaces.iter().zip(packets) {
        text.push_str(&format!("\npackets at {}\n", interface.name));
        match packets.is_null() {
            true => text.push_str("  none: nothing is attached\n"),
            false => write_value(&mut text, &packets, 1),
        }
    }
    Ok(text)
}

/// Probes the agent, again and again until it succeeds or `wait` has passed.
fn checked(client: &Client, kind: ProbeKind, wait: Duration) -> anyhow::Result<Probe> {
    let began = Instant::now();
    loop {
        let probe = check(client, kind);
        if began.elapsed() >= wait || probe.as_ref().is_ok_and(|probe| probe.ok) {
            return probe;
        }
        thread::sleep(CHECK_INTERVAL.min(wait));
    }
}

fn check(client: &Client, kind: ProbeKind) -> anyhow::Result<Probe> {
    match kind {
        ProbeKind::Live => Ok(client.live()?),
        // An agent that is not alive is not ready either.
        ProbeKind::Ready => Ok(health(&client.status()?.status)?.ready),
    }
}

/// Returns the exit status of a probe; the reasons go to standard error.
fn outcome(probe: &Probe) -> ExitCode {
    for reason in &probe.reasons {
        let _ = writeln!(io::stderr(), "{}", visible(reason));
    }
    if probe.ok { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) }
}

fn health(status: &Value) -> anyhow::Result<Health> {
    let health = status.get("health").cloned().context("the agent's status has no health")?;
    serde_json::from_value(health).context("the agent's status has an invalid health")
}

pub(super) fn interfaces(status: &Value) -> anyhow::Result<Vec<InterfaceStatus>> {
    let interfaces = status.get("interfaces").cloned().unwrap_or_default();
    serde_json::from_value(interfaces).context("the agent's status has invalid interfaces")
}

/// Returns the status for people.
pub(super) fn text(answer: &StatusAnswer) -> anyhow::Result<String> {
    let status = &answer.status;
    let colored = colored();
    let word = |key: &str| status.get(key).and_then(Value::as_str).unwrap_or("?");
    let uptime_s = status.get("uptime_s").and_then(Value::as_u64).unwrap_or(0);
    let mut text = format!("tap53 {}", word("version"));
    if let Some(revision) = status.get("revision").and_then(Value::as_str) {
        text.push_str(&format!(" ({revision})"));
    }
    text.push_str(&format!(" on {}, up {}\n", word("node"), duration_text(uptime_s)));
    text.push_str(&health_table(&health(status).unwrap_or_default()));
    text.push('\n');
    if let Some(config) = status.get("config") {
        let config: ConfigStatus = serde_json::from_value(config.clone()).unwrap_or_default();
        text.push_str(&config_text(&config, colored));
    }
    text.push_str(&enrichment_text(status.get("enrichment").unwrap_or(&Value::Null), colored));
    text.push_str(&export_text(status.get("export").unwrap_or(&Value::Null), colored));
    text.push('\n');
    text.push_str(&folded_table(&interfaces(status)?, &status["ledger"]));
    text.push_str(&bypass_text(&status["bypass"], colored));
    // Keys that this version has no text for, such as those of a newer agent.
    for (key, value) in status.as_object().into_iter().flatten() {
        const SHOWN: [&str; 12] = [
            "version",
            "revision",
            "node",
            "uptime_s",
            "config",
            "enrichment",
            "export",
            "health",
            "interfaces",
            "bypass",
            "control",
            "ledger",
        ];
        if !SHOWN.contains(&key.as_str()) && has_content(value) {
            text.push_str(&format!("\n{}\n", paint(colored, Color::Heading, key)));
            write_value(&mut text, value, 1);
        }
    }
    text.push_str(&control_text(status.get("control").unwrap_or(&Value::Null)));
    text.push('\n');
    text.push_str(&answer.ledger_text);
    Ok(text)
}

/// Returns false if a value is null, or contains only nulls.
fn has_content(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Object(map) => map.values().any(has_content),
        Value::Array(items) => items.iter().any(has_content),
        _ => true,
    }
}

/// Describes the control socket; counts that are zero are omitted.
fn control_text(control: &Value) -> String {
    let count = |key: &str| control.get(key).and_then(Value::as_u64).unwrap_or(0);
    let mut parts = vec![format!("requests {}", count("requests"))];
    for (key, name) in [
        ("followers", "followers now"),
        ("follower_lines_lost", "lines lost by followers"),
        ("denied", "denied"),
        ("busy", "refused as busy"),
        ("timed_out", "timed out"),
        ("malformed", "malformed"),
        ("unread", "answers not read"),
    ] {
        if count(key) > 0 {
            parts.push(format!("{name} {}", count(key)));
        }
    }
    format!("\ncontrol socket: {}\n", parts.join(", "))
}

/// Describes the devices that responses go past; nothing if there are none.
fn bypass_text(bypass: &Value, colored: bool) -> String {
    let Ok(bypass) = serde_json::from_value::<Bypass>(bypass.clone()) else { return String::new() };
    let line = format!("{}; capture {} too", bypass.problem(), bypass.add.join(", "));
    format!("{}\n", paint(colored, Color::Notable, &visible(&line)))
}

fn config_text(config: &ConfigStatus, colored: bool) -> String {
    let file = config.file.as_deref().unwrap_or("flags and defaults");
    let mut text = format!("configuration: {file}, loaded {}\n", config.loaded_at);
    if let Some(error) = &config.error {
        let error = error.replace('\n', "\n    ");
        let line = format!("  the changed file is invalid and not in force: {error}");
        text.push_str(&paint(colored, Color::Bad, &line));
        text.push('\n');
    }
    if !config.restart_needed.is_empty() {
        let keys = config.restart_needed.join(", ");
        let line = format!("  changed keys that take effect after a restart: {keys}");
        text.push_str(&paint(colored, Color::Notable, &line));
        text.push('\n');
    }
    text
}

pub(super) fn duration_text(seconds: u64) -> String {
    let printer = SpanPrinter::new().designator(Designator::Compact).spacing(Spacing::BetweenUnits);
    let duration = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
    printer.duration_to_string(&duration)
}

/// Writes a value that this version has no text for, one line for each key.
fn write_value(text: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            let width = map.keys().map(String::len).max().unwrap_or(0);
            for (key, value) in map {
                if value.is_object() {
                    text.push_str(&format!("{indent}{key}\n"));
                    write_value(text, value, depth + 1);
                } else {
                    text.push_str(&format!("{indent}{key:<width$}  {}\n", plain(value)));
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                text.push_str(&format!("{indent}{}\n", plain(item)));
            }
        }
        value => text.push_str(&format!("{indent}{}\n", plain(value))),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interfaces_that_match_have_their_packets() {
        let status = serde_json::json!({
            "interfaces": [{"name": "eth0", "ifindex": 2}, {"name": "veth1", "ifindex": 3},
                {"name": "veth2", "ifindex": 4}],
            "ledger": {"interfaces": [{"name": "veth1", "ifindex": 3, "hooks": {},
                "ingress": {"seen": 5}, "egress": {"seen": 6}}]},
        });
        let found = matching(&status, &Pattern::new("veth*").unwrap()).unwrap();
        assert_eq!(
            Value::Array(found),
            serde_json::json!([
                {"name": "veth1", "ifindex": 3,
                    "packets": {"ingress": {"seen": 5}, "egress": {"seen": 6}}},
                {"name": "veth2", "ifindex": 4, "packets": null},
            ])
        );
        let error = matching(&status, &Pattern::new("eht0").unwrap()).unwrap_err().to_string();
        assert_eq!(error, "the agent has no interface \"eht0\"; it has: eth0, veth1, veth2");
    }

    #[test]
    fn unknown_values_are_shown_as_keys_and_values() {
        let value = serde_json::json!({"pods": 3, "watch": {"error": null, "since": "noon"}});
        let mut text = String::new();
        write_value(&mut text, &value, 1);
        assert_eq!(text, "  pods   3\n  watch\n    error  -\n    since  noon\n");
        assert!(has_content(&value));
        assert!(!has_content(&serde_json::json!({"error": null, "more": [{"a": null}]})));
    }

    #[test]
    fn devices_that_responses_go_past_are_named_with_the_interface_to_add() {
        assert_eq!(bypass_text(&Value::Null, false), "");
        let bypass = serde_json::json!({"interfaces": ["lxc1"], "add": ["eth0"]});
        assert_eq!(
            bypass_text(&bypass, false),
            "queries arrive at lxc1 and no response leaves there: responses seem to go past, as with \
             bpf_redirect_peer (Cilium's eBPF host routing); capture eth0 too\n"
        );
        let many = ["a", "b", "c", "d", "e"];
        let bypass = serde_json::json!({"interfaces": many, "add": ["eth0", "eth1"]});
        let text = bypass_text(&bypass, false);
        assert!(text.starts_with("queries arrive at a, b, c, 2 more and"), "{text}");
        assert!(text.ends_with("; capture eth0, eth1 too\n"), "{text}");
    }

    #[test]
    fn the_control_socket_is_one_line() {
        let control = serde_json::json!({"requests": 7, "denied": 2, "busy": 0});
        assert_eq!(control_text(&control), "\ncontrol socket: requests 7, denied 2\n");
    }
}
