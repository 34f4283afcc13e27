//! Delivery to a real Apache Kafka. kcat and fastavro read the records, so no code of ours decodes them.

#[path = "kafka/secrets.rs"]
mod secrets;

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tap53_harness::{
    account::{Ledger, records_equal_exchanges},
    agent::{self, Agent},
    client::{Exchange, Transport},
    fastavro,
    kafka::{Kafka, Message},
    lab::{ANSWERED, Lab},
    wait,
};

const DEADLINE: Duration = Duration::from_secs(60);
const TOPIC: &str = "dns-transactions";
/// Exit code of a stop that lost records, or whose ledger does not balance.
const LOSS: i32 = 3;

/// Standard output in addition to Kafka: a line there shows a test that a record was created.
const CONFIGURATION: &str = r#"
interfaces:
  include: ["s0"]
capture:
  hook: xdp
  ring_bytes: 1048576
pair:
  timeout_ms: 300
sinks:
  - {type: stdout, format: json}
  - type: kafka
    brokers: ["BROKER"]
    topic: dns-transactions
    compression: lz4
    linger_ms: 5
shutdown:
  flush_timeout_ms: 3000
"#;

fn configuration(broker: &str) -> String {
    CONFIGURATION.replace("BROKER", broker)
}

/// Decodes consumed messages by the schema that `tap53 schema` prints.
fn decode(messages: &[Message]) -> Result<Vec<Value>> {
    let schema = tempfile::NamedTempFile::new()?;
    std::fs::write(schema.path(), agent::run(&["schema"])?.stdout)?;
    let values = messages.iter().map(|message| &message.value[..]);
    fastavro::read_single_objects(schema.path(), values)
}

fn wait_for_records(agent: &Agent, exchanges: &[Exchange]) -> Result<()> {
    for exchange in exchanges {
        agent.wait_for_record(exchange.client, DEADLINE)?;
    }
    Ok(())
}

#[test]
fn the_topic_has_a_record_for_each_query() -> Result<()> {
    let lab = Lab::new()?;
    let kafka = Kafka::start(&lab.server)?;
    kafka.create_topic(TOPIC)?;
    let yaml = configuration(&kafka.address());
    let agent = Agent::start(&lab.server, &yaml, &[])?;
    let exchanges = lab.ask_everything()?;
    wait_for_records(&agent, &exchanges)?;
    let ended = agent.stop()?;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);

    let messages = kafka.consume(TOPIC)?;
    let records = decode(&messages)?;
    records_equal_exchanges(&records, &exchanges, "s0", "INGRESS")?;
    for (message, record) in messages.iter().zip(&records) {
        let query_time_us = record["query_time"].as_i64().context("a query_time")?;
        assert_eq!(message.timestamp_ms, query_time_us.div_euclid(1_000));
    }
    let ledger = Ledger(&ended.ledger);
    ledger.require_balance()?;
    assert_eq!(ledger.number("/agent/sinks/1/records/delivered")?, exchanges.len() as u64);
    assert_eq!(ledger.sum("/agent/sinks/1/records/lost")?, 0);
    Ok(())
}

#[test]
fn without_a_broker_capture_goes_on_and_each_record_is_counted_as_lost() -> Result<()> {
    let lab = Lab::new()?;
    // A port of the namespace's loopback where nothing listens.
    let yaml = configuration("127.0.0.1:9");
    let agent = Agent::start(&lab.server, &yaml, &[])?;
    let exchanges = lab.ask_everything()?;
    wait_for_records(&agent, &exchanges)?;
    let started = std::time::Instant::now();
    let ended = agent.stop()?;
    let took = started.elapsed();
    assert_eq!(ended.status.code(), Some(LOSS), "{}", ended.stderr);
    assert!(took < Duration::from_secs(8), "flush deadline 3 s, took {took:?}");
    let ledger = Ledger(&ended.ledger);
    ledger.require_balance()?;
    assert_eq!(ledger.number("/agent/sinks/1/records/delivered")?, 0);
    assert_eq!(ledger.number("/agent/sinks/1/records/lost/unflushed")?, exchanges.len() as u64);
    // The other sink does not suffer.
    assert_eq!(ledger.number("/agent/sinks/0/records/delivered")?, exchanges.len() as u64);
    Ok(())
}

#[test]
fn a_topic_that_does_not_exist_is_a_counted_loss() -> Result<()> {
    let lab = Lab::new()?;
    let kafka = Kafka::start(&lab.server)?;
    let yaml = configuration(&kafka.address());
    let agent = Agent::start(&lab.server, &yaml, &[])?;
    let exchange = lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    wait_for_records(&agent, &[exchange])?;
    let ended = agent.stop()?;
    assert_eq!(ended.status.code(), Some(LOSS), "{}", ended.stderr);
    let ledger = Ledger(&ended.ledger);
    ledger.require_balance()?;
    assert_eq!(ledger.number("/agent/sinks/1/records/delivered")?, 0);
    assert_eq!(ledger.sum("/agent/sinks/1/records/lost")?, 1);
    Ok(())
}

#[test]
fn records_of_an_outage_arrive_after_it() -> Result<()> {
    let lab = Lab::new()?;
    let mut kafka = Kafka::start(&lab.server)?;
    kafka.create_topic(TOPIC)?;
    let yaml = configuration(&kafka.address());
    let agent = Agent::start(&lab.server, &yaml, &[])?;

    let mut exchanges = lab.ask_everything()?;
    wait_for_records(&agent, &exchanges)?;
    kafka.kill();
    let meanwhile = lab.ask_everything()?;
    wait_for_records(&agent, &meanwhile)?;
    exchanges.extend(meanwhile);
    kafka.restart()?;
    let afterwards = lab.ask_everything()?;
    wait_for_records(&agent, &afterwards)?;
    exchanges.extend(afterwards);
    // A restarted broker is found again within librdkafka's reconnect interval.
    wait::until("every record to be in the topic", DEADLINE, || {
        Ok((distinct(&decode(&kafka.consume(TOPIC)?)?).len() >= exchanges.len()).then_some(()))
    })?;

    let ended = agent.stop()?;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    // A broker that is killed between write and acknowledgement may have a record twice: its identifier
    // shows it.
    let records = distinct(&decode(&kafka.consume(TOPIC)?)?);
    records_equal_exchanges(&records, &exchanges, "s0", "INGRESS")?;
    Ledger(&ended.ledger).require_balance()
}

/// Returns the records without later ones of the same identifier.
fn distinct(records: &[Value]) -> Vec<Value> {
    let mut seen = std::collections::HashSet::new();
    let new = |record: &&Value| seen.insert(record["record_id"].to_string());
    records.iter().filter(new).cloned().collect()
}
