//! The long form: numbered transactions while an agent, a broker, a Connect worker of two and the S3
//! server are killed by SIGKILL, and a foreign message comes. `cargo xtask lake` runs it and writes the
//! table of `docs/lake.md`.

#[path = "../delivery/run.rs"]
#[expect(dead_code, unused_imports, reason = "the tests of delivery use the rest")]
mod run;

use std::{env, fs, path::Path, process::Command, time::Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use run::{DEADLINE, Run, namespace, spool};
use tap53_harness::{
    completeness::number,
    kafka::Kafka,
    lake::{DEAD_LETTERS, LEDGER, Lake, TRANSACTIONS, Tables, connectors},
    namespace::Namespace,
    process::run as run_to_end,
    scratch, wait,
};

/// Variable with the number of transactions; a million by default.
const RECORDS_VARIABLE: &str = "TAP53_LAKE_RECORDS";
/// Variable with the file for the rows of the table.
const TABLE_VARIABLE: &str = "TAP53_LAKE_TABLE";
/// Bytes on disk; what comes while the broker is down is more.
const SPOOL_BYTES: u32 = 4 << 20;
/// Records of this many take more than that.
const TOO_MANY_FOR_SPOOL: u32 = 40_000;
/// And of this many do not.
const FEW_FOR_SPOOL: u32 = 3_000;

/// The stage, and what happened on it.
struct Trial<'a> {
    lake: Lake<'a>,
    kafka: Kafka<'a>,
    namespace: &'a Namespace,
    keys: String,
    /// Restarts failed tasks, as Strimzi's `autoRestart` does.
    restarts: u32,
}

fn main() -> Result<()> {
    let records: u32 = env::var(RECORDS_VARIABLE).map_or(Ok(1_000_000), |count| count.parse())?;
    ensure!(records >= 8, "{RECORDS_VARIABLE} is too small");
    let namespace = namespace()?;
    let directory = scratch::directory("queue")?;
    let mut trial = Trial::set(&namespace, directory.path())?;
    let started = Instant::now();

    // An agent that is killed, while a worker is, and then the S3 server.
    let mut run = trial.agent(0)?;
    trial.feed(&mut run, records / 4, "all parts run")?;
    trial.lake.connect.kill(0);
    trial.feed(&mut run, records / 8, "a worker of two was killed")?;
    trial.lake.connect.restart(0)?;
    trial.lake.store.kill();
    trial.feed(&mut run, records / 8, "the S3 server was killed")?;
    trial.lake.store.restart()?;
    trial.send_foreign_message()?;
    let mut next = run.next();
    trial.wait_until_summarized(next)?;
    run.kill()?;
    println!("the agent was killed");

    // One under which the broker is killed, with room for what comes meanwhile.
    let mut run = trial.agent(next)?;
    trial.feed(&mut run, records / 8, "the next agent")?;
    trial.kafka.kill();
    trial.feed(&mut run, FEW_FOR_SPOOL, "the broker was killed")?;
    trial.kafka.restart()?;
    trial.feed(&mut run, records / 8, "the broker is back")?;
    next = run.next();
    run.finish()?.require_nothing_lost()?;

    // One that starts without a broker, and loses what its spool cannot hold: nothing was on its way, so
    // what it counts is exactly what is missing.
    trial.kafka.kill();
    let mut run = trial.agent(next)?;
    trial.feed(&mut run, TOO_MANY_FOR_SPOOL, "an agent without a broker")?;
    trial.kafka.restart()?;
    trial.feed(&mut run, records / 4, "the broker is back")?;
    next = run.next();
    let ended = run.finish()?;
    let lost = ended.lost()?;
    ensure!(lost > 0 && ended.records("spooled")? == 0, "{lost} lost\n{}", ended.log);

    let outcome = trial.outcome(next, lost)?;
    let seconds = started.elapsed().as_secs();
    let table = format!("{outcome}| time, seconds | {seconds} |\n");
    println!("{table}");
    if let Ok(path) = env::var(TABLE_VARIABLE) {
        fs::write(&path, table).with_context(|| format!("write {path}"))?;
    }
    Ok(())
}

impl<'a> Trial<'a> {
    fn set(namespace: &'a Namespace, queue: &Path) -> Result<Self> {
        let kafka = Kafka::start(namespace)?;
        connectors::topics().try_for_each(|topic| kafka.create_topic(&topic))?;
        let lake = Lake::start(namespace, &kafka.address(), (2, 1), |part| println!("{part}"))?;
        lake.connect_all(&[("iceberg.control.commit.interval-ms", "10000")])?;
        let keys = format!(
            "message_timeout_ms: 1000\n    queue_bytes: 4194304\n    \
             registry: {{urls: [\"{}\"], timeout_ms: 1000}}\n    \
             summary: {{topic: {}, interval_s: 1}}\n    {}",
            lake.registry.url(),
            LEDGER.topic,
            spool("durable", queue, &format!("max_bytes: {SPOOL_BYTES}, replay_records_per_s: 0"))
        );
        Ok(Self { lake, kafka, namespace, keys, restarts: 0 })
    }

    fn agent(&self, next: u32) -> Result<Run> {
        Run::start(self.namespace, &self.kafka.address(), &self.keys, next)
    }

    /// Feeds so many, and meanwhile restarts tasks that have failed.
    fn feed(&mut self, run: &mut Run, count: u32, what: &str) -> Result<()> {
        const STEP: u32 = 20_000;
        println!("{what}: {count} transactions");
        for first in (0..count).step_by(STEP as usize) {
            run.feed(STEP.min(count - first))?;
            self.restart_failed();
        }
        Ok(())
    }

    fn restart_failed(&mut self) {
        for connector in connectors::FULL_PROFILE {
            // No worker may answer: the next look does it.
            if let Ok(Some(why)) = self.lake.connect.restart_failed(connector.topic) {
                self.restarts += 1;
                println!("restarted {}: {why:.200}", connector.topic);
            }
        }
    }

    fn send_foreign_message(&self) -> Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), b"not a record")?;
        let mut kcat: Command = self.namespace.command("kcat");
        kcat.args(["-P", "-b", &self.kafka.address(), "-t", TRANSACTIONS.topic]).arg(file.path());
        run_to_end(&mut kcat)?;
        Ok(())
    }

    /// Waits until the topic has at least the records below `next`, and a summary came after them: then
    /// a killed agent leaves nothing that only it knew.
    fn wait_until_summarized(&self, next: u32) -> Result<()> {
        wait::until_every(
            std::time::Duration::from_secs(1),
            "records to arrive",
            DEADLINE,
            || {
                let arrived = self.kafka.consume(TRANSACTIONS.topic)?.len();
                Ok((arrived >= next as usize).then_some(()))
            },
        )?;
        let summaries = self.kafka.consume(LEDGER.topic)?.len();
        wait::until("the next two summaries", DEADLINE, || {
            Ok((self.kafka.consume(LEDGER.topic)?.len() >= summaries + 2).then_some(()))
        })
    }

    /// Compares the table with the number of records fed, and with the counts of the ledger.
    fn outcome(&mut self, fed: u32, lost: u64) -> Result<String> {
        let messages = self.kafka.consume(TRANSACTIONS.topic)?;
        let records = messages.iter().filter(|message| message.value.first() == Some(&0)).count();
        let foreign = messages.len() - records;
        self.wait_until_committed(records)?;
        let tables: Tables<'_> = self.lake.tables();
        let [rows, windows, runs] = tables.ask_completeness([
            "SELECT count(*) AS total, count(DISTINCT kafka_offset) AS offsets, \
             count(DISTINCT qname) AS names, count(DISTINCT record_id) AS ids FROM dns_transactions",
            "SELECT complete, count(*) AS count, coalesce(sum(missing), 0)::BIGINT AS missing \
             FROM windows GROUP BY complete ORDER BY complete",
            "SELECT * FROM runs ORDER BY started_at",
        ])?;
        let row = |column: &str| number(&rows[0], column);
        let missing = i64::from(fed) - row("names")?;
        ensure!(row("total")? == records as i64, "{} rows of {records} messages", row("total")?);
        ensure!(row("offsets")? == row("total")?, "a message is twice in the table: {rows:?}");
        ensure!(missing == lost as i64, "{missing} missing, the ledger counts {lost}: {runs:#?}");
        let [killed, whole, ended] = &runs[..] else { anyhow::bail!("three runs: {runs:#?}") };
        ensure!(whole["complete"] == "yes", "{whole:#}");
        ensure!(killed["state"] == "killed" && number(killed, "missing")? == 0, "{killed:#}");
        ensure!(number(ended, "missing")? == missing, "{ended:#}");
        ensure!(number(ended, "reported_lost")? == missing, "{ended:#}");
        let in_windows: i64 =
            windows.iter().map(|row| number(row, "missing")).sum::<Result<_>>()?;
        ensure!(in_windows == missing, "the windows say {in_windows}: {windows:?}");
        let letters = self.kafka.consume(DEAD_LETTERS)?.len();
        ensure!((letters, foreign) == (1, 1), "{letters} dead letters, {foreign} foreign messages");
        let twice = row("total")? - row("ids")?;
        Ok(self.table(fed, &rows[0], (missing, lost, twice), &windows))
    }

    fn wait_until_committed(&mut self, records: usize) -> Result<()> {
        // Tasks that failed at the last moment too.
        let deadline = Instant::now() + 10 * DEADLINE;
        loop {
            self.restart_failed();
            let [counts] = self.lake.tables().ask(["count dns_transactions"])?;
            let [runs] = self.lake.tables().ask_completeness(["SELECT state FROM runs"])?;
            let ended = runs.iter().filter(|run| run["state"] == "ended").count() == 2;
            if number(&counts[0], "count")? >= records as i64 && ended {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{counts:?} of {records}, {runs:?}");
        }
    }

    fn table(
        &self,
        fed: u32,
        rows: &Value,
        (missing, lost, twice): (i64, u64, i64),
        windows: &[Value],
    ) -> String {
        let windows: Vec<_> = windows
            .iter()
            .map(|row| format!("{}: {}", row["complete"].as_str().unwrap_or("?"), row["count"]))
            .collect();
        format!(
            "| | |\n|---|---|\n\
             | transactions fed | {fed} |\n\
             | rows in the table | {} |\n\
             | messages of the topic that are twice in the table | 0 |\n\
             | records that are twice in the topic, and so in the table, with one `record_id` | {twice} |\n\
             | transactions missing in the table | {missing} |\n\
             | records that the ledger counts as lost | {lost} |\n\
             | windows by `complete` in completeness.sql | {} |\n\
             | dead letters of one foreign message | 1 |\n\
             | restarts of failed tasks | {} |\n",
            rows["total"],
            windows.join(", "),
            self.restarts
        )
    }
}
