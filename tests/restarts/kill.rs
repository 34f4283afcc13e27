//! The old agent is killed.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tap53_harness::kafka::Kafka;

use super::{
    outcome::Outcome,
    stage::{Stage, TOPIC, ledger, wait_for_more},
    stream::Stream,
    upgrade::reported,
};

#[test]
fn a_kill_costs_no_more_than_the_next_run_reports() -> Result<()> {
    let stage = Stage::new()?;
    let kafka = Kafka::start(&stage.server)?;
    kafka.create_topic(TOPIC)?;
    let mut agent = stage.start(&kafka, "durable")?;
    let stream = Stream::start(&stage.client, &stage.server)?;
    let (mut at_most, mut in_memory) = ([0, 0], 0);
    const KILLS: usize = 3;
    for kill in 1..=KILLS {
        // At another moment between two looks each time.
        wait_for_more(&agent, 600 + 130 * kill)?;
        agent.process_mut().kill();
        drop(agent);
        agent = stage.start(&kafka, "durable")?;
        let told = ledger(&agent)?;
        let previous = &told["previous_run"];
        assert_eq!(previous["ended"], "killed");
        assert_eq!(previous["gap"]["since"], "last_written");
        assert_eq!(told["earlier_runs"]["killed"], kill);
        for (sum, (_, bound)) in at_most.iter_mut().zip(reported(&told)?) {
            *sum += bound;
        }
        in_memory += memory(previous)?;
        println!("kill {kill}: {} and in memory {}", previous["gap"], memory(previous)?);
    }
    wait_for_more(&agent, 500)?;
    let sent = stream.end()?;
    let ended = agent.stop()?;
    ensure!(ended.status.code() == Some(0), "{}", ended.stderr);
    assert_eq!(ended.ledger["earlier_runs"]["runs"], KILLS);
    let packets = &ended.ledger["earlier_runs"]["gap_packets"];
    assert_eq!(packets["at_most"], at_most.iter().sum::<u64>());

    let unseen = Outcome::read(&kafka)?.unseen(sent).map(|unseen| unseen.len() as u64);
    println!(
        "{sent} exchanges, {unseen:?} missing, reported {at_most:?} and {in_memory} in memory"
    );
    for (missing, at_most) in unseen.into_iter().zip(at_most) {
        assert!(missing > 0, "no kill cost anything: nothing was tried");
        assert!(missing <= at_most + in_memory, "{missing} missing");
    }
    Ok(())
}

/// Returns the number of messages that the killed run had in memory: two for each record.
fn memory(previous: &Value) -> Result<u64> {
    let number = |key: &str| previous[key].as_u64().with_context(|| format!("{key}: {previous}"));
    let records = previous["records_in_memory"].as_object().context("records")?;
    // Standard output is written at once.
    let records = records.values().filter_map(Value::as_u64).sum::<u64>();
    Ok(number("packets_in_rings")? + number("messages_pending")? + 2 * records)
}
