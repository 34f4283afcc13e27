//! Nanoseconds per transaction, from ring record to encoded bytes, stage by stage, beside what
//! tap53 replaces: hickory-proto and serde_json. `cargo xtask bench` runs it.
//!
//! Every figure is the median of rounds in which all stages take turns, so that a machine whose
//! speed drifts slows them alike, and is CPU time of the thread, so that others on the machine do
//! not add what they take to the longer stages. Compare figures of one run only. A transaction is a query of
//! about 60 bytes and a response with three answers; nothing is configured to be hidden or left
//! out.
//!
//! With arguments, only stages run whose name contains one of them: for a profiler. `worst` is one of
//! the names.

#![allow(missing_docs, reason = "a program")]

mod hickory;
#[path = "../../crates/dns/src/message/hostile.rs"]
mod hostile;
mod sample;
mod worst;

use std::{
    cell::RefCell,
    env::args,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use apache_avro::writer::datum::GenericDatumWriter;
use nix::time::{ClockId, clock_gettime};
use tap53::worker::{CrossWorkerQueue, Shared, Stages};

use sample::{Kind, SERVER, Sample};
use tap53_base::vitals::{Reached, SinkTimings, Tally, WITHIN, WorkerTimings};
use tap53_capture::interfaces::Names;
use tap53_dns::{Content, Datagram, Flow, Kept, Origin, Packet};
use tap53_ebpf::record::RecordHeader;
use tap53_insight::{DnsMetrics, config::DnsMetricsConfig};
use tap53_ledger::{Evidence, Progress, Published, SinkCounts, Summary, chain::Chains};
use tap53_records::encode::{
    Batch, Clock, Encode, Format, NodeRole, Observer, Owner, Portion, Provenance, Record, schema,
};
use tap53_signals::{SharedSignals, SignalsConfig};
use tap53_sinks::{Named, Sink, SummarySink};
use tap53_transactions::{
    chain,
    pair::{
        self, Anomalies, Exchange, Observation, Observed, RecordId, RecordIds, SharedNotes,
        Sightings, Table, Transaction,
    },
    privacy::Policy,
};

/// Transactions in a round.
const TRANSACTIONS: usize = 2_048;
/// Rounds, the first of which only warms up.
const ROUNDS: usize = 41;

/// Takes batches and counts them; what a sink costs is measured elsewhere.
struct Discard {
    format: Format,
    counts: Published<SinkCounts>,
    timings: Option<SinkTimings>,
    evidence: Option<Evidence>,
}

/// Summaries are not measured: there is one a minute.
impl SummarySink for Discard {
    fn interval(&self) -> Duration {
        Duration::MAX
    }

    fn records_topic(&self) -> &str {
        ""
    }

    fn evidence(&self) -> Option<&Evidence> {
        self.evidence.as_ref()
    }

    fn begin_window(&self, _window: i64) -> Progress {
        Progress::default()
    }

    fn take(&self, _summary: &Summary) {}

    fn end(&self, _deadline: Duration) {}
}

impl Sink for Discard {
    fn format(&self) -> Format {
        self.format
    }

    fn counts(&self) -> &Published<SinkCounts> {
        &self.counts
    }

    fn timings(&self) -> Option<&SinkTimings> {
        self.timings.as_ref()
    }

    fn summaries(&self) -> Option<&dyn SummarySink> {
        self.evidence.as_ref().map(|_| self as &dyn SummarySink)
    }

    fn write(&self, batch: &Batch) {
        black_box(batch.bytes());
        if let Some(timings) = &self.timings {
            timings.all_reached(Reached::Written, batch.answered_at_ns(), monotonic_ns());
        }
    }

    fn tick(&self, _now: Instant) {}

    fn close(&self, _deadline: Duration) {}
}

fn table() -> Table {
    let timeout = Duration::from_secs(5);
    let config = pair::Config {
        udp_timeout: timeout,
        tcp_timeout: timeout,
        capacity: 65_536,
        merge_interfaces: true,
    };
    config.build(0, RecordIds::new([7; 8], 0), SharedNotes::default())
}

fn stages(format: Format, timings: Option<SinkTimings>) -> Stages {
    let counts = Published::default();
    stages_to(Arc::new(Discard { format, counts, timings, evidence: None }), |_| {})
}

/// Stages that write to `sink`, with the features that `enable` adds.
fn stages_to(sink: Arc<Discard>, enable: impl FnOnce(&mut Shared)) -> Stages {
    let sink = Named { name: "discard".into(), sink };
    let names = Arc::new(Names::of([(3, "eth0".to_owned())]));
    let mut shared = Shared::new("node-1", names);
    enable(&mut shared);
    Stages::new(table(), &[sink], &shared, CrossWorkerQueue::single_worker(), CLOCK)
        .expect("the embedded schema parses")
}

const CLOCK: Clock = Clock { utc_offset_ns: 1_700_000_000_000_000_000 };

fn datagram(item: &[u8]) -> (Origin, Datagram<'_>) {
    let (header, bytes) = RecordHeader::split(item).expect("a whole record");
    let packet = Packet::parse(&header, bytes, 0).expect("a whole packet");
    match packet.content {
        Content::Datagram(datagram) => (packet.origin, datagram),
        Content::Fragment(_) => unreachable!("samples are whole"),
    }
}

/// Flow and bytes of the message of `item`, and when it was captured.
fn message(item: &[u8]) -> (Flow, &[u8], u64) {
    let (origin, datagram) = datagram(item);
    let flow = origin.flow(&datagram);
    let back = Flow { client: flow.server, server: flow.client, ..flow };
    let response = datagram.payload[2] & 0x80 != 0;
    (if response { back } else { flow }, datagram.payload, origin.captured_at_ns)
}

/// Reads the message of `item` into `seen`.
fn observe(item: &[u8], seen: &mut Observation) {
    let (_, wire, at_ns) = message(item);
    seen.message.read(wire, Kept::Answers);
    seen.at_ns = at_ns;
}

/// A measured stage: nanoseconds for each transaction of each round.
struct Stage<'a> {
    name: Name,
    run: Box<dyn FnMut() + 'a>,
    rounds: Vec<f64>,
}

impl Stage<'_> {
    fn median(&self) -> f64 {
        let mut rounds = self.rounds.clone();
        rounds.sort_by(f64::total_cmp);
        rounds.get(rounds.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

/// Measurements, in the order of the table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Name {
    Read,
    ReadByHickory,
    ReadAndPair,
    EncodeAvro,
    EncodeFlat,
    EncodeJson,
    EncodeBySerde,
    EncodeByValue,
    PathToAvro,
    PathToFlat,
    PathTimed,
    PathCounted,
    PathCountedWithNames,
    PathWithSignals,
    PathChained,
    PathChainedInSmallBatches,
    PathWithChains,
    PathOfResolver,
    PathToJson,
    PathReplaced,
}

impl Name {
    const fn text(self) -> &'static str {
        match self {
            Self::Read => "read query and response",
            Self::ReadByHickory => "  the same, by hickory-proto",
            Self::ReadAndPair => "read and pair",
            Self::EncodeAvro => "encode Avro",
            Self::EncodeFlat => "  flat profile",
            Self::EncodeJson => "  JSON, by serde_json",
            Self::EncodeBySerde => "  Avro, by apache-avro's serde",
            Self::EncodeByValue => "  Avro, by apache-avro's Value",
            Self::PathToAvro => "ring record to Avro",
            Self::PathToFlat => "  to the flat profile",
            Self::PathTimed => "  the same, timed for /metrics",
            Self::PathCounted => "  the same, with metrics of the DNS",
            Self::PathCountedWithNames => "  the same, and top names and clients",
            Self::PathWithSignals => "  the same, with signals",
            Self::PathChained => "  the same, with tamper evidence",
            Self::PathChainedInSmallBatches => "  the same, 16 transactions a batch",
            Self::PathWithChains => "  the same, with chains, of no resolver",
            Self::PathOfResolver => "  the same, with chains, of a resolver",
            Self::PathToJson => "  to JSON",
            Self::PathReplaced => "  hickory-proto, hash map, serde_json",
        }
    }
}

/// They advance in time from round to round.
type Samples = RefCell<Vec<Sample>>;

/// The samples after each stage, so that each stage can be measured separately.
struct Prepared {
    samples: Samples,
    observed: Vec<[Observation; 2]>,
}

impl Prepared {
    fn new(kind: Kind) -> Self {
        let samples: Vec<Sample> =
            (0..TRANSACTIONS).map(|number| Sample::new(number, kind)).collect();
        let observed = samples
            .iter()
            .map(|sample| {
                let mut seen = [Observation::default(), Observation::default()];
                observe(&sample.query, &mut seen[0]);
                observe(&sample.response, &mut seen[1]);
                seen
            })
            .collect();
        Self { samples: RefCell::new(samples), observed }
    }

    fn transactions(&self) -> Vec<Transaction<'_>> {
        (0u64..)
            .zip(self.samples.borrow().iter().zip(&self.observed))
            .map(|(number, (sample, [query, response]))| {
                let (origin, datagram) = datagram(&sample.query);
                (number, origin.flow(&datagram), query, response)
            })
            .map(|(number, flow, query, response)| Transaction {
                id: RecordId::new([7; 8], 0, number),
                flow,
                exchange: Exchange::Matched(query, response),
                query_count: 1,
                latest_query_ns: query.at_ns,
                copy_count: 0,
                capture_gap: false,
                related: None,
                anomalies: Anomalies::NONE,
                sightings: Sightings::single(&flow),
                chain: None,
            })
            .collect()
    }
}

fn main() {
    if chosen().iter().any(|name| name == "worst") {
        return worst::measure();
    }
    println!("userspace, ns per transaction (median of {} rounds)", ROUNDS - 1);
    measure("EDNS without options", Kind::Plain);
    measure("EDNS with DO, client subnet, cookies and padding", Kind::Options);
    if chosen().is_empty() {
        worst::measure();
    }
}

/// Returns the measurements that the arguments select.
fn chosen() -> Vec<String> {
    args().skip(1).filter(|arg| !arg.starts_with('-')).collect()
}

fn measure(title: &str, kind: Kind) {
    let prepared = Prepared::new(kind);
    let samples = &prepared.samples;
    let transactions = prepared.transactions();
    let (nobody, policy) = (Owner::default(), Policy::default());
    let observer = Observer::new("node-1", "eth0", RecordIds::new([7; 8], 0));
    let records: Vec<Record<'_>> = transactions
        .iter()
        .map(|transaction| Record {
            observer: &observer,
            response_observer: &observer,
            number: 1_000,
            files: &[],
            policy: &policy,
            clock: CLOCK,
            transaction,
            client: &nobody,
            server: &nobody,
            client_provenance: Provenance::default(),
            server_provenance: Provenance::default(),
            node_role: NodeRole::Unknown,
            signals: None,
            kept_per_million: None,
            portion: &Portion::ALL,
        })
        .collect();
    let sizes = [Format::AvroDatum, Format::FlatAvroDatum, Format::Json]
        .map(|format| sizes(&records, format));
    let mut stages = vec![
        read(samples),
        read_by_hickory(samples),
        read_and_pair(samples),
        encoder(Name::EncodeAvro, &records, Format::AvroDatum),
        encoder(Name::EncodeFlat, &records, Format::FlatAvroDatum),
        encoder(Name::EncodeJson, &records, Format::Json),
        by_apache_avro(Name::EncodeBySerde, &records),
        by_apache_avro(Name::EncodeByValue, &records),
        path(Name::PathToAvro, samples, Format::AvroSingleObject),
        path(Name::PathToFlat, samples, Format::FlatAvroSingleObject),
        path_timed(samples),
        path_counted(Name::PathCounted, samples),
        path_counted(Name::PathCountedWithNames, samples),
        path_with_signals(samples),
        path_chained(Name::PathChained, samples, TRANSACTIONS),
        path_chained(Name::PathChainedInSmallBatches, samples, 16),
        path_with_chains(Name::PathWithChains, samples, kind),
        path_with_chains(Name::PathOfResolver, samples, kind),
        path(Name::PathToJson, samples, Format::Json),
        replaced(samples, &records),
    ];
    let chosen = chosen();
    let is_chosen = |stage: &Stage<'_>| {
        chosen.is_empty() || chosen.iter().any(|part| stage.name.text().contains(part.as_str()))
    };
    stages.retain(is_chosen);
    for round in 0..ROUNDS {
        samples.borrow_mut().iter_mut().for_each(Sample::advance);
        for stage in &mut stages {
            let started = cpu_time();
            (stage.run)();
            let ns = (cpu_time() - started).as_nanos() as f64 / TRANSACTIONS as f64;
            if round > 0 {
                stage.rounds.push(ns);
            }
        }
    }
    println!("\n{title}");
    print_table(&stages, sizes);
}

/// Returns the CPU time of this thread.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has this clock").into()
}

/// Each figure beside its target, where it has one.
fn print_table(stages: &[Stage<'_>], [avro, flat, json]: [Sizes; 3]) {
    let ns = |name| stages.iter().find(|stage| stage.name == name).map_or(f64::NAN, Stage::median);
    for stage in stages {
        let target = match stage.name {
            Name::PathToAvro => "   target: at most 450",
            _ => "",
        };
        println!("  {:<42} {:>8.0}{target}", stage.name.text(), stage.median());
    }
    let faster = |text: &str, target: &str, ratio: f64| {
        println!("  {text:<42} {ratio:>8.1}{target}");
    };
    let [read, replaced] = [Name::ReadAndPair, Name::PathReplaced].map(ns);
    faster("read: times faster than hickory-proto", "", ns(Name::ReadByHickory) / ns(Name::Read));
    let encode = ns(Name::EncodeJson) / ns(Name::EncodeAvro);
    faster("encode: times faster than serde_json", "   target: at least 8", encode);
    let whole = replaced / ns(Name::PathToAvro);
    faster("whole path: times faster than the replaced", "   target: at least 9", whole);
    let timed = ns(Name::PathTimed) / ns(Name::PathToAvro);
    println!("  {:<42} {timed:>8.3}", "timed, as a part of untimed");
    let [counted, named] =
        [Name::PathCounted, Name::PathCountedWithNames].map(|name| ns(name) / ns(Name::PathToAvro));
    let text = "with metrics of the DNS, as a part of without";
    println!("  {text:<42} {counted:>8.3}   target: at most 1.05");
    println!("  {:<42} {named:>8.3}", "with top names and clients too");
    let signals = ns(Name::PathWithSignals) - ns(Name::PathToAvro);
    println!("  {:<42} {signals:>8.0}   target: at most 50", "ns that signals add");
    let chained = ns(Name::PathChained) / ns(Name::PathToAvro);
    println!("  {:<42} {chained:>8.3}", "with tamper evidence, as a part of without");
    for (name, text) in [
        (Name::PathWithChains, "with chains, of no resolver, as a part of without"),
        (Name::PathOfResolver, "with chains, of a resolver, as a part of without"),
    ] {
        println!("  {text:<50} {:>8.3}", ns(name) / ns(Name::PathToAvro));
    }
    let rest = ns(Name::PathToAvro) - read - ns(Name::EncodeAvro);
    faster("whole path less read, pair and encode, ns", "", rest);
    let flat_costs = ns(Name::EncodeFlat) / ns(Name::EncodeAvro);
    faster("flat profile: times the cost of encoding", "", flat_costs);
    let sizes = |text: &str, avro: f64, json: f64, target: &str| {
        println!("  {:<42} {avro:>8.0}", format!("bytes per record{text}, Avro"));
        println!("  {:<42} {json:>8.0}", format!("bytes per record{text}, JSON"));
        println!("  {:<42} {:>8.2}{target}", "  Avro as a part of JSON", avro / json);
    };
    sizes("", avro.raw, json.raw, "   target: at most 0.43");
    println!("  {:<42} {:>8.0}", "bytes per record, flat profile", flat.raw);
    println!("  {:<42} {:>8.0}", "bytes per record after zstd, flat profile", flat.compressed);
    sizes(" after zstd", avro.compressed, json.compressed, "   target: at most 0.71");
}

fn stage<'a>(name: Name, run: impl FnMut() + 'a) -> Stage<'a> {
    Stage { name, run: Box::new(run), rounds: Vec::new() }
}

fn read(samples: &Samples) -> Stage<'_> {
    let mut seen = [Observation::default(), Observation::default()];
    stage(Name::Read, move || {
        for sample in samples.borrow().iter() {
            observe(&sample.query, &mut seen[0]);
            observe(&sample.response, &mut seen[1]);
            black_box(&seen);
        }
    })
}

fn read_by_hickory(samples: &Samples) -> Stage<'_> {
    stage(Name::ReadByHickory, move || {
        for sample in samples.borrow().iter() {
            for item in [&sample.query, &sample.response] {
                black_box(hickory::decode(datagram(item).1.payload));
            }
        }
    })
}

fn read_and_pair(samples: &Samples) -> Stage<'_> {
    let mut table = table();
    let mut seen = [Box::<Observation>::default(), Box::default()];
    stage(Name::ReadAndPair, move || {
        for sample in samples.borrow().iter() {
            for (item, seen) in [&sample.query, &sample.response].into_iter().zip(&mut seen) {
                let (flow, wire, at_ns) = message(item);
                let key = table.key(flow, u16::from_be_bytes([wire[0], wire[1]]));
                seen.message.read(wire, Kept::Answers);
                seen.at_ns = at_ns;
                black_box(matches!(table.observe(key, seen, wire), Observed::Done(_)));
            }
        }
    })
}

fn encoder<'a>(name: Name, records: &'a [Record<'a>], format: Format) -> Stage<'a> {
    let mut encoder: Box<dyn Encode> = format.build().expect("the embedded schema parses");
    let mut out = Vec::new();
    stage(name, move || {
        out.clear();
        for record in records {
            encoder.encode(record, &mut out).expect("a record of the schema");
        }
        black_box(&out);
    })
}

fn by_apache_avro<'a>(name: Name, records: &'a [Record<'a>]) -> Stage<'a> {
    let schema = schema().expect("the embedded schema parses");
    let writer = GenericDatumWriter::builder(schema).build().expect("a whole schema");
    let mut out = Vec::new();
    stage(name, move || {
        out.clear();
        for record in records {
            if name == Name::EncodeByValue {
                let value = apache_avro::to_value(record)
                    .and_then(|value| value.resolve(schema))
                    .expect("a record of the schema");
                black_box(writer.write_value_to_vec(value).expect("a resolved value"));
            } else {
                writer.write_ser(&mut out, record).expect("a record of the schema");
            }
        }
        black_box(&out);
    })
}

fn path(name: Name, samples: &Samples, format: Format) -> Stage<'_> {
    let mut stages = stages(format, None);
    stage(name, move || {
        for sample in samples.borrow().iter() {
            stages.take(&sample.query);
            stages.take(&sample.response);
        }
        stages.deliver();
    })
}

/// The path with the metrics of the DNS.
fn path_counted(name: Name, samples: &Samples) -> Stage<'_> {
    let sink = Discard {
        format: Format::AvroSingleObject,
        counts: Published::default(),
        timings: None,
        evidence: None,
    };
    let is_named = name == Name::PathCountedWithNames;
    let config =
        DnsMetricsConfig { names: is_named, clients: is_named, ..DnsMetricsConfig::default() };
    let metrics = DnsMetrics::new(config);
    let mut stages = stages_to(Arc::new(sink), |shared| shared.dns_metrics = Some(metrics));
    stage(name, move || {
        for sample in samples.borrow().iter() {
            stages.take(&sample.query);
            stages.take(&sample.response);
        }
        stages.deliver();
    })
}

/// The path with signals. Each client asks for its own name, and for the same one in each round.
fn path_with_signals(samples: &Samples) -> Stage<'_> {
    let sink = Discard {
        format: Format::AvroSingleObject,
        counts: Published::default(),
        timings: None,
        evidence: None,
    };
    let config = SignalsConfig { enabled: true, ..SignalsConfig::default() };
    let signals = SharedSignals::open(&config, 1, 0);
    let mut stages = stages_to(Arc::new(sink), |shared| shared.signals = Some(signals));
    stage(Name::PathWithSignals, move || {
        for sample in samples.borrow().iter() {
            stages.take(&sample.query);
            stages.take(&sample.response);
        }
        stages.deliver();
    })
}

/// The path with a chain of digests over the records, and a window's end a round.
fn path_chained(name: Name, samples: &Samples, batch: usize) -> Stage<'_> {
    let sink = Arc::new(Discard {
        format: Format::AvroSingleObject,
        counts: Published::default(),
        timings: None,
        evidence: Some(Evidence { chains: Chains::of("discard"), key: None }),
    });
    let mut stages = stages_to(sink.clone(), |_| {});
    stage(name, move || {
        for samples in samples.borrow().chunks(batch) {
            for sample in samples {
                stages.take(&sample.query);
                stages.take(&sample.response);
            }
            stages.deliver();
        }
        black_box(sink.evidence().map(|evidence| evidence.chains.cut()));
    })
}

/// The path with the chains behind answers. `PathOfResolver`: the server is a resolver, so that each
/// transaction is reported and waits for its verdict until the end of the batch.
fn path_with_chains(name: Name, samples: &Samples, kind: Kind) -> Stage<'_> {
    let config = chain::Config { hold: Duration::from_millis(300), capacity: 8_192 };
    let counts = Published::default();
    let format = Format::AvroSingleObject;
    let sink = Arc::new(Discard { format, counts, timings: None, evidence: None });
    let mut stages = stages_to(sink, |shared| shared.chains = Some(chain::Chains::new(config, 1)));
    if name == Name::PathOfResolver {
        // An answer, and then a query of its own.
        let answer = Sample::new(0, kind);
        let query = Sample::between(1, SERVER, [198, 51, 100, 1], kind);
        for item in [&answer.query, &answer.response, &query.query, &query.response] {
            stages.take(item);
        }
    }
    stage(name, move || {
        let mut read_up_to_ns = 0;
        for sample in samples.borrow().iter() {
            stages.take(&sample.query);
            read_up_to_ns = stages.take(&sample.response).unwrap_or_default();
        }
        // Longer than items may be out of order.
        stages.expire(read_up_to_ns + 1_000_000);
        stages.deliver();
    })
}

/// The path with all that a worker and its sink time.
fn path_timed(samples: &Samples) -> Stage<'_> {
    let mut stages = stages(Format::AvroSingleObject, Some(SinkTimings::default()));
    let (timings, mut waits) = (WorkerTimings::default(), Tally::new(WITHIN));
    stage(Name::PathTimed, move || {
        let began_ns = monotonic_ns();
        for sample in samples.borrow().iter() {
            for item in [&sample.query, &sample.response] {
                let captured_at_ns = stages.take(item).unwrap_or_default();
                waits.observe(began_ns.saturating_sub(captured_at_ns));
            }
        }
        let took = Duration::from_nanos(monotonic_ns() - began_ns);
        timings.note_batch(&mut waits, took);
        stages.deliver();
    })
}

fn monotonic_ns() -> u64 {
    let now: Duration =
        clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux has this clock").into();
    u64::try_from(now.as_nanos()).expect("five centuries")
}

/// The path that is replaced. The other fields of its records are computed before, so that it writes the
/// same.
fn replaced<'a>(samples: &'a Samples, records: &'a [Record<'a>]) -> Stage<'a> {
    let mut json: Box<dyn Encode> = Format::Json.build().expect("the embedded schema parses");
    let mut pending = hickory::Pending::new();
    let mut out = Vec::new();
    stage(Name::PathReplaced, move || {
        out.clear();
        for (sample, record) in samples.borrow().iter().zip(records) {
            let (origin, query) = datagram(&sample.query);
            let flow = origin.flow(&query);
            let query = hickory::decode(query.payload);
            pending.insert((flow.client, flow.server, query.id), query);
            let (origin, response) = datagram(&sample.response);
            let back = origin.flow(&response);
            let response = hickory::decode(response.payload);
            let query = pending.remove(&(back.server, back.client, response.id));
            assert_eq!(query.and_then(|query| query.question), response.question);
            black_box(response.answers);
            json.encode(record, &mut out).expect("a record of the schema");
        }
        black_box(&out);
    })
}

/// Bytes per record, as they are and as zstd leaves them of all together, at its usual level.
struct Sizes {
    raw: f64,
    compressed: f64,
}

fn sizes(records: &[Record<'_>], format: Format) -> Sizes {
    let mut encoder = format.build().expect("the embedded schema parses");
    let mut out = Vec::new();
    for record in records {
        encoder.encode(record, &mut out).expect("a record of the schema");
    }
    let compressed = zstd::bulk::compress(&out, zstd::DEFAULT_COMPRESSION_LEVEL);
    let compressed = compressed.expect("memory is there").len();
    let [raw, compressed] = [out.len(), compressed].map(|size| size as f64 / records.len() as f64);
    Sizes { raw, compressed }
}
