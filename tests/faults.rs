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

#[path = "faults/broker.rs"]
mod broker;
#[path = "faults/disk.rs"]
mod disk;
#[path = "faults/network.rs"]
mod network;
#[path = "faults/stage.rs"]
mod stage;

use anyhow::{Result, ensure};
use tap53_harness::faults::Row;

use stage::{Places, Stage};

/// A fault, and what makes it.
type Fault = fn(&mut Stage<'_>, &mut Row) -> Result<()>;

/// Tries each fault, and fails with all that went wrong.
fn try_all(faults: &[(&str, u32, Fault)]) -> Result<()> {
    let places = Places::new()?;
    let mut stage = Stage::new(&places)?;
    let mut wrong = Vec::new();
    for (fault, place, make) in faults {
        println!("── {fault}");
        let mut row = Row { place: *place, fault: (*fault).to_owned(), ..Row::default() };
        stage.begin(*place)?;
        if let Err(error) = make(&mut stage, &mut row) {
            wrong.push(format!("{fault}: {error:#}"));
            continue;
        }
        let problems = row.problems();
        println!("{row:?}\n{} missing, {} duplicates", row.missing(), row.duplicates());
        row.write()?;
        if !problems.is_empty() {
            wrong.push(format!("{fault}: {problems:?}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn whatever_becomes_of_the_broker_each_number_is_consumed_or_counted() -> Result<()> {
    try_all(&[
        ("broker killed (SIGKILL), and started again", 10, broker::killed_durable),
        ("the same", 11, broker::killed_fast),
        ("broker hangs (SIGSTOP), and goes on", 20, broker::stopped_durable),
        ("the same", 21, broker::stopped_fast),
        ("broker started again at another port, which `brokers` names", 30, broker::moved),
        (
            "broker started again at another port, agent started again with that",
            31,
            broker::moved_unknown,
        ),
    ])
}

#[test]
fn whatever_becomes_of_the_network_each_number_is_consumed_or_counted() -> Result<()> {
    try_all(&[
        ("network cut (the link's interface down), and up again", 60, network::cut_durable),
        ("the same", 61, network::cut_fast),
        ("broker slow (`tc qdisc tbf` on its link)", 70, network::slow_durable),
        ("the same", 71, network::slow_fast),
    ])
}

#[test]
fn whatever_becomes_of_a_disk_each_number_is_consumed_or_counted() -> Result<()> {
    try_all(&[
        ("broker's disk full: it ends; freed, and started again", 40, disk::full_at_broker),
        ("spool's disk full", 50, disk::full_at_spool),
    ])
}
