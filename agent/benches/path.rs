//! Nanoseconds per transaction, from ring record to encoded bytes, stage by stage, beside the JSON
//! that tap53 replaces. `cargo xtask bench` runs it.
//!
//! Every figure is the median of rounds in which all stages take turns, so that a machine whose
//! speed drifts slows them alike; compare figures of one run only. A transaction is a query of
//! about 60 bytes and a response with three answers.

#![allow(missing_docs, reason = "a program")]

use std::{
    collections::HashMap,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use apache_avro::writer::datum::GenericDatumWriter;
use tap53::{
    decode::{Content, Datagram, Origin, Packet},
    encode::{self, Batch, Clock, Encode, Format, Observer, Owner, Record, schema},
    ledger::{Published, SinkCounts},
    pair::{
        self, Exchange, Flow, Observation, Observed, RecordId, RecordIds, Table, Transaction,
        Truncations,
    },
    sink::{Named, Sink},
    worker::{Shared, Stages},
};
use tap53_ebpf::record::RecordHeader;

/// Transactions in a round.
const TRANSACTIONS: usize = 2_048;
/// Rounds, the first of which only warms up.
const ROUNDS: usize = 41;

/// A query and its response as ring records.
struct Sample {
    query: Vec<u8>,
    response: Vec<u8>,
}

impl Sample {
    fn new(number: usize) -> Self {
        // Clients differ in address and port, names in their first label.
        let id = u16::try_from(number & 0xffff).unwrap_or_default();
        let name = format!("host-{number:05}");
        let mut question = vec![u8::try_from(name.len()).unwrap_or_default()];
        question.extend(name.as_bytes());
        question.extend(b"\x07example\x04test\x00\x00\x01\x00\x01");
        // EDNS: 1,232 bytes, no options.
        let opt = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00";
        let header = |flags: [u8; 2], answers: u8| {
            let [high, low] = id.to_be_bytes();
            vec![high, low, flags[0], flags[1], 0, 1, 0, answers, 0, 0, 0, 1]
        };
        let mut query = header([0x01, 0x20], 0);
        query.extend(&question);
        query.extend(opt);
        let mut response = header([0x85, 0x80], 3);
        response.extend(&question);
        for last in 1..=3 {
            response.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x01\x2c\x00\x04\xc0\x00\x02");
            response.push(last);
        }
        response.extend(opt);
        let client = (u32::from_be_bytes([10, 0, 0, 0]) + id as u32).to_be_bytes();
        let port = 1_024 + id % 60_000;
        Self {
            query: ring_record(&query, (client, port), ([192, 0, 2, 53], 53), 0),
            response: ring_record(&response, ([192, 0, 2, 53], 53), (client, port), 1),
        }
    }
}

/// Ethernet, IPv4 and UDP around `message`, behind a record header.
fn ring_record(message: &[u8], from: ([u8; 4], u16), to: ([u8; 4], u16), direction: u8) -> Vec<u8> {
    let udp_length = u16::try_from(8 + message.len()).unwrap_or_default();
    let mut packet = vec![0; 12];
    packet.extend([0x08, 0x00, 0x45, 0]);
    packet.extend((20 + udp_length).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(from.0);
    packet.extend(to.0);
    packet.extend(from.1.to_be_bytes());
    packet.extend(to.1.to_be_bytes());
    packet.extend(udp_length.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(message);
    let length = u32::try_from(packet.len()).unwrap_or_default();
    let header = RecordHeader {
        captured_at_ns: 1_000_000 + 250_000 * u64::from(direction),
        packet_length: length,
        captured_length: length,
        ifindex: 3,
        network_offset: 14,
        transport_offset: 34,
        payload_offset: 42,
        direction,
        ip_version: 4,
        transport: 17,
        ..Default::default()
    };
    // SAFETY: RecordHeader is integers only, without padding, and lives while it is copied.
    let header =
        unsafe { std::slice::from_raw_parts((&raw const header).cast::<u8>(), RecordHeader::SIZE) };
    [header, &packet].concat()
}

/// Takes batches and counts them; what a sink costs is measured elsewhere.
struct Discard {
    format: Format,
    counts: Published<SinkCounts>,
}

impl Sink for Discard {
    fn format(&self) -> Format {
        self.format
    }

    fn counts(&self) -> &Published<SinkCounts> {
        &self.counts
    }

    fn write(&self, batch: &Batch) {
        black_box(batch.bytes());
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
    config.build(0, RecordIds::new([7; 8], 0), Truncations::default())
}

fn stages(format: Format) -> Stages {
    let sink = Named {
        name: "discard".into(),
        sink: Arc::new(Discard { format, counts: Published::default() }),
    };
    let shared = Shared {
        node: "node-1".into(),
        interfaces: Arc::new(HashMap::from([(3, "eth0".to_owned())])),
        wire_bytes: false,
        filter: Arc::default(),
        privacy: Arc::default(),
        each_message: false,
        ending: Arc::default(),
    };
    Stages::new(table(), &[sink], &shared, CLOCK).expect("the embedded schema parses")
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

/// Reads the message of `item` into `seen`; its flow and its bytes.
fn observe<'a>(item: &'a [u8], seen: &mut Observation) -> (Flow, &'a [u8]) {
    let (origin, datagram) = datagram(item);
    let flow = origin.flow(&datagram);
    seen.message.read(datagram.payload);
    seen.at_ns = origin.captured_at_ns;
    let back = Flow { client: flow.server, server: flow.client, ..flow };
    (if seen.message.response { back } else { flow }, datagram.payload)
}

/// A measured stage: its name, and nanoseconds for each transaction of each round.
struct Stage<'a> {
    name: &'static str,
    run: Box<dyn FnMut() + 'a>,
    rounds: Vec<f64>,
}

impl Stage<'_> {
    fn median(&self) -> f64 {
        let mut rounds = self.rounds.clone();
        rounds.sort_by(f64::total_cmp);
        rounds[rounds.len() / 2]
    }
}

fn main() {
    let samples: Vec<Sample> = (0..TRANSACTIONS).map(Sample::new).collect();
    let observed: Vec<[Observation; 2]> = samples
        .iter()
        .map(|sample| {
            let mut seen = [Observation::default(), Observation::default()];
            observe(&sample.query, &mut seen[0]);
            observe(&sample.response, &mut seen[1]);
            seen
        })
        .collect();
    let transactions: Vec<Transaction<'_>> = (0u64..)
        .zip(samples.iter().zip(&observed))
        .map(|(number, (sample, [query, response]))| {
            let (origin, datagram) = datagram(&sample.query);
            Transaction {
                id: RecordId::new([7; 8], 0, number),
                flow: origin.flow(&datagram),
                exchange: Exchange::Matched(query, response),
                query_count: 1,
                copy_count: 0,
                capture_gap: false,
                related: None,
            }
        })
        .collect();
    let nobody = Owner::default();
    let observer = Observer::new("node-1", "eth0");
    let records: Vec<Record<'_>> = transactions
        .iter()
        .map(|transaction| Record {
            observer: &observer,
            file: "",
            clock: CLOCK,
            transaction,
            client: &nobody,
            server: &nobody,
        })
        .collect();
    let sizes = [Format::AvroDatum, Format::Json].map(|format| encoded_size(&records, format));

    let mut stages = vec![
        stage("decode query and response", {
            let (samples, mut seen) = (&samples, Observation::default());
            move || {
                for sample in samples {
                    black_box(observe(&sample.query, &mut seen));
                    black_box(observe(&sample.response, &mut seen));
                }
            }
        }),
        stage("decode and pair", {
            let (samples, mut table) = (&samples, table());
            let mut seen = [Observation::default(), Observation::default()];
            move || {
                for sample in samples {
                    for (item, seen) in [&sample.query, &sample.response].into_iter().zip(&mut seen)
                    {
                        let (flow, wire) = observe(item, seen);
                        black_box(matches!(table.observe(flow, seen, wire), Observed::Done(_)));
                    }
                }
            }
        }),
        encoder("encode Avro", &records, Format::AvroDatum),
        encoder("encode JSON (serde_json)", &records, Format::Json),
        stage("encode Avro by apache-avro's serde", {
            let records = &records;
            let schema = schema().expect("the embedded schema parses");
            let writer = GenericDatumWriter::builder(schema).build().expect("a whole schema");
            let mut out = Vec::new();
            move || {
                out.clear();
                for record in records {
                    writer.write_ser(&mut out, record).expect("a record of the schema");
                }
                black_box(&out);
            }
        }),
        stage("encode Avro by apache-avro's Value", {
            let records = &records;
            let schema = schema().expect("the embedded schema parses");
            let writer = GenericDatumWriter::builder(schema).build().expect("a whole schema");
            move || {
                for record in records {
                    let value = apache_avro::to_value(record)
                        .and_then(|value| value.resolve(schema))
                        .expect("a record of the schema");
                    black_box(writer.write_value_to_vec(value).expect("a resolved value"));
                }
            }
        }),
        path("whole path to Avro", &samples, Format::AvroSingleObject),
        path("whole path to JSON", &samples, Format::Json),
    ];
    for round in 0..ROUNDS {
        for stage in &mut stages {
            let started = Instant::now();
            (stage.run)();
            let ns = started.elapsed().as_nanos() as f64 / TRANSACTIONS as f64;
            if round > 0 {
                stage.rounds.push(ns);
            }
        }
    }
    let json = stages.iter().find(|stage| stage.name.starts_with("encode JSON"));
    let json_ns = json.map_or(f64::NAN, Stage::median);
    println!("userspace, ns per transaction (median of {} rounds)", ROUNDS - 1);
    for stage in &stages {
        let median = stage.median();
        println!("  {:<38} {median:>8.0}   {:>6.2} x serde_json", stage.name, median / json_ns);
    }
    let [avro, json] = sizes;
    println!("bytes per record: Avro {avro:.0}, JSON {json:.0}, ratio {:.2}", avro / json);
}

fn stage<'a>(name: &'static str, run: impl FnMut() + 'a) -> Stage<'a> {
    Stage { name, run: Box::new(run), rounds: Vec::new() }
}

fn encoder<'a>(name: &'static str, records: &'a [Record<'a>], format: Format) -> Stage<'a> {
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

fn path<'a>(name: &'static str, samples: &'a [Sample], format: Format) -> Stage<'a> {
    let mut stages = stages(format);
    stage(name, move || {
        for sample in samples {
            stages.take(&sample.query);
            stages.take(&sample.response);
        }
        stages.deliver();
    })
}

fn encoded_size(records: &[Record<'_>], format: Format) -> f64 {
    let mut encoder = format.build().expect("the embedded schema parses");
    let mut out = Vec::new();
    let encoded: Result<(), encode::Error> =
        records.iter().try_for_each(|record| encoder.encode(record, &mut out));
    encoded.expect("records of the schema");
    out.len() as f64 / records.len() as f64
}
