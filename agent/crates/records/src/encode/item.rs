//! Items of arrays of records: questions, answers and EDNS options.

use tap53_dns::{Answer, Question};
use tap53_transactions::privacy::Policy;

use super::{
    fields::Fields,
    flat::{Hex, Line, Text},
    mnemonic::Mnemonic,
    value::Bytes,
};

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
