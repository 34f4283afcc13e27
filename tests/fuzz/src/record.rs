//! The record of a message is bounded for any message.

use std::cell::RefCell;

use tap53_dns::{Flow, Message, Transport};
use tap53_records::encode::{
    Clock, Encode, Format, LEAST_MAX_BYTES, NodeRole, Observer, Owner, Portion, Profile,
    Provenance, Record, TextOptions,
};
use tap53_transactions::{
    pair::{Anomalies, Exchange, Observation, RecordId, RecordIds, Sightings, Transaction},
    privacy::Policy,
};

/// Bytes of a record's datum at most: the least that can be configured, so that much is left out.
pub(crate) const MAX_RECORD_BYTES: usize = LEAST_MAX_BYTES;

/// Bytes of a line of text at most.
const MAX_LINE_BYTES: usize = 4 << 10;

/// The formats, each with an encoder that is used again.
type Encoders = Vec<(Format, Box<dyn Encode>)>;

/// Bytes of a record in such a format at most, where its messages have so many on the wire. JSON:
/// escapes double a text, and an entry of a few bytes has some 50 of names of fields.
pub(crate) fn limit(format: Format, on_wire: usize) -> usize {
    match format {
        Format::AvroDatum
        | Format::AvroSingleObject
        | Format::FlatAvroDatum
        | Format::FlatAvroSingleObject => MAX_RECORD_BYTES + 10,
        Format::Json | Format::CompactJson | Format::Message | Format::Csv(_) | Format::Row => {
            2 * MAX_RECORD_BYTES + 8 * on_wire + (16 << 10)
        }
        Format::Text(_) => MAX_LINE_BYTES,
    }
}

/// Encodes a message in every format.
///
/// # Panics
/// When a record is longer than its limit.
pub(crate) fn require_bounded(message: &Message, wire: &[u8]) {
    thread_local! {
        static ENCODERS: RefCell<Encoders> = RefCell::new(
            [
                Format::AvroDatum,
                Format::FlatAvroDatum,
                Format::Json,
                Format::CompactJson,
                Format::Message,
                Format::Text(TextOptions { color: true, ..TextOptions::default() }),
            ]
            .map(|format| (format, format.build().expect("an encoder")))
            .into(),
        );
        static SURROUNDINGS: (Observer, Owner, Policy) = (
            Observer::new("node", "eth0", RecordIds::new([1; 8], 0)),
            Owner::default(),
            Policy::default(),
        );
    }
    let seen =
        Observation { message: message.clone(), wire: wire.to_vec(), ..Observation::default() };
    let flow = Flow {
        transport: Transport::Tcp,
        client: ([192, 0, 2, 1], 4_000).into(),
        server: ([192, 0, 2, 2], 53).into(),
        tunnel: None,
        ifindex: 1,
    };
    let transaction = Transaction {
        id: RecordId::new([1; 8], 0, 1),
        flow,
        exchange: match message.response {
            true => Exchange::Response(&seen),
            false => Exchange::Query(&seen),
        },
        query_count: 1,
        latest_query_ns: 0,
        copy_count: 0,
        capture_gap: false,
        related: None,
        anomalies: Anomalies::NONE,
        chain: None,
        sightings: Sightings::single(&flow),
    };
    SURROUNDINGS.with(|(observer, owner, policy)| {
        let mut portions = [None; 2];
        let whole = Record {
            observer,
            response_observer: observer,
            number: 1,
            files: &[],
            policy,
            clock: Clock { utc_offset_ns: 0 },
            transaction: &transaction,
            client: owner,
            server: owner,
            client_provenance: Provenance::default(),
            server_provenance: Provenance::default(),
            node_role: NodeRole::Unknown,
            signals: None,
            kept_per_million: None,
            portion: &Portion::ALL,
        };
        let [full, flat] = &mut portions;
        let full = whole.within_as(Profile::Full, MAX_RECORD_BYTES, full);
        let flat = whole.within_as(Profile::Flat, MAX_RECORD_BYTES, flat);
        ENCODERS.with_borrow_mut(|encoders| {
            for (format, encoder) in encoders {
                let record = if format.profile() == Profile::Flat { &flat } else { &full };
                let mut bytes = Vec::new();
                encoder.encode(record, &mut bytes).expect("a record can be encoded");
                let limit = limit(*format, wire.len());
                assert!(bytes.len() <= limit, "{} bytes of {format:?}, {limit}", bytes.len());
            }
        });
    });
}
