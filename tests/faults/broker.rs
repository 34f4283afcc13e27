//! The broker ends, hangs, and moves.

use anyhow::Result;
use nix::sys::signal::Signal;
use tap53_harness::{faults::Row, scratch};

use super::stage::{AWAY, BACK, Run, Stage, Start, size};

/// Queries before, while and after it is away.
fn queries() -> u32 {
    size(2_000, 20_000)
}

pub(super) fn killed_durable(stage: &mut Stage<'_>, row: &mut Row) -> Result<()> {
    killed(stage, row, "durable")
}

pub(super) fn killed_fast(stage: &mut Stage<'_>, row: &mut Row) -> Result<()> {
    killed(stage, row, "fast")
}

fn killed(stage: &mut Stage<'_>, row: &mut Row, mode: &'static str) -> Result<()> {
    let spool = scratch::directory("queue")?;
    let run = Run::start(stage, &Start::new(mode, spool.path()))?;
    run.feed(stage, queries())?;
    stage.kafka.kill();
    run.feed(stage, queries())?;
    run.wait_until_noticed(AWAY)?;
    run.feed(stage, queries())?;
    stage.kafka.restart()?;
    run.wait_until_noticed(BACK)?;
    run.feed(stage, queries())?;
    row.mode = mode.to_owned();
    run.finish(row)?;
    stage.consume(row).map(drop)
}

pub(super) fn stopped_durable(stage: &mut Stage<'_>, row: &mut Row) -> Result<()> {
    stopped(stage, row, "durable")
}

pub(super) fn stopped_fast(stage: &mut Stage<'_>, row: &mut Row) -> Result<()> {
    stopped(stage, row, "fast")
}

fn stopped(stage: &mut Stage<'_>, row: &mut Row, mode: &'static str) -> Result<()> {
    let spool = scratch::directory("queue")?;
    let run = Run::start(stage, &Start::new(mode, spool.path()))?;
    run.feed(stage, queries())?;
    stage.kafka.signal(Signal::SIGSTOP)?;
    run.feed(stage, queries())?;
    run.wait_until_noticed(AWAY)?;
    run.feed(stage, queries())?;
    stage.kafka.signal(Signal::SIGCONT)?;
    run.wait_until_noticed(BACK)?;
    run.feed(stage, queries())?;
    row.mode = mode.to_owned();
    run.finish(row)?;
    stage.consume(row).map(drop)
}

/// The agent knows both addresses from the start.
pub(super) fn moved(stage: &mut Stage<'_>, row: &mut Row) -> Result<()> {
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
    row.mode = "durable".to_owned();
    run.finish(row)?;
    stage.consume(row).map(drop)
}

/// Nobody told the agent: an operator writes the new address into its configuration.
pub(super) fn moved_unknown(stage: &mut Stage<'_>, row: &mut Row) -> Result<()> {
    let spool = scratch::directory("queue")?;
    let start = Start::new("durable", spool.path());
    let run = Run::start(stage, &start)?;
    run.feed(stage, queries())?;
    let other = stage.kafka.spare_address()?;
    stage.kafka.restart_at(other)?;
    run.feed(stage, queries())?;
    run.wait_until_noticed(AWAY)?;
    run.feed(stage, queries())?;
    row.mode = "durable".to_owned();
    run.stop(row)?;
    let run = Run::start(stage, &start)?;
    run.feed(stage, queries())?;
    run.finish(row)?;
    stage.consume(row).map(drop)
}
