//! `tap53 top` in a pseudo terminal, on a running agent.

use std::{collections::BTreeMap, os::unix::fs::symlink};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use tap53_harness::{
    agent::{self, Agent},
    client::Transport,
    lab::{ANSWERED, Lab, UNANSWERED},
    pty::Pty,
    scratch,
};

const CONFIGURATION: &str = "
interfaces:
  include: [s0]
capture:
  workers: 2
pair:
  timeout_ms: 300
dns_metrics:
  enabled: false
sinks:
  - type: file
    directory: $OUT
";

const SMALL: (u16, u16) = (24, 80);

fn start(agent: &Agent, arguments: &[&str], (rows, columns): (u16, u16)) -> Result<Pty> {
    let command = agent.command(&[&["top", "--interval", "250ms"], arguments].concat())?;
    let pty = Pty::spawn(command, rows, columns)?;
    // Shown once the agent counts.
    pty.wait_for("transactions in")?;
    Ok(pty)
}

/// Returns the count in the row of `name` of the chosen panel.
fn count_of(lines: &[String], name: &str) -> Option<u64> {
    let row = lines.iter().find(|line| line.starts_with(&format!("│{name} ")))?;
    row.split_whitespace().nth(1)?.replace(',', "").parse().ok()
}

/// Returns true if no line is cut: each of `boxes` is closed, and the last line has all keys.
fn is_whole(lines: &[String], boxes: usize) -> bool {
    let count = |corner: char| {
        lines.iter().flat_map(|line| line.chars()).filter(|it| *it == corner).count()
    };
    let has = |fact: &str| lines.iter().any(|line| line.contains(fact));
    let keys = lines.last().map(|line| line.trim_end()).unwrap_or_default();
    ['┌', '┐', '└', '┘'].into_iter().all(|corner| count(corner) == boxes)
        && ["p50 ", "p95 ", "packets ", "lost nothing", "sinks ok"].into_iter().all(has)
        && keys.starts_with("q quit")
        && keys.ends_with("interval")
}

#[test]
fn names_have_the_counts_of_the_records_and_can_be_filtered() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    let mut top = start(&agent, &[], SMALL)?;
    let exchanges = lab.ask_everything()?;
    let all = format!("{} transactions in", exchanges.len());
    top.wait_for(&all)?;
    let expected = expected();
    let www = expected.get("www.tap53.test").copied();
    top.wait_until("all names, and no cut line", |lines| {
        count_of(lines, "www.tap53.test") == www && is_whole(lines, 4)
    })?;
    top.type_in("/MAIL.\r")?;
    top.wait_until("the filter", |lines| {
        count_of(lines, "mail.tap53.test").is_some()
            && count_of(lines, "www.tap53.test").is_none()
            && is_whole(lines, 4)
    })?;
    // The filter goes, and the view is alone.
    top.type_in("\x1b")?;
    top.wait_until("all names", |lines| count_of(lines, "www.tap53.test").is_some())?;
    top.type_in("\r")?;
    top.wait_until("the panel alone, with all names", |lines| {
        let has = |(name, count): (&String, &u64)| count_of(lines, name) == Some(*count);
        is_whole(lines, 1) && expected.iter().all(has)
    })?;
    top.type_in("q")?;
    assert!(top.wait()?.success());
    assert!(top.is_restored()?);
    let mut recorded = BTreeMap::<String, u64>::new();
    for record in agent.stop()?.records {
        let name = record["qname"].as_str().context("a record without a name")?;
        *recorded.entry(name.to_owned()).or_default() += 1;
    }
    assert_eq!(recorded, expected);
    Ok(())
}

/// Returns the number of transactions of each name, after every question was sent.
fn expected() -> BTreeMap<String, u64> {
    // The first one comes over TCP too.
    let more = [ANSWERED[0], UNANSWERED];
    let mut expected = BTreeMap::new();
    for question in ANSWERED.iter().chain(&more) {
        // By IPv4 and by IPv6.
        *expected.entry(question.name.to_owned()).or_default() += 2;
    }
    expected
}

#[test]
fn a_selection_is_the_agents_and_a_larger_terminal_shows_more() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    let top = start(&agent, &["--qname", "mail.tap53.test"], SMALL)?;
    lab.ask_everything()?;
    let lines = top.wait_for("2 transactions in")?;
    assert!(lines.iter().any(|line| line.contains("only qnames [mail.tap53.test]")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("www.tap53.test")));
    top.resize(50, 200)?;
    // All panels but that of signals.
    let lines = top.wait_until("all panels", |lines| is_whole(lines, 10))?;
    for part in ["198.51.100.2", "2001:db8::1", "Sinks and brokers", "NXDOMAIN names"] {
        assert!(lines.iter().any(|line| line.contains(part)), "{part}");
    }
    Ok(())
}

#[test]
fn an_agent_that_looks_for_signals_shows_them() -> Result<()> {
    let lab = Lab::new()?;
    let signals = "signals: {enabled: true, learning_seconds: 0}\n";
    let agent = Agent::start(&lab.server, &format!("{CONFIGURATION}{signals}"), &[])?;
    let top = start(&agent, &[], (50, 200))?;
    lab.ask_everything()?;
    top.wait_until("the new domain", |lines| {
        let has = |fact: &str| lines.iter().any(|line| line.contains(fact));
        has("Signals") && has("new_domain_node")
    })?;
    Ok(())
}

#[test]
fn an_agent_that_ends_is_reported_and_the_next_one_is_followed() -> Result<()> {
    let lab = Lab::new()?;
    let directory = scratch::directory("top")?;
    let socket = directory.path().join("control.sock");
    let first = Agent::start(&lab.server, CONFIGURATION, &[])?;
    symlink(first.control_socket(), &socket)?;
    let mut command = std::process::Command::new(agent::binary()?);
    command.args(["top", "--interval", "250ms", "--socket"]).arg(&socket);
    let mut top = Pty::spawn(command, SMALL.0, SMALL.1)?;
    top.wait_for("transactions in")?;
    lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    top.wait_for("1 transactions in")?;
    first.stop()?;
    let lines = top.wait_for("reconnecting")?;
    assert!(lines.iter().any(|line| line.contains("no agent since")), "{lines:?}");
    let second = Agent::start(&lab.server, CONFIGURATION, &[])?;
    std::fs::remove_file(&socket)?;
    symlink(second.control_socket(), &socket)?;
    top.wait_for("reconnected, counts begin at")?;
    top.wait_for("0 transactions in")?;
    lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    top.wait_until("the new agent's count", |lines| count_of(lines, "www.tap53.test") == Some(1))?;
    top.type_in("\x03")?;
    assert!(top.wait()?.success(), "Ctrl-C");
    assert!(top.is_restored()?);
    Ok(())
}

#[test]
fn the_terminal_is_restored_whatever_ends_or_stops_the_view() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        let mut top = start(&agent, &[], SMALL)?;
        assert!(top.is_alternate() && !top.is_restored()?);
        top.signal(signal)?;
        assert_eq!(top.wait()?.code(), Some(128 + signal as i32), "{signal}");
        assert!(top.is_restored()?, "{signal}");
    }
    let mut top = start(&agent, &[], SMALL)?;
    // Ctrl-Z, and a stop from elsewhere.
    for by_key in [true, false] {
        match by_key {
            true => top.type_in("\x1a")?,
            false => top.signal(Signal::SIGTSTP)?,
        }
        top.wait_for_stop()?;
        top.wait_until("the usual screen", |_| top.is_restored().unwrap_or(false))?;
        top.signal(Signal::SIGCONT)?;
        top.wait_until("the view again", |lines| {
            top.is_alternate() && lines.iter().any(|line| line.contains("transactions in"))
        })?;
    }
    top.type_in("q")?;
    assert!(top.wait()?.success());
    assert!(top.is_restored()?);
    Ok(())
}

#[test]
fn a_paused_view_writes_nothing_and_only_changes_are_written() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    let mut top = start(&agent, &[], SMALL)?;
    top.type_in("p")?;
    top.wait_for("PAUSED")?;
    let before = top.written();
    // A view that is not paused shows when the agent has counted.
    let other = start(&agent, &[], SMALL)?;
    for all in ["26 transactions in", "52 transactions in"] {
        lab.ask_everything()?;
        other.wait_for(all)?;
    }
    let frame = usize::from(SMALL.0) * usize::from(SMALL.1);
    assert!(top.written() - before < frame, "{} bytes", top.written() - before);
    top.type_in("p")?;
    top.wait_for("52 transactions in")?;
    Ok(())
}

#[test]
fn one_frame_is_printed_as_text_and_errors_are_clear() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    let once = agent.command(&["top", "--once", "--interval", "250ms"])?.output()?;
    let text = String::from_utf8(once.stdout)?;
    assert!(once.status.success(), "{}", String::from_utf8_lossy(&once.stderr));
    for part in ["tap53 top", "transactions in", "Response codes", "nothing was lost"] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert!(!text.contains('\x1b'), "{text}");
    let refused = agent.command(&["top"])?.output()?;
    assert_eq!(refused.status.code(), Some(2));
    let message = String::from_utf8(refused.stderr)?;
    assert!(message.contains("no terminal: use --once"), "{message}");
    let nowhere = agent::run(&["top", "--once", "--socket", "/nonexistent/control.sock"])?;
    assert_eq!(nowhere.status.code(), Some(1));
    let message = String::from_utf8(nowhere.stderr)?;
    assert!(message.contains("no agent answers at /nonexistent/control.sock"), "{message}");
    Ok(())
}
