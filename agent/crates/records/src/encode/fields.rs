//! One list of fields for every encoding.
//!
//! [`Record`](super::Record) names each of its fields once, in the schema's order, to whoever takes
//! them: the Avro writer, which needs only the order, or a serde serializer, which needs the names
//! (JSON, and apache-avro in the tests). So a field cannot be in one encoding and not in another;
//! and as apache-avro finds fields by name in the schema, while the Avro writer trusts their order,
//! comparing the two shows a field that is missing in the schema, missing here, or misplaced.

use serde::{Serialize, ser::SerializeStruct};

use super::{
    Profile,
    binary::{Binary, Buffer},
};

/// Takes fields, in the schema's order.
pub(super) trait Fields {
    /// Why a field is not taken.
    type Error;

    /// The profile that the fields are taken in.
    const PROFILE: Profile = Profile::Full;

    /// Takes one field.
    fn field(&mut self, name: &'static str, value: impl Value) -> Result<(), Self::Error>;

    /// Takes several fields by their Avro encoding, if it is that which is written; false if each is
    /// to be handed over.
    fn known(&mut self, _encoded: &[u8]) -> bool {
        false
    }
}

/// What a field can hold: for serde, and for Avro's binary encoding.
pub(super) trait Value: Serialize {
    /// Appends the value (Avro 1.12, "Binary Encoding").
    fn push<R: Buffer + ?Sized>(&self, out: &mut Binary<'_, R>);

    /// Hands itself to `f` as the fields that the flat profile has for it: unless it is of another
    /// type there, as it is.
    #[inline(always)]
    fn flat<F: Fields>(self, name: &'static str, f: &mut F) -> Result<(), F::Error>
    where
        Self: Sized,
    {
        f.field(name, self)
    }

    /// As [`Self::flat`], where there may be none.
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

/// Fields for a serde serializer.
pub(super) struct Named<S>(pub(super) S);

impl<S: SerializeStruct> Fields for Named<S> {
    type Error = S::Error;

    fn field(&mut self, name: &'static str, value: impl Value) -> Result<(), S::Error> {
        self.0.serialize_field(name, &value)
    }
}
