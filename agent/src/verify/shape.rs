//! A schema as a tree, with the canonical binary form of its values.
//!
//! Avro leaves choices to a writer: the blocks of an array or a map, the order of a map, the number of
//! bytes of a number. The agent always makes the same ones: one block, map entries ordered by the bytes of
//! their keys, numbers as short as possible. So the bytes follow from the values.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// A type, with all names resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Null,
    Boolean,
    /// long and int, which are both varints.
    Long,
    /// timestamp-micros.
    Time,
    /// timestamp-millis.
    Milliseconds,
    Bytes,
    String,
    Fixed(usize),
    Enum(Vec<String>),
    Array(Box<Self>),
    Map(Box<Self>),
    Record(Vec<(String, Self)>),
    Union(Vec<Self>),
}

/// The reason why a value does not match a shape, with the path of the field.
pub(super) type Misfit = String;

impl Shape {
    /// Parses a schema of this program.
    pub(super) fn parse(text: &str) -> Result<Self, Misfit> {
        let schema: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        Self::of(&schema, &mut HashMap::new())
    }

    fn of(schema: &Value, named: &mut HashMap<String, Self>) -> Result<Self, Misfit> {
        match schema {
            Value::String(name) => Self::primitive(name)
                .or_else(|| named.get(name).cloned())
                .ok_or_else(|| format!("{name} is no type")),
            Value::Array(branches) => {
                let branches = branches.iter().map(|branch| Self::of(branch, named));
                Ok(Self::Union(branches.collect::<Result<_, _>>()?))
            }
            Value::Object(parts) => Self::complex(parts, named),
            other => Err(format!("{other} is no type")),
        }
    }

    fn primitive(name: &str) -> Option<Self> {
        Some(match name {
            "null" => Self::Null,
            "boolean" => Self::Boolean,
            "int" | "long" => Self::Long,
            "bytes" => Self::Bytes,
            "string" => Self::String,
            _ => return None,
        })
    }

    fn complex(
        parts: &Map<String, Value>,
        named: &mut HashMap<String, Self>,
    ) -> Result<Self, Misfit> {
        let kind = parts.get("type").ok_or("a type without a type")?;
        let text = |name: &str| parts.get(name).and_then(Value::as_str).unwrap_or_default();
        let inner = |name: &str, named: &mut HashMap<String, Self>| {
            let inner = parts.get(name).ok_or_else(|| format!("{kind} without {name}"))?;
            Self::of(inner, named).map(Box::new)
        };
        let list = |name: &str| parts.get(name).and_then(Value::as_array).into_iter().flatten();
        let shape = match kind.as_str() {
            Some("array") => return Ok(Self::Array(inner("items", named)?)),
            Some("map") => return Ok(Self::Map(inner("values", named)?)),
            Some("long") if text("logicalType") == "timestamp-micros" => return Ok(Self::Time),
            Some("long") if text("logicalType") == "timestamp-millis" => {
                return Ok(Self::Milliseconds);
            }
            Some("fixed") => {
                let size = parts.get("size").and_then(Value::as_u64);
                Self::Fixed(size.and_then(|size| size.try_into().ok()).ok_or("fixed of no size")?)
            }
            Some("enum") => {
                let symbols = list("symbols").filter_map(Value::as_str).map(str::to_owned);
                Self::Enum(symbols.collect())
            }
            Some("record") => {
                let mut fields = Vec::new();
                for field in list("fields") {
                    let name = field["name"].as_str().ok_or("a field without a name")?;
                    fields.push((name.to_owned(), Self::of(&field["type"], named)?));
                }
                Self::Record(fields)
            }
            _ => return Self::of(kind, named),
        };
        named.insert(text("name").to_owned(), shape.clone());
        Ok(shape)
    }

    /// Appends the binary form of a value, given as JSON with bytes in hexadecimal.
    pub(super) fn encode(&self, value: &Value, out: &mut Vec<u8>) -> Result<(), Misfit> {
        match (self, value) {
            (Self::Null, Value::Null) => {}
            (Self::Boolean, Value::Bool(value)) => out.push((*value).into()),
            (Self::Long, value) => push_long(out, integer(value)?),
            (Self::Time, value) => push_long(out, microseconds(value)?),
            (Self::Milliseconds, value) => push_long(out, milliseconds(value)?),
            (Self::String, Value::String(text)) => push_bytes(out, text.as_bytes()),
            (Self::Bytes, value) => push_bytes(out, &octets(value)?),
            (Self::Fixed(size), value) => {
                let octets = octets(value)?;
                if octets.len() != *size {
                    return Err(format!("{} bytes, not {size}", octets.len()));
                }
                out.extend(octets);
            }
            (Self::Enum(symbols), Value::String(text)) => {
                let position = symbols.iter().position(|symbol| symbol == text);
                push_length(out, position.ok_or_else(|| format!("{text:?} is no symbol"))?);
            }
            (Self::Array(items), Value::Array(values)) => {
                push_block(out, values.len(), |out| {
                    values.iter().try_for_each(|value| items.encode(value, out))
                })?;
            }
            (Self::Map(items), Value::Object(entries)) => {
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_unstable_by_key(|(name, _)| name.as_bytes());
                push_block(out, entries.len(), |out| {
                    entries.into_iter().try_for_each(|(name, value)| {
                        push_bytes(out, name.as_bytes());
                        items.encode(value, out)
                    })
                })?;
            }
            (Self::Record(fields), Value::Object(values)) => {
                for (name, shape) in fields {
                    let value = values.get(name).unwrap_or(&Value::Null);
                    shape.encode(value, out).map_err(|why| format!("{name}: {why}"))?;
                }
            }
            (Self::Union(branches), value) => {
                let fits = |branch: &Self| (*branch == Self::Null) == value.is_null();
                let position = branches.iter().position(fits).ok_or("null where none may be")?;
                push_length(out, position);
                branches[position].encode(value, out)?;
            }
            (_, value) => return Err(format!("{value} does not fit")),
        }
        Ok(())
    }

    /// Decodes a value from the front of `input`; bytes become hexadecimal.
    pub(super) fn decode(&self, input: &mut &[u8]) -> Result<Value, Misfit> {
        Ok(match self {
            Self::Null => Value::Null,
            Self::Boolean => Value::Bool(take_boolean(input)?),
            Self::Long | Self::Time | Self::Milliseconds => take_long(input)?.into(),
            Self::String => take_text(input)?.into(),
            Self::Bytes => hexadecimal(take_bytes(input)?),
            Self::Fixed(size) => hexadecimal(take(input, *size)?),
            Self::Enum(symbols) => choose(symbols, take_long(input)?)?.clone().into(),
            Self::Array(items) => {
                let mut values = Vec::new();
                take_blocks(input, |input| {
                    values.push(items.decode(input)?);
                    Ok(())
                })?;
                values.into()
            }
            Self::Map(items) => {
                let mut values = Map::new();
                take_blocks(input, |input| {
                    let name = take_text(input)?.to_owned();
                    match values.insert(name, items.decode(input)?) {
                        None => Ok(()),
                        Some(_) => Err("a key that is there twice".to_owned()),
                    }
                })?;
                values.into()
            }
            Self::Record(fields) => {
                let mut values = Map::new();
                for (name, shape) in fields {
                    let value = shape.decode(input).map_err(|why| format!("{name}: {why}"))?;
                    values.insert(name.clone(), value);
                }
                values.into()
            }
            Self::Union(branches) => choose(branches, take_long(input)?)?.decode(input)?,
        })
    }

    /// Skips a value at the front of `input`.
    pub(super) fn skip(&self, input: &mut &[u8]) -> Result<(), Misfit> {
        match self {
            Self::Null => Ok(()),
            Self::Boolean => take_boolean(input).map(drop),
            Self::Long | Self::Time | Self::Milliseconds => take_long(input).map(drop),
            Self::Bytes => take_bytes(input).map(drop),
            Self::String => take_text(input).map(drop),
            Self::Fixed(size) => take(input, *size).map(drop),
            Self::Enum(symbols) => choose(symbols, take_long(input)?).map(drop),
            Self::Array(items) => take_blocks(input, |input| items.skip(input)),
            Self::Map(items) => take_blocks(input, |input| {
                take_text(input)?;
                items.skip(input)
            }),
            Self::Record(fields) => fields.iter().try_for_each(|(_, shape)| shape.skip(input)),
            Self::Union(branches) => choose(branches, take_long(input)?)?.skip(input),
        }
    }
}

fn push_long(out: &mut Vec<u8>, value: i64) {
    tap53_records::encode::push_long(out, value);
}

fn push_length(out: &mut Vec<u8>, length: usize) {
    push_long(out, i64::try_from(length).unwrap_or(i64::MAX));
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    push_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends one block, and the empty one that ends an array.
fn push_block(
    out: &mut Vec<u8>,
    items: usize,
    push: impl FnOnce(&mut Vec<u8>) -> Result<(), Misfit>,
) -> Result<(), Misfit> {
    if items > 0 {
        push_length(out, items);
        push(out)?;
    }
    push_length(out, 0);
    Ok(())
}

fn integer(value: &Value) -> Result<i64, Misfit> {
    value.as_i64().ok_or_else(|| format!("{value} is no whole number"))
}

/// Parses a number of microseconds since 1970 UTC, or a time as RFC 3339 or SQL engines write it; a time
/// without a zone is UTC.
fn microseconds(value: &Value) -> Result<i64, Misfit> {
    let Value::String(text) = value else { return integer(value) };
    let with_zone = text.parse::<jiff::Timestamp>();
    let in_utc = || text.parse::<jiff::civil::DateTime>()?.to_zoned(jiff::tz::TimeZone::UTC);
    let at = with_zone.or_else(|_| in_utc().map(|zoned| zoned.timestamp()));
    let at = at.map_err(|error| format!("{text:?} is no time: {error}"))?;
    if at.subsec_nanosecond() % 1_000 != 0 {
        return Err(format!("{text:?} has more than microseconds"));
    }
    Ok(at.as_microsecond())
}

/// Parses a number of milliseconds since 1970 UTC, or a time as [`microseconds`] does.
fn milliseconds(value: &Value) -> Result<i64, Misfit> {
    let Value::String(text) = value else { return integer(value) };
    let micros = microseconds(value)?;
    match micros % 1_000 {
        0 => Ok(micros / 1_000),
        _ => Err(format!("{text:?} has more than milliseconds")),
    }
}

fn octets(value: &Value) -> Result<Vec<u8>, Misfit> {
    let decode = |text: &str| data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
    let octets = value.as_str().and_then(decode);
    octets.ok_or_else(|| format!("{value} is not hexadecimal"))
}

fn hexadecimal(bytes: &[u8]) -> Value {
    data_encoding::HEXLOWER.encode(bytes).into()
}

fn take<'a>(input: &mut &'a [u8], length: usize) -> Result<&'a [u8], Misfit> {
    let (taken, rest) = input.split_at_checked(length).ok_or("it ends too early")?;
    *input = rest;
    Ok(taken)
}

fn take_long(input: &mut &[u8]) -> Result<i64, Misfit> {
    let mut number = 0_u64;
    for position in 0..10 {
        let octet = take(input, 1)?[0];
        if position == 9 && octet > 1 {
            break;
        }
        number |= u64::from(octet & 0x7f) << (7 * position);
        if octet & 0x80 == 0 {
            return Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
        }
    }
    Err("a number of more than 64 bits".to_owned())
}

fn take_boolean(input: &mut &[u8]) -> Result<bool, Misfit> {
    match take(input, 1)?[0] {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(format!("{other} is no boolean")),
    }
}

fn take_bytes<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], Misfit> {
    let length = usize::try_from(take_long(input)?).map_err(|_| "a length below zero")?;
    take(input, length)
}

fn take_text<'a>(input: &mut &'a [u8]) -> Result<&'a str, Misfit> {
    str::from_utf8(take_bytes(input)?).map_err(|error| error.to_string())
}

fn take_blocks(
    input: &mut &[u8],
    mut each: impl FnMut(&mut &[u8]) -> Result<(), Misfit>,
) -> Result<(), Misfit> {
    loop {
        let count = take_long(input)?;
        if count == 0 {
            return Ok(());
        }
        if count < 0 {
            // The block's size in bytes, which allows skipping it.
            take_long(input)?;
        }
        for _ in 0..count.unsigned_abs() {
            let before = input.len();
            each(input)?;
            if input.len() == before {
                return Err("an item of no bytes".to_owned());
            }
        }
    }
}

fn choose<T>(from: &[T], position: i64) -> Result<&T, Misfit> {
    let chosen = usize::try_from(position).ok().and_then(|position| from.get(position));
    chosen.ok_or_else(|| format!("there is no choice {position}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use tap53_ledger::SUMMARY_SCHEMA_TEXT;
    use tap53_records::encode::{
        Datum, Encode as _, JsonLine, Profile, Record, SCHEMA_TEXT, push_json_line, samples,
    };

    fn datum(name: &str) -> Vec<u8> {
        let mut datum = Vec::new();
        samples::with_record(name, |record| {
            Datum::default().encode(record, &mut datum).unwrap();
        });
        datum
    }

    #[test]
    fn values_give_the_bytes_that_the_agent_wrote() {
        let shape = Shape::parse(SCHEMA_TEXT).unwrap();
        for name in samples::NAMES {
            let datum = datum(name);
            let mut rest = &datum[..];
            let value = shape.decode(&mut rest).unwrap();
            assert!(rest.is_empty());
            let mut again = Vec::new();
            shape.encode(&value, &mut again).unwrap();
            assert_eq!(again, datum, "{name}");
            let mut rest = &datum[..];
            shape.skip(&mut rest).unwrap();
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn json_as_the_agent_prints_it_gives_the_same_bytes() {
        let shape = Shape::parse(SCHEMA_TEXT).unwrap();
        for name in samples::NAMES {
            let mut line = Vec::new();
            samples::with_record(name, |record| JsonLine.encode(record, &mut line).unwrap());
            let mut again = Vec::new();
            shape.encode(&serde_json::from_slice(&line).unwrap(), &mut again).unwrap();
            assert_eq!(again, datum(name), "{name}");
        }
    }

    /// Labels are the only map, and a reader may return them in another order.
    #[test]
    fn the_order_of_a_map_does_not_matter() {
        use tap53_records::encode::{Identity, Owner};
        let labels = [("a", "1"), ("b", "2"), ("aa", "3"), ("é", "4"), ("B", "5")];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let owner = Owner::new(Identity { labels: Some(labels.into()), ..Default::default() });
        let mut datum = Vec::new();
        samples::with_record("matched", |record| {
            let record = Record { client: &owner, ..*record };
            Datum::default().encode(&record, &mut datum).unwrap();
        });
        let mut line = Vec::new();
        push_json_line(Profile::Full, &datum, &mut line).unwrap();
        let mut value: Value = serde_json::from_slice(&line).unwrap();
        let labels = value["client_labels"].as_object().unwrap().clone();
        assert_eq!(labels.len(), 5);
        value["client_labels"] = labels.into_iter().rev().collect::<Map<_, _>>().into();
        let mut again = Vec::new();
        Shape::parse(SCHEMA_TEXT).unwrap().encode(&value, &mut again).unwrap();
        assert_eq!(again, datum);
    }

    #[test]
    fn times_are_taken_as_numbers_and_as_text() {
        for value in [
            json!(1_700_000_000_001_000_i64),
            json!("2023-11-14T22:13:20.001Z"),
            json!("2023-11-14 22:13:20.001"),
            json!("2023-11-14 22:13:20.001+00"),
        ] {
            assert_eq!(microseconds(&value), Ok(1_700_000_000_001_000), "{value}");
        }
        for value in [json!("yesterday"), json!(1.5), json!("2023-11-14T22:13:20.0000001Z")] {
            assert!(microseconds(&value).is_err(), "{value}");
        }
        for value in [json!(1_700_000_000_001_i64), json!("2023-11-14 22:13:20.001+00")] {
            assert_eq!(milliseconds(&value), Ok(1_700_000_000_001), "{value}");
        }
        assert!(milliseconds(&json!("2023-11-14T22:13:20.000001Z")).is_err());
    }

    #[test]
    fn what_does_not_fit_is_named_by_its_field() {
        let shape = Shape::parse(SCHEMA_TEXT).unwrap();
        let mut value = shape.decode(&mut &datum("matched")[..]).unwrap();
        let mut misfit = |field: &str, wrong: Value| {
            let right = std::mem::replace(&mut value[field], wrong);
            let why = shape.encode(&value, &mut Vec::new()).unwrap_err();
            value[field] = right;
            why
        };
        assert_eq!(misfit("worker", json!("x")), "worker: \"x\" is no whole number");
        assert_eq!(misfit("node", Value::Null), "node: null does not fit");
        assert_eq!(misfit("outcome", json!("LOST")), "outcome: \"LOST\" is no symbol");
        assert_eq!(misfit("record_id", json!("00")), "record_id: 1 bytes, not 16");
        assert_eq!(
            misfit("query_cookie", json!("\\x00")),
            "query_cookie: \"\\\\x00\" is not hexadecimal"
        );
    }

    /// Input that is cut or changed neither panics nor loops.
    #[test]
    fn any_bytes_are_read_or_refused() {
        let shape = Shape::parse(SCHEMA_TEXT).unwrap();
        let datum = datum("matched");
        for length in 0..datum.len() {
            assert!(shape.skip(&mut &datum[..length]).is_err(), "{length}");
        }
        for bit in 0..8 * datum.len() {
            let mut flipped = datum.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let (mut skipped, mut decoded) = (&flipped[..], &flipped[..]);
            let both = (shape.skip(&mut skipped).is_ok(), shape.decode(&mut decoded).is_ok());
            assert!(both.0 == both.1 || both == (true, false), "bit {bit}: {both:?}");
        }
    }

    #[test]
    fn numbers_have_64_bits() {
        for value in [0, -1, 1, i64::MIN, i64::MAX] {
            let mut out = Vec::new();
            push_long(&mut out, value);
            assert_eq!(take_long(&mut &out[..]), Ok(value));
        }
        assert!(take_long(&mut &[0xff; 10][..]).is_err());
        assert!(
            take_long(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2][..]).is_err()
        );
        assert!(Shape::parse(SUMMARY_SCHEMA_TEXT).is_ok());
        assert!(Shape::parse("{}").is_err());
    }
}
