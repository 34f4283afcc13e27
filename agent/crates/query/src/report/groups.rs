//! The fields that reports need, and counts of groups of records.

use std::borrow::Cow;

use super::Histogram;
use crate::row::{Fields, Row, Slot, Value};

/// The places of an endpoint's fields.
#[derive(Clone, Copy, Debug)]
struct EndpointColumns {
    address: Slot,
    namespace: Slot,
    workload: Slot,
    pod: Slot,
}

/// The places of the fields that reports need.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    query_time: Slot,
    response_time: Slot,
    client: EndpointColumns,
    server: EndpointColumns,
    qname: Slot,
    rcode: Slot,
    outcome: Slot,
    latency: Slot,
}

impl Columns {
    /// Adds the fields to those of the question.
    pub fn new(fields: &mut Fields) -> Self {
        let mut endpoint = |side: &str| EndpointColumns {
            address: fields.slot(&format!("{side}_address")),
            namespace: fields.slot(&format!("{side}_pod_namespace")),
            workload: fields.slot(&format!("{side}_workload_name")),
            pod: fields.slot(&format!("{side}_pod_name")),
        };
        let (client, server) = (endpoint("client"), endpoint("server"));
        Self {
            query_time: fields.slot("query_time"),
            response_time: fields.slot("response_time"),
            client,
            server,
            qname: fields.slot("qname"),
            rcode: fields.slot("rcode"),
            outcome: fields.slot("outcome"),
            latency: fields.slot("latency_ns"),
        }
    }

    /// Returns the time of a record in microseconds since 1970 UTC: of the query, else of the response.
    #[must_use]
    pub fn time(&self, row: &Row<'_, '_>) -> Option<i64> {
        row.get(self.query_time).number().or_else(|| row.get(self.response_time).number())
    }

    /// Returns the client: `namespace/workload`, `namespace/pod` or its address.
    #[must_use]
    pub fn client<'a>(&self, row: &Row<'_, 'a>) -> Cow<'a, str> {
        self.client.shown(row)
    }

    /// Returns the server, as [`client`](Self::client).
    #[must_use]
    pub fn server<'a>(&self, row: &Row<'_, 'a>) -> Cow<'a, str> {
        self.server.shown(row)
    }

    /// Returns the name that was requested.
    #[must_use]
    pub fn qname<'a>(&self, row: &Row<'_, 'a>) -> &'a str {
        row.get(self.qname).text().unwrap_or("(no name)")
    }

    /// Returns the response code, or why there is none.
    #[must_use]
    pub fn rcode<'a>(&self, row: &Row<'_, 'a>) -> &'a str {
        match row.get(self.rcode) {
            Value::Text(rcode) => rcode,
            _ => "(no response)",
        }
    }

    /// Returns true if the query was not answered.
    #[must_use]
    pub fn is_unanswered(&self, row: &Row<'_, '_>) -> bool {
        row.get(self.outcome) == Value::Text("UNANSWERED")
    }

    /// Returns the nanoseconds from query to response.
    #[must_use]
    pub fn latency_ns(&self, row: &Row<'_, '_>) -> Option<i64> {
        row.get(self.latency).number()
    }
}

impl EndpointColumns {
    fn shown<'a>(&self, row: &Row<'_, 'a>) -> Cow<'a, str> {
        let text = |slot: Slot| row.get(slot).text();
        let owner = text(self.workload).or_else(|| text(self.pod));
        endpoint(text(self.namespace), owner, text(self.address).unwrap_or("(no address)"))
    }
}

/// Returns how an endpoint is shown: its owner if that is known, else its address.
#[must_use]
pub fn endpoint<'a>(
    namespace: Option<&'a str>,
    owner: Option<&'a str>,
    address: &'a str,
) -> Cow<'a, str> {
    match (namespace, owner) {
        (Some(namespace), Some(owner)) => Cow::Owned(format!("{namespace}/{owner}")),
        _ => Cow::Borrowed(address),
    }
}

/// Counts of a group of records.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// All records.
    pub transactions: u64,
    /// Names that do not exist.
    pub nxdomain: u64,
    /// Failures of the server.
    pub servfail: u64,
    /// Queries without a response.
    pub unanswered: u64,
    /// Times from query to response.
    pub latency: Histogram,
}

impl Totals {
    /// Counts a record.
    pub fn add(&mut self, columns: &Columns, row: &Row<'_, '_>) {
        self.transactions += 1;
        match row.get(columns.rcode) {
            Value::Text("NXDOMAIN") => self.nxdomain += 1,
            Value::Text("SERVFAIL") => self.servfail += 1,
            _ => self.unanswered += u64::from(columns.is_unanswered(row)),
        }
        if let Some(latency) = columns.latency_ns(row) {
            self.latency.add(latency);
        }
    }
}
