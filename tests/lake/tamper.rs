//! `tap53 verify` over the tables as Connect wrote them: all is proven as it is, and every change of a
//! row or a column is found, with its window.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tap53_harness::{
    agent,
    completeness::number,
    lake::{FLAT, LEDGER},
    process::run,
    scratch, wait,
};
use tempfile::TempDir;

use super::{
    run::{DEADLINE, Run},
    stage::Stage,
};

/// Exchanges of each window.
const EXCHANGES: u32 = 200;
/// Windows of the agent that writes the flat profile.
const FLAT_WINDOWS: u32 = 3;
/// Columns that Connect adds to the full profile.
const OF_CONNECT: [&str; 3] = ["event_time", "kafka_partition", "kafka_offset"];
/// A record's name: altered, it is another record.
const NAME: [&str; 3] = ["run_id", "worker", "record_number"];

/// A row as it is exported.
type Row = Value;

/// An Ed25519 key, generated as `docs/tamper.md` describes.
pub(super) struct Keys {
    directory: TempDir,
}

impl Keys {
    pub(super) fn create() -> Result<Self> {
        let keys = Self { directory: scratch::directory("key")? };
        let (private, public) = (keys.at("private.pem"), keys.at("public.pem"));
        let openssl = || Command::new("openssl");
        run(openssl().args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(&private))?;
        fs::set_permissions(&private, Permissions::from_mode(0o400))?;
        run(openssl().args(["pkey", "-pubout", "-in"]).arg(private).arg("-out").arg(public))?;
        Ok(keys)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Options of a Kafka sink that signs its summaries.
    pub(super) fn sink_options(&self, stage: &Stage<'_>) -> String {
        format!(
            "registry: {{urls: [\"{}\"], timeout_ms: 1000}}\n    \
             summary: {{topic: {}, interval_s: 1, chain: true, signing_key_file: {}}}",
            stage.lake.registry.url(),
            LEDGER.topic,
            self.at("private.pem").display()
        )
    }

    /// Exit code and report of `tap53 verify` over lines of an export.
    fn verify(&self, summaries: &[Value], records: &[Value]) -> Result<(Option<i32>, Value)> {
        let (of_summaries, of_records) = (self.at("summaries.json"), self.at("records.json"));
        fs::write(&of_summaries, lines(summaries))?;
        fs::write(&of_records, lines(records))?;
        let arguments: [&Path; 4] =
            [&of_summaries, &of_records, Path::new("--key"), &self.at("public.pem")];
        let mut command = Command::new(agent::binary()?);
        let output =
            command.args(["verify", "-o", "json", "--sink", "kafka"]).args(arguments).output()?;
        let report = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        Ok((output.status.code(), report))
    }
}

/// A column that was altered in a row.
struct Change {
    column: String,
    before: Row,
    after: Row,
}

/// The rows of a table that are exported.
#[derive(Default)]
struct Table {
    rows: Vec<Row>,
    changes: Vec<Change>,
}

pub(super) fn require_every_change_found(stage: &Stage<'_>, keys: &Keys) -> Result<()> {
    flat_agent_delivers(stage, keys)?;
    let mut tables = read(&stage.lake.tables().tamper()?)?;
    let mut take = |name: &str| tables.remove(name).with_context(|| format!("no table {name}"));
    let (full, flat) = (take("transactions")?, take("transactions_flat")?);
    let ledger = take("ledger")?;
    let records = [&full.rows[..], &flat.rows].concat();
    let (code, report) = keys.verify(&ledger.rows, &records)?;
    ensure!(code == Some(0) && report["findings"] == json!([]), "{report:#}");
    ensure!(report["records"]["proven"] == records.len(), "{report:#}");
    ensure!(report["signatures_valid"] == ledger.rows.len(), "{report:#}");

    for table in [&full, &flat] {
        ensure!(table.changes.len() > 100, "{} columns", table.changes.len());
        require_columns_found(keys, &ledger.rows, table)?;
        require_rows_found(keys, &ledger.rows, table)?;
    }
    require_summaries_found(keys, &ledger)
}

/// An agent that writes the flat profile, and ends; then all that it sent is in the tables.
fn flat_agent_delivers(stage: &Stage<'_>, keys: &Keys) -> Result<()> {
    let (broker, options) = (stage.kafka.address(), keys.sink_options(stage));
    let mut run = Run::start_flat(stage.namespace, (&broker, FLAT.topic), &options, 0)?;
    feed(stage, &mut run, FLAT_WINDOWS)?;
    let fed = run.next() as usize;
    run.finish()?.require_nothing_lost()?;
    let tables = stage.lake.tables();
    stage.lake.wait_for("the flat records and their last summary to be committed", || {
        let flat = tables.rows(FLAT.table)?;
        let ends = "SELECT count(*) AS count FROM ledger_summaries WHERE kind = 'FINAL'";
        let [ends] = tables.ask([ends])?;
        let arrived = flat.iter().filter(|row| row["node"] == "test").count();
        Ok((arrived == fed && number(&ends[0], "count")? == 2).then_some(()))
    })
}

/// Feeds exchanges of so many windows of the ledger.
pub(super) fn feed(stage: &Stage<'_>, run: &mut Run, windows: u32) -> Result<()> {
    let summaries = || -> Result<usize> { Ok(stage.kafka.consume(LEDGER.topic)?.len()) };
    for _ in 0..windows {
        run.feed(EXCHANGES)?;
        let before = summaries()?;
        wait::until("the next summary", DEADLINE, || Ok((summaries()? > before).then_some(())))?;
    }
    Ok(())
}

fn read(answers: &[Value]) -> Result<BTreeMap<String, Table>> {
    let mut tables: BTreeMap<String, Table> = BTreeMap::new();
    for answer in answers {
        let name = answer["table"].as_str().context("a table")?;
        let table = tables.entry(name.to_owned()).or_default();
        match answer["column"].as_str() {
            None => table.rows = rows(&answer["rows"])?,
            // Connect adds these to the full profile, and no agent vouches for them.
            Some(column) if name != "transactions_flat" && OF_CONNECT.contains(&column) => {}
            Some(column) => {
                let (mut before, mut after) = (rows(&answer["before"])?, rows(&answer["after"])?);
                let only = |rows: &mut Vec<Row>| rows.pop().filter(|_| rows.is_empty());
                let (Some(before), Some(after)) = (only(&mut before), only(&mut after)) else {
                    bail!("{name}: {column} is not exported: {answer}")
                };
                table.changes.push(Change { column: column.to_owned(), before, after });
            }
        }
    }
    Ok(tables)
}

fn rows(lines: &Value) -> Result<Vec<Row>> {
    let lines = lines.as_array().context("lines")?.iter();
    lines.map(|line| Ok(serde_json::from_str(line.as_str().context("a line")?)?)).collect()
}

fn lines(rows: &[Row]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

/// Each altered column gives a finding in the record's window.
fn require_columns_found(keys: &Keys, summaries: &[Row], table: &Table) -> Result<()> {
    for Change { column, before, after } in &table.changes {
        let window = Window::of(summaries, before)?;
        let mut rows = window.rows(summaries, table);
        replace(&mut rows, before, after);
        let kinds = window.findings(keys, summaries, &rows)?;
        let expected: &[&str] = match NAME.contains(&column.as_str()) {
            true => &["records_missing"],
            // Some values are none that the field can have.
            false => &["records_altered", "records_unreadable"],
        };
        let is_found = kinds.iter().any(|kind| expected.contains(&kind.as_str()));
        ensure!(is_found, "{column}: {kinds:?}; {before} became {after}");
    }
    Ok(())
}

/// Rows that are removed, inserted and exchanged.
fn require_rows_found(keys: &Keys, summaries: &[Row], table: &Table) -> Result<()> {
    let one = &table.changes.first().context("a change")?.before;
    let window = Window::of(summaries, one)?;
    let is_elsewhere = |row: &&Row| Window::of(summaries, row).is_ok_and(|of| of != window);
    let other = table.rows.iter().find(is_elsewhere).context("a record of another window")?;
    let with_number = |record: &Row, of: &Row| {
        let mut record = record.clone();
        record["record_number"] = of["record_number"].clone();
        record
    };

    let removed: Vec<_> = table.rows.iter().filter(|row| *row != one).cloned().collect();
    let kinds = window.findings(keys, summaries, &removed)?;
    ensure!(kinds == ["records_missing"], "removed: {kinds:?}");

    let inserted = [&table.rows[..], &[with_number(other, one)]].concat();
    let kinds = window.findings(keys, summaries, &inserted)?;
    ensure!(kinds == ["records_conflict"], "inserted: {kinds:?}");

    let mut exchanged = table.rows.clone();
    replace(&mut exchanged, one, &with_number(one, other));
    replace(&mut exchanged, other, &with_number(other, one));
    for row in [one, other] {
        let kinds = Window::of(summaries, row)?.findings(keys, summaries, &exchanged)?;
        ensure!(kinds == ["records_altered"], "exchanged: {kinds:?}");
    }
    Ok(())
}

/// Each altered column of a summary, and a summary that is removed, without a look at records.
fn require_summaries_found(keys: &Keys, ledger: &Table) -> Result<()> {
    const KINDS: [&str; 4] =
        ["signature_invalid", "summary_altered", "summary_unreadable", "summaries_missing"];
    let is_found = |summaries: &[Row]| -> Result<bool> {
        let (_, report) = keys.verify(summaries, &[])?;
        let findings = report["findings"].as_array().context("findings")?;
        Ok(findings.iter().any(|finding| KINDS.iter().any(|kind| finding["kind"] == *kind)))
    };
    ensure!(!is_found(&ledger.rows)?, "nothing was altered");
    for Change { column, before, after } in &ledger.changes {
        let mut summaries = ledger.rows.clone();
        replace(&mut summaries, before, after);
        ensure!(is_found(&summaries)?, "{column}: {before} became {after}");
    }
    let one = &ledger.changes.first().context("a change")?.before;
    let removed: Vec<_> = ledger.rows.iter().filter(|row| *row != one).cloned().collect();
    ensure!(is_found(&removed)?, "removed: {one}");
    Ok(())
}

fn replace(rows: &mut [Row], before: &Row, after: &Row) {
    rows.iter_mut().filter(|row| *row == before).for_each(|row| row.clone_from(after));
}

/// A window of a run.
#[derive(Debug, PartialEq, Eq)]
struct Window {
    run_id: String,
    number: i64,
}

impl Window {
    /// The one whose summary has a record's number first.
    fn of(summaries: &[Row], record: &Row) -> Result<Self> {
        let run_id = record["run_id"].as_str().context("run_id")?.to_owned();
        let has = |summary: &&Row| {
            let workers = summary["workers"].as_array().into_iter().flatten();
            let mut workers = workers.filter(|of| of["worker"] == record["worker"]);
            summary["run_id"] == record["run_id"]
                && workers
                    .any(|of| of["last_record_number"].as_i64() >= record["record_number"].as_i64())
        };
        let windows = summaries.iter().filter(has).filter_map(|of| of["window_number"].as_i64());
        Ok(Self { run_id, number: windows.min().context("a window")? })
    }

    /// Its rows of a table.
    fn rows(&self, summaries: &[Row], table: &Table) -> Vec<Row> {
        let is_in = |row: &&Row| Self::of(summaries, row).is_ok_and(|of| of == *self);
        table.rows.iter().filter(is_in).cloned().collect()
    }

    /// Returns the kinds of its findings, each once.
    fn findings(&self, keys: &Keys, summaries: &[Row], records: &[Row]) -> Result<Vec<String>> {
        let (code, report) = keys.verify(summaries, records)?;
        ensure!(code == Some(3), "{code:?}: {report:#}");
        let findings = report["findings"].as_array().context("findings")?;
        let is_here = |finding: &&Value| {
            let windows: Option<[i64; 2]> = serde_json::from_value(finding["windows"].clone()).ok();
            finding["run_id"] == self.run_id.as_str()
                && windows.is_some_and(|[first, last]| (first..=last).contains(&self.number))
        };
        let kinds = findings.iter().filter(is_here).map(|finding| finding["kind"].as_str());
        let kinds: BTreeSet<_> = kinds.flatten().map(str::to_owned).collect();
        Ok(kinds.into_iter().collect())
    }
}
