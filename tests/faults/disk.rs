//! Disks fill up.

use std::fs;

use anyhow::{Result, ensure};
use nix::sys::statvfs::statvfs;
use tap53_harness::{
    faults::Row,
    kafka::{Kafka, Place},
    mount::Mount,
    scratch,
};

use super::stage::{AWAY, BACK, Run, Stage, Start, place, row, size};

/// Fills the broker's disk: metadata and topics are on one small disk, most of which is used otherwise.
pub(super) fn full_at_broker(stage: &mut Stage<'_>) -> Result<Vec<Row>> {
    const DISK_BYTES: u64 = 64 << 20;
    /// Left for the topic: less than what is sent.
    const LEFT_BYTES: u64 = 128 << 10;
    let queries = size(4_000, 20_000);
    let disk = Mount::tmpfs(DISK_BYTES)?;
    let log_directory = disk.path().join("log");
    let place = Place { log_directory: Some(log_directory), ..place() };
    let mut kafka = Kafka::start_at(&stage.places.far, place)?;
    kafka.create_topic(&stage.topic("durable"))?;
    let spool = scratch::directory("queue")?;
    let mut start = Start::new("durable", spool.path());
    start.brokers = vec![kafka.address()];
    start.sink = "compression: none";
    let run = Run::start(stage, &start)?;
    run.feed(stage, 500)?;
    run.wait_until_delivered()?;
    let other = disk.path().join("other");
    let taken = free(&disk)?.saturating_sub(LEFT_BYTES);
    fs::write(&other, vec![1; usize::try_from(taken)?])?;
    run.feed(stage, queries)?;
    kafka.wait_until_ended()?;
    run.feed(stage, queries)?;
    run.wait_until_noticed(AWAY)?;
    fs::remove_file(&other)?;
    kafka.restart()?;
    run.wait_until_noticed(BACK)?;
    run.feed(stage, queries)?;
    let mut row = row("durable");
    run.finish(&mut row)?;
    stage.consume_from(&kafka, &mut row)?;
    Ok(vec![row])
}

/// Fills the spool's disk, which is smaller than the spool's limit, so records are dropped because of the
/// disk.
pub(super) fn full_at_spool(stage: &mut Stage<'_>) -> Result<Vec<Row>> {
    let queries = size(36_000, 90_000);
    let disk = Mount::tmpfs(6 << 20)?;
    let mut start = Start::new("durable", disk.path());
    start.more = "max_bytes: 67108864";
    let run = Run::start(stage, &start)?;
    run.feed(stage, 1_000)?;
    stage.kafka.kill();
    run.feed(stage, queries)?;
    stage.kafka.restart()?;
    run.wait_until_noticed(BACK)?;
    run.feed(stage, 1_000)?;
    let mut row = row("durable");
    run.finish(&mut row)?;
    let dropped = row.lost.get("dropped_oldest").copied().unwrap_or(0);
    ensure!(dropped > 0, "nothing was dropped: {:?}", row.lost);
    stage.consume(&mut row)?;
    Ok(vec![row])
}

fn free(disk: &Mount) -> Result<u64> {
    let usage = statvfs(disk.path())?;
    Ok(usage.blocks_available() * usage.fragment_size())
}
