//! The old agent is stopped, and the new one starts after it or before.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tap53_harness::{account::Ledger, agent::Ended, kafka::Kafka, wait};

use super::{
    DEADLINE, GRACE,
    outcome::Outcome,
    stage::{Stage, TOPIC, ledger, wait_for_more},
    stream::Stream,
};

/// Returns the bounds of uncaptured packets that the agent reports: ingress and egress.
pub(super) fn reported(ledger: &Value) -> Result<[(u64, u64); 2]> {
    let interface = &ledger["previous_run"]["gap"]["interfaces"][0];
    ensure!(interface["name"] == "s0", "{}", ledger["previous_run"]);
    let bound = |direction: &str, bound: &str| {
        interface[direction][bound].as_u64().context("a bound of the gap")
    };
    let of = |direction| {
        Ok::<_, anyhow::Error>((bound(direction, "at_least")?, bound(direction, "at_most")?))
    };
    Ok([of("ingress")?, of("egress")?])
}

/// Packets that the hook of a direction captured.
fn captured(ledger: &Value, direction: &str) -> Result<u64> {
    Ledger(ledger).number(&format!("/interfaces/0/{direction}/captured"))
}

/// Fails unless what is missing is what was reported, and what hooks captured and did not capture
/// is all that was sent.
fn require_as_reported(outcome: &Outcome, sent: u32, runs: [&Value; 2]) -> Result<()> {
    let unseen = outcome.unseen(sent);
    let reported = reported(runs[1])?;
    for ((unseen, (at_least, at_most)), direction) in
        unseen.iter().zip(reported).zip(["ingress", "egress"])
    {
        let missing = unseen.len() as u64;
        println!("{direction}: {missing} missing, reported {at_least} to {at_most}");
        ensure!(missing > 0, "the stream had no gap: nothing was tried");
        ensure!((at_least..=at_most).contains(&missing), "{missing} missing");
        let in_a_row = unseen.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        ensure!(in_a_row, "not one gap: {unseen:?}");
        let both = captured(runs[0], direction)? + captured(runs[1], direction)?;
        ensure!(both + missing == u64::from(sent), "{both} captured, {missing} not, of {sent}");
    }
    outcome.require_gaps_reported()
}

fn require_nothing_lost(ended: &Ended) -> Result<()> {
    Ledger(&ended.ledger).require_balance().with_context(|| ended.stderr.clone())?;
    ensure!(ended.status.code() == Some(0), "{}: {}", ended.status, ended.stderr);
    Ok(())
}

#[test]
fn an_upgrade_loses_only_the_packets_of_a_reported_gap() -> Result<()> {
    let stage = Stage::new()?;
    let kafka = Kafka::start(&stage.server)?;
    kafka.create_topic(TOPIC)?;
    let old = stage.start(&kafka, "durable")?;
    assert_eq!(ledger(&old)?["previous_run"], Value::Null);
    let stream = Stream::start(&stage.client, &stage.server)?;
    wait_for_more(&old, 1_000)?;
    let old = old.stop()?;
    require_nothing_lost(&old)?;
    let new = stage.start(&kafka, "durable")?;
    let log = new.process().wait_for_line("event=\"gap_between_runs\"", 0, DEADLINE)?;
    wait_for_more(&new, 1_000)?;
    let sent = stream.end()?;
    let status = ledger(&new)?;
    let new = new.stop()?;
    require_nothing_lost(&new)?;

    let previous = &new.ledger["previous_run"];
    assert_eq!(previous, &status["previous_run"]);
    assert_eq!(previous["ended"], "in_good_order");
    assert_eq!(previous["gap"]["since"], "stop");
    let seconds = previous["gap"]["seconds"].as_f64().context("how long")?;
    println!("{sent} exchanges; a gap of {seconds:.3} s: {log}");
    assert!(log.contains(&format!("{seconds:.3}")), "{log}");
    assert_eq!(new.ledger["earlier_runs"]["runs"], 1);
    assert_eq!(new.ledger["earlier_runs"]["killed"], 0);
    require_as_reported(&Outcome::read(&kafka)?, sent, [&old.ledger, &new.ledger])
}

#[test]
fn with_the_broker_away_the_old_agent_ends_in_time_and_the_new_one_delivers_what_it_had()
-> Result<()> {
    for mode in ["fast", "durable"] {
        let stage = Stage::new()?;
        let mut kafka = Kafka::start(&stage.server)?;
        kafka.create_topic(TOPIC)?;
        let old = stage.start(&kafka, mode)?;
        let stream = Stream::start(&stage.client, &stage.server)?;
        wait_for_more(&old, 500)?;
        kafka.kill();
        wait_for_more(&old, 500)?;
        // With the rings, the pairing table and the producer's queue in use.
        let began = Instant::now();
        let old = old.stop()?;
        let took = began.elapsed();
        require_nothing_lost(&old)?;
        let spooled = Ledger(&old.ledger).number("/agent/sinks/0/records/spooled")?;
        println!("{mode}: ended after {took:?} with {spooled} records in the spool");
        assert!(took < GRACE, "{took:?}");
        assert!(spooled > 0);
        let new = stage.start(&kafka, mode)?;
        wait_for_more(&new, 500)?;
        kafka.restart()?;
        wait_for_more(&new, 500)?;
        let sent = stream.end()?;
        wait::until("the spool to be worked off", DEADLINE, || {
            let waiting = Ledger(&ledger(&new)?).number("/agent/sinks/0/records/spooled")?;
            Ok((waiting == 0).then_some(()))
        })?;
        let new = new.stop()?;
        require_nothing_lost(&new)?;
        assert_eq!(Ledger(&new.ledger).number("/agent/sinks/0/records/carried")?, spooled);
        assert_eq!(Ledger(&new.ledger).number("/agent/sinks/0/records/spooled")?, 0);
        let outcome = Outcome::read(&kafka)?;
        println!("{mode}: {} came twice", outcome.repeated);
        require_as_reported(&outcome, sent, [&old.ledger, &new.ledger])?;
    }
    Ok(())
}

#[test]
fn overlapping_agents_lose_nothing_and_their_duplicates_can_be_identified() -> Result<()> {
    let stage = Stage::new()?;
    let kafka = Kafka::start(&stage.server)?;
    kafka.create_topic(TOPIC)?;
    let old = stage.start(&kafka, "durable")?;
    let stream = Stream::start(&stage.client, &stage.server)?;
    wait_for_more(&old, 500)?;
    let new = stage.start(&kafka, "durable")?;
    assert_eq!(ledger(&new)?["previous_run"]["ended"], "still_running");
    assert_eq!(ledger(&new)?["previous_run"]["gap"], Value::Null);
    wait_for_more(&new, 500)?;
    old.process().signal(Signal::SIGTERM)?;
    let old = old.ended()?;
    require_nothing_lost(&old)?;
    // The spool is the new one's now, and so is the state.
    new.process().wait_for_line("event=\"spool_lock_acquired\"", 0, DEADLINE)?;
    wait::until("the end of the old agent to be told", DEADLINE, || {
        let previous = ledger(&new)?["previous_run"].clone();
        Ok((previous["ended"] == "in_good_order" && previous["gap"].is_null()).then_some(()))
    })?;
    wait_for_more(&new, 500)?;
    let sent = stream.end()?;
    let new = new.stop()?;
    require_nothing_lost(&new)?;

    let mut outcome = Outcome::read(&kafka)?;
    assert_eq!(outcome.by_run().len(), 2);
    let dropped = outcome.drop_overlapped();
    println!("{sent} exchanges, {dropped} recorded by both");
    assert!(dropped >= 500, "they did not overlap: nothing was tried");
    outcome.require_each_once(sent)
}
