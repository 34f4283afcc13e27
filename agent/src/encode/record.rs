//! The record: a transaction with everything that a reader of the topic sees of it.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer, ser::SerializeStruct};
use tap53_ebpf::settings::Direction;

use super::field::{Answers, Bytes, Display, Symbol, Time};
use crate::{
    decode::{Edns, Flags, ParseStatus, class_name, opcode_name, rcode_name, type_name},
    pair::{Observation, Transaction},
};

/// Version of the schema, as the record carries it.
pub const SCHEMA_VERSION: i32 = 1;

/// Fields of the record: the schema's test compares.
const FIELDS: usize = 70;

/// Between CLOCK_MONOTONIC, which the kernel stamps packets with, and UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// CLOCK_REALTIME minus CLOCK_MONOTONIC, nanoseconds. Read again every second or so: it moves
    /// when UTC is adjusted.
    pub utc_offset_ns: i64,
}

impl Clock {
    /// Microseconds since 1970 UTC of a CLOCK_MONOTONIC time.
    #[must_use]
    pub fn utc_us(self, monotonic_ns: u64) -> i64 {
        let utc_ns = i128::from(monotonic_ns) + i128::from(self.utc_offset_ns);
        // Euclidean: times before 1970 round down too.
        i64::try_from(utc_ns.div_euclid(1_000)).unwrap_or(i64::MAX)
    }
}

/// What an address names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attribution {
    /// Nothing known.
    #[default]
    Unattributed,
    /// One pod.
    Pod,
    /// An address that several pods of a node share.
    AmbiguousHostNetwork,
}

impl Attribution {
    pub(super) const fn symbol(self) -> &'static str {
        match self {
            Self::Unattributed => "UNATTRIBUTED",
            Self::Pod => "POD",
            Self::AmbiguousHostNetwork => "AMBIGUOUS_HOST_NETWORK",
        }
    }
}

/// Who owned an address when the transaction began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// What the address names.
    pub attribution: Attribution,
    /// Pod UID.
    pub pod_uid: Option<String>,
    /// Pod name.
    pub pod_name: Option<String>,
    /// Pod namespace.
    pub pod_namespace: Option<String>,
    /// Deployment, StatefulSet, DaemonSet, Job or CronJob.
    pub workload_kind: Option<String>,
    /// Name of that workload.
    pub workload_name: Option<String>,
    /// The labels that the configuration chose.
    pub labels: Option<BTreeMap<String, String>>,
}

/// A transaction and its surroundings. Serialises as a record of the schema, field by field in its
/// order, which spares apache-avro from holding fields back.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Name of this node.
    pub node: &'a str,
    /// Name of the interface.
    pub interface: &'a str,
    /// Name of the replayed file; empty elsewhere.
    pub file: &'a str,
    /// From monotonic time to UTC.
    pub clock: Clock,
    /// The transaction.
    pub transaction: &'a Transaction<'a>,
    /// Owner of the client's address.
    pub client: &'a Owner,
    /// Owner of the server's address.
    pub server: &'a Owner,
}

impl Record<'_> {
    /// When the transaction began, milliseconds since 1970 UTC.
    #[must_use]
    pub fn timestamp_ms(&self) -> i64 {
        self.clock.utc_us(self.transaction.first().at_ns).div_euclid(1_000)
    }

    /// Nanoseconds from the first query to the response.
    #[must_use]
    pub fn latency_ns(&self) -> Option<i64> {
        let (query, response) = (self.transaction.query()?, self.transaction.response()?);
        // Two CPUs may stamp a few nanoseconds the wrong way round.
        i64::try_from(response.at_ns.saturating_sub(query.at_ns)).ok()
    }

    /// How much of the messages could be read: the worse of the two.
    #[must_use]
    pub fn parse_status(&self) -> ParseStatus {
        let severity = |status: &ParseStatus| match status {
            ParseStatus::Ok => 0,
            ParseStatus::TrailingBytes => 1,
            ParseStatus::MalformedRest => 2,
            ParseStatus::MalformedAnswer => 3,
            ParseStatus::MalformedQuestion => 4,
        };
        [self.transaction.query(), self.transaction.response()]
            .into_iter()
            .flatten()
            .map(|observation| observation.message.parse_status)
            .max_by_key(severity)
            .unwrap_or_default()
    }

    /// Direction of the query at the interface.
    fn direction(&self) -> Direction {
        match (self.transaction.query(), self.transaction.first().point.direction) {
            (Some(query), _) => query.point.direction,
            (None, Direction::Ingress) => Direction::Egress,
            (None, Direction::Egress) => Direction::Ingress,
        }
    }
}

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let transaction = self.transaction;
        let (query, response) = (transaction.query(), transaction.response());
        let asked = transaction.first();
        let flow = &transaction.flow;
        let time =
            |seen: Option<&Observation>| seen.map(|seen| Time(self.clock.utc_us(seen.at_ns)));
        let size = |seen: Option<&Observation>| seen.map(|seen| int(seen.message.size));
        let flag = |read: fn(&Flags) -> bool| response.map(|seen| read(&seen.message.flags));
        let count = |section: usize| response.map(|seen| seen.message.counts[section]);
        let query_edns = query.and_then(|seen| seen.message.edns());
        let response_edns = response.and_then(|seen| seen.message.edns());
        // A response repeats the question, so it can stand in for a query that was not seen.
        let question = asked.message.question();
        let error = response_edns.and_then(|edns| edns.extended_error);

        let mut s = serializer.serialize_struct("DnsTransaction", FIELDS)?;
        s.serialize_field("record_id", &Bytes(&transaction.id.0))?;
        s.serialize_field("schema_version", &SCHEMA_VERSION)?;
        s.serialize_field("node", self.node)?;
        s.serialize_field("interface", self.interface)?;
        s.serialize_field("direction", &Symbol::of_direction(self.direction()))?;
        s.serialize_field("outcome", &Symbol::of_outcome(transaction.outcome()))?;
        s.serialize_field("capture_gap", &transaction.capture_gap)?;
        s.serialize_field("query_time", &time(query))?;
        s.serialize_field("response_time", &time(response))?;
        s.serialize_field("latency_ns", &self.latency_ns())?;
        s.serialize_field("query_count", &int(transaction.query_count))?;
        s.serialize_field("transport", &Symbol::of_transport(flow.transport))?;
        s.serialize_field("ip_version", &if flow.client.is_ipv4() { 4 } else { 6 })?;
        s.serialize_field("vlan_id", &asked.vlan_ids[0])?;
        s.serialize_field("vlan_inner_id", &asked.vlan_ids[1])?;
        s.serialize_field("vlan_visible", &asked.vlan_visible)?;
        s.serialize_field("tunnel_type", &flow.tunnel.map(|tunnel| tunnel.kind.name()))?;
        s.serialize_field("tunnel_id", &flow.tunnel.and_then(|tunnel| tunnel.id))?;
        s.serialize_field("client_address", &Display(flow.client.ip()))?;
        s.serialize_field("client_port", &flow.client.port())?;
        s.serialize_field("server_address", &Display(flow.server.ip()))?;
        s.serialize_field("server_port", &flow.server.port())?;
        s.serialize_field("query_size", &size(query))?;
        s.serialize_field("response_size", &size(response))?;
        s.serialize_field("dns_id", &asked.message.id)?;
        s.serialize_field("opcode", &*opcode_name(asked.message.opcode))?;
        s.serialize_field("recursion_desired", &asked.message.flags.recursion_desired)?;
        s.serialize_field("checking_disabled", &asked.message.flags.checking_disabled)?;
        s.serialize_field("authoritative", &flag(|flags| flags.authoritative))?;
        s.serialize_field("truncated", &flag(|flags| flags.truncated))?;
        s.serialize_field("recursion_available", &flag(|flags| flags.recursion_available))?;
        s.serialize_field("authentic_data", &flag(|flags| flags.authentic_data))?;
        s.serialize_field("question_count", &asked.message.counts[0])?;
        s.serialize_field("qname", &question.map(|question| question.name))?;
        let domain = question.and_then(|question| registrable_domain(question.name));
        s.serialize_field("qname_registrable_domain", &domain)?;
        s.serialize_field("qtype", &question.map(|question| type_name(question.qtype)))?;
        s.serialize_field("qclass", &question.map(|question| class_name(question.qclass)))?;
        s.serialize_field("rcode", &response.map(|seen| rcode_name(seen.message.rcode)))?;
        s.serialize_field("answers", &Answers(response.map(|seen| &seen.message)))?;
        s.serialize_field("answer_count", &count(1))?;
        s.serialize_field("authority_count", &count(2))?;
        s.serialize_field("additional_count", &count(3))?;
        s.serialize_field("query_edns_version", &query_edns.map(|edns| edns.version))?;
        s.serialize_field("query_edns_udp_size", &query_edns.map(|edns| edns.udp_payload_size))?;
        s.serialize_field("query_edns_dnssec_ok", &query_edns.map(|edns| edns.dnssec_ok))?;
        s.serialize_field("query_client_subnet", &query_edns.and_then(client_subnet))?;
        s.serialize_field("query_cookie", &query_edns.and_then(|edns| edns.cookie.map(Bytes)))?;
        s.serialize_field("response_edns_version", &response_edns.map(|edns| edns.version))?;
        let response_udp_size = response_edns.map(|edns| edns.udp_payload_size);
        s.serialize_field("response_edns_udp_size", &response_udp_size)?;
        s.serialize_field("response_nsid", &response_edns.and_then(|edns| edns.nsid.map(Bytes)))?;
        s.serialize_field(
            "response_cookie",
            &response_edns.and_then(|edns| edns.cookie.map(Bytes)),
        )?;
        s.serialize_field("response_extended_error", &error.map(|error| error.code))?;
        s.serialize_field("response_extended_error_text", &error.map(|error| error.text))?;
        s.serialize_field("parse_status", &Symbol::of_parse_status(self.parse_status()))?;
        serialize_owner(&mut s, &CLIENT_FIELDS, self.client)?;
        serialize_owner(&mut s, &SERVER_FIELDS, self.server)?;
        s.serialize_field("query_wire", &query.and_then(wire))?;
        s.serialize_field("response_wire", &response.and_then(wire))?;
        s.end()
    }
}

const CLIENT_FIELDS: [&str; 7] = [
    "client_attribution",
    "client_pod_uid",
    "client_pod_name",
    "client_pod_namespace",
    "client_workload_kind",
    "client_workload_name",
    "client_labels",
];

const SERVER_FIELDS: [&str; 7] = [
    "server_attribution",
    "server_pod_uid",
    "server_pod_name",
    "server_pod_namespace",
    "server_workload_kind",
    "server_workload_name",
    "server_labels",
];

fn serialize_owner<S: SerializeStruct>(
    s: &mut S,
    fields: &[&'static str; 7],
    owner: &Owner,
) -> Result<(), S::Error> {
    s.serialize_field(fields[0], &Symbol::of_attribution(owner.attribution))?;
    s.serialize_field(fields[1], &owner.pod_uid)?;
    s.serialize_field(fields[2], &owner.pod_name)?;
    s.serialize_field(fields[3], &owner.pod_namespace)?;
    s.serialize_field(fields[4], &owner.workload_kind)?;
    s.serialize_field(fields[5], &owner.workload_name)?;
    s.serialize_field(fields[6], &owner.labels)
}

/// An Avro int; what it holds here stays far below its limit.
fn int(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// A message as it was sent, where it was kept; none is empty.
fn wire(seen: &Observation) -> Option<Bytes<'_>> {
    (!seen.wire.is_empty()).then_some(Bytes(&seen.wire))
}

fn client_subnet(edns: Edns<'_>) -> Option<String> {
    edns.client_subnet.map(|subnet| format!("{}/{}", subnet.address, subnet.source_prefix))
}

/// The part of a name that can be registered, by the public suffix list. Names with escapes have
/// none: in `x\.google.com` the first dot is part of a label.
fn registrable_domain(name: &str) -> Option<&str> {
    if name.contains('\\') {
        return None;
    }
    psl::domain_str(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_round_down() {
        let clock = Clock { utc_offset_ns: -2_500 };
        assert_eq!((clock.utc_us(1_000), clock.utc_us(2_501)), (-2, 0));
    }

    #[test]
    fn registrable_domains_follow_the_public_suffix_list() {
        assert_eq!(registrable_domain("a.b.example.co.uk"), Some("example.co.uk"));
        assert_eq!(registrable_domain("co.uk"), None);
        assert_eq!(registrable_domain("x\\.google.com"), None);
        assert_eq!(registrable_domain("."), None);
        assert_eq!(registrable_domain(""), None);
    }
}
