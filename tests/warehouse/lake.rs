//! The lake's real tables: Iceberg's own procedures keep their rows, and the warehouse is filled again from
//! them.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tap53_harness::{
    completeness::number,
    lake::{
        Connect, LEDGER, QUICK, Start, Store, TRANSACTIONS, Tables, connectors, create_namespace,
    },
    wait,
};

use super::{
    require_same_rows,
    stage::{DEADLINE, RECORDS, Stage, exchanges, namespace, records_schema, repository},
};

/// A look starts Python.
const INTERVAL: Duration = Duration::from_secs(1);
const EXCHANGES: u32 = 300;
/// Runs of the agent, each of which is committed before the next one: so many files.
const RUNS: usize = 3;
/// Conditions that the statements wait for, with values that are true at once: ended hours, old snapshots,
/// and enough files.
const WAITS: [(&str, &str); 4] = [
    ("- INTERVAL 1 HOUR", "+ INTERVAL 1 HOUR"),
    ("'604800000'", "'1'"),
    ("'100'", "'1'"),
    ("'min-input-files', '5'", "'min-input-files', '2'"),
];
const COUNTS: &str = "SELECT concat('files=', (SELECT count(*) FROM lake.dns.transactions.files), \
    ' snapshots=', (SELECT count(*) FROM lake.dns.transactions.snapshots));\n";

#[test]
fn maintenance_keeps_the_rows_and_the_warehouse_is_restored_from_them() -> Result<()> {
    let namespace = namespace()?;
    let stage = Stage::start(&namespace)?;
    let mut store = Store::start(&namespace)?;
    create_namespace(&mut store)?;
    let _connect = connect(&stage, &store)?;
    let tables = Tables::of(&store);
    let packets = exchanges(0..EXCHANGES)?;
    for run in 1..=RUNS {
        stage.replay(&format!("node-{run}"), &packets)?;
        let messages = stage.records()?.len();
        wait::until_every(INTERVAL, "the records to be committed", DEADLINE, || {
            let [count] = tables.ask(["count dns_transactions"])?;
            Ok((number(&count[0], "count")? >= messages as i64).then_some(()))
        })?;
    }
    require_maintained(&stage, &store)?;
    require_restored(&stage, &store)
}

fn connect<'a>(stage: &Stage<'a>, store: &Store<'a>) -> Result<Connect<'a>> {
    for connector in connectors::FULL_PROFILE {
        stage.kafka.create_topic(&connector.control_topic())?;
    }
    let (brokers, registry) = (stage.kafka.address(), stage.registry.origin());
    let start = Start { brokers: &brokers, registry: &registry, workers: 1, replicas: 1 };
    let connect = Connect::start(store, &start)?;
    for connector in [TRANSACTIONS, LEDGER] {
        connect.create(&connector, &QUICK)?;
    }
    Ok(connect)
}

/// The statements of `deploy/downstream` make fewer files and snapshots of the same rows.
fn require_maintained(stage: &Stage<'_>, store: &Store<'_>) -> Result<()> {
    let tables = [TRANSACTIONS.table, LEDGER.table];
    let rows = || tables.map(|table| sorted_rows(store, table));
    let before = rows();
    let path = repository("deploy/downstream/maintenance/maintenance.sql");
    let mut statements = fs::read_to_string(path)?;
    for (waits, at_once) in WAITS {
        ensure!(statements.contains(waits), "no {waits} in the statements");
        statements = statements.replace(waits, at_once);
    }
    let output = stage.spark.sql(store, &format!("{COUNTS}{statements}\n{COUNTS}"))?;
    let counts: Vec<[i64; 2]> = output.lines().filter_map(counts).collect();
    let [[files, snapshots], [fewer_files, fewer_snapshots]] = counts[..] else {
        anyhow::bail!("two lines of counts: {output}")
    };
    println!("{files} files became {fewer_files}, {snapshots} snapshots {fewer_snapshots}");
    ensure!(fewer_files < files && fewer_snapshots < snapshots, "{output}");
    for (before, after) in before.into_iter().zip(rows()) {
        let (before, after) = (before?, after?);
        ensure!(!before.is_empty() && before == after, "{} became {}", before.len(), after.len());
    }
    Ok(())
}

/// The numbers of a line that [`COUNTS`] printed.
fn counts(line: &str) -> Option<[i64; 2]> {
    let (files, snapshots) = line.strip_prefix("files=")?.split_once(" snapshots=")?;
    Some([files.parse().ok()?, snapshots.trim().parse().ok()?])
}

fn sorted_rows(store: &Store<'_>, table: &str) -> Result<Vec<Value>> {
    let mut rows = Tables::of(store).rows(table)?;
    let place =
        |row: &Value| Some((row["kafka_partition"].as_i64()?, row["kafka_offset"].as_i64()?));
    rows.sort_by_key(place);
    Ok(rows)
}

/// The warehouse's table is lost, and all of it comes back from the lake.
fn require_restored(stage: &Stage<'_>, store: &Store<'_>) -> Result<()> {
    let warehouse = &stage.warehouse;
    stage.load_all()?;
    warehouse.execute(
        "CREATE TABLE before AS SELECT * FROM dns_transactions; DROP TABLE dns_transactions",
    )?;
    stage.create_table(&[])?;
    let (conninfo, schema) = (warehouse.conninfo(), records_schema());
    let schema = schema.to_str().context("a path in UTF-8")?;
    let table = format!("lake.{}", TRANSACTIONS.table);
    #[rustfmt::skip]
    let arguments = [
        "--warehouse", &conninfo, "--from", "iceberg", &table, "--table", "dns_transactions",
        "--schema", schema, "--topic", RECORDS,
    ];
    let mut restore = stage.spark.submit_with_lake(store, "restore.py", &arguments)?;
    restore.finish(DEADLINE)?;
    let counts = restore.wait_for_event("restored", 0, DEADLINE)?;
    let messages = stage.records()?.len();
    ensure!(counts["inserted"] == messages && counts["refused"] == 0, "{counts} of {messages}");
    require_same_rows(warehouse)
}
