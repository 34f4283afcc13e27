//! Field values that differ between Avro and JSON.

use std::collections::BTreeMap;

use serde::{
    Serialize, Serializer,
    ser::{SerializeSeq, SerializeStruct},
};
use tap53_dns::{Answer, ClientSubnet, ParseStatus, Question, Transport};
use tap53_ebpf::settings::Direction;
use tap53_signals::Signals;
use tap53_transactions::{
    pair::{Anomalies, Anomaly, Nat, Outcome, RecordId, Relation},
    privacy::{ExchangeId, Policy, ShownAddress},
};

use super::{
    Attribution, NodeRole, OwnerSource,
    address::AddressText,
    binary::{Binary, Buffer, SOME},
    fields::{Fields, Named, Value},
    flat::{Hex, Line, Lines, MAX_LABELS, Millis, Owned, Text, Words, companion},
    mnemonic::Mnemonic,
};

/// A symbol of an Avro enum: its position in the schema, and its text.
pub(super) struct Symbol {
    enumeration: &'static str,
    position: u8,
    text: &'static str,
}

impl Symbol {
    const fn new(enumeration: &'static str, position: u8, text: &'static str) -> Self {
        Self { enumeration, position, text }
    }

    pub(super) const fn of_direction(direction: Direction) -> Self {
        match direction {
            Direction::Ingress => Self::new("Direction", direction as u8, "INGRESS"),
            Direction::Egress => Self::new("Direction", direction as u8, "EGRESS"),
        }
    }

    pub(super) const fn of_transport(transport: Transport) -> Self {
        match transport {
            Transport::Udp => Self::new("Transport", transport as u8, "UDP"),
            Transport::Tcp => Self::new("Transport", transport as u8, "TCP"),
        }
    }

    pub(super) const fn of_outcome(outcome: Outcome) -> Self {
        Self::new("Outcome", outcome as u8, outcome.symbol())
    }

    pub(super) const fn of_relation(relation: Relation) -> Self {
        Self::new("Relation", relation as u8, relation.symbol())
    }

    pub(super) const fn of_nat(nat: Nat) -> Self {
        Self::new("Nat", nat as u8, nat.symbol())
    }

    pub(super) const fn of_node_role(role: NodeRole) -> Self {
        Self::new("Observation", role as u8, role.symbol())
    }

    pub(super) const fn of_parse_status(status: ParseStatus) -> Self {
        Self::new("ParseStatus", status as u8, status.name())
    }

    pub(super) const fn of_attribution(attribution: Attribution) -> Self {
        Self::new("Attribution", attribution as u8, attribution.symbol())
    }

    pub(super) const fn of_owner_source(source: OwnerSource) -> Self {
        Self { enumeration: "OwnerSource", position: source as u8, text: source.symbol() }
    }
}

impl Serialize for Symbol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit_variant(self.enumeration, self.position.into(), self.text)
    }
}

impl Value for Symbol {
    #[inline(always)]
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        // An Avro int; no enum here has more than 63 symbols.
        out.block([self.position << 1], 1);
    }

    #[inline(always)]
    fn push_some<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        out.block([SOME, self.position << 1], 2);
    }

    #[inline(always)]
    fn flat<F: Fields>(self, name: &'static str, f: &mut F) -> Result<(), F::Error> {
        f.field(name, self.text)
    }

    #[inline(always)]
    fn flat_option<F: Fields>(
        value: Option<Self>,
        name: &'static str,
        f: &mut F,
    ) -> Result<(), F::Error> {
        f.field(name, value.map(|symbol| symbol.text))
    }
}

/// Microseconds since 1970 UTC: a number in Avro, RFC 3339 in JSON.
pub(super) struct Time(pub(super) i64);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return serializer.serialize_i64(self.0);
        }
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(timestamp) => serializer.collect_str(&format_args!("{timestamp:.6}")),
            Err(error) => Err(serde::ser::Error::custom(error)),
        }
    }
}

impl Value for Time {
    #[inline(always)]
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        out.long(self.0);
    }

    #[inline(always)]
    fn flat<F: Fields>(self, name: &'static str, f: &mut F) -> Result<(), F::Error> {
        f.field(name, Millis::of(self.0))?;
        f.field(companion(name), self.0)
    }

    #[inline(always)]
    fn flat_option<F: Fields>(
        value: Option<Self>,
        name: &'static str,
        f: &mut F,
    ) -> Result<(), F::Error> {
        let us = value.map(|time| time.0);
        f.field(name, us.map(Millis::of))?;
        f.field(companion(name), us)
    }
}

/// Bytes: unchanged in Avro, hexadecimal in JSON.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return serializer.serialize_bytes(self.0);
        }
        let mut text = String::with_capacity(self.0.len() * 2);
        for octet in self.0 {
            for digit in [octet >> 4, octet & 15] {
                text.extend(char::from_digit(u32::from(digit), 16));
            }
        }
        serializer.serialize_str(&text)
    }
}

impl Value for Bytes<'_> {
    #[inline(always)]
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        out.bytes(self.0);
    }

    #[inline(always)]
    fn flat<F: Fields>(self, name: &'static str, f: &mut F) -> Result<(), F::Error> {
        f.field(name, Hex(self.0))
    }

    #[inline(always)]
    fn flat_option<F: Fields>(
        value: Option<Self>,
        name: &'static str,
        f: &mut F,
    ) -> Result<(), F::Error> {
        f.field(name, value.map(|bytes| Hex(bytes.0)))
    }
}

impl Value for ExchangeId {
    #[inline(always)]
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        out.block(self.0, self.0.len());
    }

    #[inline(always)]
    fn flat_option<F: Fields>(
        value: Option<Self>,
        name: &'static str,
        f: &mut F,
    ) -> Result<(), F::Error> {
        f.field(name, value.as_ref().map(|id| Hex(&id.0)))
    }
}

impl Value for RecordId {
    #[inline(always)]
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        out.block(self.0, self.0.len());
    }

    #[inline(always)]
    fn flat<F: Fields>(self, name: &'static str, f: &mut F) -> Result<(), F::Error> {
        f.field(name, Hex(&self.0))
    }

    #[inline(always)]
    fn flat_option<F: Fields>(
        value: Option<Self>,
        name: &'static str,
        f: &mut F,
    ) -> Result<(), F::Error> {
        f.field(name, value.as_ref().map(|id| Hex(&id.0)))
    }
}

impl Value for Anomalies {
    #[inline(always)]
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        if !self.is_empty() {
            out.length(self.len());
            for anomaly in self.iter() {
                anomaly.name().push(out);
            }
        }
        out.zero();
    }

    #[inline(always)]
    fn flat<F: Fields>(self, name: &'static str, f: &mut F) -> Result<(), F::Error> {
        let names = Words(self.iter().map(Anomaly::name));
        f.field(name, (!self.is_empty()).then_some(names))
    }
}

impl Value for Signals {
    #[inline(always)]
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        if !self.is_empty() {
            out.length(self.len());
            for name in self.names() {
                name.push(out);
            }
        }
        out.zero();
    }

    #[inline(always)]
    fn flat<F: Fields>(self, name: &'static str, f: &mut F) -> Result<(), F::Error> {
        f.field(name, (!self.is_empty()).then(|| Words(self.names())))
    }

    #[inline(always)]
    fn flat_option<F: Fields>(
        value: Option<Self>,
        name: &'static str,
        f: &mut F,
    ) -> Result<(), F::Error> {
        value.unwrap_or_default().flat(name, f)
    }
}

/// An array of texts, given by a function that creates an iterator over them; empty with `None`.
pub(super) struct Texts<M>(pub(super) Option<M>);

impl<'a, M, I> Value for Texts<M>
where
    M: Fn() -> I,
    I: Iterator<Item = &'a str> + Clone,
{
    #[inline(always)]
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        let count = self.0.as_ref().map_or(0, count);
        if count > 0 {
            out.length(count);
            for text in self.0.iter().flat_map(|make| make()) {
                text.push(out);
            }
        }
        out.zero();
    }

    #[inline(always)]
    fn flat<F: Fields>(self, name: &'static str, f: &mut F) -> Result<(), F::Error> {
        let words = self.0.map(|make| make()).filter(|texts| texts.clone().next().is_some());
        f.field(name, words.map(Words))
    }
}

impl<'a, M, I> Serialize for Texts<M>
where
    M: Fn() -> I,
    I: Iterator<Item = &'a str>,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut s = serializer.serialize_seq(Some(self.0.as_ref().map_or(0, count)))?;
        for text in self.0.iter().flat_map(|make| make()) {
            s.serialize_element(text)?;
        }
        s.end()
    }
}

/// The text of an address, with a prefix length if it has one.
pub(super) struct Address(AddressText);

impl From<ShownAddress> for Address {
    #[inline(always)]
    fn from(address: ShownAddress) -> Self {
        Self(AddressText::shown(&address))
    }
}

impl From<ClientSubnet> for Address {
    fn from(subnet: ClientSubnet) -> Self {
        Self(AddressText::with_prefix(subnet.address, subnet.source_prefix))
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl Value for Address {
    #[inline(always)]
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        self.0.push_string(out);
    }
}

/// An item of an array of records; a line of text in the flat profile.
pub(super) trait Item: Line {
    /// Name of the record in the schema.
    const NAME: &'static str;
    /// Number of its fields.
    const FIELDS: usize;

    /// Passes its fields to `f`, in the schema's order.
    fn fields<F: Fields>(&self, f: &mut F) -> Result<(), F::Error>;
}

/// An item to which a privacy policy applies.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a, T>(pub(super) &'a Policy, pub(super) T);

impl Item for Shown<'_, Question<'_>> {
    const NAME: &'static str = "Question";
    const FIELDS: usize = 3;

    #[inline(always)]
    fn fields<F: Fields>(&self, f: &mut F) -> Result<(), F::Error> {
        let Self(policy, question) = self;
        f.field("name", &*policy.name(question.name))?;
        f.field("type", Mnemonic::Type(question.qtype))?;
        f.field("class", Mnemonic::Class(question.qclass))
    }
}

impl Line for Shown<'_, Question<'_>> {
    #[inline(always)]
    fn line<T: Text>(&self, out: &mut T) {
        let Self(policy, question) = self;
        out.text(policy.name(question.name).as_bytes());
        out.text(b" ");
        out.text(Mnemonic::Class(question.qclass).encoded().text());
        out.text(b" ");
        out.text(Mnemonic::Type(question.qtype).encoded().text());
    }
}

/// A prerequisite or an update of an UPDATE request, of which a policy may hide more than of an
/// answer.
#[derive(Clone, Copy)]
pub(super) struct Update<'a>(pub(super) Answer<'a>);

impl Item for Shown<'_, Answer<'_>> {
    const NAME: &'static str = "Answer";
    const FIELDS: usize = 5;

    #[inline(always)]
    fn fields<F: Fields>(&self, f: &mut F) -> Result<(), F::Error> {
        let Self(policy, answer) = self;
        let name = policy.name(answer.name);
        answer_fields(f, answer, &name, &policy.answer_rdata(answer.rdata))
    }
}

impl Item for Shown<'_, Update<'_>> {
    const NAME: &'static str = "Answer";
    const FIELDS: usize = 5;

    #[inline(always)]
    fn fields<F: Fields>(&self, f: &mut F) -> Result<(), F::Error> {
        let Self(policy, Update(record)) = self;
        let name = policy.update_name(record.name);
        answer_fields(f, record, &name, &policy.update_rdata(record.rtype, record.rdata))
    }
}

impl Line for Shown<'_, Answer<'_>> {
    #[inline(always)]
    fn line<T: Text>(&self, out: &mut T) {
        let Self(policy, answer) = self;
        answer_line(out, answer, &policy.name(answer.name), &policy.answer_rdata(answer.rdata));
    }
}

impl Line for Shown<'_, Update<'_>> {
    #[inline(always)]
    fn line<T: Text>(&self, out: &mut T) {
        let Self(policy, Update(record)) = self;
        let name = policy.update_name(record.name);
        answer_line(out, record, &name, &policy.update_rdata(record.rtype, record.rdata));
    }
}

/// Writes name, TTL, class, type and RDATA like a line of a zone file (RFC 1035 §5.1). Only the
/// last one may contain a space: names have `\032` instead.
#[inline(always)]
fn answer_line<T: Text>(out: &mut T, record: &Answer<'_>, name: &str, rdata: &str) {
    out.text(name.as_bytes());
    out.text(b" ");
    out.text(itoa::Buffer::new().format(record.ttl).as_bytes());
    out.text(b" ");
    out.text(Mnemonic::Class(record.class).encoded().text());
    out.text(b" ");
    out.text(Mnemonic::Type(record.rtype).encoded().text());
    out.text(b" ");
    out.text(rdata.as_bytes());
}

#[inline(always)]
fn answer_fields<F: Fields>(
    f: &mut F,
    record: &Answer<'_>,
    name: &str,
    rdata: &str,
) -> Result<(), F::Error> {
    f.field("name", name)?;
    f.field("type", Mnemonic::Type(record.rtype))?;
    f.field("class", Mnemonic::Class(record.class))?;
    f.field("ttl", record.ttl)?;
    f.field("rdata", rdata)
}

/// Code and data of an EDNS option.
impl Item for (u16, &[u8]) {
    const NAME: &'static str = "EdnsOption";
    const FIELDS: usize = 2;

    #[inline(always)]
    fn fields<F: Fields>(&self, f: &mut F) -> Result<(), F::Error> {
        f.field("code", self.0)?;
        f.field("data", Bytes(self.1))
    }
}

impl Line for (u16, &[u8]) {
    #[inline(always)]
    fn line<T: Text>(&self, out: &mut T) {
        out.text(itoa::Buffer::new().format(self.0).as_bytes());
        out.text(b" ");
        Hex(self.1).line(out);
    }
}

/// An array, given as a function that returns an iterator over its items; empty with `None`.
pub(super) struct Array<M>(pub(super) Option<M>);

/// Returns the number of items; the items of a filter must be counted.
#[inline(always)]
fn count<I: Iterator>(make: impl Fn() -> I) -> usize {
    match make().size_hint() {
        (least, Some(most)) if least == most => least,
        _ => make().count(),
    }
}

impl<M, A, I> Value for Array<M>
where
    M: Fn() -> A,
    A: Iterator<Item = I>,
    I: Item,
{
    #[inline(always)]
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        let Some(make) = &self.0 else { return out.zero() };
        let count = count(make);
        if count > 0 {
            out.length(count);
            for item in make() {
                let Ok(()) = item.fields(out);
            }
        }
        out.zero();
    }

    #[inline(always)]
    fn flat<F: Fields>(self, name: &'static str, f: &mut F) -> Result<(), F::Error> {
        f.field(name, Lines(&self.0))?;
        // A message has at most 65,535 entries of a kind.
        let entries = self.0.as_ref().map_or(0, count);
        f.field(companion(name), i32::try_from(entries).unwrap_or(i32::MAX))
    }
}

impl<M, A, I> Serialize for Array<M>
where
    M: Fn() -> A,
    A: Iterator<Item = I>,
    I: Item,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut s = serializer.serialize_seq(Some(self.0.as_ref().map_or(0, count)))?;
        for item in self.0.iter().flat_map(|make| make()) {
            s.serialize_element(&Row(item))?;
        }
        s.end()
    }
}

/// A single item, for serde.
pub(super) struct Row<I>(pub(super) I);

impl<I: Item> Serialize for Row<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut named = Named(serializer.serialize_struct(I::NAME, I::FIELDS)?);
        self.0.fields(&mut named)?;
        named.0.end()
    }
}

/// A map of texts.
pub(super) struct Labels<'a>(pub(super) &'a BTreeMap<String, String>);

impl Serialize for Labels<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl Value for Labels<'_> {
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        if !self.0.is_empty() {
            out.length(self.0.len());
            for (name, value) in self.0 {
                name.as_str().push(out);
                value.as_str().push(out);
            }
        }
        out.zero();
    }

    fn flat_option<F: Fields>(
        value: Option<Self>,
        name: &'static str,
        f: &mut F,
    ) -> Result<(), F::Error> {
        let json = value.and_then(|labels| serde_json::to_string(labels.0).ok());
        f.field(name, json.filter(|json| json.len() <= MAX_LABELS).map(Owned))
    }
}
