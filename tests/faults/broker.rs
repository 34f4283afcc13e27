//! The broker ends, hangs, and moves.

use anyhow::Result;
use nix::sys::signal::Signal;
use tap53_harness::{faults::Row, scratch};

use super::stage::{AWAY, BACK, Both, Run, Stage, Start, row, size};

/// Queries before, while and after it is away.
fn queries() -> u32 {
    size(2_000, 20_000)
}

pub(super) fn killed(stage: &mut Stage<'_>) -> Result<Vec<Row>> {
    let both = Both::start(stage, "")?;
    both.feed(stage, queries())?;
    stage.kafka.kill();
    both.feed(stage, queries())?;
    both.wait_until_noticed(AWAY)?;
    both.feed(stage, queries())?;
    stage.kafka.restart()?;
    both.wait_until_noticed(BACK)?;
    both.feed(stage, queries())?;
    both.finish(stage)
}

pub(super) fn stopped(stage: &mut Stage<'_>) -> Result<Vec<Row>> {
    let both = Both::start(stage, "")?;
    both.feed(stage, queries())?;
    stage.kafka.signal(Signal::SIGSTOP)?;
    both.feed(stage, queries())?;
    both.wait_until_noticed(AWAY)?;
    both.feed(stage, queries())?;
    stage.kafka.signal(Signal::SIGCONT)?;
    both.wait_until_noticed(BACK)?;
    both.feed(stage, queries())?;
    both.finish(stage)
}

/// The agent knows both addresses from the start.
pub(super) fn moved(stage: &mut Stage<'_>) -> Result<Vec<Row>> {
    let spool = scratch::directory("queue")?;
    let other = stage.kafka.spare_address()?;
    let mut start = Start::new("durable", spool.path());
    start.brokers = vec![stage.kafka.address(), other.to_string()];
    let run = Run::start(stage, &start)?;
    run.feed(stage, queries())?;
    stage.kafka.kill();
    run.feed(stage, queries())?;
    run.wait_until_noticed(AWAY)?;
    stage.kafka.restart_at(other)?;
    run.wait_until_noticed(BACK)?;
    run.feed(stage, queries())?;
    let mut row = row("durable");
    run.finish(&mut row)?;
    stage.consume(&mut row)?;
    Ok(vec![row])
}

/// The agent does not know the new address: an operator writes it into its configuration.
pub(super) fn moved_unknown(stage: &mut Stage<'_>) -> Result<Vec<Row>> {
    let spool = scratch::directory("queue")?;
    let start = Start::new("durable", spool.path());
    let run = Run::start(stage, &start)?;
    run.feed(stage, queries())?;
    let other = stage.kafka.spare_address()?;
    stage.kafka.restart_at(other)?;
    run.feed(stage, queries())?;
    run.wait_until_noticed(AWAY)?;
    run.feed(stage, queries())?;
    let mut row = row("durable");
    run.stop(&mut row)?;
    let run = Run::start(stage, &start)?;
    run.feed(stage, queries())?;
    run.finish(&mut row)?;
    stage.consume(&mut row)?;
    Ok(vec![row])
}
