//! Queries over all nodes: the same ones in PostgreSQL, in Spark, and in DuckDB with its own views, over the
//! same records.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tap53_harness::{completeness::Consumed, kafka::Message};

use super::stage::{
    DEADLINE, FRAMING, SUMMARIES, Stage, records_schema, repository, summaries_schema,
};

/// Each is asked of all three; the columns and their order are the answer's.
const QUESTIONS: [&str; 9] = [
    "SELECT node, run_id, window_number, expected, arrived, missing, duplicates, complete FROM windows",
    "SELECT node, run_id, state, expected, arrived, missing, duplicates, reported_lost, waiting, carried, \
     carried_lost, complete, summaries_missing FROM runs",
    "SELECT node, expected, arrived, missing, reported_lost, waiting, unexplained, killed_runs FROM nodes",
    "SELECT node, run_id, stage, reason, unit, total FROM losses",
    "SELECT node, run_id, window_number, stage, reason, unit, lost FROM losses_by_window",
    "SELECT node, run_id, stage, unit, taken, passed, waiting, ignored, filtered, lost, adds_up FROM stages",
    "SELECT node, run_id, outcome, count(*) AS transactions FROM transactions GROUP BY node, run_id, outcome",
    "SELECT substr(CAST(minute AS varchar(40)), 1, 16) AS minute, client_pod_namespace, \
     client_workload_kind, client_workload_name, domain, qtype, outcome, rcode, transactions, queries, \
     answered, latency_ns, latency_ns_max, below_1_ms, below_10_ms, below_100_ms, below_1_s, query_bytes, \
     response_bytes FROM transactions_by_minute",
    "SELECT domain, node, transactions, unanswered, servfail, nxdomain FROM failures_by_node",
];
/// Each missing record by its number, of DuckDB's view and of the ranges of the other two.
const MISSING: [&str; 3] = [
    "SELECT run_id, window_number, worker, record_number, complete FROM missing_records",
    "SELECT run_id, window_number, worker, generate_series(first_number, last_number) AS record_number, \
     complete FROM missing_ranges",
    "SELECT run_id, window_number, worker, explode(sequence(first_number, last_number)) AS record_number, \
     complete FROM missing_ranges",
];
const TRANSACTIONS: usize = 6;
const ROLLUP: usize = 7;

/// Removes some of `records`, as if they had been lost after the topic, and runs the queries.
pub(super) fn require_equal_answers(stage: &Stage<'_>, records: Vec<Message>) -> Result<()> {
    let (lost, kept): (Vec<_>, Vec<_>) =
        records.into_iter().enumerate().partition(|(position, _)| position % 7 == 0);
    let without_positions = |messages: Vec<(usize, Message)>| -> Vec<Message> {
        messages.into_iter().map(|(_, message)| message).collect()
    };
    let (lost, kept) = (without_positions(lost), without_positions(kept));
    let consumed = Consumed { records: kept, summaries: stage.kafka.consume(SUMMARIES)? };

    let duckdb = duckdb(&consumed)?;
    let postgres = postgres(stage, &consumed.records)?;
    let spark = spark(stage, &consumed)?;
    for (number, question) in QUESTIONS.iter().chain(&[MISSING[0]]).enumerate() {
        ensure!(
            duckdb[number] == postgres[number],
            "PostgreSQL: {question}\n{}",
            difference(&duckdb[number], &postgres[number])
        );
        ensure!(
            duckdb[number] == spark[number],
            "Spark: {question}\n{}",
            difference(&duckdb[number], &spark[number])
        );
    }
    ensure!(
        duckdb.last().is_some_and(|missing| missing.len() == lost.len()),
        "not all are missing"
    );
    ensure!(duckdb[ROLLUP].len() > 50, "a roll-up of {} rows", duckdb[ROLLUP].len());
    require_each_once(stage, &duckdb[TRANSACTIONS])
}

/// Overlapping runs of node-1 saw the same packets; each transaction stays once.
fn require_each_once(stage: &Stage<'_>, transactions: &[String]) -> Result<()> {
    ensure!(transactions.len() > 4, "{transactions:?}");
    let number = |query: &str| stage.warehouse.number(query);
    let recorded = number("SELECT count(*) FROM dns_transactions")?;
    let kept = number("SELECT count(*) FROM transactions")?;
    let different = number(
        "SELECT count(*) FROM (SELECT DISTINCT node, client_address, dns_id FROM dns_transactions) AS d",
    )?;
    ensure!(kept == different && kept < recorded, "{kept} of {recorded}, {different} different");
    Ok(())
}

fn duckdb(consumed: &Consumed) -> Result<Vec<Vec<String>>> {
    let [a, b, c, d, e, f, g, h, i] = QUESTIONS;
    let answers = consumed.ask([a, b, c, d, e, f, g, h, i, MISSING[0]])?;
    Ok(answers.iter().map(|rows| sorted(rows)).collect())
}

/// Checks that the warehouse has exactly the remaining records.
fn postgres(stage: &Stage<'_>, kept: &[Message]) -> Result<Vec<Vec<String>>> {
    let ids: Vec<_> = kept
        .iter()
        .map(|message| {
            let id = &message.value[FRAMING..FRAMING + 16];
            format!("('\\x{}'::bytea)", data_encoding::HEXLOWER.encode(id))
        })
        .collect();
    let statement = format!(
        "DELETE FROM dns_transactions WHERE record_id NOT IN (VALUES {});\n",
        ids.join(",")
    );
    let file = stage.path("kept.sql");
    std::fs::write(&file, statement)?;
    stage.warehouse.execute_file(&file)?;
    for name in ["summaries-postgres.sql", "completeness.sql", "rollups.sql"] {
        stage.warehouse.execute_file(&repository("deploy/warehouse").join(name))?;
    }
    let questions = QUESTIONS.iter().chain(&[MISSING[1]]);
    questions.map(|question| Ok(sorted(&stage.warehouse.query(question)?))).collect()
}

/// Spark reads Parquet files, in the place of the lake.
fn spark(stage: &Stage<'_>, consumed: &Consumed) -> Result<Vec<Vec<String>>> {
    let (records, summaries) = (stage.path("kept.parquet"), stage.path("summaries.parquet"));
    stage.write_parquet(&consumed.records, &records_schema(), &records)?;
    stage.write_parquet(&consumed.summaries, &summaries_schema(), &summaries)?;
    let (records, summaries) = (records.to_string_lossy(), summaries.to_string_lossy());
    let mut arguments =
        vec!["--records", "parquet", &*records, "--summaries", "parquet", &*summaries];
    arguments.extend(QUESTIONS.iter().chain(&[MISSING[2]]));
    let mut job = stage.job("query.py", &arguments)?;
    job.finish(DEADLINE)?;
    let rows = |answer: &Value| Ok(sorted(answer["rows"].as_array().context("rows")?));
    job.events("answer").iter().map(rows).collect()
}

/// Rows as text, in an order that is no engine's.
fn sorted(rows: &[Value]) -> Vec<String> {
    let mut rows: Vec<_> = rows.iter().map(Value::to_string).collect();
    rows.sort();
    rows
}

fn difference(wanted: &[String], found: &[String]) -> String {
    let only = |one: &[String], other: &[String]| -> Vec<String> {
        one.iter().filter(|row| !other.contains(row)).take(3).cloned().collect()
    };
    format!(
        "{} rows: only in DuckDB's {:#?}\nonly in the other's {} {:#?}",
        wanted.len(),
        only(wanted, found),
        found.len(),
        only(found, wanted)
    )
}
