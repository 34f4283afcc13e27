//! The table has the records of the topic, field for field, and messages that are no records are dead
//! letters.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use tap53_harness::{
    completeness::number,
    kafka::Message,
    lake::{Connector, DEAD_LETTERS, FLAT, QUICK, TRANSACTIONS, connectors},
    varied::Sent,
};

use super::{
    flat,
    run::{Run, namespace},
    stage::Stage,
    tamper::{self, Keys},
};

const VARIED: Connector = TRANSACTIONS.at("dns-varied", "dns.varied");

#[test]
fn the_tables_equal_the_topics_and_other_messages_are_dead_letters() -> Result<()> {
    let namespace = namespace()?;
    let stage = Stage::set(&namespace)?;
    let sent = stage.produce_varied(&VARIED, ("dns_transaction", 1))?;
    let sent_flat = stage.produce_varied(&FLAT, ("dns_transaction_flat", 5))?;
    stage.lake.connect.create(&VARIED, &QUICK)?;
    stage.lake.connect.create(&FLAT, &QUICK)?;

    let keys = Keys::create()?;
    let next = agent_delivers(&stage, &keys)?;
    stage.lake.connect_all(&[])?;
    require_complete(&stage, next)?;
    require_equal(&stage, &sent)?;
    flat::require_equal(&stage, &sent_flat)?;
    require_dead_letters(&stage, &[(VARIED.topic, sent), (FLAT.topic, sent_flat)])?;
    tamper::require_every_change_found(&stage, &keys)?;
    for connector in connectors::ALL.iter().chain([&VARIED]) {
        assert_eq!(stage.lake.connect.restart_failed(connector.topic)?, None);
    }
    Ok(())
}

/// An agent that replays numbered transactions, and ends; how many.
fn agent_delivers(stage: &Stage<'_>, keys: &Keys) -> Result<u32> {
    let options = keys.sink_options(stage);
    let mut run = Run::start(stage.namespace, &stage.kafka.address(), &options, 0)?;
    tamper::feed(stage, &mut run, 5)?;
    let next = run.next();
    run.finish()?.require_nothing_lost()?;
    Ok(next)
}

/// The SQL of the documentation on the tables: every record that the summaries count is there.
fn require_complete(stage: &Stage<'_>, expected: u32) -> Result<()> {
    let tables = stage.lake.tables();
    stage.lake.wait_for("the records and the last summary to be committed", || {
        let [records, summaries] =
            tables.ask(["count dns_transactions", "count ledger_summaries"])?;
        if number(&records[0], "count")? < i64::from(expected)
            || number(&summaries[0], "count")? == 0
        {
            return Ok(None);
        }
        let [runs] = tables.ask_completeness(["SELECT * FROM runs"])?;
        Ok((runs.len() == 1 && runs[0]["state"] == "ended").then_some(()))
    })?;
    let [runs, windows, names] = tables.ask_completeness([
        "SELECT * FROM runs",
        "SELECT * FROM windows",
        "SELECT count(DISTINCT qname) AS names FROM dns_transactions",
    ])?;
    let expected = i64::from(expected);
    let run = &runs[0];
    assert_eq!((number(run, "expected")?, number(run, "arrived")?), (expected, expected), "{run}");
    assert_eq!((number(run, "missing")?, number(run, "duplicates")?), (0, 0), "{run}");
    assert_eq!(run["complete"], "yes", "{run}");
    ensure!(windows.len() > 1 && windows.iter().all(|row| row["complete"] == "yes"), "{windows:?}");
    assert_eq!(number(&names[0], "names")?, expected);
    Ok(())
}

fn require_equal(stage: &Stage<'_>, sent: &[Sent]) -> Result<()> {
    let records: Vec<&Sent> = sent.iter().filter(|sent| sent.record.is_some()).collect();
    let rows = stage.lake.wait_for("the varied records to be committed", || {
        let rows = stage.lake.tables().rows(VARIED.table)?;
        Ok((rows.len() >= records.len()).then_some(rows))
    })?;
    assert_eq!(rows.len(), records.len(), "none twice");
    let mut by_position = BTreeMap::new();
    for row in rows {
        by_position.insert((number(&row, "kafka_partition")?, number(&row, "kafka_offset")?), row);
    }
    for sent in records {
        let row = by_position.get(&sent.position).with_context(|| format!("{sent:?}"))?;
        require_row(row, sent).with_context(|| format!("at {:?}", sent.position))?;
    }
    Ok(())
}

/// Every field of a record in its row, and null where its version has no such field.
fn require_row(row: &Value, sent: &Sent) -> Result<()> {
    let (version, record) = sent.record.as_ref().context("a record")?;
    let mut expected: Map<String, Value> = record.as_object().context("fields")?.clone();
    for field in ["query_time", "response_time"] {
        let micros = expected[field].clone();
        expected.insert(field.to_owned(), whole_milliseconds(&micros));
        expected.insert(format!("{field}_us"), micros);
    }
    if let Some(micros) = expected.remove("latest_query_time") {
        expected.insert("latest_query_time_us".to_owned(), micros);
    }
    expected.insert("event_time".to_owned(), json!(sent.timestamp_ms * 1_000));
    expected.insert("kafka_partition".to_owned(), json!(sent.position.0));
    expected.insert("kafka_offset".to_owned(), json!(sent.position.1));
    let row = row.as_object().context("a row")?;
    for (column, value) in row {
        let expected = expected.remove(column).unwrap_or_default();
        ensure!(*value == expected, "{version}, {column}: {value}, not {expected}");
    }
    ensure!(expected.is_empty(), "{version}: no columns for {expected:?}");
    Ok(())
}

/// Connect's timestamps have milliseconds, cut towards 1970; as microseconds.
fn whole_milliseconds(micros: &Value) -> Value {
    micros.as_i64().map_or(Value::Null, |micros| json!(micros / 1_000 * 1_000))
}

fn require_dead_letters(stage: &Stage<'_>, topics: &[(&str, Vec<Sent>)]) -> Result<()> {
    let mut expected = Vec::new();
    for (topic, sent) in topics {
        let foreign = sent.iter().filter(|sent| sent.record.is_none());
        let before = expected.len();
        expected.extend(foreign.map(|sent| format!("{topic} {}", sent.position.1)));
        ensure!(expected.len() > before, "nothing foreign was sent to {topic}");
    }
    expected.sort();
    // None of the agent's is among them.
    let mut letters = Vec::new();
    for message in stage.kafka.consume(DEAD_LETTERS)? {
        let [topic, offset] = ["topic", "offset"].map(|name| header(&message, name));
        letters.push(format!("{} {}", topic.context("a topic")?, offset.context("an offset")?));
    }
    letters.sort();
    // Connect writes dead letters at least once: a task that is restarted begins at its last commit.
    if stage.lake.connect.restarts() > 0 {
        letters.dedup();
    }
    assert_eq!(letters, expected);
    Ok(())
}

/// Returns a header that Connect adds to a dead letter.
fn header<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    let prefix = format!("__connect.errors.{name}=");
    message.headers.split(',').find_map(|header| header.strip_prefix(prefix.as_str()))
}
