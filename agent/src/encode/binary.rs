//! Avro's binary encoding, written without looking at the schema.
//!
//! apache-avro's serde path looks every field up by name and costs two to three times what
//! serde_json costs for the same record; this one costs a fraction of it (`cargo xtask bench`).
//! It relies on what [`Record`](super::Record) promises: fields come in the schema's order with
//! the schema's types, optional values are unions with null first, enum positions are the
//! schema's. A differential test holds it against apache-avro, byte for byte.
//!
//! | serde | Avro 1.12 "Binary Encoding" |
//! |---|---|
//! | integers | zig-zag varint |
//! | str, bytes | length, then the bytes |
//! | `None`, `Some` | branch 0; branch 1, then the value |
//! | unit variant | its position |
//! | seq, map | one block: count, items, then count 0 |
//! | struct | its fields |
//! | field [`FIXED`] | its bytes without a length |

use std::fmt;

use serde::{
    Serialize, Serializer,
    ser::{Error as _, Impossible, SerializeMap, SerializeSeq, SerializeStruct},
};

/// The one field that is an Avro fixed: serde has no such type to tell it from bytes.
const FIXED: &str = "record_id";

/// Something that the encoding does not cover: a defect of this program.
#[derive(Debug)]
pub(super) struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl serde::ser::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

fn unsupported<T>(what: &str) -> Result<T, Error> {
    Err(Error(format!("{what} has no place in the schema")))
}

/// Appends a value to a buffer.
pub(super) struct Binary<'a> {
    out: &'a mut Vec<u8>,
    /// Set for [`FIXED`].
    fixed: bool,
}

impl<'a> Binary<'a> {
    pub(super) const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, fixed: false }
    }
}

/// Appends an Avro int or long: zig-zag, then seven bits a byte, lowest first.
pub(crate) fn push_long(out: &mut Vec<u8>, value: i64) {
    let mut rest = (value << 1 ^ value >> 63).cast_unsigned();
    while rest >= 0x80 {
        let [lowest, ..] = rest.to_le_bytes();
        out.push(lowest | 0x80);
        rest >>= 7;
    }
    out.push(rest.to_le_bytes()[0]);
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Error> {
    push_long(out, i64::try_from(bytes.len()).map_err(Error::custom)?);
    out.extend_from_slice(bytes);
    Ok(())
}

/// Items of an array or a map, in one block.
pub(super) struct Block<'a> {
    out: &'a mut Vec<u8>,
    /// Items still to come.
    left: usize,
}

impl<'a> Block<'a> {
    fn new(out: &'a mut Vec<u8>, length: Option<usize>) -> Result<Self, Error> {
        let Some(left) = length else { return unsupported("a sequence of unknown length") };
        if left > 0 {
            push_long(out, i64::try_from(left).map_err(Error::custom)?);
        }
        Ok(Self { out, left })
    }

    fn count(&mut self) -> Result<(), Error> {
        let Some(left) = self.left.checked_sub(1) else { return unsupported("an item too many") };
        self.left = left;
        Ok(())
    }

    fn finish(self) -> Result<(), Error> {
        if self.left > 0 {
            return unsupported("an item missing");
        }
        push_long(self.out, 0);
        Ok(())
    }
}

impl SerializeSeq for Block<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Error> {
        self.count()?;
        value.serialize(Binary::new(self.out))
    }

    fn end(self) -> Result<(), Error> {
        self.finish()
    }
}

impl SerializeMap for Block<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: ?Sized + Serialize>(&mut self, key: &T) -> Result<(), Error> {
        self.count()?;
        key.serialize(Binary::new(self.out))
    }

    fn serialize_value<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(Binary::new(self.out))
    }

    fn end(self) -> Result<(), Error> {
        self.finish()
    }
}

impl SerializeStruct for Binary<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: ?Sized + Serialize>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(Binary { out: self.out, fixed: name == FIXED })
    }

    fn end(self) -> Result<(), Error> {
        Ok(())
    }
}

impl<'a> Serializer for Binary<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Block<'a>;
    type SerializeTuple = Impossible<(), Error>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeMap = Block<'a>;
    type SerializeStruct = Self;
    type SerializeStructVariant = Impossible<(), Error>;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.out.push(u8::from(value));
        Ok(())
    }

    fn serialize_i8(self, value: i8) -> Result<(), Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<(), Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<(), Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_i64(self, value: i64) -> Result<(), Error> {
        push_long(self.out, value);
        Ok(())
    }

    fn serialize_u8(self, value: u8) -> Result<(), Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<(), Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<(), Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_u64(self, _value: u64) -> Result<(), Error> {
        unsupported("an unsigned 64-bit integer")
    }

    fn serialize_f32(self, _value: f32) -> Result<(), Error> {
        unsupported("a float")
    }

    fn serialize_f64(self, _value: f64) -> Result<(), Error> {
        unsupported("a double")
    }

    fn serialize_char(self, _value: char) -> Result<(), Error> {
        unsupported("a character")
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        push_bytes(self.out, value.as_bytes())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Error> {
        if self.fixed {
            self.out.extend_from_slice(value);
            return Ok(());
        }
        push_bytes(self.out, value)
    }

    fn serialize_none(self) -> Result<(), Error> {
        push_long(self.out, 0);
        Ok(())
    }

    fn serialize_some<T: ?Sized + Serialize>(self, value: &T) -> Result<(), Error> {
        push_long(self.out, 1);
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        unsupported("a unit")
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<(), Error> {
        unsupported(name)
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        position: u32,
        _variant: &'static str,
    ) -> Result<(), Error> {
        self.serialize_u32(position)
    }

    fn serialize_newtype_struct<T: ?Sized + Serialize>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        name: &'static str,
        _position: u32,
        _variant: &'static str,
        _value: &T,
    ) -> Result<(), Error> {
        unsupported(name)
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Block<'a>, Error> {
        Block::new(self.out, length)
    }

    fn serialize_tuple(self, _length: usize) -> Result<Self::SerializeTuple, Error> {
        unsupported("a tuple")
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        _length: usize,
    ) -> Result<Self::SerializeTupleStruct, Error> {
        unsupported(name)
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _position: u32,
        _variant: &'static str,
        _length: usize,
    ) -> Result<Self::SerializeTupleVariant, Error> {
        unsupported(name)
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Block<'a>, Error> {
        Block::new(self.out, length)
    }

    fn serialize_struct(self, _name: &'static str, _length: usize) -> Result<Self, Error> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _position: u32,
        _variant: &'static str,
        _length: usize,
    ) -> Result<Self::SerializeStructVariant, Error> {
        unsupported(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longs_are_zig_zag_varints() {
        for (value, bytes) in [
            (0, &[0][..]),
            (-1, &[1]),
            (1, &[2]),
            (63, &[126]),
            (64, &[0x80, 1]),
            (i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            let mut out = Vec::new();
            push_long(&mut out, value);
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn what_the_schema_has_no_place_for_is_refused() {
        let mut out = Vec::new();
        assert!(1u64.serialize(Binary::new(&mut out)).is_err());
        assert!((1u8, 2u8).serialize(Binary::new(&mut out)).is_err());
        assert!(1.5f64.serialize(Binary::new(&mut out)).is_err());
    }
}
