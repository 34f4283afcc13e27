//! From the topic into a warehouse: Spark loads microbatches into PostgreSQL, each message once whatever
//! is killed; what cannot be loaded is kept with its reason; and SQL over all nodes answers as DuckDB does.

#[path = "warehouse/kills.rs"]
mod kills;
#[path = "warehouse/lake.rs"]
mod lake;
#[path = "warehouse/stage.rs"]
mod stage;
#[path = "warehouse/tables.rs"]
mod tables;
#[path = "warehouse/views.rs"]
mod views;

use std::{ffi::OsStr, fs};

use anyhow::{Context, Result, ensure};
use data_encoding::HEXLOWER;
use serde_json::Value;

use stage::{
    DEADLINE, FRAMING, RECORDS, Stage, exchanges, framed, namespace, records_schema, repository,
    schema_id,
};
use tap53_harness::{captures::from_hex, kafka::Message, postgres::Postgres, python};

/// Exchanges of a run in the short form.
const EXCHANGES: u32 = 600;
/// A record of another name.
const FOREIGN: &str =
    r#"{"type": "record", "name": "Other", "fields": [{"name": "a", "type": "int"}]}"#;
/// The reason where PostgreSQL has the last word.
const REFUSED: &str = "the warehouse refuses it";
const SUBJECT: &str = "dns-transactions-value";

#[test]
fn each_message_of_the_topic_is_in_the_warehouse_once() -> Result<()> {
    let namespace = namespace()?;
    let stage = Stage::start(&namespace)?;
    // Agents of earlier versions came first.
    produce_earlier_versions(&stage)?;
    // Two runs of a node that overlap, and another node.
    let packets = exchanges(0..EXCHANGES)?;
    stage.replay("node-1", &packets)?;
    stage.replay("node-1", &packets)?;
    stage.replay("node-2", &exchanges(EXCHANGES / 2..EXCHANGES)?)?;
    let clean = stage.records()?;
    let newest =
        clean.iter().filter_map(|message| schema_id(&message.value)).max().context("an id")?;
    let rejected = produce_foreign(&stage, newest, &clean)?;

    // A loader that is killed, and one that goes on.
    let mut killed = stage.loader(&["--every", "0", "--at-most", "300"])?;
    killed.wait_for_event("batch_loaded", 0, DEADLINE)?;
    killed.kill();
    stage.load_all()?;

    let mut all = stage.records()?;
    require_account(&stage, all.len())?;
    require_rejects(&stage, &rejected)?;
    all.retain(|message| !rejected.iter().any(|(value, _)| *value == message.value));
    stage.require_equal(&all)?;

    require_restored(&stage, &all)?;
    let of_newest = |message: &Message| schema_id(&message.value) == Some(newest);
    views::require_equal_answers(&stage, clean.into_iter().filter(of_newest).collect())
}

/// The table is lost, and comes back from Parquet files, in the place of the lake; what the lake does not
/// have comes from the topic.
fn require_restored(stage: &Stage<'_>, all: &[Message]) -> Result<()> {
    let warehouse = &stage.warehouse;
    warehouse.execute(
        "CREATE TABLE before AS SELECT * FROM dns_transactions; DROP TABLE dns_transactions",
    )?;
    let (schema, parquet) = (records_schema(), stage.path("lake.parquet"));
    let in_lake = &all[..all.len() * 3 / 4];
    stage.create_table(&[])?;
    stage.write_parquet(in_lake, &schema, &parquet)?;
    let (conninfo, schema, parquet) =
        (warehouse.conninfo(), schema.to_string_lossy(), parquet.to_string_lossy());
    let mut restore = stage.job(
        "restore.py",
        &[
            "--warehouse",
            &conninfo,
            "--from",
            "parquet",
            &parquet,
            "--table",
            "dns_transactions",
            "--schema",
            &schema,
            "--topic",
            RECORDS,
        ],
    )?;
    restore.finish(DEADLINE)?;
    let counts = restore.wait_for_event("restored", 0, DEADLINE)?;
    let rows = in_lake.len();
    ensure!(
        counts["rows"] == rows && counts["inserted"] == rows && counts["refused"] == 0,
        "{counts}"
    );
    let lacking = warehouse
        .number("SELECT count(*) FROM (TABLE before EXCEPT TABLE dns_transactions) AS d")?;
    ensure!(lacking == i64::try_from(all.len() - rows)?, "{lacking} of {} lack", all.len());

    stage.load_all()?;
    require_same_rows(warehouse)
}

/// Checks that the table is unchanged.
fn require_same_rows(warehouse: &Postgres<'_>) -> Result<()> {
    for (one, other) in [("before", "dns_transactions"), ("dns_transactions", "before")] {
        let difference = format!("SELECT count(*) FROM (TABLE {one} EXCEPT TABLE {other}) AS d");
        ensure!(warehouse.number(&difference)? == 0, "{one} has rows that {other} has not");
    }
    Ok(())
}

/// Messages of agents of versions 1 to 4.
fn produce_earlier_versions(stage: &Stage<'_>) -> Result<()> {
    for version in 1..=4 {
        let file = |kind: &str| {
            repository(&format!("agent/schema/history/dns_transaction_v{version}.{kind}"))
        };
        let schema = fs::read_to_string(file("avsc"))?;
        let id = u32::try_from(stage.registry.register(SUBJECT, &schema)?)?;
        let text = fs::read_to_string(file("hex"))?;
        let messages = text.lines().zip(0..).map(|(line, number)| {
            let message = from_hex(line).context("hex")?;
            // They are in single-object encoding, with ten bytes before the datum, which begins with the
            // record's id: it is the same in all of them.
            let mut datum = message[10..].to_vec();
            (datum[0], datum[1]) = (u8::try_from(version)?, number);
            Ok(framed(id, &datum))
        });
        let partition = version % 3;
        stage.kafka.produce(RECORDS, partition, &messages.collect::<Result<Vec<_>>>()?)?;
    }
    Ok(())
}

/// Messages that cannot be loaded, each with a part of the reason; and with them, in the same partition,
/// some that are hard to load. Only the former are returned.
fn produce_foreign(
    stage: &Stage<'_>,
    id: u32,
    messages: &[Message],
) -> Result<Vec<(Vec<u8>, &'static str)>> {
    let other = u32::try_from(stage.registry.register("other-value", FOREIGN)?)?;
    let model = messages
        .iter()
        .rfind(|message| schema_id(&message.value) == Some(id))
        .context("a message")?;
    let mut single_object = vec![0xc3, 1];
    single_object.extend(&model.value[FRAMING..]);
    // A node whose name is 2 GB long, after the id and the version.
    let mut gigantic = vec![7; 16];
    gigantic.extend([10, 0xfe, 0xff, 0xff, 0xff, 0x0f]);
    let mut foreign = vec![
        (b"something else".to_vec(), "no framing"),
        (vec![0, 0, 0], "no framing"),
        (single_object, "single-object encoding"),
        (framed(9_999, &model.value[FRAMING..]), "the registry has no schema 9999"),
        (framed(u32::MAX, b"x"), "the registry has no schema 4294967295"),
        (framed(other, &[2]), "is .Other"),
        (model.value[..model.value.len() / 2].to_vec(), "no record of schema"),
        (framed(id, &gigantic), "no record of schema"),
    ];
    let mut variants = vary(id, model)?;
    let out_of_range = variants.pop().context("variants")?;
    foreign.push((out_of_range, REFUSED));
    let values: Vec<_> = foreign.iter().map(|(value, _)| value.clone()).chain(variants).collect();
    stage.kafka.produce(RECORDS, 1, &values)?;
    stage.kafka.produce_tombstone(RECORDS, 1, "a key")?;
    foreign.push((Vec::new(), "no value"));
    Ok(foreign)
}

fn vary(id: u32, model: &Message) -> Result<Vec<Vec<u8>>> {
    let (schema, id) = (records_schema(), id.to_string());
    let arguments = [OsStr::new("vary"), schema.as_os_str(), OsStr::new(&id)];
    let hex = HEXLOWER.encode(&model.value);
    let lines = python::json_lines("warehouse_rows.py", arguments, hex.as_bytes())?;
    let decode = |line: &Value| line.as_str().and_then(from_hex).context("a line of hex");
    lines.iter().map(decode).collect()
}

/// The account of the transactions: without gaps or overlaps from the first message to the last, nothing
/// twice.
fn require_account(stage: &Stage<'_>, messages: usize) -> Result<()> {
    let warehouse = &stage.warehouse;
    let loads = warehouse.query(&format!(
        "SELECT sum(messages) AS messages, sum(repeated) AS repeated, sum(rejected) AS rejected, \
         sum(loaded) AS loaded FROM tap53_loads WHERE topic = '{RECORDS}'"
    ))?;
    let rows = warehouse.number("SELECT count(*) FROM dns_transactions")?;
    let rejects = warehouse
        .number(&format!("SELECT count(*) FROM tap53_rejects WHERE topic = '{RECORDS}'"))?;
    let load = &loads[0];
    ensure!(load["messages"] == messages && load["repeated"] == 0, "{load}, of {messages}");
    ensure!(load["loaded"] == rows && load["rejected"] == rejects, "{load}: {rows} and {rejects}");
    let broken = warehouse.query(
        "SELECT * FROM (SELECT *, lag(next_offset, 1, 0::bigint) OVER \
           (PARTITION BY topic, partition ORDER BY next_offset) AS before FROM tap53_loads) AS ranges \
         WHERE first_offset <> before OR next_offset - first_offset <> messages",
    )?;
    ensure!(broken.is_empty(), "{broken:#?}");
    let ends = warehouse.query(
        "SELECT * FROM tap53_offsets WHERE next_offset <> (SELECT max(next_offset) FROM tap53_loads \
         WHERE (tap53_loads.topic, tap53_loads.partition) = (tap53_offsets.topic, tap53_offsets.partition))",
    )?;
    ensure!(ends.is_empty(), "{ends:?}");
    Ok(())
}

fn require_rejects(stage: &Stage<'_>, expected: &[(Vec<u8>, &str)]) -> Result<()> {
    let found = stage.warehouse.query("SELECT * FROM tap53_rejects ORDER BY kafka_offset")?;
    ensure!(found.len() == expected.len(), "{found:#?}");
    for (row, (value, reason)) in found.iter().zip(expected) {
        ensure!(
            row["reason"].as_str().is_some_and(|text| text.contains(reason)),
            "{row}: {reason}"
        );
        ensure!(row["topic"] == RECORDS && row["partition"] == 1, "{row}");
        let hex = HEXLOWER.encode(value);
        let message = match *reason {
            "no value" => Value::Null,
            // As JSON, the format in the warehouse.
            REFUSED => row["message"].clone(),
            _ => format!("\\x{hex}").into(),
        };
        ensure!(row["message"] == message, "{row}");
    }
    Ok(())
}
