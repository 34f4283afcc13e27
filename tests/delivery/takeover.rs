//! Two agents with one spool.

use anyhow::Result;
use tap53_harness::{kafka::Kafka, scratch};

use super::run::{DEADLINE, INTERRUPTED, QUICK, Run, TOPIC, consume, namespace, spool, wait_for};

const WAITS: &str = "event=\"spool_locked\"";
const TAKEN: &str = "event=\"spool_lock_acquired\"";

#[test]
fn a_second_agent_sends_without_the_spool_until_the_first_one_ends_and_then_takes_it_over()
-> Result<()> {
    let namespace = namespace()?;
    let mut kafka = Kafka::start(&namespace)?;
    kafka.create_topic(TOPIC)?;
    let mut next = 0;
    for mode in ["durable", "fast"] {
        let directory = scratch::directory("queue")?;
        let keys = format!("{QUICK}\n    {}", spool(mode, directory.path(), ""));
        let mut first = Run::start(&namespace, &kafka.address(), &keys, next)?;
        first.feed(100)?;
        let mut second = Run::start(&namespace, &kafka.address(), &keys, first.next())?;
        second.process().wait_for_line(WAITS, 0, DEADLINE)?;
        // With the broker reachable, nothing changes.
        second.feed(100)?;
        wait_for(&kafka, second.next())?;
        // Without it, its records wait in memory: the other agent's files are not touched.
        kafka.kill();
        second.feed(300)?;
        second.process().wait_for_line("event=\"buffering_to_memory\"", 0, DEADLINE)?;
        next = second.next();
        first.terminate()?.require_nothing_lost()?;
        second.process().wait_for_line(TAKEN, 0, DEADLINE)?;
        let ended = second.terminate()?;
        ended.require_nothing_lost()?;
        assert_eq!(ended.records("carried")?, 0);
        assert_eq!(ended.records("spooled")?, 300, "{mode}: {}", ended.log);
        kafka.restart()?;
        let third = Run::start(&namespace, &kafka.address(), &keys, next)?.finish()?;
        third.require_nothing_lost()?;
        assert_eq!(third.records("carried")?, 300);
        let consumed = consume(&kafka)?;
        consumed.require_exactly(0..next)?;
    }
    Ok(())
}

#[test]
fn an_agent_that_never_locks_the_spool_counts_undelivered_records() -> Result<()> {
    let namespace = namespace()?;
    let directory = scratch::directory("queue")?;
    // A mebibyte of records in memory in addition to the producer's, and no broker listens.
    let keys = format!(
        "message_timeout_ms: 1000\n    queue_bytes: 1048576\n    {}",
        spool("durable", directory.path(), "")
    );
    let mut first = Run::start(&namespace, "127.0.0.1:9", &keys, 0)?;
    first.feed(100)?;
    let mut second = Run::start_flushing_for(&namespace, "127.0.0.1:9", &keys, 100, 1_000)?;
    second.feed(12_000)?;
    let ended = second.terminate()?;
    tap53_harness::account::Ledger(&ended.ledger).require_balance()?;
    assert_eq!(ended.status.code(), Some(INTERRUPTED));
    let (full, late) = (ended.records("lost/spool_failed")?, ended.records("lost/unflushed")?);
    println!("{full} too many for memory, {late} not delivered at the end");
    assert!(full > 0 && late > 0, "{}", ended.log);
    assert_eq!(full + late, 12_000);
    // The other one's records are complete.
    let ended = first.terminate()?;
    ended.require_nothing_lost()?;
    assert_eq!(ended.records("spooled")?, 100);
    Ok(())
}
