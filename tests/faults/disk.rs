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

use super::stage::{AWAY, BACK, BROKER_END, Run, Stage, Start, size};

/// Of the broker: metadata and topics are on one small disk, most of which somebody else takes.
pub(super) fn full_at_broker(stage: &mut Stage<'_>, row: &mut Row) -> Result<()> {
    const DISK_BYTES: u64 = 64 << 20;
    /// Left for the topic: less than what is sent.
    const LEFT_BYTES: u64 = 1 << 20;
    let queries = size(4_000, 20_000);
    let disk = Mount::tmpfs(DISK_BYTES)?;
    let log_directory = disk.path().join("log");
    let place = Place { ip: BROKER_END.ipv4, log_directory: Some(log_directory) };
    let mut kafka = Kafka::start_at(&stage.places.far, place)?;
    kafka.create_topic(&stage.topic)?;
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
    row.mode = "durable".to_owned();
    run.finish(row)?;
    stage.consume_from(&kafka, row).map(drop)
}

/// Of the spool: it may hold more than the disk does.
pub(super) fn full_at_spool(stage: &mut Stage<'_>, row: &mut Row) -> Result<()> {
    let queries = size(24_000, 60_000);
    let disk = Mount::tmpfs(6 << 20)?;
    let mut start = Start::new("durable", disk.path());
    start.more = "max_bytes: 67108864";
    let run = Run::start(stage, &start)?;
    run.feed(stage, 1_000)?;
    stage.kafka.kill();
    run.feed(stage, queries)?;
    let left = free(&disk)?;
    ensure!(left < 2 << 20, "{left} bytes are free: the disk was never full");
    stage.kafka.restart()?;
    run.wait_until_noticed(BACK)?;
    run.feed(stage, 1_000)?;
    row.mode = "durable".to_owned();
    run.finish(row)?;
    let dropped = row.lost.get("dropped_oldest").copied().unwrap_or(0);
    ensure!(dropped > 0, "nothing was dropped: {:?}", row.lost);
    stage.consume(row).map(drop)
}

fn free(disk: &Mount) -> Result<u64> {
    let usage = statvfs(disk.path())?;
    Ok(usage.blocks_available() * usage.fragment_size())
}
