//! The flat profile: the same fields as primitive values.
//!
//! [`Record`] passes its fields to a consumer; here they pass through [`Flat`], which has each
//! value pass on its fields in the flat schema. So there is one list of fields for both profiles,
//! and a new one is in both.
//!
//! | full | flat |
//! |---|---|
//! | enum | its symbol, a string |
//! | `timestamp-micros` | `timestamp-millis`, and the microseconds as a long in `…_us` |
//! | bytes, fixed | hexadecimal text |
//! | array of records | text with a line for each, null if it is empty, and their number in `…_recorded` |
//! | array of strings | text separated by spaces, null if it is empty |
//! | map | a JSON object as text |
//!
//! `docs/decisions/records.md` gives the reasons.

use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::{
    Profile, Record,
    binary::{Binary, Buffer, Encodable},
    fields::{Fields, Named, Value},
    item::Item,
    owner::Identity,
};

/// Number of fields of the flat record; a test compares it with the schema.
const FIELDS: usize = 166;

/// Maximum octets of labels in JSON: 32 labels of the longest names and values that Kubernetes
/// allows take 12,353.
pub(super) const MAX_LABELS: usize = 13 * 1_024;

/// Passes fields on in their flat form.
pub(super) struct Flat<'a, F>(pub(super) &'a mut F);

impl<F: Fields> Fields for Flat<'_, F> {
    type Error = F::Error;

    const PROFILE: Profile = Profile::Flat;

    #[inline(always)]
    fn field(&mut self, name: &'static str, value: impl Value) -> Result<(), F::Error> {
        value.flat(name, self.0)
    }

    #[inline(always)]
    fn nulls(&mut self, names: &[&'static str]) -> Result<(), F::Error> {
        self.0.nulls(names)
    }

    #[inline(always)]
    fn accept_encoded(&mut self, encoded: &[u8]) -> bool {
        self.0.accept_encoded(encoded)
    }
}

/// A record in the flat profile.
#[derive(Clone, Copy)]
pub(super) struct FlatRecord<'a>(pub(super) &'a Record<'a>);

impl FlatRecord<'_> {
    /// Passes every field to `f`, in the schema's order.
    #[inline(always)]
    pub(super) fn fields<F: Fields>(&self, f: &mut F) -> Result<(), F::Error> {
        let began_us = self.0.clock.utc_us(self.0.transaction.first().at_ns);
        f.field("event_time", Millis::of(began_us))?;
        f.field("event_time_us", began_us)?;
        self.0.fields(&mut Flat(f))
    }
}

impl Encodable for FlatRecord<'_> {
    #[inline(always)]
    fn write<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        let Ok(()) = self.fields(out);
    }
}

impl Serialize for FlatRecord<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut named = Named(serializer.serialize_struct("DnsTransactionFlat", FIELDS)?);
        self.fields(&mut named)?;
        named.0.end()
    }
}

/// An owner's fields in the flat profile.
pub(super) struct FlatIdentity<'a>(pub(super) &'a Identity);

impl Encodable for FlatIdentity<'_> {
    fn write<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        let Ok(()) = self.0.fields(&mut Flat(out), &super::owner::CLIENT);
    }
}

/// Returns the name of the field after `name`: the exact microseconds of a time, or the number of a
/// list's entries.
#[inline(always)]
pub(super) fn companion(name: &'static str) -> &'static str {
    match name {
        "query_time" => "query_time_us",
        "response_time" => "response_time_us",
        "latest_query_time" => "latest_query_time_us",
        "more_questions" => "more_questions_recorded",
        "answers" => "answers_recorded",
        "authorities" => "authorities_recorded",
        "additionals" => "additionals_recorded",
        "updates" => "updates_recorded",
        "prerequisites" => "prerequisites_recorded",
        "query_edns_options" => "query_edns_options_recorded",
        "response_edns_options" => "response_edns_options_recorded",
        // A test checks that the schema has no such field.
        _ => "",
    }
}

/// Milliseconds since 1970 UTC.
pub(super) struct Millis(i64);

impl Millis {
    /// Converts microseconds; times before 1970 round down too.
    #[inline(always)]
    pub(super) const fn of(us: i64) -> Self {
        Self(us.div_euclid(1_000))
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.0)
    }
}

impl Value for Millis {
    #[inline(always)]
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        out.long(self.0);
    }
}

/// Octets as hexadecimal text.
pub(super) struct Hex<'a>(pub(super) &'a [u8]);

/// Octets whose digits fill one block.
const OCTETS: usize = 8;

fn digits(octets: [u8; OCTETS]) -> [u8; 2 * OCTETS] {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let mut digits = [0; 2 * OCTETS];
    for (pair, octet) in digits.chunks_exact_mut(2).zip(octets) {
        pair[0] = DIGITS[usize::from(octet >> 4)];
        pair[1] = DIGITS[usize::from(octet & 15)];
    }
    digits
}

impl Line for Hex<'_> {
    #[inline(always)]
    fn line<T: Text>(&self, out: &mut T) {
        let (whole, rest) = self.0.as_chunks::<OCTETS>();
        for octets in whole {
            out.text(&digits(*octets));
        }
        let mut last = [0; OCTETS];
        last[..rest.len()].copy_from_slice(rest);
        out.text(digits(last).get(..2 * rest.len()).unwrap_or_default());
    }
}

impl Serialize for Hex<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text_of(self))
    }
}

impl Value for Hex<'_> {
    #[inline(always)]
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        out.length(2 * self.0.len());
        self.line(out);
    }
}

/// Receives text piece by piece.
pub(super) trait Text {
    /// Appends a piece of UTF-8.
    fn text(&mut self, piece: &[u8]);
}

impl<R: Buffer + ?Sized> Text for Binary<'_, R> {
    #[inline(always)]
    fn text(&mut self, piece: &[u8]) {
        self.raw(piece);
    }
}

/// Counts octets without storing them.
pub(super) struct Length(pub(super) usize);

impl Text for Length {
    #[inline(always)]
    fn text(&mut self, piece: &[u8]) {
        self.0 += piece.len();
    }
}

impl Text for Vec<u8> {
    fn text(&mut self, piece: &[u8]) {
        self.extend_from_slice(piece);
    }
}

/// A value that can be written as text without a line feed.
pub(super) trait Line {
    /// Writes the text.
    fn line<T: Text>(&self, out: &mut T);
}

/// Returns the size of a line in octets.
#[inline(always)]
pub(super) fn line_length(line: &impl Line) -> usize {
    let mut length = Length(0);
    line.line(&mut length);
    length.0
}

fn text_of(line: &impl Line) -> String {
    let mut text = Vec::new();
    line.line(&mut text);
    // Only UTF-8 is written.
    String::from_utf8(text).unwrap_or_default()
}

/// An array of records as text with a line for each; null if it is empty.
pub(super) struct Lines<'a, M>(pub(super) &'a Option<M>);

impl<M, A, I> Lines<'_, M>
where
    M: Fn() -> A,
    A: Iterator<Item = I>,
    I: Item,
{
    /// Writes all lines; returns their number.
    #[inline(always)]
    fn each<T: Text>(&self, out: &mut T) -> usize {
        let Some(make) = self.0 else { return 0 };
        let mut lines = 0;
        for item in make() {
            if lines > 0 {
                out.text(b"\n");
            }
            item.line(out);
            lines += 1;
        }
        lines
    }
}

impl<M, A, I> Value for Lines<'_, M>
where
    M: Fn() -> A,
    A: Iterator<Item = I>,
    I: Item,
{
    #[inline(always)]
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        let mut length = Length(0);
        if self.each(&mut length) == 0 {
            return out.zero();
        }
        out.block([2], 1);
        out.length(length.0);
        self.each(out);
    }
}

impl<M, A, I> Serialize for Lines<'_, M>
where
    M: Fn() -> A,
    A: Iterator<Item = I>,
    I: Item,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = Vec::new();
        if self.each(&mut text) == 0 {
            return serializer.serialize_none();
        }
        serializer.serialize_some(&String::from_utf8(text).unwrap_or_default())
    }
}

/// Words as one text, separated by spaces.
pub(super) struct Words<I>(pub(super) I);

impl<'a, I: Iterator<Item = &'a str> + Clone> Line for Words<I> {
    #[inline(always)]
    fn line<T: Text>(&self, out: &mut T) {
        for (position, word) in self.0.clone().enumerate() {
            if position > 0 {
                out.text(b" ");
            }
            out.text(word.as_bytes());
        }
    }
}

impl<'a, I: Iterator<Item = &'a str> + Clone> Serialize for Words<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text_of(self))
    }
}

impl<'a, I: Iterator<Item = &'a str> + Clone> Value for Words<I> {
    #[inline(always)]
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        out.length(line_length(self));
        self.line(out);
    }
}

/// An owned text.
pub(super) struct Owned(pub(super) String);

impl Serialize for Owned {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl Value for Owned {
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        out.bytes(self.0.as_bytes());
    }
}
