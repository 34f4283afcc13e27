//! One list of fields for every encoding.
//!
//! [`Record`](super::Record) passes each of its fields once, in the schema's order, to a consumer:
//! the Avro writer, which only needs the order, or a serde serializer, which needs the names (JSON,
//! and apache-avro in the tests). So a field cannot be in one encoding and not in another.
//! apache-avro finds fields by name in the schema, while the Avro writer relies on their order;
//! comparing the two reveals a field that is missing in the schema, missing here, or misplaced.

use serde::{Serialize, ser::SerializeStruct};

use super::{
    Profile,
    binary::{Binary, Buffer},
};

/// Consumes fields, in the schema's order.
pub(super) trait Fields {
    /// The reason why a field is refused.
    type Error;

    /// The profile of the fields.
    const PROFILE: Profile = Profile::Full;

    /// Consumes one field.
    fn field(&mut self, name: &'static str, value: impl Value) -> Result<(), Self::Error>;

    /// Consumes several fields that are null: optional values with one field each in both profiles.
    fn nulls(&mut self, names: &[&'static str]) -> Result<(), Self::Error>;

    /// Consumes several fields by their Avro encoding. Returns false if the consumer needs each
    /// field separately.
    fn accept_encoded(&mut self, _encoded: &[u8]) -> bool {
        false
    }
}

/// A value of a field, for serde and for Avro's binary encoding.
pub(super) trait Value: Serialize {
    /// Appends the value (Avro 1.12, "Binary Encoding").
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>);

    /// Appends the value after the branch of an optional that has one.
    #[inline(always)]
    fn push_some<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>) {
        out.some();
        self.push(out);
    }

    /// Returns true for null and for an empty list.
    fn is_absent(&self) -> bool {
        false
    }

    /// Passes itself to `f` as its fields in the flat profile: by default unchanged.
    #[inline(always)]
    fn flat<F: Fields>(self, name: &'static str, f: &mut F) -> Result<(), F::Error>
    where
        Self: Sized,
    {
        f.field(name, self)
    }

    /// Passes an optional value like [`Self::flat`].
    #[inline(always)]
    fn flat_option<F: Fields>(
        value: Option<Self>,
        name: &'static str,
        f: &mut F,
    ) -> Result<(), F::Error>
    where
        Self: Sized,
    {
        f.field(name, value)
    }
}

/// Passes fields to a serde serializer.
pub(super) struct Named<S>(pub(super) S);

impl<S: SerializeStruct> Fields for Named<S> {
    type Error = S::Error;

    fn field(&mut self, name: &'static str, value: impl Value) -> Result<(), S::Error> {
        self.0.serialize_field(name, &value)
    }

    fn nulls(&mut self, names: &[&'static str]) -> Result<(), S::Error> {
        names.iter().try_for_each(|name| self.0.serialize_field(name, &None::<()>))
    }
}

/// Passes the fields that are neither null nor an empty list to a serde serializer.
pub(super) struct Present<S>(pub(super) S);

impl<S: SerializeStruct> Fields for Present<S> {
    type Error = S::Error;

    fn field(&mut self, name: &'static str, value: impl Value) -> Result<(), S::Error> {
        if value.is_absent() { Ok(()) } else { self.0.serialize_field(name, &value) }
    }

    fn nulls(&mut self, _names: &[&'static str]) -> Result<(), S::Error> {
        Ok(())
    }
}
