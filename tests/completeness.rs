//! The ledger end to end, as data: records and summaries are consumed from a real broker, and the SQL
//! of the documentation says which arrived, which are missing and why. Held against what was sent,
//! what was consumed, and the agent's own ledger.

use std::{collections::BTreeSet, net::UdpSocket, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tap53_harness::{
    account::Ledger,
    agent::{Agent, Ended},
    completeness::{Consumed, number},
    dns,
    kafka::Kafka,
    lab::Lab,
    wait,
};

const DEADLINE: Duration = Duration::from_secs(60);
const RECORDS: &str = "dns-transactions";
const SUMMARIES: &str = "dns-ledger";

/// Two workers, rings that a stopped agent fills within moments, a filter, and no spool.
const CONFIGURATION: &str = r#"
node: gateway-1
interfaces:
  include: ["s0"]
capture:
  workers: 2
  ring_bytes: 131072
pair:
  timeout_ms: 300
filter:
  qnames: {deny: ["absent.test"]}
sinks:
  - type: kafka
    brokers: ["BROKER"]
    topic: dns-transactions
    linger_ms: 5
    message_timeout_ms: 5000
    summary: {topic: dns-ledger, interval_s: 1}
"#;

/// Answered by the resolver.
const ANSWERED: &str = "www.tap53.test";
/// Left out by the filter.
const FILTERED: &str = "nowhere.absent.test";

fn consume(kafka: &Kafka<'_>) -> Result<Consumed> {
    Ok(Consumed { records: kafka.consume(RECORDS)?, summaries: kafka.consume(SUMMARIES)? })
}

/// Sends so many queries for each of `names` from several ports, a few at a time.
fn send(lab: &Lab, count: u32, names: &[&str]) -> Result<()> {
    const SOCKETS: usize = 8;
    let client = lab.client_v4();
    let sockets: Vec<UdpSocket> =
        (0..SOCKETS).map(|_| client.udp_socket()).collect::<Result<_>>()?;
    for number in 0..count {
        for name in names {
            let query = dns::query(u16::try_from(number % 65_536)?, name, "A");
            sockets[number as usize % SOCKETS].send(&query)?;
        }
        if number % 50 == 49 {
            // The rings are small, and this is not to fill them.
            thread::yield_now();
        }
    }
    Ok(())
}

/// A number of the running agent's ledger.
fn now(agent: &Agent, pointer: &str) -> Result<u64> {
    let output = agent.command(&["status", "-o", "json"])?.output()?;
    let status: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ledger(&status["ledger"]).number(pointer)
}

fn wait_until_delivered(agent: &Agent, at_least: u64) -> Result<()> {
    wait::until("records to be delivered", DEADLINE, || {
        let delivered = now(agent, "/agent/sinks/0/records/delivered")?;
        let in_flight = now(agent, "/agent/sinks/0/records/in_flight")?;
        Ok((delivered >= at_least && in_flight == 0).then_some(()))
    })
}

/// The one row of a run.
fn of_run<'a>(rows: &'a [Value], run_id: &Value) -> Result<&'a Value> {
    rows.iter().find(|row| row["run_id"] == *run_id).with_context(|| format!("{run_id}: {rows:?}"))
}

fn lost(ended: &Ended, pointer: &str) -> Result<i64> {
    Ok(i64::try_from(Ledger(&ended.ledger).sum(pointer)?)?)
}

#[test]
fn sql_reports_arrived_and_missing_records_with_reasons() -> Result<()> {
    let lab = Lab::new()?;
    let mut kafka = Kafka::start(&lab.server)?;
    kafka.create_topic(RECORDS)?;
    kafka.create_topic(SUMMARIES)?;
    let yaml = CONFIGURATION.replace("BROKER", &kafka.address());

    // A run that loses in its rings, and in its sink.
    let agent = Agent::start(&lab.server, &yaml, &[])?;
    send(&lab, 2_000, &[ANSWERED, FILTERED])?;
    wait_until_delivered(&agent, 50)?;
    agent.process().signal(Signal::SIGSTOP)?;
    send(&lab, 20_000, &[ANSWERED])?;
    agent.process().signal(Signal::SIGCONT)?;
    wait_until_delivered(&agent, 60)?;
    kafka.kill();
    send(&lab, 500, &[ANSWERED])?;
    wait::until("records to expire", DEADLINE, || {
        let lost = now(&agent, "/agent/sinks/0/records/lost/expired")?;
        let in_flight = now(&agent, "/agent/sinks/0/records/in_flight")?;
        Ok((lost > 10 && in_flight == 0).then_some(()))
    })?;
    kafka.restart()?;
    send(&lab, 500, &[ANSWERED])?;
    wait::until("records to be delivered again", DEADLINE, || {
        Ok((now(&agent, "/agent/sinks/0/records/in_flight")? == 0).then_some(()))
    })?;
    let lossy = agent.stop()?;
    assert_eq!(lossy.status.code(), Some(3), "{}", lossy.stderr);

    // And one whose sink loses nothing.
    let agent = Agent::start(&lab.server, &yaml, &[])?;
    for windows in [2, 4] {
        send(&lab, 500, &[ANSWERED, FILTERED])?;
        wait::until("another window to end", DEADLINE, || {
            // The first one may not be written yet, and then the ledger has no line for them.
            let written = now(&agent, "/agent/sinks/0/summaries/written").unwrap_or(0);
            Ok((written >= windows).then_some(()))
        })?;
    }
    wait_until_delivered(&agent, 50)?;
    let clean = agent.stop()?;
    assert_eq!(clean.status.code(), Some(0), "{}", clean.stderr);

    let consumed = consume(&kafka)?;
    let [runs, windows, nodes, losses, stages, missing, ids] = consumed.ask([
        "SELECT * FROM runs ORDER BY started_at",
        "SELECT * FROM windows ORDER BY node, run_id, window_number",
        "SELECT * FROM nodes",
        "SELECT * FROM losses",
        "SELECT * FROM stages",
        "SELECT run_id, count(*) AS records FROM missing_records GROUP BY run_id",
        "SELECT run_id, count(DISTINCT record_id) AS ids FROM dns_transactions GROUP BY run_id",
    ])?;
    assert_eq!(runs.len(), 2, "{runs:?}");
    for (ended, complete) in [(&lossy, "no"), (&clean, "yes")] {
        let ledger = Ledger(&ended.ledger);
        ledger.require_balance()?;
        let run_id = &ended.ledger["run_id"];
        let row = of_run(&runs, run_id)?;
        let sink = |key: &str| ledger.number(&format!("/agent/sinks/0/records/{key}"));
        assert_eq!((&row["state"], &row["complete"]), (&json!("ended"), &json!(complete)), "{row}");
        assert_eq!(number(row, "expected")? as u64, sink("offered")?, "{row}");
        assert_eq!(number(row, "arrived")? as u64, sink("delivered")?, "{row}");
        assert_eq!(number(row, "missing")?, lost(ended, "/agent/sinks/0/records/lost")?, "{row}");
        assert_eq!(number(row, "reported_lost")?, number(row, "missing")?, "{row}");
        assert_eq!((number(row, "waiting")?, number(row, "summaries_missing")?), (0, 0), "{row}");
        // record_id consists of run, worker and number.
        assert_eq!(number(of_run(&ids, run_id)?, "ids")?, number(row, "arrived")?);

        // The windows are the run, and each of them knows of itself.
        let its: Vec<_> = windows.iter().filter(|row| row["run_id"] == *run_id).collect();
        ensure!(its.len() > 2, "{its:?}");
        for column in ["expected", "arrived", "missing", "duplicates"] {
            let sum: i64 = its.iter().map(|row| number(row, column)).sum::<Result<_>>()?;
            assert_eq!(sum, number(row, column)?, "{column}");
        }
        for window in &its {
            let complete = if number(window, "missing")? == 0 { "yes" } else { "no" };
            assert_eq!(window["complete"], complete, "{window}");
        }

        // Each stage to the unit, as the agent's own ledger has it.
        let stage = |name: &str| {
            let found = stages.iter().find(|row| row["run_id"] == *run_id && row["stage"] == name);
            found.with_context(|| format!("no stage {name}"))
        };
        for row in stages.iter().filter(|row| row["run_id"] == *run_id) {
            assert_eq!(row["adds_up"], true, "{row}");
        }
        let transactions = stage("transactions")?;
        assert_eq!(number(transactions, "taken")? as u64, ledger.number("/agent/records/created")?);
        let filtered = ledger.sum("/agent/records/filtered")?;
        assert_eq!(number(transactions, "filtered")? as u64, filtered);
        ensure!(filtered > 0, "the filter left nothing out");
        let seen: u64 = ["ingress", "egress"]
            .map(|direction| ledger.number(&format!("/interfaces/0/{direction}/seen")))
            .into_iter()
            .sum::<Result<_>>()?;
        assert_eq!(number(stage("hooks")?, "taken")? as u64, seen);
    }

    // Why, by stage.
    let run_id = &lossy.ledger["run_id"];
    let reason = |stage: &str, reason: &str| -> Result<i64> {
        let is_it = |row: &&Value| {
            row["run_id"] == *run_id && row["stage"] == stage && row["reason"] == reason
        };
        number(losses.iter().find(is_it).with_context(|| format!("{reason}: {losses:?}"))?, "total")
    };
    let ring_full: u64 = ["ingress", "egress"]
        .map(|direction| format!("/interfaces/0/{direction}/lost/ring_full"))
        .iter()
        .map(|pointer| Ledger(&lossy.ledger).number(pointer))
        .sum::<Result<_>>()?;
    assert_eq!(reason("hooks", "ring_full")? as u64, ring_full);
    ensure!(ring_full > 0, "the rings did not overflow");
    assert_eq!(reason("sink", "expired")?, lost(&lossy, "/agent/sinks/0/records/lost")?);
    assert_eq!(missing.len(), 1, "{missing:?}");
    assert_eq!(number(&missing[0], "records")?, reason("sink", "expired")?);
    let node = &nodes[0];
    assert_eq!((nodes.len(), number(node, "unexplained")?), (1, 0), "{node}");
    assert_eq!(number(node, "missing")?, number(node, "reported_lost")?);
    println!("{runs:#?}\n{losses:#?}");

    records_that_are_taken_away_are_named(&consumed, &clean)?;
    a_summary_that_never_came_costs_no_sum(&consumed, &runs)?;
    without_its_last_summaries_a_run_is_open(&consumed, &clean)
}

/// Loses some records after the topic, and queries which.
fn records_that_are_taken_away_are_named(consumed: &Consumed, clean: &Ended) -> Result<()> {
    let run_id = &clean.ledger["run_id"];
    let [records] = consumed.ask(["SELECT run_id, worker, record_number FROM dns_transactions"])?;
    let mut rest = consumed.clone();
    let mut taken = BTreeSet::new();
    let mut position = 0;
    // They are in the same order.
    rest.records.retain(|_| {
        let record = &records[position];
        position += 1;
        let is_taken = record["run_id"] == *run_id && position % 7 == 0;
        if is_taken {
            taken.insert((record["worker"].as_i64(), record["record_number"].as_i64()));
        }
        !is_taken
    });
    ensure!(taken.len() > 5, "{} taken away", taken.len());
    // And one comes twice.
    rest.records.push(rest.records[0].clone());
    let [missing, windows, runs, nodes] = rest.ask([
        "SELECT * FROM missing_records",
        "SELECT * FROM windows WHERE missing > 0",
        "SELECT * FROM runs",
        "SELECT * FROM nodes",
    ])?;
    let named: BTreeSet<_> = missing
        .iter()
        .filter(|row| row["run_id"] == *run_id)
        .map(|row| (row["worker"].as_i64(), row["record_number"].as_i64()))
        .collect();
    assert_eq!(named, taken);
    let row = of_run(&runs, run_id)?;
    assert_eq!(row["complete"], "no", "{row}");
    assert_eq!(number(row, "missing")?, i64::try_from(taken.len())?, "{row}");
    let in_windows: i64 = windows
        .iter()
        .filter(|row| row["run_id"] == *run_id && row["complete"] == "no")
        .map(|row| number(row, "missing"))
        .sum::<Result<_>>()?;
    assert_eq!(in_windows, i64::try_from(taken.len())?);
    assert_eq!(number(&nodes[0], "unexplained")?, i64::try_from(taken.len())?);
    let duplicates: i64 = runs.iter().map(|row| number(row, "duplicates")).sum::<Result<_>>()?;
    assert_eq!(duplicates, 1, "{runs:?}");
    Ok(())
}

fn a_summary_that_never_came_costs_no_sum(consumed: &Consumed, runs: &[Value]) -> Result<()> {
    let mut rest = consumed.clone();
    // One in the middle, and one twice.
    rest.summaries.remove(2);
    rest.summaries.push(rest.summaries[3].clone());
    let [again] = rest.ask(["SELECT * FROM runs ORDER BY started_at"])?;
    for (row, before) in again.iter().zip(runs) {
        for column in ["expected", "arrived", "missing", "reported_lost", "complete"] {
            assert_eq!(row[column], before[column], "{column}");
        }
    }
    assert_eq!(number(&again[0], "summaries_missing")?, 1);
    Ok(())
}

fn without_its_last_summaries_a_run_is_open(consumed: &Consumed, clean: &Ended) -> Result<()> {
    let run_id = &clean.ledger["run_id"];
    let mut rest = consumed.clone();
    // All but the first of that run, which is the later one.
    let [order] = consumed.ask(["SELECT run_id, window_number FROM ledger_summaries"])?;
    let mut position = 0;
    rest.summaries.retain(|_| {
        let summary = &order[position];
        position += 1;
        summary["run_id"] != *run_id || summary["window_number"] == 0
    });
    let [runs, windows] = rest.ask(["SELECT * FROM runs", "SELECT * FROM windows"])?;
    let row = of_run(&runs, run_id)?;
    assert_eq!((&row["state"], &row["complete"]), (&json!("running"), &json!("not yet")), "{row}");
    let open = windows.iter().find(|row| row["run_id"] == *run_id && row["complete"] == "open");
    let open = open.context("no open window")?;
    assert_eq!((&open["window_number"], &open["expected"]), (&json!(1), &Value::Null));
    ensure!(number(open, "arrived")? > 0, "{open}");
    Ok(())
}
