//! Target `frame`: frames on their whole way to encoded records.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use apache_avro::{reader::datum::GenericDatumReader, types::Value};
use tap53::{
    config::DnsMetricsConfig,
    replay::{FileHook, Frame, InterfaceOf, Link},
    worker::{CrossWorkerQueue, Shared, Stages},
};
use tap53_base::amount::Amount;
use tap53_dns::Kept;
use tap53_ebpf::{
    record::MAX_CAPTURED_LENGTH,
    settings::{PortSet, Ports, features},
};
use tap53_insight::DnsMetrics;
use tap53_ledger::{InterfaceCounts, Ledger, Published, SinkCounts, Sources, WorkerCounts};
use tap53_records::encode::{Batch, Clock, Format, TextOptions, schema};
use tap53_sinks::{Named, Sink};
use tap53_transactions::pair::{Config, RecordIds, SharedNotes};

use super::record::{MAX_RECORD_BYTES, limit};

/// Everything that can be followed.
const FOLLOWED: u32 =
    features::FRAGMENTS | features::VXLAN | features::GENEVE | features::GRE | features::IPIP;

const ETHERNET: u32 = 1;

/// Time between two frames, nanoseconds: the timeout below passes within an input.
const INTERVAL_NS: u64 = 100_000_000;
const TIMEOUT: Duration = Duration::from_secs(1);

/// Few, so that an input can fill the table.
const CAPACITY: usize = 16;

/// Parses `bytes` as Ethernet frames, each after its length in two bytes; the last one may be cut.
///
/// # Panics
/// When a record differs from its encoding, or the ledger does not balance.
pub fn frame(bytes: &[u8]) {
    let mut path = Path::new();
    let (mut rest, mut number) = (bytes, 0);
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(after.len());
        let (frame, after) = after.split_at(length);
        number += 1;
        path.take(&Frame {
            number,
            at_ns: number * INTERVAL_NS,
            original_length: u32::try_from(frame.len()).unwrap_or(u32::MAX),
            bytes: frame,
            link_type: ETHERNET,
            interface: InterfaceOf::default(),
            direction: None,
        });
        rest = after;
    }
    path.finish();
}

/// A hook, a worker's stages, and sinks that read their records back.
pub(crate) struct Path {
    hook: FileHook,
    stages: Stages,
    workers: Published<WorkerCounts>,
    sinks: Vec<Named>,
    written: Arc<Written>,
    now_ns: u64,
}

impl Path {
    pub(crate) fn new() -> Self {
        let mut ports = Ports::default();
        for (set, port) in [(PortSet::Dns, 53), (PortSet::Vxlan, 4789), (PortSet::Geneve, 6081)] {
            ports.insert(set, port);
        }
        let written = Arc::new(Written::default());
        let sinks: Vec<Named> = [
            ("avro", Format::AvroDatum),
            ("json", Format::Json),
            ("text", Format::Text(TextOptions::default())),
        ]
        .into_iter()
        .map(|(name, format)| {
            let sink =
                ReadBack { format, counts: Published::default(), written: Arc::clone(&written) };
            Named { name: name.into(), sink: Arc::new(sink) }
        })
        .collect();
        let counted =
            DnsMetricsConfig { names: true, clients: true, ..DnsMetricsConfig::default() };
        let shared = Shared {
            wire_bytes: true,
            kept: Kept::All,
            max_record_bytes: MAX_RECORD_BYTES,
            dns_metrics: Some(DnsMetrics::new(counted)),
            ..Shared::new("node", Arc::default())
        };
        let table = Config {
            udp_timeout: TIMEOUT,
            tcp_timeout: TIMEOUT,
            capacity: CAPACITY,
            merge_interfaces: true,
        };
        let table = table.build(0, RecordIds::new([1; 8], 0), SharedNotes::default());
        let stages = Stages::new(
            table,
            &sinks,
            &shared,
            CrossWorkerQueue::single_worker(),
            Clock { utc_offset_ns: 0 },
        )
        .expect("the encoders can be made");
        let workers = stages.published();
        let hook = FileHook::new(ports, MAX_CAPTURED_LENGTH);
        Self { hook, stages, workers, sinks, written, now_ns: 0 }
    }

    pub(crate) fn take(&mut self, frame: &Frame<'_>) {
        self.now_ns = self.now_ns.max(frame.at_ns);
        match Link::of(frame) {
            Ok(link) => {
                if let Some((header, bytes)) = self.hook.capture(frame, &link, 1, FOLLOWED) {
                    self.stages.expire(self.now_ns);
                    self.stages.take_packet(&header, bytes, frame.number);
                }
            }
            Err(reason) => self.hook.refuse(reason),
        }
    }

    /// Ends the capture, and checks that everything is accounted for.
    pub(crate) fn finish(self) {
        let Self { hook, stages, workers, sinks, written, .. } = self;
        stages.finish();
        let interface = InterfaceCounts {
            name: "frames".into(),
            ifindex: 1,
            hooks: Default::default(),
            counters: *hook.counters(),
            is_pair: false,
            is_attached: true,
        };
        let sources = Sources {
            node: "node".into(),
            run: [7; 8],
            taken_at_us: 0,
            ended: true,
            is_abandoned: false,
            interfaces: vec![interface],
            workers: workers.read(),
            last_numbers: vec![workers.read().records_numbered],
            sinks: sinks
                .into_iter()
                .map(|named| (named.name, named.sink.counts().read()))
                .collect(),
        };
        let ledger = Ledger::new(&sources);
        assert!(ledger.balanced(), "{}", serde_json::to_string(&ledger).unwrap_or_default());
        assert_eq!(*lock(&written.avro), *lock(&written.json), "records in Avro, and in JSON");
    }
}

/// The parts of a record that are compared between encodings: dns_id, qname, and the number of answers.
type Essence = (i64, Option<String>, usize);

/// The records that were read back, in order.
#[derive(Default)]
struct Written {
    avro: Mutex<Vec<Essence>>,
    json: Mutex<Vec<Essence>>,
}

/// Reads every record with a decoder that is not ours.
struct ReadBack {
    format: Format,
    counts: Published<SinkCounts>,
    written: Arc<Written>,
}

impl Sink for ReadBack {
    fn format(&self) -> Format {
        self.format
    }

    fn counts(&self) -> &Published<SinkCounts> {
        &self.counts
    }

    fn write(&self, batch: &Batch) {
        for (record, _) in batch.iter() {
            // A query and a response.
            let limit = limit(self.format, 2 << 16);
            assert!(record.len() <= limit, "{} bytes of {:?}", record.len(), self.format);
            match self.format {
                Format::AvroDatum => {
                    lock(&self.written.avro).push(read_avro(record));
                }
                Format::Json => lock(&self.written.json).push(read_json(record)),
                _ => require_line(record),
            }
        }
        let taken = Amount { records: batch.records(), messages: batch.messages() };
        self.counts.update(|counts| {
            counts.offer(taken);
            counts.delivered += taken;
        });
    }

    fn tick(&self, _now: Instant) {}

    fn close(&self, _deadline: Duration) {}
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_avro(mut record: &[u8]) -> Essence {
    thread_local! {
        static READER: GenericDatumReader<'static> =
            GenericDatumReader::builder(schema().expect("the schema parses"))
                .build()
                .expect("a reader of it");
    }
    let value = READER.with(|reader| reader.read_value(&mut record));
    let value = value.expect("apache-avro reads the record");
    assert!(record.is_empty(), "{} bytes behind the record", record.len());
    let Value::Record(fields) = value else { panic!("no record: {value:?}") };
    let field = |name: &str| {
        let found = fields.iter().find(|(field, _)| field == name);
        match found.map(|(_, value)| value) {
            Some(Value::Union(_, value)) => value.as_ref(),
            Some(value) => value,
            None => panic!("no {name}"),
        }
    };
    let Value::Int(id) = field("dns_id") else { panic!("{:?}", field("dns_id")) };
    let qname = match field("qname") {
        Value::String(name) => Some(name.clone()),
        _ => None,
    };
    let answers = match field("answers") {
        Value::Array(answers) => answers.len(),
        _ => 0,
    };
    (i64::from(*id), qname, answers)
}

fn read_json(record: &[u8]) -> Essence {
    let record: serde_json::Value = serde_json::from_slice(record).expect("serde_json reads it");
    let answers = record["answers"].as_array().map_or(0, Vec::len);
    (
        record["dns_id"].as_i64().expect("an identifier"),
        record["qname"].as_str().map(str::to_owned),
        answers,
    )
}

/// A line for a terminal: nothing in it moves the cursor or ends the line early.
fn require_line(record: &[u8]) {
    let text = std::str::from_utf8(record).expect("UTF-8");
    let line = text.strip_suffix('\n').expect("a line");
    assert!(!line.chars().any(char::is_control), "{line:?}");
}
