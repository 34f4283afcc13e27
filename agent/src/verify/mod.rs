//! `tap53 verify`: verifies that records are as an agent wrote them, and that none is missing that it did
//! not lose.
//!
//! ```text
//!  summaries ─▶ chained, signed? ─▶ links of each run and worker
//!  records   ─▶ by run, worker and number ─▶ a link is recomputed when all its records have arrived
//! ```
//!
//! Summaries are added first, then records in any order, as messages or as values. A record is kept only
//! until its link is complete; some 40 bytes of it remain, to distinguish a duplicate from a forgery.
//! `docs/tamper.md` describes what is proven, `docs/decisions/tamper.md` the reasons for the design.

mod files;
mod kafka;
mod links;
mod report;
mod runs;
mod shape;
mod summary;
#[cfg(test)]
mod tests;

pub use files::read_files;
pub use kafka::read_topics;
pub use report::{Finding, Kind, Records, Report};

use std::{collections::BTreeMap, sync::OnceLock};

use serde_json::Value;

use runs::Run;
use shape::{Misfit, Shape};
use summary::{Summary, Version};
use tap53_ledger::signature::VerifyingKey;
use tap53_records::encode::{
    FLAT_SCHEMA_VERSIONS, Fingerprint, SCHEMA_VERSIONS, read_single_object, single_object_header,
    unframe,
};

/// An error that keeps records from being verified.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {path}: {why}")]
    File {
        /// Path of the file.
        path: String,
        /// The error.
        why: String,
    },
    /// A topic cannot be read.
    #[error("cannot read topic {topic}: {why}")]
    Topic {
        /// Name of the topic.
        topic: String,
        /// The error.
        why: String,
    },
    /// There are summaries of several sinks.
    #[error("there are summaries of several sinks: choose one by --sink: {0}")]
    Sinks(String),
    /// There are no summaries.
    #[error(
        "there is no summary of the ledger: name the files of the summaries too, or the sink whose summaries they are"
    )]
    NoSummaries,
    /// A schema does not parse, which is a defect of this program.
    #[error("a schema of this program does not parse: {0}")]
    Schema(String),
}

/// Options of a verification.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Public keys; each summary must be signed by one of them. If empty, signatures are not checked.
    pub keys: Vec<VerifyingKey>,
    /// The sink whose summaries are used; `None` if there is only one.
    pub sink: Option<String>,
    /// Set if records older than the oldest summary of a run may have expired.
    pub expired: bool,
}

/// A version of the record's schema.
struct RecordVersion {
    fingerprint: Fingerprint,
    shape: Shape,
}

/// The schemas that this program supports.
struct Schemas {
    summaries: Vec<Version>,
    /// Versions of the flat profile, then of the full one; the oldest of each first.
    records: Vec<RecordVersion>,
}

impl Schemas {
    fn get() -> Result<&'static Self, Misfit> {
        static SCHEMAS: OnceLock<Schemas> = OnceLock::new();
        if let Some(schemas) = SCHEMAS.get() {
            return Ok(schemas);
        }
        let version = |version: &tap53_records::encode::SchemaVersion| {
            let fingerprint = version.fingerprint().map_err(|error| error.to_string())?;
            Ok(RecordVersion { fingerprint, shape: Shape::parse(version.text)? })
        };
        let all = FLAT_SCHEMA_VERSIONS.iter().chain(&SCHEMA_VERSIONS);
        let records = all.map(version).collect::<Result<_, Misfit>>()?;
        let schemas = Self { summaries: Version::all()?, records };
        Ok(SCHEMAS.get_or_init(|| schemas))
    }
}

/// Identity of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    run_id: String,
    worker: u32,
    number: u64,
}

impl Name {
    fn of(fields: &Value) -> Result<Self, Misfit> {
        let missing = |name: &str| format!("{name}: missing");
        let run_id = fields["run_id"].as_str().ok_or_else(|| missing("run_id"))?.to_owned();
        let number = fields["record_number"].as_u64().ok_or_else(|| missing("record_number"))?;
        let worker = fields["worker"].as_u64().and_then(|worker| worker.try_into().ok());
        Ok(Self { run_id, worker: worker.ok_or_else(|| missing("worker"))?, number })
    }
}

/// Findings of one kind, run, worker and window are reported as one.
type FindingKey = (Kind, String, Option<u32>, Option<i64>);

/// Several findings.
struct Several {
    records: [u64; 2],
    count: u64,
    why: String,
}

/// Verifies records by summaries.
pub struct Verifier {
    options: Options,
    schemas: &'static Schemas,
    /// Runs by run id and sink.
    runs: BTreeMap<(String, String), Run>,
    report: Report,
    several: BTreeMap<FindingKey, Several>,
}

impl Verifier {
    /// Creates a verifier.
    ///
    /// # Errors
    /// When a schema does not parse, which is a defect of this program.
    pub fn new(options: Options) -> Result<Self, Error> {
        Ok(Self {
            options,
            schemas: Schemas::get().map_err(Error::Schema)?,
            runs: BTreeMap::new(),
            report: Report::default(),
            several: BTreeMap::new(),
        })
    }

    /// Adds a summary as it is in the topic.
    pub fn add_summary_message(&mut self, message: &[u8]) {
        let datum =
            read_single_object(message).map(|(_, datum)| datum).or_else(|| unframe(message));
        let read = |version: &Version| {
            let mut datum = datum?;
            let fields = version.shape.decode(&mut datum).ok()?;
            datum.is_empty().then_some(fields)
        };
        // A summary has its schema's version, so one that was read by a wrong schema is refused.
        let fields = self.schemas.summaries.iter().rev().find_map(read);
        match fields {
            Some(fields) => self.add_summary(&fields),
            None => self.unreadable(Kind::SummaryUnreadable, "no summary that this tap53 knows"),
        }
    }

    /// Adds a summary by its fields. Bytes are hexadecimal, times microseconds or text.
    pub fn add_summary(&mut self, fields: &Value) {
        match Summary::of(fields, &self.schemas.summaries) {
            Ok(summary) => self.put_summary(summary),
            Err(why) => self.unreadable(Kind::SummaryUnreadable, &why),
        }
    }

    fn put_summary(&mut self, summary: Summary) {
        if self.options.sink.as_ref().is_some_and(|sink| *sink != summary.sink) {
            // A summary of this sink with an altered sink name has an invalid signature.
            if self.options.keys.iter().any(|key| Some(key.id()) == summary.key) {
                self.check_signature(&summary);
            }
            return;
        }
        let of = (summary.run_id.clone(), summary.sink.clone());
        let run = self.runs.entry(of).or_default();
        let known = run.summaries.get(&summary.window);
        if known.is_some_and(|known| known.digest == summary.digest) {
            return;
        }
        if known.is_some() {
            let finding = run.finding(Kind::SummaryAltered, [summary.window; 2]);
            self.report.findings.push(finding.because("there are two different summaries of it"));
            return;
        }
        self.report.summaries += 1;
        self.check_signature(&summary);
        self.runs.entry((summary.run_id.clone(), summary.sink.clone())).or_default().put(summary);
    }

    fn check_signature(&mut self, summary: &Summary) {
        if self.options.keys.is_empty() {
            self.report.signatures_unchecked += u64::from(summary.signature.is_some());
            return;
        }
        let why = match &summary.signature {
            None => "it is not signed",
            Some(signature) => {
                let message = summary.signed_message();
                if self.options.keys.iter().any(|key| key.verifies(&message, signature)) {
                    self.report.signatures_valid += 1;
                    return;
                }
                let names = |key: &VerifyingKey| Some(key.id()) == summary.key;
                match self.options.keys.iter().any(names) {
                    true => "its signature is wrong",
                    false => "it is signed by another key than those given",
                }
            }
        };
        self.report.findings.push(Finding {
            kind: Kind::SignatureInvalid,
            node: summary.node.clone(),
            run_id: summary.run_id.clone(),
            windows: Some([summary.window; 2]),
            worker: None,
            records: None,
            what: why.to_owned(),
        });
    }

    /// Checks the summaries against each other. No summary may come after this, and no record before.
    ///
    /// # Errors
    /// When there are no summaries, or of several sinks.
    pub fn begin_records(&mut self) -> Result<(), Error> {
        let mut sinks: Vec<_> = self.runs.keys().map(|(_, sink)| sink.as_str()).collect();
        sinks.sort_unstable();
        sinks.dedup();
        if sinks.is_empty() && self.report.findings.is_empty() && self.several.is_empty() {
            return Err(Error::NoSummaries);
        }
        if sinks.len() > 1 {
            return Err(Error::Sinks(sinks.join(", ")));
        }
        for run in self.runs.values_mut() {
            self.report.findings.extend(run.check_summaries(self.options.expired));
        }
        Ok(())
    }

    /// Adds a record as it is in the topic, in either framing.
    pub fn add_record_message(&mut self, message: &[u8]) {
        let (fingerprint, datum) = match (read_single_object(message), unframe(message)) {
            (Some((fingerprint, datum)), _) => (Some(fingerprint), datum),
            (None, Some(datum)) => (None, datum),
            (None, None) => {
                return self.unreadable(
                    Kind::RecordsUnreadable,
                    "neither a single object nor framed by a registry",
                );
            }
        };
        let mut fallback = None;
        for version in self.schemas.records.iter().rev() {
            if fingerprint.is_some_and(|fingerprint| fingerprint != version.fingerprint) {
                continue;
            }
            let Some(name) = version.name(datum) else { continue };
            let is_its_own =
                self.run(&name.run_id).and_then(|run| run.fingerprint) == Some(version.fingerprint);
            if is_its_own || fallback.is_none() {
                fallback = Some((name, version.fingerprint));
            }
            if is_its_own {
                break;
            }
        }
        match fallback {
            Some((name, fingerprint)) => self.put_record(&name, fingerprint, datum),
            None => self
                .unreadable(Kind::RecordsUnreadable, "no record of a schema that this tap53 knows"),
        }
    }

    /// Adds a record by its fields. Bytes are hexadecimal, times microseconds or text.
    pub fn add_record(&mut self, fields: &Value) {
        let name = match Name::of(fields) {
            Ok(name) => name,
            Err(why) => return self.unreadable(Kind::RecordsUnreadable, &why),
        };
        match self.encode(&name, fields) {
            Ok((fingerprint, datum)) => self.put_record(&name, fingerprint, &datum),
            Err(why) => {
                let run = self.run(&name.run_id);
                let window = run.and_then(|run| run.window_of(name.worker, name.number));
                self.note(Kind::RecordsUnreadable, &name, window, &why);
            }
        }
    }

    fn encode(&self, name: &Name, fields: &Value) -> Result<(Fingerprint, Vec<u8>), Misfit> {
        // Without a chain any version is fine.
        let newest = || self.schemas.records.last().map(|version| version.fingerprint);
        let fingerprint = self.run(&name.run_id).and_then(|run| run.fingerprint).or_else(newest);
        let version = self.schemas.records.iter().find(|v| Some(v.fingerprint) == fingerprint);
        let version = version.ok_or("its run wrote by a schema that this tap53 does not know")?;
        let mut datum = Vec::new();
        version.shape.encode(fields, &mut datum)?;
        Ok((version.fingerprint, datum))
    }

    fn run(&self, run_id: &str) -> Option<&Run> {
        // One sink is left, so the first is the only one.
        let from = (run_id.to_owned(), String::new());
        self.runs.range(from..).next().filter(|((of, _), _)| of == run_id).map(|(_, run)| run)
    }

    fn put_record(&mut self, name: &Name, fingerprint: Fingerprint, datum: &[u8]) {
        let Name { run_id, worker, number } = name;
        let from = (run_id.clone(), String::new());
        let run = self.runs.range_mut(from..).next().filter(|((of, _), _)| of == run_id);
        let Some((_, run)) = run else {
            let why = "no summary of their run is here";
            return self.note(Kind::RecordsUnknown, name, None, why);
        };
        let single_object = [&single_object_header(fingerprint)[..], datum].concat();
        let found = run.put_record(*worker, *number, &single_object, &mut self.report.records);
        if let Some((kind, why)) = found {
            let window = run.window_of(*worker, *number);
            self.note(kind, name, window, why);
        }
    }

    fn unreadable(&mut self, kind: Kind, why: &str) {
        let name = Name { run_id: String::new(), worker: 0, number: 0 };
        self.note(kind, &name, None, why);
    }

    fn note(&mut self, kind: Kind, name: &Name, window: Option<i64>, why: &str) {
        let worker = (!name.run_id.is_empty()).then_some(name.worker);
        let several = self.several.entry((kind, name.run_id.clone(), worker, window));
        let records = [name.number; 2];
        let several = several.or_insert_with(|| Several { records, count: 0, why: why.to_owned() });
        several.count += 1;
        several.records[0] = several.records[0].min(name.number);
        several.records[1] = several.records[1].max(name.number);
    }

    /// Ends the verification and returns its report.
    #[must_use]
    pub fn finish(mut self) -> Report {
        for ((kind, run_id, worker, window), several) in std::mem::take(&mut self.several) {
            let node = self.run(&run_id).map(Run::node).unwrap_or_default().to_owned();
            self.report.findings.push(Finding {
                kind,
                node,
                run_id,
                windows: window.map(|window| [window; 2]),
                worker,
                records: worker.map(|_| several.records),
                what: format!("{} ({})", several.why, several.count),
            });
        }
        let runs: Vec<_> = self.runs.into_values().collect();
        self.report.runs = runs.len() as u64;
        runs::conclude(&runs, &mut self.report);
        self.report
    }
}

impl RecordVersion {
    /// Returns the identity of a datum of this version; `None` if it has another schema.
    fn name(&self, datum: &[u8]) -> Option<Name> {
        let Shape::Record(fields) = &self.shape else { return None };
        let (mut rest, mut values) = (datum, [Value::Null, Value::Null, Value::Null]);
        for (name, shape) in fields {
            match ["run_id", "worker", "record_number"].iter().position(|wanted| wanted == name) {
                Some(position) => values[position] = shape.decode(&mut rest).ok()?,
                None => shape.skip(&mut rest).ok()?,
            }
        }
        let [run_id, worker, number] = values;
        rest.is_empty().then_some(Name {
            run_id: run_id.as_str().unwrap_or_default().to_owned(),
            worker: worker.as_u64().unwrap_or_default().try_into().ok()?,
            number: number.as_u64().unwrap_or_default(),
        })
    }
}
