//! One list of fields for every encoding.
//!
//! [`Record`](super::Record) names each of its fields once, in the schema's order, to whoever takes
//! them: the Avro writer, which needs only the order, or a serde serializer, which needs the names
//! (JSON, and apache-avro in the tests). So a field cannot be in one encoding and not in another;
//! and as apache-avro finds fields by name in the schema, while the Avro writer trusts their order,
//! comparing the two shows a field that is missing in the schema, missing here, or misplaced.

use serde::{Serialize, ser::SerializeStruct};

use super::binary::{Binary, Room};

/// Takes fields, in the schema's order.
pub(super) trait Fields {
    /// Why a field is not taken.
    type Error;

    /// Takes one field.
    fn field(&mut self, name: &'static str, value: impl Value) -> Result<(), Self::Error>;

    /// Takes the fields that `each` names, whose Avro encoding is known to be `encoded`.
    fn known(
        &mut self,
        encoded: &[u8],
        each: impl FnOnce(&mut Self) -> Result<(), Self::Error>,
    ) -> Result<(), Self::Error>;
}

/// What a field can hold: for serde, and for Avro's binary encoding.
pub(super) trait Value: Serialize {
    /// Appends the value (Avro 1.12, "Binary Encoding").
    fn push<R: Room + ?Sized>(&self, out: &mut Binary<'_, R>);
}

/// Fields for a serde serializer.
pub(super) struct Named<S>(pub(super) S);

impl<S: SerializeStruct> Fields for Named<S> {
    type Error = S::Error;

    fn field(&mut self, name: &'static str, value: impl Value) -> Result<(), S::Error> {
        self.0.serialize_field(name, &value)
    }

    fn known(
        &mut self,
        _encoded: &[u8],
        each: impl FnOnce(&mut Self) -> Result<(), S::Error>,
    ) -> Result<(), S::Error> {
        each(self)
    }
}
