//! The broker is unreachable for a while.

use anyhow::Result;
use nix::sys::signal::Signal;
use tap53_harness::{kafka::Kafka, scratch, wait};

use super::run::{DEADLINE, QUICK, Run, TOPIC, consume, namespace, spool, wait_for};

const AWAY: &str = "event=\"buffering_to_spool\"";
const BACK: &str = "event=\"delivery_resumed\"";

#[test]
fn each_record_arrives_though_the_broker_was_away_for_longer_than_the_message_timeout() -> Result<()>
{
    let namespace = namespace()?;
    let mut kafka = Kafka::start(&namespace)?;
    kafka.create_topic(TOPIC)?;
    let mut next = 0;
    for mode in ["durable", "fast"] {
        let directory = scratch::directory("queue")?;
        let keys = format!("{QUICK}\n    {}", spool(mode, directory.path(), ""));
        let mut run = Run::start(&namespace, &kafka.address(), &keys, next)?;
        run.feed(500)?;
        kafka.kill();
        run.feed(2_000)?;
        // Five times the message timeout.
        run.process().wait_for_line(AWAY, 0, DEADLINE)?;
        run.feed(2_000)?;
        kafka.restart()?;
        run.process().wait_for_line(BACK, 0, DEADLINE)?;
        run.feed(500)?;
        next = run.next();
        let ended = run.finish()?;
        ended.require_nothing_lost()?;
        assert_eq!(ended.records("delivered")?, 5_000, "{mode}: {}", ended.log);
        let consumed = consume(&kafka)?;
        consumed.require_exactly(0..next)?;
        println!("{mode}: {} duplicates", consumed.duplicates());
    }
    Ok(())
}

#[test]
fn the_next_run_delivers_the_rest_of_the_spool() -> Result<()> {
    let namespace = namespace()?;
    let mut kafka = Kafka::start(&namespace)?;
    kafka.create_topic(TOPIC)?;
    let mut next = 0;
    for mode in ["durable", "fast"] {
        let directory = scratch::directory("queue")?;
        let keys = format!("{QUICK}\n    {}", spool(mode, directory.path(), ""));
        let mut run = Run::start(&namespace, &kafka.address(), &keys, next)?;
        run.feed(100)?;
        kafka.kill();
        run.feed(1_000)?;
        run.process().wait_for_line(AWAY, 0, DEADLINE)?;
        next = run.next();
        let ended = run.terminate()?;
        ended.require_nothing_lost()?;
        let spooled = ended.records("spooled")?;
        assert_eq!(spooled + ended.records("delivered")?, 1_100, "{mode}");
        assert!(spooled >= 1_000, "{mode}: {spooled}");
        // Again without a broker: nothing changes.
        let mut run = Run::start(&namespace, &kafka.address(), &keys, next)?;
        run.feed(1)?;
        next = run.next();
        run.process().wait_for_line(AWAY, 0, DEADLINE)?;
        let ended = run.terminate()?;
        ended.require_nothing_lost()?;
        assert_eq!((ended.records("carried")?, ended.records("spooled")?), (spooled, spooled + 1));

        kafka.restart()?;
        let run = Run::start(&namespace, &kafka.address(), &keys, next)?;
        wait_for(&kafka, next)?;
        let ended = run.finish()?;
        ended.require_nothing_lost()?;
        assert_eq!(ended.records("carried")?, spooled + 1);
        assert_eq!(ended.records("delivered")?, spooled + 1);
        consume(&kafka)?.require_exactly(0..next)?;
    }
    Ok(())
}

#[test]
fn a_broker_that_is_killed_hangs_and_is_killed_again_under_load_costs_no_record() -> Result<()> {
    let namespace = namespace()?;
    let mut kafka = Kafka::start(&namespace)?;
    kafka.create_topic(TOPIC)?;
    let directory = scratch::directory("queue")?;
    let keys = format!("{QUICK}\n    {}", spool("durable", directory.path(), "fsync: never"));
    let mut run = Run::start(&namespace, &kafka.address(), &keys, 0)?;
    run.feed(3_000)?;
    kafka.kill();
    run.feed(3_000)?;
    wait_until_noticed(&run, AWAY)?;
    kafka.restart()?;
    wait_until_noticed(&run, BACK)?;
    run.feed(3_000)?;
    kafka.signal(Signal::SIGSTOP)?;
    run.feed(3_000)?;
    wait_until_noticed(&run, AWAY)?;
    kafka.signal(Signal::SIGCONT)?;
    run.feed(3_000)?;
    wait_until_noticed(&run, BACK)?;
    kafka.kill();
    run.feed(1)?;
    wait_until_noticed(&run, AWAY)?;
    kafka.restart()?;
    wait_until_noticed(&run, BACK)?;
    let ended = run.finish()?;
    ended.require_nothing_lost()?;
    assert_eq!(ended.records("delivered")?, 15_001);
    let consumed = consume(&kafka)?;
    consumed.require_exactly(0..15_001)?;
    println!("{} duplicates of 15000", consumed.duplicates());
    Ok(())
}

#[test]
fn memory_does_not_grow_while_the_broker_is_away() -> Result<()> {
    let namespace = namespace()?;
    let directory = scratch::directory("queue")?;
    let keys = format!("{QUICK}\n    {}", spool("fast", directory.path(), ""));
    // Nothing listens there.
    let mut run = Run::start(&namespace, "127.0.0.1:9", &keys, 0)?;
    run.feed(1_000)?;
    run.process().wait_for_line(AWAY, 0, DEADLINE)?;
    // Several times the producer's queue.
    run.feed(10_000)?;
    let before = peak_memory_kib(&run)?;
    run.feed(40_000)?;
    let after = peak_memory_kib(&run)?;
    println!("peak memory: {before} KiB after 11000 records, {after} KiB after 51000");
    // The producer has its queue's bytes and the structures of each message, and the sender has their
    // positions. The rest is kept by the allocator.
    assert!(after < 96 << 10, "{after} KiB");
    assert!(after < before + (24 << 10), "{before} KiB, then {after} KiB");
    let ended = run.terminate()?;
    ended.require_nothing_lost()?;
    assert_eq!(ended.records("spooled")?, 51_000);
    Ok(())
}

/// Waits until this is the last event about the broker. There may be others before it: with a short
/// timeout and a slow machine, records fail while others arrive.
fn wait_until_noticed(run: &Run, what: &str) -> Result<()> {
    wait::until(what, DEADLINE, || {
        let lines = run.process().stderr().lines();
        let said = lines.iter().rev().find(|line| line.contains(AWAY) || line.contains(BACK));
        Ok(said.filter(|line| line.contains(what)).map(|_| ()))
    })
}

fn peak_memory_kib(run: &Run) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", run.process().pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let digits = line.unwrap_or_default().trim().trim_end_matches(" kB");
    Ok(digits.parse()?)
}

#[test]
fn records_arrive_in_their_order_unless_they_come_twice() -> Result<()> {
    let namespace = namespace()?;
    let mut kafka = Kafka::start(&namespace)?;
    kafka.create_topic(TOPIC)?;
    let directory = scratch::directory("queue")?;
    let keys = format!("{QUICK}\n    {}", spool("durable", directory.path(), "fsync: never"));
    let mut run = Run::start(&namespace, &kafka.address(), &keys, 0)?;
    run.feed(1_000)?;
    kafka.kill();
    run.feed(3_000)?;
    run.process().wait_for_line(AWAY, 0, DEADLINE)?;
    kafka.restart()?;
    wait_for(&kafka, 4_000)?;
    run.feed(1_000)?;
    run.finish()?.require_nothing_lost()?;
    let consumed = consume(&kafka)?;
    let mut seen = std::collections::HashSet::new();
    let first: Vec<u32> =
        consumed.numbers.iter().copied().filter(|number| seen.insert(*number)).collect();
    assert!(first.is_sorted(), "{:?}", first.windows(2).find(|pair| pair[0] > pair[1]));
    Ok(())
}
