//! The shape of a datum: its schema without names of types and documentation.

use std::{collections::HashMap, io::Write as _};

use apache_avro::Schema;

use super::{Cursor, Damaged};

/// Unit of a long that is a time since 1970 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// No time.
    None,
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
}

/// The shape of a datum.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Nothing, in no bytes.
    Null,
    /// A byte that is 0 or 1.
    Boolean,
    /// An int or long.
    Long(Scale),
    /// Bytes after their length.
    Bytes,
    /// UTF-8 after its length.
    Text,
    /// This many bytes.
    Fixed(usize),
    /// The index of a symbol.
    Symbol(Vec<String>),
    /// Items of one shape.
    List(Box<Self>),
    /// Keys, and values of one shape.
    Map(Box<Self>),
    /// Fields in their order.
    Record(Vec<(String, Self)>),
    /// The index of one of these, and that.
    Union(Vec<Self>),
}

/// A schema that is not read.
#[derive(Debug, thiserror::Error)]
pub enum ShapeError {
    /// It does not parse.
    #[error("its Avro schema is invalid: {0}")]
    Invalid(String),
    /// It has a type that records do not have.
    #[error("its Avro schema has {0}, which records do not have")]
    Unsupported(&'static str),
}

impl Shape {
    /// Parses the text of a schema; returns the full name of the record as well.
    ///
    /// # Errors
    /// See [`ShapeError`].
    pub fn parse(schema: &str) -> Result<(String, Self), ShapeError> {
        let parsed = Schema::parse_str(schema);
        let schema = parsed.map_err(|error| ShapeError::Invalid(error.to_string()))?;
        let name = match &schema {
            Schema::Record(record) => record.name.fullname(None),
            _ => return Err(ShapeError::Unsupported("no record at its root")),
        };
        Ok((name, Self::of(&schema, &mut HashMap::new())?))
    }

    fn of(schema: &Schema, named: &mut HashMap<String, Self>) -> Result<Self, ShapeError> {
        let unsupported = ShapeError::Unsupported;
        let (name, shape) = match schema {
            Schema::Null => return Ok(Self::Null),
            Schema::Boolean => return Ok(Self::Boolean),
            Schema::Int | Schema::Long => return Ok(Self::Long(Scale::None)),
            Schema::TimestampMillis => return Ok(Self::Long(Scale::Millis)),
            Schema::TimestampMicros => return Ok(Self::Long(Scale::Micros)),
            Schema::Bytes => return Ok(Self::Bytes),
            Schema::String => return Ok(Self::Text),
            Schema::Array(array) => return Self::item(&array.items, named).map(Self::List),
            Schema::Map(map) => return Self::item(&map.types, named).map(Self::Map),
            Schema::Union(union) => {
                let variants = union.variants().iter().map(|variant| Self::of(variant, named));
                return variants.collect::<Result<_, _>>().map(Self::Union);
            }
            Schema::Ref { name } => {
                let shape = named.get(&name.fullname(None)).cloned();
                return shape.ok_or(unsupported("a type that contains itself"));
            }
            Schema::Fixed(fixed) => (&fixed.name, Self::Fixed(fixed.size)),
            Schema::Enum(symbols) => (&symbols.name, Self::Symbol(symbols.symbols.clone())),
            Schema::Record(record) => {
                let fields = record.fields.iter();
                let fields =
                    fields.map(|field| Ok((field.name.clone(), Self::of(&field.schema, named)?)));
                (&record.name, Self::Record(fields.collect::<Result<_, ShapeError>>()?))
            }
            _ => return Err(unsupported("a type other than those of records")),
        };
        named.insert(name.fullname(None), shape.clone());
        Ok(shape)
    }

    /// Returns the shape of items, of which a count of any size must not cost more time than bytes.
    fn item(schema: &Schema, named: &mut HashMap<String, Self>) -> Result<Box<Self>, ShapeError> {
        let shape = Self::of(schema, named)?;
        match shape.takes_bytes() {
            true => Ok(Box::new(shape)),
            false => Err(ShapeError::Unsupported("items without content")),
        }
    }

    /// Returns true if every datum has a byte at least.
    #[must_use]
    pub fn takes_bytes(&self) -> bool {
        match self {
            Self::Null | Self::Fixed(0) => false,
            Self::Record(fields) => fields.iter().any(|(_, shape)| shape.takes_bytes()),
            _ => true,
        }
    }

    /// Skips a datum.
    ///
    /// # Errors
    /// When the data do not fit.
    #[inline]
    pub fn skip(&self, cursor: &mut Cursor<'_>) -> Result<(), Damaged> {
        match self {
            Self::Null => Ok(()),
            Self::Boolean => cursor.take(1).map(drop),
            Self::Long(_) | Self::Symbol(_) => cursor.long().map(drop),
            Self::Bytes | Self::Text => cursor.bytes().map(drop),
            Self::Fixed(length) => cursor.take(*length).map(drop),
            Self::Union(variants) => chosen(variants, cursor)?.skip(cursor),
            Self::Record(fields) => fields.iter().try_for_each(|(_, shape)| shape.skip(cursor)),
            Self::List(item) => each_item(cursor, |cursor| item.skip(cursor)),
            Self::Map(value) => each_item(cursor, |cursor| {
                cursor.bytes()?;
                value.skip(cursor)
            }),
        }
    }

    /// Appends a datum as JSON: bytes in hexadecimal, times as in RFC 3339.
    ///
    /// # Errors
    /// When the data do not fit.
    pub fn push_json(&self, cursor: &mut Cursor<'_>, out: &mut Vec<u8>) -> Result<(), Damaged> {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Boolean => push_display(out, cursor.boolean()?),
            Self::Long(Scale::None) => push_display(out, cursor.long()?),
            Self::Long(scale) => push_json_time(out, scale.to_micros(cursor.long()?)),
            Self::Bytes => push_json_bytes(out, cursor.bytes()?),
            Self::Fixed(length) => push_json_bytes(out, cursor.take(*length)?),
            Self::Text => push_json_text(out, cursor.text()?),
            Self::Symbol(symbols) => push_json_text(out, symbol(symbols, cursor)?),
            Self::Union(variants) => chosen(variants, cursor)?.push_json(cursor, out)?,
            Self::Record(fields) => {
                out.push(b'{');
                for (number, (name, shape)) in fields.iter().enumerate() {
                    push_json_key(out, number == 0, name);
                    shape.push_json(cursor, out)?;
                }
                out.push(b'}');
            }
            Self::List(item) => {
                let mut first = true;
                out.push(b'[');
                each_item(cursor, |cursor| {
                    if !std::mem::take(&mut first) {
                        out.push(b',');
                    }
                    item.push_json(cursor, out)
                })?;
                out.push(b']');
            }
            Self::Map(value) => {
                let mut first = true;
                out.push(b'{');
                each_item(cursor, |cursor| {
                    push_json_key(out, std::mem::take(&mut first), cursor.text()?);
                    value.push_json(cursor, out)
                })?;
                out.push(b'}');
            }
        }
        Ok(())
    }
}

impl Scale {
    /// Converts a time to microseconds.
    #[must_use]
    pub const fn to_micros(self, value: i64) -> i64 {
        match self {
            Self::Millis => value.saturating_mul(1_000),
            Self::Micros | Self::None => value,
        }
    }
}

/// Reads the index of a union, and returns that variant.
#[inline]
pub(crate) fn chosen<'a>(
    variants: &'a [Shape],
    cursor: &mut Cursor<'_>,
) -> Result<&'a Shape, Damaged> {
    variants.get(cursor.length()?).ok_or(Damaged("the variant of a union does not exist"))
}

/// Reads the index of a symbol, and returns the symbol.
#[inline]
pub(crate) fn symbol<'a>(
    symbols: &'a [String],
    cursor: &mut Cursor<'_>,
) -> Result<&'a str, Damaged> {
    let symbol = symbols.get(cursor.length()?);
    symbol.map(String::as_str).ok_or(Damaged("the symbol of an enum does not exist"))
}

/// Calls `take` at each item of an array or map.
#[inline]
pub(crate) fn each_item<'a>(
    cursor: &mut Cursor<'a>,
    mut take: impl FnMut(&mut Cursor<'a>) -> Result<(), Damaged>,
) -> Result<(), Damaged> {
    loop {
        let count = cursor.items()?;
        if count == 0 {
            return Ok(());
        }
        for _ in 0..count {
            take(cursor)?;
        }
    }
}

/// Appends a key of an object with its colon.
pub(crate) fn push_json_key(out: &mut Vec<u8>, is_first: bool, key: &str) {
    if !is_first {
        out.push(b',');
    }
    push_json_text(out, key);
    out.push(b':');
}

/// Appends a JSON string.
pub(crate) fn push_json_text(out: &mut Vec<u8>, text: &str) {
    // Writing to a Vec does not fail.
    let _ = serde_json::to_writer(out, text);
}

/// Appends a JSON string of hexadecimal digits.
pub(crate) fn push_json_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(data_encoding::HEXLOWER.encode(bytes).as_bytes());
    out.push(b'"');
}

/// Appends a JSON string of a time in microseconds.
pub(crate) fn push_json_time(out: &mut Vec<u8>, micros: i64) {
    match jiff::Timestamp::from_microsecond(micros) {
        Ok(time) => push_display(out, format_args!("\"{time:.6}\"")),
        // Out of the range that RFC 3339 has.
        Err(_) => push_display(out, micros),
    }
}

/// Appends what `value` displays.
pub(crate) fn push_display(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    // Writing to a Vec does not fail.
    let _ = write!(out, "{value}");
}
