//! The schema registry goes away.

use anyhow::Result;
use tap53_harness::{faults::Row, numbered::Consumed, registry::Registry, scratch};

use super::stage::{Run, Stage, Start, row, size};

/// It is killed while the agent runs, and stays away while the next one starts: the id that values
/// are framed with was kept.
pub(super) fn gone(stage: &mut Stage<'_>) -> Result<Vec<Row>> {
    let queries = size(500, 5_000);
    let mut registry = Registry::start(&stage.places.lab.server)?;
    let spool = scratch::directory("queue")?;
    let keys = format!("registry: {{urls: [\"{}\"], timeout_ms: 1000}}", registry.url());
    let mut start = Start::new("durable", spool.path());
    start.sink = &keys;
    let mut row = row("durable");
    let run = Run::start(stage, &start)?;
    run.feed(stage, queries)?;
    run.wait_until_delivered()?;
    registry.kill();
    run.feed(stage, queries)?;
    run.wait_until_delivered()?;
    run.finish(&mut row)?;
    let run = Run::start(stage, &start)?;
    run.feed(stage, queries)?;
    run.wait_until_delivered()?;
    run.finish(&mut row)?;
    // For who reads.
    registry.restart()?;
    let read = registry.consume(&stage.kafka.address(), &stage.topic("durable"), None)?;
    stage.fill_in(&Consumed::of_records(read.into_iter().map(|read| read.record))?, &mut row);
    Ok(vec![row])
}
