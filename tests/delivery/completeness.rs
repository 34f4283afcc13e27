//! The two topics account for outages, duplicates, a killed agent, and a run that ended without a broker.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tap53_harness::{
    completeness::{Consumed, number},
    kafka::Kafka,
    namespace::Namespace,
    scratch, wait,
};

use super::run::{DEADLINE, QUICK, Run, TOPIC, consume, spool};

const SUMMARIES: &str = "dns-ledger";
const AWAY: &str = "event=\"buffering_to_spool\"";
const BACK: &str = "event=\"delivery_resumed\"";

fn consume_both(kafka: &Kafka<'_>) -> Result<Consumed> {
    Ok(Consumed { records: kafka.consume(TOPIC)?, summaries: kafka.consume(SUMMARIES)? })
}

/// Waits until `is_said` is true for the runs in the topics, the oldest first.
fn wait_until_logged(
    kafka: &Kafka<'_>,
    what: &str,
    is_said: impl Fn(&[Value]) -> bool,
) -> Result<Vec<Value>> {
    wait::until(what, DEADLINE, || {
        let [runs] = consume_both(kafka)?.ask([RUNS])?;
        Ok(is_said(&runs).then_some(runs))
    })
}

const RUNS: &str = "SELECT * FROM runs ORDER BY started_at";
const WINDOWS: &str = "SELECT windows.*, started_at FROM windows JOIN last_words USING (run_id) \
                       ORDER BY started_at, window_number";

#[test]
fn the_topics_account_for_duplicates_a_killed_agent_and_spooled_records() -> Result<()> {
    let namespace = Namespace::new()?;
    namespace.ip(&["link", "set", "lo", "up"])?;
    let mut kafka = Kafka::start(&namespace)?;
    kafka.create_topic(TOPIC)?;
    kafka.create_topic(SUMMARIES)?;
    let directory = scratch::directory("queue")?;
    let keys = format!(
        "{QUICK}\n    summary: {{topic: {SUMMARIES}, interval_s: 1}}\n    {}",
        spool("durable", directory.path(), "replay_records_per_s: 0")
    );
    let start = |kafka: &Kafka<'_>, next| Run::start(&namespace, &kafka.address(), &keys, next);

    // A broker that hangs for longer than the message timeout: records come twice.
    let mut run = start(&kafka, 0)?;
    // Try again if the broker was stopped before it received any of the retried records.
    for attempt in 1.. {
        let from = run.process().stderr().len();
        run.feed_unseen(500)?;
        kafka.signal(Signal::SIGSTOP)?;
        run.feed(500)?;
        run.process().wait_for_line(AWAY, from, DEADLINE)?;
        kafka.signal(Signal::SIGCONT)?;
        run.process().wait_for_line(BACK, from, DEADLINE)?;
        run.feed(1)?;
        wait::until("all to be delivered", DEADLINE, || {
            Ok((consume(&kafka)?.times.len() == run.next() as usize).then_some(()))
        })?;
        if consume(&kafka)?.duplicates() > 0 {
            break;
        }
        ensure!(attempt < 10, "none came twice");
    }
    let mut next = run.next();
    run.finish()?.require_nothing_lost()?;
    let consumed = consume_both(&kafka)?;
    let [runs] = consumed.ask([RUNS])?;
    let first = &runs[0];
    require(first, "ended", "yes", next.into())?;
    let duplicates = consumed.records.len() as i64 - i64::from(next);
    assert_eq!(number(first, "duplicates")?, duplicates, "{first}");
    println!("{duplicates} duplicates of {next}");

    // An agent that is killed, with records in its spool that are in no summary.
    let mut run = start(&kafka, next)?;
    run.feed(400)?;
    wait_until_logged(&kafka, "a summary of all records", |runs| {
        runs.len() == 2 && runs[1]["expected"] == 400 && runs[1]["missing"] == 0
    })?;
    kafka.signal(Signal::SIGSTOP)?;
    run.feed(300)?;
    next = run.next();
    run.kill()?;
    kafka.signal(Signal::SIGCONT)?;
    let [runs, windows] = consume_both(&kafka)?.ask([RUNS, WINDOWS])?;
    // No summary shows yet that it was killed.
    assert_eq!((&runs[1]["state"], &runs[1]["complete"]), (&json!("running"), &json!("not yet")));
    assert_eq!(windows.last().context("windows")?["complete"], "open");

    // The next run delivers them, and nothing of the killed one is in flight any more.
    let run = start(&kafka, next)?;
    let runs = wait_until_logged(&kafka, "what was carried to arrive", |runs| {
        runs.len() == 3 && runs[1]["arrived"] == 700
    })?;
    assert_eq!(runs[1]["state"], "killed", "{runs:?}");
    run.finish()?.require_nothing_lost()?;
    let [runs, windows] = consume_both(&kafka)?.ask([RUNS, WINDOWS])?;
    assert_eq!((&runs[1]["state"], &runs[1]["complete"]), (&json!("killed"), &json!("unknown")));
    // A window may have ended between the last records and the kill.
    let expected = number(&runs[1], "expected")?;
    ensure!((400..=700).contains(&expected), "{}", runs[1]);
    assert_eq!(number(&runs[1], "missing")?, 0);
    let tail = windows.iter().find(|row| row["complete"] == "unknown").context("unknown")?;
    assert_eq!((&tail["expected"], number(tail, "arrived")?), (&Value::Null, 700 - expected));
    ensure!(windows.iter().all(|row| row["complete"] != "no"), "{windows:?}");
    require(&runs[2], "ended", "yes", 0)?;
    ensure!(number(&runs[2], "carried")? >= 300, "{}", runs[2]);

    // A run that ends without a broker: its last summaries wait with its records.
    kafka.kill();
    let mut run = start(&kafka, next)?;
    run.feed(200)?;
    run.process().wait_for_line(AWAY, 0, DEADLINE)?;
    next = run.next();
    let ended = run.terminate()?;
    ended.require_nothing_lost()?;
    assert_eq!(ended.records("spooled")?, 200);
    let run_id = ended.ledger["run_id"].clone();
    ensure!(ended.ledger["agent"]["sinks"][0]["summaries"]["waiting"].as_u64() > Some(1));
    kafka.restart()?;
    let mut run = start(&kafka, next)?;
    run.feed(100)?;
    wait_until_logged(&kafka, "what was carried to arrive", |runs| {
        runs.len() == 5 && runs[3]["arrived"] == 200 && runs[3]["state"] == "ended"
    })?;
    run.finish()?.require_nothing_lost()?;
    let consumed = consume_both(&kafka)?;
    let [runs, nodes] = consumed.ask([RUNS, "SELECT * FROM nodes"])?;
    require(&runs[3], "ended", "yes", 200)?;
    require(&runs[4], "ended", "yes", 100)?;
    for column in ["missing", "reported_lost", "waiting", "unexplained"] {
        assert_eq!(number(&nodes[0], column)?, 0, "{column}: {nodes:?}");
    }
    assert_eq!(number(&nodes[0], "killed_runs")?, 1);

    spooled_records_are_not_missing_yet(&consumed, &run_id, &runs[4]["run_id"])
}

fn require(row: &Value, state: &str, complete: &str, expected: i64) -> Result<()> {
    let said = (&row["state"], &row["complete"], &row["expected"], &row["arrived"]);
    let expected = json!(expected);
    assert_eq!(said, (&json!(state), &json!(complete), &expected, &expected), "{row}");
    assert_eq!((number(row, "missing")?, number(row, "summaries_missing")?), (0, 0), "{row}");
    Ok(())
}

/// Removes the records that the run `left` in the spool for the run `next`: first as if they were not
/// delivered yet, and then as if they never arrived.
fn spooled_records_are_not_missing_yet(
    consumed: &Consumed,
    left: &Value,
    next: &Value,
) -> Result<()> {
    let mut rest = consumed.clone();
    let [records, summaries] = consumed
        .ask(["SELECT run_id FROM dns_transactions", "SELECT run_id FROM ledger_summaries"])?;
    let mut runs_of_records = records.iter().map(|row| &row["run_id"]);
    rest.records.retain(|_| runs_of_records.next().is_some_and(|run_id| run_id != left));
    let never = rest.clone();
    let mut runs_of_summaries = summaries.iter().map(|row| &row["run_id"]);
    rest.summaries.retain(|_| runs_of_summaries.next().is_some_and(|run_id| run_id != next));
    for (topics, complete) in [(&rest, "not yet"), (&never, "no")] {
        let [runs] = topics.ask([RUNS])?;
        let row = runs.iter().find(|row| row["run_id"] == *left).context("the run")?;
        assert_eq!((&row["state"], &row["complete"]), (&json!("ended"), &json!(complete)), "{row}");
        assert_eq!(number(row, "missing")?, 200);
    }
    Ok(())
}

#[test]
fn spool_drops_are_reported_by_the_run_that_drops_them_and_the_sums_are_complete() -> Result<()> {
    let namespace = Namespace::new()?;
    namespace.ip(&["link", "set", "lo", "up"])?;
    let mut kafka = Kafka::start(&namespace)?;
    kafka.create_topic(TOPIC)?;
    kafka.create_topic(SUMMARIES)?;
    kafka.kill();
    let directory = scratch::directory("queue")?;
    let keys = format!(
        "{QUICK}\n    summary: {{topic: {SUMMARIES}, interval_s: 1}}\n    {}",
        spool("durable", directory.path(), "max_bytes: 4194304, replay_records_per_s: 0")
    );
    let (mut next, mut dropped) = (0, Vec::new());
    // Two runs without a broker: more than the spool holds, and then more again.
    for count in [14_000, 6_000] {
        let mut run = Run::start(&namespace, &kafka.address(), &keys, next)?;
        run.feed(count)?;
        next = run.next();
        let ended = run.terminate()?;
        assert_eq!(ended.records("lost/dropped_oldest")?, ended.lost()?, "{}", ended.log);
        dropped.push(i64::try_from(ended.lost()?)?);
    }
    ensure!(dropped.iter().all(|dropped| *dropped > 0), "{dropped:?}");
    kafka.restart()?;
    Run::start(&namespace, &kafka.address(), &keys, next)?.finish()?.require_nothing_lost()?;

    let consumed = consume_both(&kafka)?;
    let [runs, nodes, windows] = consumed.ask([RUNS, "SELECT * FROM nodes", WINDOWS])?;
    let [first, second, last] = &runs[..] else { anyhow::bail!("{runs:?}") };
    println!("{first:#}\n{second:#}\n{nodes:?}");
    // The first reported its own drops, and the second dropped records that the first had left.
    assert_eq!(number(first, "reported_lost")?, dropped[0], "{first}");
    assert_eq!(
        (number(second, "reported_lost")?, number(second, "carried_lost")?),
        (0, dropped[1])
    );
    assert_eq!(number(first, "missing")?, dropped[0] + dropped[1], "{first}");
    assert_eq!((&first["complete"], &second["complete"]), (&json!("no"), &json!("yes")));
    assert_eq!((number(first, "expected")?, number(second, "expected")?), (14_000, 6_000));
    // The last run delivered the rest.
    let arrived = i64::from(next) - dropped.iter().sum::<i64>();
    assert_eq!(consume(&kafka)?.times.len() as i64, arrived);
    assert_eq!((number(last, "expected")?, number(last, "carried")?), (0, arrived));
    let node = &nodes[0];
    assert_eq!((number(node, "arrived")?, number(node, "expected")?), (arrived, next.into()));
    assert_eq!(number(node, "reported_lost")?, number(node, "missing")?);
    assert_eq!((number(node, "unexplained")?, number(node, "waiting")?), (0, 0), "{node}");
    // All of them are settled, and distinguished by window.
    ensure!(windows.iter().all(|row| row["complete"] != "not yet"), "{windows:?}");
    Ok(())
}
