//! The signals of records: those that the agent recorded, or, in records without the field, those that the
//! agent's detector finds among the records that are read.

use std::net::IpAddr;

use hashbrown::HashMap;
use tap53_dns::{
    domain::registrable_domain, private_address::is_private, rcode_mnemonic, type_mnemonic,
};
use tap53_signals::{Detector, Exchange, SharedSignals, Signal, Signals, SignalsConfig};

use crate::row::{Fields, Row, Slot, Value};

/// Finds the signals of records, one after the other.
pub struct Detection {
    columns: Columns,
    /// Created at the first record without the field.
    detector: Option<Detector>,
    types: HashMap<&'static str, u16>,
    rcodes: HashMap<&'static str, u16>,
}

/// The fields that signals depend on.
#[derive(Clone, Copy)]
struct Columns {
    signals: Slot,
    /// Numbers of frames, which records of a replay have.
    frames: [Slot; 2],
    query_time: Slot,
    response_time: Slot,
    client: Slot,
    namespace: Slot,
    workload: Slot,
    qname: Slot,
    domain: Slot,
    qtype: Slot,
    rcode: Slot,
    query_size: Slot,
    response_size: Slot,
    addresses: Slot,
}

/// The signals of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detected {
    /// The signals.
    pub signals: Signals,
    /// True if an agent found them while it captured, so that it knew earlier domains; false if they were
    /// found in files alone.
    pub is_of_agent: bool,
}

impl Detection {
    /// Prepares to find signals; the fields that this needs are added to `fields`.
    pub fn new(fields: &mut Fields) -> Self {
        let columns = Columns {
            signals: fields.slot("signals"),
            frames: ["query_frame", "response_frame"].map(|name| fields.slot(name)),
            query_time: fields.slot("query_time"),
            response_time: fields.slot("response_time"),
            client: fields.slot("client_address"),
            namespace: fields.slot("client_pod_namespace"),
            workload: fields.slot("client_workload_name"),
            qname: fields.slot("qname"),
            domain: fields.slot("qname_registrable_domain"),
            qtype: fields.slot("qtype"),
            rcode: fields.slot("rcode"),
            query_size: fields.slot("query_size"),
            response_size: fields.slot("response_size"),
            addresses: fields.slot("resolved_addresses"),
        };
        let codes = |mnemonic: fn(u16) -> Option<&'static str>| {
            (0..=u16::MAX).filter_map(|code| Some((mnemonic(code)?, code))).collect()
        };
        Self { columns, detector: None, types: codes(type_mnemonic), rcodes: codes(rcode_mnemonic) }
    }

    /// Returns the signals of the next record.
    pub fn observe(&mut self, row: &Row<'_, '_>) -> Detected {
        match row.get(self.columns.signals) {
            Value::Null => Detected { signals: self.detect(row), is_of_agent: false },
            recorded => {
                let mut signals = Signals::NONE;
                // A name that this version does not know is left out.
                recorded.each(|name| {
                    name.text()
                        .and_then(Signal::from_name)
                        .into_iter()
                        .for_each(|it| signals.add(it));
                });
                let is_frame = |slot: Slot| row.get(slot).number().is_some();
                Detected { signals, is_of_agent: !self.columns.frames.into_iter().any(is_frame) }
            }
        }
    }

    fn detect(&mut self, row: &Row<'_, '_>) -> Signals {
        let columns = self.columns;
        let text = |slot| row.get(slot).text();
        let number = |slot| row.get(slot).number();
        let size = |slot| number(slot).and_then(|size| u32::try_from(size).ok()).unwrap_or(0);
        let at_us = number(columns.query_time).or_else(|| number(columns.response_time));
        let client = text(columns.client).and_then(|client| client.parse::<IpAddr>().ok());
        let (Some(at_us), Some(client), Some(name)) = (at_us, client, text(columns.qname)) else {
            return Signals::NONE;
        };
        let code = |codes: &HashMap<_, _>, slot, prefix| {
            let name = text(slot)?;
            codes.get(name).copied().or_else(|| name.strip_prefix(prefix)?.parse().ok())
        };
        let mut has_private_address = false;
        row.get(columns.addresses).each(|address| {
            let address = address.text().and_then(|address| address.parse().ok());
            has_private_address |= address.is_some_and(is_private);
        });
        let exchange = Exchange {
            at_us,
            client,
            workload: text(columns.namespace).zip(text(columns.workload)),
            name,
            qtype: code(&self.types, columns.qtype, "TYPE").unwrap_or_default(),
            rcode: code(&self.rcodes, columns.rcode, "RCODE"),
            query_bytes: size(columns.query_size),
            response_bytes: size(columns.response_size),
            has_private_address,
        };
        self.detector.get_or_insert_with(|| detector(at_us)).observe(&exchange)
    }

    /// Returns the registrable domain of a record's name.
    pub fn domain<'a>(&self, row: &Row<'_, 'a>) -> Option<&'a str> {
        let recorded = row.get(self.columns.domain).text();
        recorded.or_else(|| row.get(self.columns.qname).text().and_then(registrable_domain))
    }
}

/// Returns the detector of a replay, for records from `at_us` on.
fn detector(at_us: i64) -> Detector {
    // Files may be of other days, in any order.
    const DAY_US: i64 = 86_400_000_000;
    let config = SignalsConfig { enabled: true, ..SignalsConfig::default() };
    SharedSignals::of_replay(&config, at_us.saturating_sub(DAY_US)).detector()
}
