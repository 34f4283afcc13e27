//! What an agent writes is accepted whatever became of it on its way, and nothing else is.

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

/// How many records, if many are wanted: by hand, since a million take minutes without optimisation.
fn many() -> Option<u64> {
    env::var("TAP53_VERIFY_RECORDS").ok().and_then(|text| text.parse().ok())
}

/// Every bit where there is time for it, else one in so many.
fn bits(from: usize, to: usize, one_in: usize) -> impl Iterator<Item = usize> {
    (from..to).step_by(if many().is_some() { 1 } else { one_in })
}

/// So that a summary under another sink's name is missing, and not a second sink's.
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

/// A run of an agent: the parts that a worker, a sink and the run loop have, without what is between.
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

    /// A batch of so many records of each worker.
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
                            // So that no two records are alike but for their numbers.
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

    /// A run of three windows with so many records of each worker in each; the last one is final.
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

/// Whether something was found in this window.
fn mentions(report: &Report, window: i64) -> bool {
    report.findings.iter().any(|finding| finding.windows == Some([window; 2]))
}

/// Whether what was found is in this window, and nothing is in another one.
fn names(report: &Report, window: i64) -> bool {
    let windows: Vec<_> = report.findings.iter().filter_map(|finding| finding.windows).collect();
    !windows.is_empty() && windows.iter().all(|named| *named == [window; 2])
}

#[test]
fn what_was_written_is_proven_in_any_order_framing_and_number_of_copies() {
    let agent = Agent::whole(1, 0, 300);
    let genuine = |report: &Report| {
        assert_eq!(report.findings, [], "{report}");
        assert_eq!((report.records.expected, report.records.proven), (1_800, 1_800));
        assert_eq!((report.summaries, report.signatures_valid), (4, 4));
        assert!(report.to_string().ends_with("no tampering found\n"), "{report}");
    };
    let mut records = agent.values();
    genuine(&verify(with_key(PUBLIC), &agent.summaries, &records));
    records.reverse();
    records.extend(agent.values().into_iter().take(100));
    let summaries: Vec<_> = agent.summaries.iter().chain(&agent.summaries).cloned().collect();
    let report = verify(with_key(PUBLIC), &summaries, &records);
    genuine(&report);
    assert_eq!(report.records.duplicates, 100);
    let framed = |message: &Vec<u8>| {
        let mut framed = Vec::new();
        frame(7, &message[10..], &mut framed);
        framed
    };
    let records: Vec<_> = records.iter().map(framed).collect();
    let summaries: Vec<_> = summaries.iter().map(framed).collect();
    genuine(&verify(with_key(PUBLIC), &summaries, &records));
}

/// From files, where values are and no bytes.
#[test]
fn containers_and_lines_of_json_prove_the_same() {
    let agent = Agent::whole(1, 0, 300);
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let mut file =
        AvroFile::begin(fs::File::create(at("records.avro")).unwrap(), Profile::Full).unwrap();
    agent.records.iter().for_each(|record| file.push(&record.bytes[10..]).unwrap());
    file.finish().unwrap();
    let mut writer = apache_avro::Writer::new(summary_schema().unwrap(), Vec::new()).unwrap();
    let mut lines = String::new();
    for summary in &agent.summaries {
        let reader =
            apache_avro::reader::datum::GenericDatumReader::builder(summary_schema().unwrap());
        let value = reader.build().unwrap().read_value(&mut &summary[10..]).unwrap();
        lines.push_str(&(files_json(value.clone()) + "\n"));
        writer.append_value(value).unwrap();
    }
    fs::write(at("summaries.avro"), writer.into_inner().unwrap()).unwrap();
    fs::write(at("summaries.json"), &lines).unwrap();
    let mut lines = Vec::new();
    for record in agent.records.iter().rev() {
        push_json_line(Profile::Full, &record.bytes[10..], &mut lines).unwrap();
    }
    fs::write(at("records.json"), &lines).unwrap();
    for names in [
        ["records.avro", "summaries.avro"],
        ["summaries.json", "records.json"],
        ["records.json", "summaries.avro"],
    ] {
        let mut verifier = Verifier::new(with_key(PUBLIC)).unwrap();
        read_files(&mut verifier, &names.map(at)).unwrap();
        let report = verifier.finish();
        assert_eq!(report.findings, [], "{names:?}: {report}");
        assert_eq!((report.records.proven, report.signatures_valid), (1_800, 4));
    }
    // A value that is changed in the text.
    let text = String::from_utf8(lines).unwrap().replacen("\"qtype\":\"A\"", "\"qtype\":\"NS\"", 1);
    fs::write(at("records.json"), text).unwrap();
    let mut verifier = Verifier::new(with_key(PUBLIC)).unwrap();
    read_files(&mut verifier, &["summaries.json", "records.json"].map(at)).unwrap();
    let report = verifier.finish();
    assert_eq!(kinds(&report), [Kind::RecordsAltered]);
    assert!(names(&report, 3), "{report}");
}

fn files_json(value: apache_avro::types::Value) -> String {
    files::to_json(value).unwrap().to_string()
}

#[test]
fn every_flipped_bit_of_a_record_is_found_and_its_window_named() {
    let agent = Agent::whole(1, 0, 2);
    for window in 1..=3 {
        let position = agent.position(u16::from(window == 2), window);
        let mut records = agent.values();
        let end = 8 * records[position].len();
        assert!(end > 2_000);
        for bit in bits(0, end, if window == 2 { 1 } else { 29 }) {
            records[position][bit / 8] ^= 1 << (bit % 8);
            let report = verify(Options::default(), &agent.summaries, &records);
            assert!(mentions(&report, window), "bit {bit} in window {window}: {report}");
            records[position][bit / 8] ^= 1 << (bit % 8);
        }
    }
}

/// Every bit of what a signature covers, and of the signature.
#[test]
fn every_flipped_bit_of_a_signed_summary_is_found() {
    let agent = Agent::whole(1, 0, 1);
    let records = agent.values();
    let mut summaries = agent.summaries.clone();
    // Also the last one, which no other follows.
    for position in [1, 3] {
        for bit in bits(80, 8 * summaries[position].len(), 23) {
            summaries[position][bit / 8] ^= 1 << (bit % 8);
            let report = verify(of_sink(with_key(PUBLIC)), &summaries, &records);
            assert!(!report.findings.is_empty(), "bit {bit} of summary {position}");
            summaries[position][bit / 8] ^= 1 << (bit % 8);
        }
    }
}

/// Without a signature: what the next one follows, and what records are checked by.
#[test]
fn every_flipped_bit_of_an_unsigned_summary_that_another_follows_is_found() {
    let agent = Agent::whole(1, 0, 1);
    let records = agent.values();
    let mut summaries = agent.summaries.clone();
    let length = summaries[1].len();
    // Not the signature itself: branch, length and 64 bytes, which nothing but a key checks.
    for bit in bits(80, 8 * (length - 67), 23) {
        summaries[1][bit / 8] ^= 1 << (bit % 8);
        let report = verify(of_sink(Options::default()), &summaries, &records);
        assert!(!report.findings.is_empty(), "bit {bit}");
        summaries[1][bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn a_removed_record_is_found_where_none_is_counted_as_lost() {
    let agent = Agent::whole(1, 0, 300);
    for window in 1..=3 {
        let mut records = agent.values();
        records.remove(agent.position(1, window) + 7);
        let report = verify(Options::default(), &agent.summaries, &records);
        assert_eq!(kinds(&report), [Kind::RecordsMissing], "{report}");
        assert!(names(&report, window), "{report}");
        assert_eq!(report.findings[0].worker, Some(1));
        assert_eq!((report.records.missing, report.records.lost), (1, 0));
    }
}

#[test]
fn records_that_change_places_are_found() {
    let agent = Agent::whole(1, 0, 300);
    let [first, second] = [agent.position(0, 1) + 3, agent.position(0, 2) + 5];
    // All that a record has is bound to its number: another number in it is another record.
    let with_number_of = |from: usize, number: usize| {
        let shape = Shape::parse(tap53_records::encode::SCHEMA_TEXT).unwrap();
        let decode = |at: usize| shape.decode(&mut &agent.records[at].bytes[10..]).unwrap();
        let mut value = decode(from);
        value["record_number"] = decode(number)["record_number"].clone();
        let mut bytes = agent.records[from].bytes[..10].to_vec();
        shape.encode(&value, &mut bytes).unwrap();
        bytes
    };
    let mut records = agent.values();
    records[first] = with_number_of(second, first);
    records[second] = with_number_of(first, second);
    let report = verify(Options::default(), &agent.summaries, &records);
    assert_eq!(kinds(&report), [Kind::RecordsAltered], "{report}");
    let windows: Vec<_> = report.findings.iter().map(|finding| finding.windows).collect();
    assert_eq!(windows, [Some([1, 1]), Some([2, 2])], "{report}");
    // The order in which they come does not matter.
    let mut records = agent.values();
    records.swap(first, second);
    assert_eq!(verify(Options::default(), &agent.summaries, &records).findings, []);
}

#[test]
fn an_inserted_record_is_found() {
    let agent = Agent::whole(1, 0, 30);
    let other = Agent::whole(2, 0, 30);
    let inserted = |record: Vec<u8>| {
        let records = [agent.values(), vec![record]].concat();
        verify(Options::default(), &agent.summaries, &records)
    };
    // Of a run that nobody has heard of.
    let report = inserted(other.records[0].bytes.clone());
    assert_eq!(kinds(&report), [Kind::RecordsUnknown], "{report}");
    // Another one with a number that is taken.
    let mut forged = agent.records[4].bytes.clone();
    *forged.last_mut().unwrap() = 2;
    let report = inserted(forged);
    assert_eq!(kinds(&report), [Kind::RecordsConflict], "{report}");
    assert!(names(&report, 1));
    // With a number beyond the last one of a run that has ended.
    let more = Agent::whole(1, 0, 31);
    let report = inserted(more.records.last().unwrap().bytes.clone());
    assert_eq!(kinds(&report), [Kind::RecordsUnknown], "{report}");
    // Something else.
    for message in [&b""[..], b"\0\0\0\0\x07", b"{}"] {
        assert_eq!(kinds(&inserted(message.to_vec())), [Kind::RecordsUnreadable]);
    }
}

#[test]
fn removed_and_exchanged_summaries_are_found() {
    let agent = Agent::whole(1, 0, 30);
    let records = agent.values();
    for removed in 0..3 {
        let mut summaries = agent.summaries.clone();
        summaries.remove(removed);
        let report = verify(with_key(PUBLIC), &summaries, &records);
        assert!(kinds(&report).contains(&Kind::SummariesMissing), "{report}");
        let window = i64::try_from(removed).unwrap();
        assert!(report.findings.iter().any(|of| of.windows == Some([window; 2])), "{report}");
    }
    // Without the last one the run looks as if it went on, and its last records are not proven.
    let report = verify(with_key(PUBLIC), &agent.summaries[..3], &records);
    assert_eq!((report.findings.len(), report.runs_without_end), (0, 1));
    assert_eq!((report.records.proven, report.records.after_last_summary), (120, 60));
    // One of another run of the same length under this one's name.
    let mut exchanged = agent.summaries.clone();
    exchanged[2] = Agent::whole(1, 0, 31).summaries[2].clone();
    let report = verify(with_key(PUBLIC), &exchanged, &records);
    assert!(kinds(&report).contains(&Kind::SummaryAltered), "{report}");
    // Two different ones of one window.
    let both = [agent.summaries.clone(), vec![exchanged[2].clone()]].concat();
    let report = verify(with_key(PUBLIC), &both, &records);
    assert_eq!(kinds(&report), [Kind::SummaryAltered], "{report}");
    assert!(names(&report, 2));
}

#[test]
fn a_summary_is_signed_by_a_key_that_was_given() {
    let agent = Agent::whole(1, 0, 3);
    let records = agent.values();
    let report = verify(with_key(OTHER_PUBLIC), &agent.summaries, &records);
    assert_eq!(kinds(&report), [Kind::SignatureInvalid]);
    assert_eq!(report.findings.len(), 4);
    assert!(report.findings[0].what.contains("another key"), "{report}");
    let mut both = with_key(OTHER_PUBLIC);
    both.keys.extend(with_key(PUBLIC).keys);
    assert_eq!(verify(both, &agent.summaries, &records).signatures_valid, 4);
    let unchecked = verify(Options::default(), &agent.summaries, &records);
    assert_eq!((unchecked.findings.len(), unchecked.signatures_unchecked), (0, 4));
    let mut unsigned = Agent::start(1, 0);
    unsigned.evidence.key = None;
    unsigned.end_window(SummaryKind::Final, Some(1));
    let report = verify(with_key(PUBLIC), &unsigned.summaries, &[]);
    assert_eq!(kinds(&report), [Kind::SignatureInvalid]);
    assert!(report.findings[0].what.contains("not signed"), "{report}");
}

#[test]
fn as_many_may_be_missing_as_the_ledger_counts_and_not_one_more() {
    let mut agent = Agent::start(1, 0);
    agent.record(1_000);
    agent.end_window(SummaryKind::Window, Some(1));
    agent.lost = 10;
    agent.end_window(SummaryKind::Final, Some(2));
    let mut records = agent.values();
    records.drain(300..310);
    let report = verify(with_key(PUBLIC), &agent.summaries, &records);
    assert_eq!(report.findings, [], "{report}");
    assert_eq!((report.records.missing, report.records.lost), (10, 10));
    // One link of 256 records is without proof, and no other.
    assert_eq!((report.records.beside_missing, report.records.proven), (246, 1_744));
    records.remove(1_500);
    let report = verify(with_key(PUBLIC), &agent.summaries, &records);
    assert_eq!(kinds(&report), [Kind::RecordsMissing]);
    assert!(report.findings.iter().all(|of| of.windows == Some([1, 1])), "{report}");
}

#[test]
fn what_is_on_its_way_is_not_missing_yet() {
    let mut agent = Agent::start(1, 0);
    agent.record(30);
    agent.end_window(SummaryKind::Window, Some(0));
    let records = &agent.values()[5..];
    let report = verify(Options::default(), &agent.summaries, records);
    assert_eq!(report.findings, []);
    assert_eq!((report.records.on_their_way, report.records.missing), (5, 0));
    agent.end_window(SummaryKind::Window, Some(1));
    let report = verify(Options::default(), &agent.summaries, records);
    assert_eq!(kinds(&report), [Kind::RecordsMissing]);
}

/// A run that is killed has no final summary; the next one sends and loses what it left in the spool.
#[test]
fn a_killed_run_is_settled_by_the_next_one_of_its_node() {
    let mut killed = Agent::start(1, 0);
    killed.record(300);
    killed.end_window(SummaryKind::Window, Some(0));
    killed.record(2);
    let mut next = Agent::start(2, 1_000);
    next.record(4);
    next.lost = 4;
    next.end_window(SummaryKind::Window, Some(1));
    let summaries = [killed.summaries.clone(), next.summaries.clone()].concat();
    let records = [killed.values()[4..].to_vec(), next.values()].concat();
    let report = verify(with_key(PUBLIC), &summaries, &records);
    assert_eq!(report.findings, [], "{report}");
    assert_eq!((report.records.missing, report.records.after_last_summary), (4, 4));
    let report = verify(with_key(PUBLIC), &summaries, &records[1..]);
    assert_eq!(kinds(&report), [Kind::RecordsMissing]);
    assert!(report.findings[0].what.contains("an agent that was killed"), "{report}");
}

#[test]
fn agents_that_overlap_on_a_node_are_accepted() {
    let (mut old, mut new) = (Agent::start(1, 0), Agent::start(2, 90));
    old.record(300);
    new.record(200);
    old.end_window(SummaryKind::Window, Some(0));
    new.end_window(SummaryKind::Window, Some(1));
    // The records of the old one are on their way still.
    let summaries = [old.summaries.clone(), new.summaries.clone()].concat();
    let report = verify(with_key(PUBLIC), &summaries, &new.values());
    assert_eq!((report.findings.len(), report.records.on_their_way), (0, 600), "{report}");
    old.end_window(SummaryKind::Final, Some(2));
    let summaries = [old.summaries.clone(), new.summaries.clone()].concat();
    let records = [new.values(), old.values()].concat();
    let report = verify(with_key(PUBLIC), &summaries, &records);
    assert_eq!((report.findings.len(), report.records.proven), (0, 1_000), "{report}");
}

#[test]
fn summaries_that_an_agent_lost_are_accepted_and_their_records_not_proven() {
    let mut agent = Agent::start(1, 0);
    agent.record(30);
    agent.end_window(SummaryKind::Window, Some(1));
    agent.record(20);
    agent.summaries_lost = 1;
    agent.end_window(SummaryKind::Final, Some(2));
    agent.summaries.remove(1);
    let report = verify(with_key(PUBLIC), &agent.summaries, &agent.values());
    assert_eq!(report.findings, [], "{report}");
    assert_eq!((report.summaries_lost, report.records.without_link), (1, 60));
    assert_eq!(report.records.proven, 40);
}

#[test]
fn what_expired_before_the_oldest_summary_is_no_finding_where_that_is_said() {
    let agent = Agent::whole(1, 0, 30);
    let records = &agent.values()[45..];
    let expired = || Options { expired: true, ..with_key(PUBLIC) };
    let report = verify(expired(), &agent.summaries[2..], records);
    assert_eq!(report.findings, [], "{report}");
    assert_eq!((report.records.expected, report.records.proven), (120, 120));
    assert_eq!(report.records.before_first_summary, 15);
    let report = verify(with_key(PUBLIC), &agent.summaries[2..], records);
    assert!(kinds(&report).contains(&Kind::SummariesMissing), "{report}");
}

#[test]
fn a_sink_is_chosen_where_there_are_several() {
    let agent = Agent::whole(1, 0, 3);
    let none = Verifier::new(Options::default()).unwrap().begin_records().unwrap_err();
    assert!(matches!(none, Error::NoSummaries), "{none}");
    let other = Options { sink: Some("other".to_owned()), ..Options::default() };
    let mut verifier = Verifier::new(other).unwrap();
    agent.summaries.iter().for_each(|summary| verifier.add_summary_message(summary));
    assert!(verifier.begin_records().is_err());
}

/// A summary of thousands of links has the digest that was signed, whoever encodes it.
#[test]
fn long_summaries_are_encoded_in_one_way() {
    let mut agent = Agent::start(1, 0);
    for _ in 0..2_500 {
        // Each gap in the numbers ends a link.
        agent.numbers.iter_mut().for_each(|number| *number += 1);
        agent.record(1);
    }
    agent.end_window(SummaryKind::Final, Some(1));
    let length = agent.summaries[1].len();
    assert!(length > 150_000, "{length}");
    let report = verify(with_key(PUBLIC), &agent.summaries, &[]);
    assert_eq!((report.summaries, report.signatures_valid), (2, 2));
}

/// Many records: `TAP53_VERIFY_RECORDS` says how many. Each kind of change is made to one of them, wherever
/// it is, and found.
#[test]
fn one_change_among_many_records_is_found() {
    let each = many().unwrap_or(6_000) / 6;
    let agent = Agent::whole(1, 0, each);
    let mut records = agent.values();
    let report = verify(with_key(PUBLIC), &agent.summaries, &records);
    assert_eq!((report.findings.len(), report.records.proven), (0, 6 * each), "{report}");
    let mut seed = 53_u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % below
    };
    let changes = if many().is_some() { 4 } else { 24 };
    for change in 0..changes {
        let (position, length) = (random(records.len()), records.len());
        let window = agent.records[position].window;
        let original = records[position].clone();
        match change % 4 {
            0 => records[position][10 + change] ^= 1 << random(8),
            1 => records[position] = records[(position + 1) % length].clone(),
            2 => drop(records.remove(position)),
            _ => {
                // The record's last byte is a count that is zero.
                let mut other = original.clone();
                *other.last_mut().unwrap() = 4;
                records.push(other);
            }
        }
        let report = verify(with_key(PUBLIC), &agent.summaries, &records);
        assert!(names(&report, window), "change {change} of record {position}: {report}");
        records = agent.values();
    }
}
