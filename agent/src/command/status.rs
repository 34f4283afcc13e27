//! `tap53 status`.

mod enrichment;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Args, ValueEnum};
use jiff::{
    SignedDuration,
    fmt::friendly::{Designator, Spacing, SpanPrinter},
};
use serde_json::Value;
use tap53::{
    config::Directions,
    control::{ConfigStatus, client::StatusAnswer},
};
use tap53_base::{
    visible::visible,
    vitals::{Health, Probe},
};
use tap53_capture::interfaces::{Actual, InterfaceStatus, WantedBy};

use super::{
    switch::Socket,
    table::{Cell, Color, colored, paint, print, table},
};
use crate::exit;
use enrichment::enrichment_text;

pub(super) const EXAMPLES: &str = "\
Examples:
  sudo tap53 status
  sudo tap53 status -o json | jq '.interfaces[] | select(.ingress.capturing)'
  tap53 status --check || echo not ready
  tap53 status --check live || echo restart it

--check prints nothing to standard output. An agent is live if it answers and its workers read their
rings. It is ready if it also captures on all desired interfaces and its sinks store records. If it
is not, standard error has the reasons.

Exit status: 0 an agent answers (with --check: and is live or ready); 1 no agent answers (or it is
not live or ready); 2 invalid arguments.";

/// Format of the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Text for people.
    Text,
    /// One JSON object.
    Json,
}

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
    /// Format: text or json
    #[arg(
        short,
        long,
        value_enum,
        value_name = "FORMAT",
        default_value = "text",
        hide_possible_values = true
    )]
    output: Output,
    /// Check whether the agent is live or ready, and report it as the exit status; for probes.
    /// Without a value: ready
    #[arg(
        long,
        value_enum,
        value_name = "live|ready",
        num_args = 0..=1,
        default_missing_value = "ready",
        hide_possible_values = true
    )]
    check: Option<ProbeKind>,
    #[command(flatten)]
    socket: Socket,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let client = arguments.socket.client();
    match arguments.check {
        Some(ProbeKind::Live) => return Ok(outcome(&client.live()?)),
        Some(ProbeKind::Ready) => return check(&client.status()?.status),
        None => {}
    }
    let answer = client.status()?;
    match arguments.output {
        Output::Json => {
            let mut text = serde_json::to_string_pretty(&answer.status)
                .context("cannot write the status as JSON")?;
            text.push('\n');
            print(&text)
        }
        Output::Text => print(&text(&answer)?),
    }
}

/// Returns the exit status for readiness; the reasons go to standard error.
fn check(status: &Value) -> anyhow::Result<ExitCode> {
    // An agent that is not alive is not ready either.
    Ok(outcome(&health(status)?.ready))
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

fn text(answer: &StatusAnswer) -> anyhow::Result<String> {
    let status = &answer.status;
    let colored = colored();
    let word = |key: &str| status.get(key).and_then(Value::as_str).unwrap_or("?");
    let uptime_s = status.get("uptime_s").and_then(Value::as_u64).unwrap_or(0);
    let mut text =
        format!("tap53 {} on {}, up {}\n", word("version"), word("node"), duration_text(uptime_s));
    if let Some(config) = status.get("config") {
        let config: ConfigStatus = serde_json::from_value(config.clone()).unwrap_or_default();
        text.push_str(&config_text(&config, colored));
    }
    text.push_str(&enrichment_text(status.get("enrichment").unwrap_or(&Value::Null), colored));
    text.push_str(&health_text(&health(status).unwrap_or_default(), colored));
    text.push('\n');
    text.push_str(&interface_table(&interfaces(status)?));
    // Keys that this version has no text for, such as those of a newer agent.
    for (key, value) in status.as_object().into_iter().flatten() {
        const SHOWN: [&str; 9] = [
            "version",
            "node",
            "uptime_s",
            "config",
            "enrichment",
            "health",
            "interfaces",
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

/// Describes an agent that is not alive or not ready; empty for others.
fn health_text(health: &Health, colored: bool) -> String {
    let mut text = String::new();
    let questions = [(&health.live, "not alive"), (&health.ready, "not ready")];
    // Readiness includes liveness, so the first failure is enough.
    if let Some((probe, what)) = questions.into_iter().find(|(probe, _)| !probe.reasons.is_empty())
    {
        for reason in &probe.reasons {
            text.push_str(&paint(colored, Color::Bad, &format!("{what}: {reason}")));
            text.push('\n');
        }
    }
    text
}

/// Formats the interfaces as a table.
pub(super) fn interface_table(interfaces: &[InterfaceStatus]) -> String {
    let mut rows = vec![
        ["INTERFACE", "KIND", "WANTED", "BY", "FOR", "INGRESS", "EGRESS", "WHY"].map(Cell::from),
    ];
    for interface in interfaces {
        let by = match interface.wanted_by {
            WantedBy::File => "file",
            WantedBy::Annotation => "annotation",
            WantedBy::Command => "command",
        };
        let color = if interface.is_as_wanted() { Color::Plain } else { Color::Bad };
        let switched = match interface.wanted_by {
            WantedBy::File => Color::Plain,
            WantedBy::Annotation | WantedBy::Command => Color::Notable,
        };
        let lasts = interface.wanted_for_s.map_or_else(|| "-".to_owned(), duration_text);
        rows.push([
            interface.name.as_str().into(),
            if interface.ifindex == 0 { "absent".into() } else { interface.kind.as_str().into() },
            Cell::new(switched, wanted_text(interface.wanted)),
            Cell::new(switched, by),
            Cell::new(switched, lasts),
            actual_cell(&interface.ingress),
            actual_cell(&interface.egress),
            Cell::new(color, why_text(interface)),
        ]);
    }
    if interfaces.is_empty() {
        return "no interfaces\n".to_owned();
    }
    table(&rows, colored())
}

const fn wanted_text(wanted: Option<Directions>) -> &'static str {
    match wanted {
        None => "off",
        Some(Directions::Both) => "both",
        Some(Directions::Ingress) => "ingress",
        Some(Directions::Egress) => "egress",
    }
}

/// Returns the hook of a direction, in parentheses while capture is switched off.
fn actual_cell(actual: &Actual) -> Cell {
    match (&actual.hook, actual.capturing, &actual.shadowed) {
        (Some(hook), true, None) => Cell::new(Color::Good, hook),
        (Some(hook), true, Some(_)) => Cell::new(Color::Bad, format!("{hook}, shadowed")),
        (Some(hook), false, _) => format!("off ({hook})").into(),
        (None, ..) => "off".into(),
    }
}

fn why_text(interface: &InterfaceStatus) -> String {
    let InterfaceStatus { why, ingress, egress, .. } = interface;
    let shadowed = [("ingress", ingress), ("egress", egress)].into_iter();
    let shadowed = shadowed.filter_map(|(direction, actual)| {
        Some(format!("{direction} shadowed by {}", actual.shadowed.as_ref()?))
    });
    let parts: Vec<String> =
        Some(why.clone()).filter(|why| !why.is_empty()).into_iter().chain(shadowed).collect();
    parts.join("; ")
}

fn duration_text(seconds: u64) -> String {
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

    fn interface(wanted: Option<Directions>, ingress: bool, egress: bool) -> InterfaceStatus {
        let actual = |capturing| Actual { capturing, hook: Some("tcx".to_owned()), shadowed: None };
        InterfaceStatus {
            name: "eth0".to_owned(),
            ifindex: 2,
            kind: "veth".to_owned(),
            wanted,
            wanted_by: WantedBy::Command,
            wanted_for_s: Some(581),
            ingress: actual(ingress),
            egress: actual(egress),
            why: "first choice".to_owned(),
        }
    }

    #[test]
    fn an_interface_is_as_wanted_if_each_direction_is() {
        let both = Some(Directions::Both);
        assert!(interface(both, true, true).is_as_wanted());
        assert!(interface(Some(Directions::Ingress), true, false).is_as_wanted());
        assert!(interface(None, false, false).is_as_wanted());
        for wrong in [
            interface(both, true, false),
            interface(Some(Directions::Egress), true, true),
            interface(None, true, false),
        ] {
            assert!(!wrong.is_as_wanted(), "{wrong:?}");
        }
        let mut shadowed = interface(both, true, true);
        shadowed.egress.shadowed = Some("cilium".to_owned());
        assert!(!shadowed.is_as_wanted());
        let loopback =
            InterfaceStatus { kind: "loopback".to_owned(), ..interface(both, true, false) };
        assert!(loopback.is_as_wanted());
    }

    #[test]
    fn the_table_shows_the_desired_and_the_observed_state_and_the_reason() {
        let mut off = interface(None, false, false);
        off.egress.hook = None;
        off.ingress.shadowed = Some("another".to_owned());
        assert_eq!(
            interface_table(&[off]),
            "INTERFACE  KIND  WANTED  BY       FOR     INGRESS    EGRESS  WHY\n\
             eth0       veth  off     command  9m 41s  off (tcx)  off     first choice; ingress \
             shadowed by another\n"
        );
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
    fn the_control_socket_is_one_line() {
        let control = serde_json::json!({"requests": 7, "denied": 2, "busy": 0});
        assert_eq!(control_text(&control), "\ncontrol socket: requests 7, denied 2\n");
    }
}
