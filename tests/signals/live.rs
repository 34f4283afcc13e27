//! A running agent marks a tunnel while it runs, and nothing else of the same client.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tap53_harness::{
    agent::Agent,
    process::{Process, run},
    tunnel::{Pace, Stage, Tool},
    wait,
};

use crate::captures::DOMAIN;

const CONFIGURATION: &str = "
interfaces: {include: [s0]}
signals: {enabled: true}
sinks:
  - {type: file, directory: $OUT}
";

const DEADLINE: Duration = Duration::from_secs(30);

/// Queries within which a tunnel must be marked.
const QUERIES: usize = 200;

#[test]
fn a_running_agent_marks_a_tunnel() -> Result<()> {
    // The type that the detector needs most queries for.
    let mut stage = Stage::new(Tool::Iodine("A"), DOMAIN)?;
    let agent = Agent::start(&stage.server, CONFIGURATION, &[])?;
    let follower = follow(&agent)?;
    stage.run(Pace { packets: 200, per_second: 50 })?;
    let captured = stage.captured()?;
    let line = follower.stdout().wait_for_line(DOMAIN, 0, DEADLINE)?;
    println!(
        "{line}\n{}",
        follower.stdout().lines().iter().take(4).cloned().collect::<Vec<_>>().join("\n")
    );
    drop(follower);
    let ended = agent.stop()?;
    let mut records = ended.records;
    records.sort_by_key(|record| record["query_time"].as_i64());
    ensure!(
        records.len() >= captured.len(),
        "{} records of {} captured lookups",
        records.len(),
        captured.len()
    );
    let first = records.iter().position(has_tunnel);
    let first = first.with_context(|| format!("none of {} records is marked", records.len()))?;
    println!("marked from query {} of {}", first + 1, records.len());
    ensure!(first < QUERIES, "marked from query {} only", first + 1);
    // A mark lasts for two minutes: each query that carries data has it from then on.
    let marked = records[first..].iter().filter(|record| has_tunnel(record)).count();
    ensure!(marked * 3 > records.len() - first, "only {marked} are marked after the first");
    ensure!(
        records.iter().all(|record| record["signals"].is_array()),
        "a record has no list of signals"
    );
    Ok(())
}

/// Starts `tap53 tail --signal tunnel`, and waits until the agent knows of it.
fn follow(agent: &Agent) -> Result<Process> {
    let command = agent.command(&["tail", "--signal", "tunnel"])?;
    let follower = Process::spawn("tap53 tail", command)?;
    wait::until("the agent to know of the follower", DEADLINE, || {
        let status = run(&mut agent.command(&["status", "-o", "json"])?)?;
        let status: Value = serde_json::from_str(&status)?;
        Ok((status["control"]["followers"] == 1).then_some(()))
    })?;
    Ok(follower)
}

fn has_tunnel(record: &Value) -> bool {
    let signals = record["signals"].as_array().into_iter().flatten();
    signals.into_iter().any(|signal| signal == "TUNNEL")
}
