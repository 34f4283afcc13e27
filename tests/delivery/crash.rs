//! The agent is killed at any moment.

use std::{env, ops::Range};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tap53_harness::{agent, kafka::Kafka, scratch, wait};

use super::run::{DEADLINE, QUICK, Run, TOPIC, consume, namespace, spool};

/// The number of rounds, which this variable changes.
const ROUNDS: u32 = 20;
const ROUNDS_VARIABLE: &str = "TAP53_KILL_ROUNDS";

fn rounds() -> u32 {
    env::var(ROUNDS_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS)
}

#[test]
fn an_agent_that_is_killed_again_and_again_loses_no_record_that_it_accepted() -> Result<()> {
    let namespace = namespace()?;
    let kafka = Kafka::start(&namespace)?;
    kafka.create_topic(TOPIC)?;
    let directory = scratch::directory("queue")?;
    // Room for everything that is accepted, since little is delivered in a round; and segments as
    // small as possible, so that some are removed.
    let max_bytes = (8 << 20) + u64::from(rounds()) * (256 << 10);
    let more = format!("max_bytes: {max_bytes}, replay_records_per_s: 0");
    let keys = spool("durable", directory.path(), &more);
    let (mut next, mut accepted) = (0, Vec::new());
    for round in 0..rounds() {
        let mut run = Run::start(&namespace, &kafka.address(), &keys, next)?;
        // Some rounds have more than others, and a few more records may be anywhere at the kill.
        run.feed(100 + round * 97 % 800)?;
        run.feed_unseen(100 + round * 31 % 100)?;
        if round % 5 == 3 {
            // Nothing is delivered in this round.
            kafka.signal(Signal::SIGSTOP)?;
            run.feed(500)?;
        }
        next = run.next();
        accepted.extend(run.kill()?);
        kafka.signal(Signal::SIGCONT)?;
    }
    loop {
        let ended = Run::start(&namespace, &kafka.address(), &keys, next)?.finish()?;
        ended.require_nothing_lost()?;
        if ended.records("spooled")? == 0 {
            break;
        }
        // It is not killed while it makes progress.
        ensure!(ended.records("delivered")? > 0, "{}", ended.log);
    }
    let consumed = consume(&kafka)?;
    let missing = consumed.missing(accepted.iter().copied());
    println!(
        "{} kills: {} records accepted, {} missing, {} duplicates",
        rounds(),
        accepted.len(),
        missing.len(),
        consumed.duplicates()
    );
    assert!(
        missing.is_empty(),
        "{} of {} are missing: {:?}",
        missing.len(),
        accepted.len(),
        ranges(&missing)
    );
    Ok(())
}

#[test]
fn in_fast_mode_a_kill_costs_no_more_than_the_producer_may_hold() -> Result<()> {
    const QUEUE_BYTES: usize = 1 << 20;
    let namespace = namespace()?;
    let mut kafka = Kafka::start(&namespace)?;
    kafka.create_topic(TOPIC)?;
    let directory = scratch::directory("queue")?;
    let keys = format!("queue_bytes: {QUEUE_BYTES}\n    {}", spool("fast", directory.path(), ""));
    let (mut next, mut missing) = (0, 0);
    // Try again if the machine is so slow that the agent notices the outage first.
    for attempt in 1..=5 {
        let mut run = Run::start(&namespace, &kafka.address(), &keys, next)?;
        run.feed(500)?;
        // The records of low numbers are the shortest.
        wait::until("these to be delivered", DEADLINE, || {
            let from = run.process().stderr().len();
            run.process().signal(Signal::SIGUSR1)?;
            let line = run.process().wait_for_line("records to kafka", from, DEADLINE)?;
            Ok((!line.contains("in flight") && !line.contains("spooled")).then_some(()))
        })?;
        // Killed, not stopped: a stopped broker would still read what is in its socket.
        kafka.kill();
        // More than the queue holds.
        run.feed_unseen(8_000)?;
        run.feed(1)?;
        next = run.next();
        let accepted = run.kill()?;
        kafka.restart()?;
        let ended = Run::start(&namespace, &kafka.address(), &keys, next)?.finish()?;
        ended.require_nothing_lost()?;
        let consumed = consume(&kafka)?;
        missing = consumed.missing(accepted.iter().copied()).len();
        println!(
            "attempt {attempt}: {missing} of {} accepted records lost, {} bytes each or more",
            accepted.len(),
            consumed.shortest
        );
        assert!(missing * consumed.shortest <= QUEUE_BYTES, "{missing} records");
        if missing > 0 {
            break;
        }
    }
    assert!(missing > 0, "the queue was never in memory when it was killed: nothing was tried");

    // Once the outage is noticed, a kill loses none.
    let mut run = Run::start(&namespace, &kafka.address(), &keys, next)?;
    run.feed(500)?;
    kafka.kill();
    run.feed(1_000)?;
    run.process().wait_for_line("event=\"buffering_to_spool\"", 0, DEADLINE)?;
    // Records in memory are requeued once none is in flight.
    wait::until("memory to be empty", DEADLINE, || {
        let from = run.process().stderr().len();
        run.process().signal(Signal::SIGUSR1)?;
        let line = run.process().wait_for_line("records to kafka", from, DEADLINE)?;
        Ok((!line.contains("in flight")).then_some(()))
    })?;
    let next = run.next();
    let accepted = run.kill()?;
    kafka.restart()?;
    Run::start(&namespace, &kafka.address(), &keys, next)?.finish()?.require_nothing_lost()?;
    let missing = consume(&kafka)?.missing(accepted);
    assert!(missing.is_empty(), "{:?}", ranges(&missing));
    Ok(())
}

#[test]
fn spool_totals_count_the_drops_of_killed_agents_exactly() -> Result<()> {
    let namespace = namespace()?;
    let mut kafka = Kafka::start(&namespace)?;
    kafka.create_topic(TOPIC)?;
    // Nothing is delivered before the end.
    kafka.kill();
    let directory = scratch::directory("queue")?;
    let keys = spool("durable", directory.path(), "max_bytes: 4194304, replay_records_per_s: 0");
    let keys = format!("{QUICK}\n    {keys}");
    let mut next = 0;
    // More than the spool holds, twice.
    for count in [16_000, 4_000] {
        let mut run = Run::start(&namespace, &kafka.address(), &keys, next)?;
        run.feed(count)?;
        next = run.next();
        let (accepted, _) = run.kill_however_full()?;
        assert_eq!(accepted.last(), Some(&(next - 1)));
    }
    kafka.restart()?;
    let ended = Run::start(&namespace, &kafka.address(), &keys, next)?.finish()?;
    // This one has lost nothing.
    ended.require_nothing_lost()?;
    let spool = &ended.ledger["agent"]["sinks"][0]["spool"];
    let number = |key: &str| spool["records"][key].as_u64().context("a number of the spool");
    let lost = spool["records"]["lost"]["dropped_oldest"].as_u64().context("a loss")?;
    println!("{next} accepted, {lost} dropped by agents that were killed: {spool}");
    // Counted by them or not: a record may have been in flight to an unreachable broker.
    ensure!(lost > 4_000, "more than that did not fit");
    assert_eq!((number("appended")?, number("waiting")?), (u64::from(next), 0));
    assert_eq!(number("arrived")? + lost, u64::from(next));
    let missing = consume(&kafka)?.missing(0..next);
    assert_eq!(missing.len() as u64, lost, "{:?}", ranges(&missing));
    // The command reports the same.
    let listed = agent::run(&["spool", "ls", directory.path().to_str().context("a path")?])?;
    let text = String::from_utf8(listed.stdout)?;
    assert!(text.contains(&format!("ever: {next} records appended")), "{text}");
    assert!(text.contains(&format!("{lost} lost (dropped_oldest)")), "{text}");
    Ok(())
}

/// Consecutive numbers as ranges.
fn ranges(numbers: &[u32]) -> Vec<Range<u32>> {
    let mut ranges: Vec<Range<u32>> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some(last) if last.end == *number => last.end += 1,
            _ => ranges.push(*number..number + 1),
        }
    }
    ranges
}
