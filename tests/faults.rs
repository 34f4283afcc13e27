//! Real faults, one after the other, under a numbered stream of queries: each number is consumed
//! from the topic, or is in a counted reason. Each fault makes a row; `cargo xtask faults` runs them
//! with larger numbers and makes `docs/faults.md` of the rows.
//!
//! ```text
//!  client          server                                   broker
//!  ┌──────────┐    ┌──────────────────────────────────┐     ┌──────────────┐
//!  │ numbered │ c0 │ s0 ─▶ unbound                     │ b0  │ k0           │
//!  │ queries  │───▶│  └──▶ tap53 run ─▶ spool ─▶ Kafka │────▶│ Apache Kafka │
//!  └──────────┘    └──────────────────────────────────┘     └──────────────┘
//! ```
//!
//! The broker is behind a link of its own, which can be cut and slowed down. A fault is a function
//! from the stage to a row.

#[path = "faults/agent.rs"]
mod agent;
#[path = "faults/broker.rs"]
mod broker;
#[path = "faults/clock.rs"]
mod clock;
#[path = "faults/disk.rs"]
mod disk;
#[path = "faults/memory.rs"]
mod memory;
#[path = "faults/network.rs"]
mod network;
#[path = "faults/registry.rs"]
mod registry;
#[path = "faults/stage.rs"]
mod stage;

use anyhow::{Result, ensure};

use stage::{Places, Stage};
use tap53_harness::faults::Row;

/// Makes a fault under a stream; a row for each mode of the spool that was tried.
type Fault = fn(&mut Stage<'_>) -> Result<Vec<Row>>;

/// Tries each fault, and fails with all that went wrong. Each has its place in the table.
fn try_all(faults: &[(u32, &str, Fault)]) -> Result<()> {
    let places = Places::new()?;
    let mut stage = Stage::new(&places)?;
    let mut wrong = Vec::new();
    for (place, fault, make) in faults {
        println!("── {fault}");
        stage.begin(*place)?;
        let rows = match make(&mut stage) {
            Ok(rows) => rows,
            Err(error) => {
                println!("{error:#}");
                wrong.push(format!("{fault}: {error:#}"));
                continue;
            }
        };
        for mut row in rows {
            row.place = *place;
            row.fault = (*fault).to_owned();
            println!("{row:?}\n{} missing, {} duplicates", row.missing(), row.duplicates());
            row.write()?;
            let problems = row.problems();
            if !problems.is_empty() {
                wrong.push(format!("{fault}, {}: {problems:?}", row.mode));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn whatever_becomes_of_the_broker_each_number_is_consumed_or_counted() -> Result<()> {
    try_all(&[
        (10, "broker killed (SIGKILL), and started again", broker::killed),
        (20, "broker hangs (SIGSTOP), and goes on", broker::stopped),
        (30, "broker started again at another port, which `brokers` names too", broker::moved),
        (31, "the same, where only a restarted agent is told of it", broker::moved_unknown),
    ])
}

#[test]
fn whatever_becomes_of_the_network_each_number_is_consumed_or_counted() -> Result<()> {
    try_all(&[
        (60, "network cut (the link goes down), and up again", network::cut_off),
        (70, "broker slow (`tc qdisc … tbf` on its link)", network::slow),
    ])
}

#[test]
fn whatever_becomes_of_the_registry_each_number_is_consumed_or_counted() -> Result<()> {
    try_all(&[(80, "registry killed, and away while an agent starts", registry::gone)])
}

#[test]
fn whatever_becomes_of_a_disk_each_number_is_consumed_or_counted() -> Result<()> {
    try_all(&[
        (40, "broker's disk full; freed, and the broker started again", disk::full_at_broker),
        (50, "spool's disk full", disk::full_at_spool),
    ])
}

#[test]
fn whatever_becomes_of_the_clock_each_number_is_consumed_or_counted() -> Result<()> {
    try_all(&[
        (90, "clock set an hour forward, and two back, in an outage", clock::stepped),
        (
            91,
            "clock an hour ahead when the agent starts, `max_age_s: 600`",
            clock::ahead_at_restart,
        ),
        (92, "clock two hours ahead of the broker's, then set", clock::ahead_of_the_broker),
    ])
}

#[test]
fn whatever_becomes_of_the_agent_each_number_is_consumed_or_counted() -> Result<()> {
    try_all(&[
        (100, "agent killed (SIGKILL), again and again", agent::killed_durable),
        (101, "the same, and the broker with it now and then", agent::killed_fast),
        (110, "spool damaged between two runs: bytes changed, a segment cut", agent::spool_damaged),
    ])
}

#[test]
fn while_the_broker_is_away_for_an_hours_worth_memory_stays_under_its_limit() -> Result<()> {
    try_all(&[(
        120,
        "broker away for an hour's worth of queries, memory limited",
        memory::an_hour_away,
    )])
}
