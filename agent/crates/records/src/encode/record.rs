//! The record: a transaction with all of its context.

use std::net::SocketAddr;

use serde::{Serialize, Serializer, ser::SerializeStruct};
use tap53_dns::{Answer, Edns, ParseStatus, domain::registrable_domain, frames};
use tap53_ebpf::settings::Direction;
use tap53_signals::Signals;
use tap53_transactions::{
    pair::{Chain, Observation, Transaction},
    privacy::{Policy, Side},
};

use super::{
    NodeRole, Observer, Owner, Portion, Provenance,
    array::{Array, Texts},
    binary::{Binary, Buffer, Encodable},
    fields::{Fields, Named, Present},
    item::{Shown, Update},
    mnemonic::Mnemonic,
    owner,
    portion::MessagePortion,
    symbol::Symbol,
    value::{Address, Bytes, Time},
};

/// Version of the schema, which each record contains.
pub const SCHEMA_VERSION: i32 = 5;

/// Number of fields of the record; a test compares it with the schema.
const FIELDS: usize = 153;

/// Converts CLOCK_MONOTONIC, which the kernel timestamps packets with, to UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// CLOCK_REALTIME minus CLOCK_MONOTONIC in nanoseconds. It is read again about every second,
    /// since it changes when UTC is adjusted.
    pub utc_offset_ns: i64,
}

impl Clock {
    /// Converts a CLOCK_MONOTONIC time to microseconds since 1970 UTC.
    #[must_use]
    pub fn utc_us(self, monotonic_ns: u64) -> i64 {
        // 63 bits of nanoseconds last until 2262. Euclidean division rounds times before 1970 down
        // too.
        self.utc_offset_ns.saturating_add_unsigned(monotonic_ns).div_euclid(1_000)
    }
}

/// A transaction and its context. Serializes as a record of the schema.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Node, interface and worker.
    pub observer: &'a Observer,
    /// The observer at the interface of the response.
    pub response_observer: &'a Observer,
    /// Number of the record among those of its worker, from 1 on.
    pub number: u64,
    /// Names of the replayed files; empty in a live capture.
    pub files: &'a [String],
    /// The privacy rules for addresses.
    pub policy: &'a Policy,
    /// Converts monotonic time to UTC.
    pub clock: Clock,
    /// The transaction.
    pub transaction: &'a Transaction<'a>,
    /// Owner of the client's address.
    pub client: &'a Owner,
    /// Owner of the server's address.
    pub server: &'a Owner,
    /// Evidence for the client.
    pub client_provenance: Provenance<'a>,
    /// Evidence for the server.
    pub server_provenance: Provenance<'a>,
    /// The place of this node on the transaction's path.
    pub node_role: NodeRole,
    /// The signals; `None` if the agent does not look for them.
    pub signals: Option<Signals>,
    /// Number of one million such transactions that are kept; `None` if all of them are.
    pub kept_per_million: Option<u32>,
    /// The part of the transaction that is written; see [`Record::within`].
    pub portion: &'a Portion,
}

impl Record<'_> {
    /// Returns the start of the transaction in milliseconds since 1970 UTC.
    #[must_use]
    pub fn timestamp_ms(&self) -> i64 {
        self.clock.utc_us(self.transaction.first().at_ns).div_euclid(1_000)
    }

    /// Returns the nanoseconds from the first query to the response; also `None` if the clock went
    /// back in between.
    #[must_use]
    pub fn latency_ns(&self) -> Option<i64> {
        let (query, response) = (self.transaction.query()?, self.transaction.response()?);
        latency_between(query.at_ns, response.at_ns)
    }

    /// Returns the name of the replayed file that contains a message; `None` in a live capture.
    pub(super) fn file_of(&self, seen: &Observation) -> Option<&str> {
        if frames::number(seen.frame) == 0 {
            return None;
        }
        self.files.get(frames::file(seen.frame)).map(String::as_str)
    }

    /// Returns the nanoseconds from the latest query to the response.
    fn latency_from_latest_query_ns(&self) -> Option<i64> {
        self.transaction.query()?;
        let response = self.transaction.response()?;
        latency_between(self.transaction.latest_query_ns, response.at_ns)
    }

    /// Returns the worse of both messages' parse statuses.
    #[must_use]
    pub fn parse_status(&self) -> ParseStatus {
        let severity = |status: &ParseStatus| match status {
            ParseStatus::Ok => 0,
            ParseStatus::TrailingBytes => 1,
            ParseStatus::MalformedRest => 2,
            ParseStatus::MalformedAnswer => 3,
            ParseStatus::WorkLimit => 4,
            ParseStatus::MalformedQuestion => 5,
            ParseStatus::NotDns => 6,
        };
        [self.transaction.query(), self.transaction.response()]
            .into_iter()
            .flatten()
            .map(|observation| observation.message.parse_status)
            .max_by_key(severity)
            .unwrap_or_default()
    }

    /// Returns the written part of the transaction's first message.
    #[inline(always)]
    pub(super) fn first_portion(&self) -> &MessagePortion {
        match self.transaction.query() {
            Some(_) => &self.portion.query,
            None => &self.portion.response,
        }
    }

    /// Returns the direction of the query at the interface.
    pub(super) fn direction(&self) -> Direction {
        match (self.transaction.query(), self.transaction.first().point.direction) {
            (Some(query), _) => query.point.direction,
            (None, Direction::Ingress) => Direction::Egress,
            (None, Direction::Egress) => Direction::Ingress,
        }
    }
}

impl<'a> Record<'a> {
    /// Passes every field to `f`, in the schema's order.
    #[inline(always)]
    pub(super) fn fields<F: Fields>(&self, f: &mut F) -> Result<(), F::Error> {
        let transaction = self.transaction;
        let (query, response) = (transaction.query(), transaction.response());
        let asked = transaction.first();
        let (flow, policy) = (&transaction.flow, self.policy);

        f.field("record_id", transaction.id)?;
        self.observer.fields(f)?;
        // At a million per second, a worker gets there after 290,000 years.
        f.field("record_number", self.number.cast_signed())?;
        f.field("direction", Symbol::of_direction(self.direction()))?;
        let answered = response.map(|seen| Symbol::of_direction(seen.point.direction));
        f.field("response_direction", answered)?;
        f.field("response_interface", response.map(|_| self.response_observer.interface()))?;
        f.field("outcome", Symbol::of_outcome(transaction.outcome()))?;
        let related = transaction.related;
        f.field("relation", related.map(|related| Symbol::of_relation(related.relation)))?;
        f.field("related_record_id", related.map(|related| related.record))?;
        chain_fields(f, transaction.chain)?;
        f.field("capture_gap", transaction.capture_gap)?;
        f.field("anomalies", transaction.anomalies)?;
        f.field("signals", self.signals)?;
        let time = |seen: &Observation| Time(self.clock.utc_us(seen.at_ns));
        f.field("query_time", query.map(time))?;
        f.field("response_time", response.map(time))?;
        f.field("latency_ns", self.latency_ns())?;
        let latest = query.map(|_| Time(self.clock.utc_us(transaction.latest_query_ns)));
        f.field("latest_query_time", latest)?;
        f.field("latency_from_latest_query_ns", self.latency_from_latest_query_ns())?;
        f.field("query_file", query.and_then(|seen| self.file_of(seen)))?;
        f.field("query_frame", query.and_then(frame))?;
        f.field("response_file", response.and_then(|seen| self.file_of(seen)))?;
        f.field("response_frame", response.and_then(frame))?;
        f.field("query_count", int(transaction.query_count))?;
        f.field("copy_count", int(transaction.copy_count))?;
        f.field("kept_per_million", self.kept_per_million.map(int))?;
        f.field("transport", Symbol::of_transport(flow.transport))?;
        f.field("ip_version", if flow.client.is_ipv4() { 4u8 } else { 6 })?;
        f.field("vlan_id", asked.vlan_ids[0])?;
        f.field("vlan_inner_id", asked.vlan_ids[1])?;
        f.field("vlan_visible", asked.vlan_visible)?;
        f.field("tunnel_type", flow.tunnel.map(|tunnel| tunnel.kind.name()))?;
        f.field("tunnel_id", flow.tunnel.and_then(|tunnel| tunnel.id))?;
        let client = policy.address(Side::Client, flow.client.ip());
        f.field("client_address", Address::from(client))?;
        f.field("client_port", flow.client.port())?;
        let server = policy.address(Side::Server, flow.server.ip());
        f.field("server_address", Address::from(server))?;
        f.field("server_port", flow.server.port())?;
        self.path_fields(f)?;
        f.field("query_size", query.map(|seen| int(seen.message.size)))?;
        f.field("response_size", response.map(|seen| int(seen.message.size)))?;
        f.field("query_hop_limit", query.map(|seen| seen.hop_limit))?;
        f.field("response_hop_limit", response.map(|seen| seen.hop_limit))?;
        f.field("dns_id", asked.message.id)?;
        f.field("opcode", Mnemonic::Opcode(asked.message.opcode))?;
        f.field("recursion_desired", asked.message.flags.recursion_desired)?;
        f.field("checking_disabled", asked.message.flags.checking_disabled)?;
        let flags = response.map(|seen| seen.message.flags);
        f.field("authoritative", flags.map(|flags| flags.authoritative))?;
        f.field("truncated", flags.map(|flags| flags.truncated))?;
        f.field("recursion_available", flags.map(|flags| flags.recursion_available))?;
        f.field("authentic_data", flags.map(|flags| flags.authentic_data))?;
        f.field("query_reserved_bit", query.map(|seen| seen.message.flags.reserved))?;
        f.field("response_reserved_bit", flags.map(|flags| flags.reserved))?;
        self.question_fields(f)?;
        f.field("rcode", response.map(|seen| Mnemonic::Rcode(seen.message.rcode)))?;
        let portion = self.portion;
        let answers = move |seen: &'a Observation| {
            let answers = seen.message.answers().take(portion.response.answers);
            answers.map(move |answer| Shown(policy, answer))
        };
        f.field("answers", Array(response.map(|seen| move || answers(seen))))?;
        let resolved = move |seen: &'a Observation| {
            let answers = seen.message.answers().take(portion.response.answers);
            answers.filter(resolves).map(|answer| answer.rdata)
        };
        f.field("resolved_addresses", Texts(response.map(|seen| move || resolved(seen))))?;
        f.field("soa_minimum", response.and_then(|seen| seen.message.soa_minimum.map(i64::from)))?;
        let authorities = move |seen: &'a Observation| {
            let authorities = seen.message.authorities().take(portion.response.authorities);
            authorities.map(move |record| Shown(policy, record))
        };
        f.field("authorities", Array(response.map(|seen| move || authorities(seen))))?;
        let additionals = move |seen: &'a Observation| {
            let additionals = seen.message.additionals().take(portion.response.additionals);
            additionals.map(move |record| Shown(policy, record))
        };
        f.field("additionals", Array(response.map(|seen| move || additionals(seen))))?;
        let updates = move |seen: &'a Observation| {
            let updates = seen.message.updates().take(portion.query.updates);
            updates.map(move |it| Shown(policy, Update(it)))
        };
        f.field("updates", Array(query.map(|seen| move || updates(seen))))?;
        let prerequisites = move |seen: &'a Observation| {
            let prerequisites = seen.message.prerequisites().take(portion.query.prerequisites);
            prerequisites.map(move |it| Shown(policy, Update(it)))
        };
        f.field("prerequisites", Array(query.map(|seen| move || prerequisites(seen))))?;
        let omitted = |seen: &Observation| seen.message.answers_omitted;
        let omitted = query.map_or(0, omitted).saturating_add(response.map_or(0, omitted));
        f.field("answers_omitted", int(omitted.saturating_add(portion.omitted.answers)))?;
        let counts = response.map(|seen| seen.message.counts);
        f.field("answer_count", counts.map(|counts| counts[1]))?;
        f.field("authority_count", counts.map(|counts| counts[2]))?;
        f.field("additional_count", counts.map(|counts| counts[3]))?;
        let edns = |seen: &'a Observation| seen.message.edns();
        edns_fields(f, &QUERY_EDNS, query.and_then(edns), policy, &portion.query)?;
        edns_fields(f, &RESPONSE_EDNS, response.and_then(edns), policy, &portion.response)?;
        f.field("edns_options_omitted", int(portion.omitted.options))?;
        f.field("parse_status", Symbol::of_parse_status(self.parse_status()))?;
        self.client.fields(f, &owner::CLIENT)?;
        self.client_provenance.fields(f, &owner::CLIENT_PROVENANCE)?;
        self.client_provenance.process_fields(f)?;
        self.server.fields(f, &owner::SERVER)?;
        self.server_provenance.fields(f, &owner::SERVER_PROVENANCE)?;
        f.field("query_wire", query.filter(|_| portion.query.wire).and_then(wire))?;
        f.field("response_wire", response.filter(|_| portion.response.wire).and_then(wire))?;
        f.field("wire_omitted", int(portion.omitted.wires))
    }

    /// Passes what is known about the path: address translation, and the place of this node.
    #[inline(always)]
    fn path_fields<F: Fields>(&self, f: &mut F) -> Result<(), F::Error> {
        const TRANSLATED: [&str; 4] = [
            "backend_address",
            "backend_port",
            "translated_client_address",
            "translated_client_port",
        ];
        let Transaction { flow, sightings, .. } = self.transaction;
        if sightings.count == 1 {
            f.nulls(&TRANSLATED)?;
        } else {
            let shown = |side, end: Option<SocketAddr>| {
                end.map(|end| Address::from(self.policy.address(side, end.ip())))
            };
            let backend = sightings.backend(flow);
            f.field(TRANSLATED[0], shown(Side::Server, backend))?;
            f.field(TRANSLATED[1], backend.map(|end| end.port()))?;
            let client = sightings.translated_client(flow);
            f.field(TRANSLATED[2], shown(Side::Client, client))?;
            f.field(TRANSLATED[3], client.map(|end| end.port()))?;
        }
        f.field("nat", Symbol::of_nat(sightings.nat))?;
        f.field("sighting_count", int(sightings.count))?;
        f.field("exchange_id", self.policy.exchange_id(self.transaction))?;
        f.field("observation", Symbol::of_node_role(self.node_role))
    }

    /// Passes the question. That of a response replaces that of a query that was not captured.
    #[inline(always)]
    pub(super) fn question_fields<F: Fields>(&self, f: &mut F) -> Result<(), F::Error> {
        let message = &self.transaction.first().message;
        let question = message.question();
        f.field("question_count", message.counts[0])?;
        let name = question.map(|question| self.policy.name(question.name));
        let name = name.as_deref();
        f.field("qname", name)?;
        // A name that the privacy rules changed is not shown in another form either.
        let is_shown = |_: &&str| question.is_some_and(|question| name == Some(question.name));
        f.field("qname_as_sent", message.name_as_sent().filter(is_shown))?;
        f.field("qname_registrable_domain", name.and_then(registrable_domain))?;
        f.field("qtype", question.map(|question| Mnemonic::Type(question.qtype)))?;
        f.field("qclass", question.map(|question| Mnemonic::Class(question.qclass)))?;
        let most = self.first_portion().questions;
        let more =
            || message.more_questions().take(most).map(|question| Shown(self.policy, question));
        f.field("more_questions", Array(Some(more)))?;
        let omitted = message.questions_omitted.saturating_add(self.portion.omitted.questions);
        f.field("questions_omitted", int(omitted))
    }
}

const CHAIN: [&str; 9] = [
    "answered_from",
    "upstream_count",
    "upstream_time_ns",
    "resolver_time_ns",
    "served_record_id",
    "served_count",
    "search_group",
    "search_step",
    "search_winner",
];

/// Passes the place of a transaction in chains and in a lookup through a search list.
#[inline(always)]
fn chain_fields<F: Fields>(f: &mut F, chain: Option<&Chain>) -> Result<(), F::Error> {
    let Some(&Chain { source, served, search }) = chain else {
        return f.nulls(&CHAIN);
    };
    f.field(CHAIN[0], source.map(|source| source.from.symbol()))?;
    let decided = source.filter(|source| source.from.is_decided());
    f.field(CHAIN[1], decided.map(|source| int(source.upstream_count)))?;
    f.field(CHAIN[2], decided.map(|source| nanoseconds(source.upstream_ns)))?;
    f.field(CHAIN[3], decided.map(|source| nanoseconds(source.resolver_ns)))?;
    f.field(CHAIN[4], served.and_then(|served| served.record))?;
    f.field(CHAIN[5], served.map(|served| int(served.count)))?;
    f.field(CHAIN[6], search.map(|search| search.group))?;
    f.field(CHAIN[7], search.map(|search| int(search.step)))?;
    f.field(CHAIN[8], search.map(|search| search.is_winner))
}

/// Converts to an Avro long, which holds 292 years of nanoseconds.
fn nanoseconds(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Names of the EDNS fields of one message.
pub(super) type EdnsNames = [&'static str; 13];

pub(super) const QUERY_EDNS: EdnsNames = [
    "query_edns_version",
    "query_edns_udp_size",
    "query_edns_dnssec_ok",
    "query_edns_compact_ok",
    "query_edns_deleg_ok",
    "query_client_subnet",
    "query_client_subnet_scope",
    "query_nsid",
    "query_cookie",
    "query_extended_error",
    "query_extended_error_text",
    "query_edns_padding",
    "query_edns_options",
];

pub(super) const RESPONSE_EDNS: EdnsNames = [
    "response_edns_version",
    "response_edns_udp_size",
    "response_edns_dnssec_ok",
    "response_edns_compact_ok",
    "response_edns_deleg_ok",
    "response_client_subnet",
    "response_client_subnet_scope",
    "response_nsid",
    "response_cookie",
    "response_extended_error",
    "response_extended_error_text",
    "response_edns_padding",
    "response_edns_options",
];

#[inline(always)]
pub(super) fn edns_fields<'a, F: Fields>(
    f: &mut F,
    names: &EdnsNames,
    edns: Option<Edns<'a>>,
    policy: &Policy,
    portion: &MessagePortion,
) -> Result<(), F::Error> {
    match &edns {
        None => f.nulls(&names[..12])?,
        Some(edns) => edns_values(f, names, edns, policy, portion)?,
    }
    let options = |edns: &Edns<'a>| {
        let shown = edns.options().filter(|(code, _)| policy.shows_option(*code));
        shown.take(portion.options)
    };
    f.field(names[12], Array(edns.as_ref().map(|edns| move || options(edns))))
}

/// Passes the fields of a message's EDNS that are no list.
#[inline(always)]
fn edns_values<F: Fields>(
    f: &mut F,
    names: &EdnsNames,
    edns: &Edns<'_>,
    policy: &Policy,
    portion: &MessagePortion,
) -> Result<(), F::Error> {
    f.field(names[0], Some(edns.version))?;
    f.field(names[1], Some(edns.udp_payload_size))?;
    f.field(names[2], Some(edns.dnssec_ok))?;
    f.field(names[3], Some(edns.compact_ok))?;
    f.field(names[4], Some(edns.deleg_ok))?;
    let subnet = edns.client_subnet.and_then(|subnet| policy.client_subnet(subnet));
    f.field(names[5], subnet.map(Address::from))?;
    f.field(names[6], subnet.map(|subnet| subnet.scope_prefix))?;
    let nsid = edns.nsid.filter(|nsid| portion.nsid && policy.shows_nsid(nsid));
    f.field(names[7], nsid.map(Bytes))?;
    f.field(names[8], edns.cookie.filter(|_| policy.shows_cookies()).map(Bytes))?;
    let error = edns.extended_error;
    f.field(names[9], error.map(|error| error.code))?;
    let text = error.filter(|_| portion.error_text).map(|error| error.text);
    f.field(names[10], text.and_then(|text| policy.error_text(text)))?;
    f.field(names[11], edns.padding)
}

impl Encodable for Record<'_> {
    #[inline(always)]
    fn write<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        let Ok(()) = self.fields(out);
    }
}

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut named = Named(serializer.serialize_struct("DnsTransaction", FIELDS)?);
        self.fields(&mut named)?;
        named.0.end()
    }
}

/// A record that serializes without the fields that are null or an empty list.
pub(super) struct Compact<'a>(pub(super) &'a Record<'a>);

impl Serialize for Compact<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut present = Present(serializer.serialize_struct("DnsTransaction", FIELDS)?);
        self.0.fields(&mut present)?;
        present.0.end()
    }
}

/// Returns true if an answer is an address: A (RFC 1035 §3.4.1) or AAAA (RFC 3596 §2.2) of class IN, whose
/// RDATA is one. What is not is in the generic form (RFC 3597 §5).
pub(super) fn resolves(answer: &Answer<'_>) -> bool {
    let is_address = matches!((answer.rtype, answer.class), (1 | 28, 1));
    is_address && answer.rdata.as_bytes().first() != Some(&b'\\')
}

/// Converts to an Avro int; values here stay far below its limit.
pub(super) fn int(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// Returns the number of the frame in a replayed file.
pub(super) fn frame(seen: &Observation) -> Option<i64> {
    i64::try_from(frames::number(seen.frame)).ok().filter(|frame| *frame > 0)
}

/// Maximum difference between the clocks of two CPUs, in nanoseconds.
const CPU_SKEW_NS: u64 = 5_000;

/// Returns the nanoseconds from one capture time to a later one, or 0 if the later one precedes it
/// within the difference of CPUs. With a larger difference, the clock was set, or it is another
/// host's: the latency is unknown.
fn latency_between(from_ns: u64, to_ns: u64) -> Option<i64> {
    let latency_ns = to_ns.checked_sub(from_ns);
    let as_late = || (from_ns - to_ns <= CPU_SKEW_NS).then_some(0);
    i64::try_from(latency_ns.or_else(as_late)?).ok()
}

/// Returns the bytes of a message if they were stored; `None` if they are empty.
fn wire(seen: &Observation) -> Option<Bytes<'_>> {
    (!seen.wire.is_empty()).then_some(Bytes(&seen.wire))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_round_down() {
        let clock = Clock { utc_offset_ns: -2_500 };
        assert_eq!((clock.utc_us(1_000), clock.utc_us(2_501)), (-2, 0));
    }
}
