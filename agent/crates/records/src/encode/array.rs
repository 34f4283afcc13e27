//! Arrays and maps.

use std::collections::BTreeMap;

use serde::{
    Serialize, Serializer,
    ser::{SerializeSeq, SerializeStruct},
};
use tap53_reasons::{Label, Set};

use super::{
    binary::{Binary, Buffer},
    fields::{Fields, Named, Value},
    flat::{Lines, MAX_LABELS, Owned, Words, companion},
    item::Item,
};

/// An array, given as a function that returns an iterator over its items; empty with `None`.
pub(super) struct Array<M>(pub(super) Option<M>);

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

    fn is_absent(&self) -> bool {
        self.0.as_ref().is_none_or(|make| make().next().is_none())
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

/// An array of texts, given by a function that creates an iterator over them; empty with `None`.
pub(super) struct Texts<M>(pub(super) Option<M>);

impl<'a, M, I> Value for Texts<M>
where
    M: Fn() -> I,
    I: Iterator<Item = &'a str> + Clone,
{
    #[inline(always)]
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        let Some(make) = &self.0 else { return out.zero() };
        let texts = make();
        if texts.size_hint().1.is_some_and(|most| most < 64) {
            return out.items(|out| {
                let mut count = 0;
                for text in texts {
                    text.push(out);
                    count += 1;
                }
                count
            });
        }
        let count = texts.count();
        if count > 0 {
            out.length(count);
            for text in make() {
                text.push(out);
            }
        }
        out.zero();
    }

    fn is_absent(&self) -> bool {
        self.0.as_ref().is_none_or(|make| make().next().is_none())
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

/// An array of the labels' names.
impl<L: Label> Value for Set<L> {
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

    fn is_absent(&self) -> bool {
        self.is_empty()
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

    fn is_absent(&self) -> bool {
        self.0.is_empty()
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

/// Returns the number of items; the items of a filter must be counted.
#[inline(always)]
fn count<I: Iterator>(make: impl Fn() -> I) -> usize {
    match make().size_hint() {
        (least, Some(most)) if least == most => least,
        _ => make().count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::binary::{encoded_value, push_long};

    #[test]
    fn texts_are_their_number_and_themselves_however_many_are_left_out() {
        let numbers = [0, 1, 62, 63, 64, 65, 200];
        for (number, kept) in numbers.iter().flat_map(|it| numbers.map(|kept| (*it, kept))) {
            let texts = vec!["a text"; number];
            let some = || texts.iter().enumerate().filter(|(at, _)| *at < kept).map(|(_, it)| *it);
            let mut expected = Vec::new();
            if number.min(kept) > 0 {
                push_long(&mut expected, i64::try_from(number.min(kept)).unwrap());
                for text in some() {
                    push_long(&mut expected, 6);
                    expected.extend(text.as_bytes());
                }
            }
            expected.push(0);
            assert_eq!(encoded_value(Texts(Some(some))), expected, "{kept} of {number}");
        }
        assert_eq!(encoded_value(Texts(None::<fn() -> std::iter::Empty<&'static str>>)), [0]);
    }
}
