//! A missing topic is created if the configuration says so, and never otherwise.

use anyhow::{Result, ensure};
use tap53_harness::{
    agent,
    kafka::{Kafka, topics},
    scratch, wait,
};

use super::run::{DEADLINE, Run, TOPIC, consume, namespace, spool};

/// So that the agent notices quickly.
const QUICK: &str = "options: {topic.metadata.propagation.max.ms: 500}";

#[test]
fn no_topic_is_created_without_create_topic_even_if_brokers_auto_create() -> Result<()> {
    let namespace = namespace()?;
    let kafka = Kafka::start_with_properties(&namespace, "auto.create.topics.enable=true\n")?;
    let directory = scratch::directory("queue")?;
    let keys = format!("{QUICK}\n    {}", spool("durable", directory.path(), ""));
    let mut run = Run::start(&namespace, &kafka.address(), &keys, 0)?;
    run.feed(10)?;
    let line = run.process().wait_for_line("event=\"topic_missing\"", 0, DEADLINE)?;
    assert!(line.contains(TOPIC) && line.contains("create_topic"), "{line}");
    let configuration = run.configuration().display().to_string();
    // The doctor creates none either.
    let mut doctor = namespace.command(agent::binary()?);
    let said = doctor.args(["doctor", "--config", &configuration]).output()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    ensure!(said.contains("tap53 creates it only if create_topic is set"), "{said}");
    let ended = run.terminate()?;
    ended.require_nothing_lost()?;
    assert_eq!(ended.records("spooled")?, 10);
    let topics = topics(&namespace, &kafka.address())?;
    assert_eq!(topics, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_topic_is_created_as_configured_and_again_after_its_deletion() -> Result<()> {
    let namespace = namespace()?;
    let mut kafka = Kafka::start(&namespace)?;
    let directory = scratch::directory("queue")?;
    let keys = format!(
        "{QUICK}\n    create_topic: {{partitions: 3, replication_factor: 1, options: \
         {{message.timestamp.type: LogAppendTime}}}}\n    {}",
        spool("durable", directory.path(), "")
    );
    // It is created before the first record, as soon as there is a broker.
    kafka.kill();
    let mut run = Run::start(&namespace, &kafka.address(), &keys, 0)?;
    run.process().wait_for_line("event=\"topic_creation_failed\"", 0, DEADLINE)?;
    kafka.restart()?;
    let line = run.process().wait_for_line("event=\"topic_created\"", 0, DEADLINE)?;
    assert!(line.contains(TOPIC) && line.contains("partitions=\"3\""), "{line}");
    assert_eq!(topics(&namespace, &kafka.address())?, [format!("{TOPIC} with 3 partitions")]);
    run.feed(100)?;
    wait::until("the records to arrive", DEADLINE, || {
        Ok((consume(&kafka)?.times.len() == 100).then_some(()))
    })?;
    // The topic's own setting: messages have the broker's time, not that of their queries.
    let messages = kafka.consume(TOPIC)?;
    let earliest = messages.iter().map(|message| message.timestamp_ms).min();
    ensure!(earliest > Some(1_700_000_000_000), "{earliest:?}");

    kafka.delete_topic(TOPIC)?;
    wait::until("it to be gone", DEADLINE, || {
        Ok(topics(&namespace, &kafka.address())?.is_empty().then_some(()))
    })?;
    let from = run.process().stderr().len();
    run.feed(100)?;
    run.process().wait_for_line("event=\"topic_created\"", from, DEADLINE)?;
    run.finish()?.require_nothing_lost()?;
    consume(&kafka)?.require_exactly(100..200)?;

    // Another agent finds it.
    let run = Run::start(&namespace, &kafka.address(), &keys, 200)?;
    let ended = run.finish()?;
    ensure!(!ended.log.contains("topic_created"), "{}", ended.log);
    Ok(())
}

#[test]
fn brokers_that_refuse_to_make_a_topic_are_heard() -> Result<()> {
    let namespace = namespace()?;
    let kafka = Kafka::start(&namespace)?;
    let keys = "create_topic: {partitions: 1, replication_factor: 3}";
    let run = Run::start(&namespace, &kafka.address(), keys, 0)?;
    let line = run.process().wait_for_line("event=\"topic_creation_failed\"", 0, DEADLINE)?;
    assert!(line.contains("replication factor"), "{line}");
    Ok(())
}
