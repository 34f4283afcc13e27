//! Records and summaries of an agent are accepted in any order and with losses; anything else is found.

use std::{env, fs};

use tap53_base::amount::Amount;
use tap53_ledger::{
    Evidence, Kind as SummaryKind, Ledger, Moment, Progress, Sealer, SinkCounts, SinkLoss, Sources,
    SummaryEncoder, Windows, WorkerCounts,
    chain::{Chain, Chains},
    signature::SigningKey,
    summary_schema,
};
use tap53_records::encode::{
    Batch, Clock, Observer, Profile, Record, SingleObject, frame, push_json_line, samples,
};
use tap53_sinks::AvroFile;
use tap53_transactions::pair::RecordIds;

use super::*;

mod records;
mod runs;
mod summaries;

/// RFC 8410 10.
const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
";
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
";
/// RFC 8032 7.1, test 2.
const OTHER_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAPUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=
-----END PUBLIC KEY-----
";

const WORKERS: u16 = 2;

/// Returns the number of records of the long test, if set: a million take minutes without optimisation.
fn many() -> Option<u64> {
    env::var("TAP53_VERIFY_RECORDS").ok().and_then(|text| text.parse().ok())
}

/// Returns every bit of a range in a long test, else one in `one_in`.
fn bits(from: usize, to: usize, one_in: usize) -> impl Iterator<Item = usize> {
    (from..to).step_by(if many().is_some() { 1 } else { one_in })
}

/// Sets the sink, so that a summary under another sink's name is missing and not a second sink's.
fn of_sink(options: Options) -> Options {
    Options { sink: Some("kafka".to_owned()), ..options }
}

fn key_file(pem: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), pem).unwrap();
    file
}

fn with_key(pem: &str) -> Options {
    Options { keys: vec![VerifyingKey::read(key_file(pem).path()).unwrap()], ..Options::default() }
}

/// A record as the agent wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Written {
    worker: u16,
    window: i64,
    bytes: Vec<u8>,
}

/// A run of an agent: the relevant parts of a worker, a sink and the run loop.
struct Agent {
    run: [u8; 8],
    evidence: Evidence,
    chains: Vec<std::sync::Arc<Chain>>,
    numbers: Vec<u64>,
    encoder: SingleObject,
    windows: Windows,
    sealer: Sealer,
    now_s: i64,
    lost: u64,
    summaries_lost: u64,
    records: Vec<Written>,
    summaries: Vec<Vec<u8>>,
}

impl Agent {
    fn start(run: u8, at_s: i64) -> Self {
        let key = SigningKey::read(key_file(PRIVATE).path()).unwrap();
        let evidence = Evidence { chains: Chains::of("kafka"), key: Some(key) };
        let run_id = data_encoding::HEXLOWER.encode(&[run; 8]);
        let chains = (0..WORKERS).map(|worker| evidence.chains.begin(&run_id, worker)).collect();
        let mut agent = Self {
            run: [run; 8],
            evidence,
            chains,
            numbers: vec![0; WORKERS.into()],
            encoder: SingleObject::new().unwrap(),
            windows: Windows::begin("dns", moment(at_s)),
            sealer: Sealer::new().unwrap(),
            now_s: at_s,
            lost: 0,
            summaries_lost: 0,
            records: Vec::new(),
            summaries: Vec::new(),
        };
        agent.end_window(SummaryKind::Start, Some(0));
        agent
    }

    /// Adds a batch of `records` records of each worker.
    fn record(&mut self, records: u64) {
        for worker in 0..WORKERS {
            let (mut batch, first) = (Batch::default(), self.numbers[usize::from(worker)] + 1);
            let observer = Observer::new("node-1", "eth0", RecordIds::new(self.run, worker));
            samples::with_record("matched", |record| {
                for number in first..first + records {
                    let record = Record {
                        observer: &observer,
                        response_observer: &observer,
                        number,
                        clock: Clock {
                            // So that records differ in more than their numbers.
                            utc_offset_ns: record.clock.utc_offset_ns
                                + i64::try_from(number).unwrap() * 1_000,
                        },
                        ..*record
                    };
                    batch.push(&mut self.encoder, &record).unwrap();
                }
            });
            self.chains[usize::from(worker)].add(first, &batch);
            self.numbers[usize::from(worker)] += records;
            let window = self.windows.current();
            let written = |bytes: &[u8]| Written { worker, window, bytes: bytes.to_vec() };
            self.records.extend(batch.iter().map(|(bytes, _)| written(bytes)));
        }
    }

    fn end_window(&mut self, kind: SummaryKind, settled_window: Option<i64>) {
        self.now_s += 60;
        let progress = Progress { settled_window, carried_lost: 0 };
        let ledger = self.ledger();
        let summary = self.windows.end(kind, "kafka", &ledger, progress, moment(self.now_s));
        let mut summary = summary.unwrap();
        self.sealer.seal(&mut summary, &self.evidence).unwrap();
        self.summaries.push(SummaryEncoder::new().unwrap().encode(&summary).unwrap());
    }

    fn ledger(&self) -> Ledger {
        let records: u64 = self.numbers.iter().sum();
        let amount = |records| Amount { records, messages: 2 * records };
        let workers = WorkerCounts {
            messages_decoded: 2 * records,
            messages_in_records: 2 * records,
            records_created: records,
            ..Default::default()
        };
        let mut sink = SinkCounts { offered: amount(records), ..Default::default() };
        sink.delivered = amount(records - self.lost);
        sink.lose(SinkLoss::Expired, amount(self.lost));
        sink.summaries.written = 9;
        sink.summaries.lost = self.summaries_lost;
        Ledger::new(&Sources {
            node: "node-1".into(),
            run: self.run,
            taken_at_us: 0,
            ended: false,
            is_abandoned: false,
            interfaces: Vec::new(),
            workers,
            last_numbers: self.numbers.clone(),
            sinks: vec![("kafka".into(), sink)],
        })
    }

    /// Creates a run of three windows with `records` records of each worker in each; the last one is final.
    fn whole(run: u8, at_s: i64, records: u64) -> Self {
        let mut agent = Self::start(run, at_s);
        for window in 1..=3 {
            agent.record(records);
            let kind = if window == 3 { SummaryKind::Final } else { SummaryKind::Window };
            agent.end_window(kind, Some(window));
        }
        agent
    }

    fn values(&self) -> Vec<Vec<u8>> {
        self.records.iter().map(|record| record.bytes.clone()).collect()
    }

    fn position(&self, worker: u16, window: i64) -> usize {
        let is_it = |record: &Written| record.worker == worker && record.window == window;
        self.records.iter().position(is_it).unwrap()
    }
}

fn moment(seconds: i64) -> Moment {
    let utc_us = 1_700_000_000_000_000 + seconds * 1_000_000;
    Moment { utc_us, monotonic_ns: seconds.unsigned_abs() * 1_000_000_000 }
}

fn verify(options: Options, summaries: &[Vec<u8>], records: &[Vec<u8>]) -> Report {
    let mut verifier = Verifier::new(options).unwrap();
    summaries.iter().for_each(|summary| verifier.add_summary_message(summary));
    verifier.begin_records().unwrap();
    records.iter().for_each(|record| verifier.add_record_message(record));
    verifier.finish()
}

fn kinds(report: &Report) -> Vec<Kind> {
    let mut kinds: Vec<_> = report.findings.iter().map(|finding| finding.kind).collect();
    kinds.dedup();
    kinds
}

/// Returns true if there is a finding in this window.
fn mentions(report: &Report, window: i64) -> bool {
    report.findings.iter().any(|finding| finding.windows == Some([window; 2]))
}

/// Returns true if all findings are in this window.
fn names(report: &Report, window: i64) -> bool {
    let windows: Vec<_> = report.findings.iter().filter_map(|finding| finding.windows).collect();
    !windows.is_empty() && windows.iter().all(|named| *named == [window; 2])
}
