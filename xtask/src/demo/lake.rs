//! The lake after Kafka: Connect writes the records and the ledger's summaries to Iceberg tables, which
//! are Parquet files on an S3 server, and DuckDB queries them.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tap53_harness::{
    account::records_equal_exchanges,
    client::Exchange,
    completeness::number,
    kafka::Kafka,
    lake::{Lake, Tables, connectors},
    namespace::Namespace,
};

use super::terminal::entry;

/// Query of the most frequent questions.
const SHOWN: &str = "SELECT client_address AS client, qname AS name, qtype AS type, \
     count(*) AS times, coalesce(any_value(rcode), 'no answer') AS result, \
     CAST(round(median(latency_ns) / 1000) AS BIGINT) AS median_us \
     FROM dns_transactions GROUP BY ALL ORDER BY times DESC, name, type LIMIT 8";

/// Starts all parts in the broker's namespace, and prints them.
pub(super) fn start<'a>(namespace: &'a Namespace, kafka: &Kafka<'_>) -> Result<Lake<'a>> {
    entry("lake", "four parts start, half a minute in all ...");
    let mut started = Instant::now();
    let mut report = |part: &str| {
        entry("", &format!("{part}, after {:.1} s", started.elapsed().as_secs_f64()));
        started = Instant::now();
    };
    connectors::topics()
        .filter(|topic| topic != super::stage::TOPIC)
        .try_for_each(|topic| kafka.create_topic(&topic))?;
    let lake = Lake::start(namespace, &kafka.address(), (1, 1), &mut report)?;
    lake.connect_all(&[])?;
    report("connectors for records and for the ledger");
    Ok(lake)
}

/// Waits until the tables have the client's queries, shows them, and checks that none is missing.
pub(super) fn compare(
    lake: &Lake<'_>,
    exchanges: &[Exchange],
    (interface, direction): (&str, &str),
) -> Result<()> {
    entry("the lake", "waiting for Connect to commit ...");
    let tables = lake.tables();
    let rows = lake.wait_for("the records and the run's end in the tables", || {
        let [counts, summaries] =
            tables.ask(["count dns_transactions", "count ledger_summaries"])?;
        if number(&counts[0], "count")? < exchanges.len() as i64
            || number(&summaries[0], "count")? == 0
        {
            return Ok(None);
        }
        let [runs] = tables.ask_completeness(["SELECT state FROM runs"])?;
        let ended = runs.iter().any(|run| run["state"] == "ended");
        ended.then(|| tables.rows(connectors::TRANSACTIONS.table)).transpose()
    })?;
    let records = in_order(rows)?;
    records_equal_exchanges(&records, exchanges, interface, direction)
        .context("the table and the client disagree")?;
    let count = records.len();
    entry("", &format!("{count} rows in Parquet on S3, each as the client saw it; by DuckDB:"));
    show(tables)?;
    prove(tables, exchanges.len())
}

/// Rows as the records that they were: in the topic's order, with the exact times.
fn in_order(mut rows: Vec<Value>) -> Result<Vec<Value>> {
    rows.sort_by_key(|row| row["kafka_offset"].as_i64());
    for row in &mut rows {
        let row = row.as_object_mut().context("a row")?;
        for field in ["query_time", "response_time", "latest_query_time"] {
            let exact = row.get(&format!("{field}_us")).cloned().unwrap_or_default();
            row.insert(field.to_owned(), exact);
        }
    }
    Ok(rows)
}

fn show(tables: Tables<'_>) -> Result<()> {
    let [rows] = tables.ask([SHOWN])?;
    let line = |cells: [&str; 6]| {
        let [client, name, kind, times, result, micros] = cells;
        format!("{client:<16} {name:<26} {kind:<6} {times:>5} {result:<10} {micros:>9}")
    };
    entry("", &line(["client", "name", "type", "times", "result", "median µs"]));
    for row in rows {
        let text = |column: &str| match &row[column] {
            Value::String(text) => text.clone(),
            Value::Null => "-".to_owned(),
            other => other.to_string(),
        };
        let cells = ["client", "name", "type", "times", "result", "median_us"].map(text);
        entry("", &line(cells.each_ref().map(String::as_str)));
    }
    Ok(())
}

/// The SQL of `deploy/sql` on the tables.
fn prove(tables: Tables<'_>, asked: usize) -> Result<()> {
    let [runs, windows] = tables.ask_completeness([
        "SELECT expected, arrived, missing, duplicates, complete FROM runs",
        "SELECT count(*) AS windows, count(*) FILTER (WHERE complete = 'yes') AS complete \
         FROM windows",
    ])?;
    let (run, windows) = (runs.first().context("a run")?, &windows[0]);
    let [expected, arrived, missing, duplicates] =
        ["expected", "arrived", "missing", "duplicates"].map(|column| number(run, column));
    let (expected, arrived) = (expected?, arrived?);
    let (all, complete) = (number(windows, "windows")?, number(windows, "complete")?);
    ensure!(
        (expected, arrived, missing?, duplicates?) == (asked as i64, asked as i64, 0, 0)
            && run["complete"] == "yes"
            && all == complete,
        "the table is not complete: {run}, {windows}"
    );
    entry("", "every record accounted for, by deploy/sql/completeness.sql on the tables:");
    entry(
        "",
        &format!(
            "the ledger expects {expected}, {arrived} arrived; {complete} of {all} windows complete"
        ),
    );
    Ok(())
}
