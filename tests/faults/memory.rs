//! The broker is away for an hour's worth of load, fed as fast as the machine takes it.

use anyhow::{Result, ensure};
use tap53_harness::{account::Ledger, faults::Row, limit::Limit, scratch};

use super::stage::{AWAY, BACK, Run, Stage, Start, row, size};

/// Memory limit of the agent's cgroup: process, rings, and the page cache that cannot be reclaimed.
const CAP_BYTES: u64 = 256 << 20;

/// The default of `queue_bytes`.
const DEFAULT_QUEUE_BYTES: u64 = 32 << 20;

const PARTS: u32 = 20;

pub(super) fn an_hour_away(stage: &mut Stage<'_>) -> Result<Vec<Row>> {
    // The long form: 300 records a second.
    let queries = size(60_000, 300 * 3_600);
    let spool = scratch::directory("queue")?;
    // Dropped before the directory that its processes write to, and after them.
    let limit = Limit::memory(CAP_BYTES)?;
    let mut start = Start::new("fast", spool.path());
    start.queue_bytes = DEFAULT_QUEUE_BYTES;
    start.limit = Some(&limit);
    let run = Run::start(stage, &start)?;
    run.feed(stage, 1_000)?;
    stage.kafka.kill();
    let captured = || Ledger(&run.ledger()?).number("/agent/packets/received");
    let mut before = captured()?;
    for _ in 0..PARTS {
        run.feed(stage, queries / PARTS)?;
        let now = captured()?;
        ensure!(now > before, "capture has stopped at {before} packets");
        before = now;
    }
    run.wait_until_noticed(AWAY)?;
    stage.kafka.restart()?;
    run.wait_until_noticed(BACK)?;
    let mut row = row("fast");
    row.cap_kib = Some(CAP_BYTES / 1024);
    run.wait_until_delivered()?;
    run.finish(&mut row)?;
    stage.consume(&mut row)?;
    Ok(vec![row])
}
