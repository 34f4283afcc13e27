//! Parts of the path, each by itself, and what is replaced.

use std::hint::black_box;

use apache_avro::writer::datum::GenericDatumWriter;
use tap53_dns::{Content, Datagram, Flow, Kept, Origin, Packet};
use tap53_ebpf::record::RecordHeader;
use tap53_records::encode::{Encode, Format, Record, schema};
use tap53_transactions::pair::{self, Observation, Observed, RecordIds, SharedNotes, Table};

use crate::{
    Samples, hickory,
    stage::{Name, Stage, stage},
};

pub(crate) fn table() -> Table {
    pair::Config::default().build(0, RecordIds::new([7; 8], 0), SharedNotes::default())
}

pub(crate) fn datagram(item: &[u8]) -> (Origin, Datagram<'_>) {
    let (header, bytes) = RecordHeader::split(item).expect("a whole record");
    let packet = Packet::parse(&header, bytes, 0).expect("a whole packet");
    match packet.content {
        Content::Datagram(datagram) => (packet.origin, datagram),
        Content::Fragment(_) => unreachable!("samples are whole"),
    }
}

/// Flow and bytes of the message of `item`, and when it was captured.
pub(crate) fn message(item: &[u8]) -> (Flow, &[u8], u64) {
    let (origin, datagram) = datagram(item);
    let flow = origin.flow(&datagram);
    let back = Flow { client: flow.server, server: flow.client, ..flow };
    let response = datagram.payload[2] & 0x80 != 0;
    (if response { back } else { flow }, datagram.payload, origin.captured_at_ns)
}

/// Reads the message of `item` into `seen`.
pub(crate) fn observe(item: &[u8], seen: &mut Observation) {
    let (_, wire, at_ns) = message(item);
    seen.message.read(wire, Kept::Answers);
    seen.at_ns = at_ns;
}

pub(crate) fn read(samples: &Samples) -> Stage<'_> {
    let mut seen = [Observation::default(), Observation::default()];
    stage(Name::Read, move || {
        for sample in samples.borrow().iter() {
            observe(&sample.query, &mut seen[0]);
            observe(&sample.response, &mut seen[1]);
            black_box(&seen);
        }
    })
}

pub(crate) fn read_by_hickory(samples: &Samples) -> Stage<'_> {
    stage(Name::ReadByHickory, move || {
        for sample in samples.borrow().iter() {
            for item in [&sample.query, &sample.response] {
                black_box(hickory::decode(datagram(item).1.payload));
            }
        }
    })
}

pub(crate) fn read_and_pair(samples: &Samples) -> Stage<'_> {
    let mut table = table();
    let mut seen = [Box::<Observation>::default(), Box::default()];
    stage(Name::ReadAndPair, move || {
        for sample in samples.borrow().iter() {
            for (item, seen) in [&sample.query, &sample.response].into_iter().zip(&mut seen) {
                let (flow, wire, at_ns) = message(item);
                let key = table.key(&flow, u16::from_be_bytes([wire[0], wire[1]]));
                seen.message.read(wire, Kept::Answers);
                seen.at_ns = at_ns;
                black_box(matches!(table.observe(key, seen, wire), Observed::Done(_)));
            }
        }
    })
}

pub(crate) fn encoder<'a>(name: Name, records: &'a [Record<'a>], format: Format) -> Stage<'a> {
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

pub(crate) fn by_apache_avro<'a>(name: Name, records: &'a [Record<'a>]) -> Stage<'a> {
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

/// The path that is replaced. The other fields of its records are computed before, so that it writes the
/// same.
pub(crate) fn replaced<'a>(samples: &'a Samples, records: &'a [Record<'a>]) -> Stage<'a> {
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
