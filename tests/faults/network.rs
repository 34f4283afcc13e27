//! The way to the broker is cut, and is slow.

use anyhow::{Result, ensure};
use tap53_harness::{
    faults::Row,
    namespace::{cut, mend},
    scratch,
};

use super::stage::{AGENT_END, AWAY, BACK, BROKER_END, Run, Stage, Start, size};

pub(super) fn cut_durable(stage: &mut Stage<'_>, row: &mut Row) -> Result<()> {
    cut_off(stage, row, "durable")
}

pub(super) fn cut_fast(stage: &mut Stage<'_>, row: &mut Row) -> Result<()> {
    cut_off(stage, row, "fast")
}

fn cut_off(stage: &mut Stage<'_>, row: &mut Row, mode: &'static str) -> Result<()> {
    let queries = size(2_000, 20_000);
    let places = stage.places;
    let spool = scratch::directory("queue")?;
    let run = Run::start(stage, &Start::new(mode, spool.path()))?;
    run.feed(stage, queries)?;
    cut(&places.far, BROKER_END)?;
    run.feed(stage, queries)?;
    run.wait_until_noticed(AWAY)?;
    run.feed(stage, queries)?;
    mend((&places.far, BROKER_END), (&places.lab.server, AGENT_END))?;
    run.wait_until_noticed(BACK)?;
    run.feed(stage, queries)?;
    row.mode = mode.to_owned();
    run.finish(row)?;
    stage.consume(row).map(drop)
}

pub(super) fn slow_durable(stage: &mut Stage<'_>, row: &mut Row) -> Result<()> {
    slow(stage, row, "durable")
}

pub(super) fn slow_fast(stage: &mut Stage<'_>, row: &mut Row) -> Result<()> {
    slow(stage, row, "fast")
}

/// Slower than what comes in, so slow that deliveries time out.
fn slow(stage: &mut Stage<'_>, row: &mut Row, mode: &'static str) -> Result<()> {
    let queries = size(4_000, 20_000);
    let server = &stage.places.lab.server;
    let spool = scratch::directory("queue")?;
    let mut start = Start::new(mode, spool.path());
    start.sink = "compression: none";
    let run = Run::start(stage, &start)?;
    run.feed(stage, queries)?;
    #[rustfmt::skip]
    server.tc(&[
        "qdisc", "add", "dev", AGENT_END.interface, "root",
        "tbf", "rate", "512kbit", "burst", "32kb", "latency", "200ms",
    ])?;
    run.feed(stage, 2 * queries)?;
    // The link holds the stream up.
    let waiting = run.records("spooled")? + run.records("in_flight")?;
    ensure!(waiting > u64::from(queries) / 2, "{waiting} records wait: the link is not slow");
    run.wait_until_noticed(AWAY)?;
    server.tc(&["qdisc", "del", "dev", AGENT_END.interface, "root"])?;
    run.wait_until_noticed(BACK)?;
    run.feed(stage, queries)?;
    row.mode = mode.to_owned();
    run.finish(row)?;
    stage.consume(row).map(drop)
}
