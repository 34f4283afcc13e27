//! The log in JSON, and floods of it.

use std::fs;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::Value;
use tap53_harness::{
    agent::{self, Agent},
    http,
    lab::Lab,
    scratch,
};

use super::{DEADLINE, PORT, get, promtool_agrees, series};

/// More than are written at once, and in the seconds that this takes.
const REQUESTS: u64 = 400;
const FAILED: &str = "a connection at the telemetry port failed";

/// Parses the lines, and checks their required fields.
fn lines(text: &str) -> Result<Vec<Value>> {
    let parse = |line: &str| -> Result<Value> {
        let value: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        assert_eq!(value["node"], "node-7", "{line}");
        for field in ["timestamp", "level", "target"] {
            assert!(value[field].is_string(), "{field} in {line}");
        }
        Ok(value)
    };
    text.lines().map(parse).collect()
}

#[test]
fn a_flood_is_limited_and_counted_and_every_line_in_json_parses() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::launch(
        lab.server.command(agent::binary()?),
        &format!(
            "node: node-7\ninterfaces: {{include: [s0]}}\nsinks: [{{type: stdout, format: json}}]\n\
             log: {{level: debug, format: json}}\ntelemetry: {{listen: '{PORT}'}}\n"
        ),
        &[],
    )?;
    agent.process().wait_for_line("\"message\":\"ready\"", 0, DEADLINE)?;
    for _ in 0..REQUESTS {
        assert_eq!(http::ask(&lab.server, PORT, "no request\r\n\r\n")?.code, 400);
    }
    let enabled = agent.command(&["disable", "s0"])?.output()?;
    assert!(enabled.status.success(), "{}", String::from_utf8_lossy(&enabled.stderr));
    agent.process().signal(Signal::SIGUSR1)?;
    agent.process().wait_for_line("\"message\":\"ledger\"", 0, DEADLINE)?;
    let metrics = get(&lab, "/metrics")?.body;
    let suppressed = series(&metrics)["tap53_log_lines_suppressed_total{level=\"debug\"}"];
    assert!(suppressed > 0.0, "{metrics}");
    promtool_agrees(&metrics)?;
    // Told while it runs, not only at the end.
    agent.process().wait_for_line("log_lines_suppressed", 0, DEADLINE)?;

    let ended = agent.stop()?;
    let lines = lines(&ended.stderr)?;
    let of = |message: &str| lines.iter().filter(|line| line["message"] == message).count() as u64;
    let written = of(FAILED);
    let suppressed: u64 = lines
        .iter()
        .filter(|line| line["target"] == "suppressed" && line["first_message"] == FAILED)
        .filter_map(|line| line["lines"].as_u64())
        .sum();
    assert!((100..REQUESTS).contains(&written), "{written}");
    assert_eq!(written + suppressed, REQUESTS, "each is written or counted");
    assert_eq!(of("audit: disable"), 1);
    assert_eq!(of("ledger"), 2, "when it was asked for, and at the end");
    let last = lines.iter().rfind(|line| line["message"] == "ledger").context("a ledger")?;
    assert_eq!(last["ledger"], ended.ledger, "the one that was written to a file");
    Ok(())
}

#[test]
fn the_error_that_ends_it_is_a_line_in_json_too() -> Result<()> {
    let directory = scratch::directory("log")?;
    let configuration = directory.path().join("tap53.yaml");
    // In a file there can be no directory.
    let spool = configuration.join("spool");
    fs::write(
        &configuration,
        format!(
            "node: node-7\ninterfaces: {{include: [nothing0]}}\n\
             sinks: [{{type: kafka, brokers: ['127.0.0.1:1'], topic: t,\n\
             spool: {{mode: durable, directory: {}}}}}]\n",
            spool.display()
        ),
    )?;
    let path = configuration.to_str().context("a path in UTF-8")?;
    let output = agent::run(&["run", "--config", path, "--log-format", "json"])?;
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr)?;
    let lines = lines(&text)?;
    let last = lines.last().context("a line")?;
    assert_eq!(last["level"], "ERROR", "{text}");
    let message = last["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("sink kafka: "), "{text}");
    // Without a log in JSON it is for people.
    let output = agent::run(&["run", "--config", path])?;
    let text = String::from_utf8(output.stderr)?;
    let last = text.lines().last().unwrap_or_default();
    assert!(last.starts_with("tap53: sink kafka: "), "{text}");
    Ok(())
}
