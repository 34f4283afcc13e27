//! Shows an encoded record to people: converts Avro to the JSON of [`JsonLine`](super::JsonLine), and that to
//! the JSON of [`CompactJsonLine`](super::CompactJsonLine).

use std::fmt;

use apache_avro::{reader::datum::GenericDatumReader, types::Value};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::value::RawValue;

use super::{Error, Profile, push_line};

/// Appends a datum of the record's schema in a profile to `out`, as one JSON object and a line
/// feed.
///
/// # Errors
/// Fails if it is not such a datum; `out` is unchanged then.
pub fn push_json_line(profile: Profile, mut datum: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let defect = |error: &dyn fmt::Display| Error::Avro(error.to_string());
    let reader = GenericDatumReader::builder(profile.schema()?).build();
    let reader = reader.map_err(|error| defect(&error))?;
    let value = reader.read_value(&mut datum).map_err(|error| defect(&error))?;
    if !datum.is_empty() {
        return Err(defect(&format_args!("{} bytes after it", datum.len())));
    }
    push_line(&Shown(&value), out)
}

/// Appends a JSON object to `out`, without the members that are null or an empty list, and a line feed.
///
/// # Errors
/// Fails if it is no JSON object; `out` is unchanged then.
pub fn push_compact_line(object: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let Members(members) = serde_json::from_slice(object)?;
    push_line(&Members(members), out)
}

/// The members of a JSON object, in their order, that are neither null nor an empty list.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl Serialize for Members<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Present;

        impl<'de> Visitor<'de> for Present {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Members<'de>, M::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    if !matches!(value.get(), "null" | "[]" | "{}") {
                        members.push((name, value));
                    }
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Present)
    }
}

/// A value of the schema, serialized with names in its order, times as in RFC 3339, bytes in
/// hexadecimal.
struct Shown<'a>(&'a Value);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => serializer.serialize_none(),
            Value::Union(_, value) => Shown(value).serialize(serializer),
            Value::Boolean(value) => serializer.serialize_bool(*value),
            Value::Int(value) => serializer.serialize_i32(*value),
            Value::Long(value) => serializer.serialize_i64(*value),
            Value::String(text) | Value::Enum(_, text) => serializer.serialize_str(text),
            Value::Bytes(bytes) | Value::Fixed(_, bytes) => {
                super::value::Bytes(bytes).serialize(serializer)
            }
            Value::TimestampMicros(us) => super::value::Time(*us).serialize(serializer),
            Value::TimestampMillis(ms) => {
                super::value::Time(ms.saturating_mul(1_000)).serialize(serializer)
            }
            Value::Array(values) => serializer.collect_seq(values.iter().map(Shown)),
            Value::Map(values) => {
                // Maps are unordered, so sort them.
                let mut values: Vec<_> = values.iter().collect();
                values.sort_unstable_by_key(|(name, _)| *name);
                serializer.collect_map(values.into_iter().map(|(name, of)| (name, Shown(of))))
            }
            Value::Record(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (name, value) in fields {
                    map.serialize_entry(name, &Shown(value))?;
                }
                map.end()
            }
            other => Err(serde::ser::Error::custom(format_args!("{other:?} is of no type here"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::{Datum, Encode, FlatDatum, JsonLine, samples};

    #[test]
    fn decoded_records_equal_the_json_encoding() {
        for name in samples::NAMES {
            let (mut datum, mut expected, mut shown) = (Vec::new(), Vec::new(), Vec::new());
            samples::with_record(name, |record| {
                Datum::default().encode(record, &mut datum).unwrap();
                JsonLine.encode(record, &mut expected).unwrap();
            });
            push_json_line(Profile::Full, &datum, &mut shown).unwrap();
            assert_eq!(
                String::from_utf8(shown).unwrap(),
                String::from_utf8(expected).unwrap(),
                "{name}"
            );
        }
    }

    #[test]
    fn the_flat_profile_is_shown_as_its_schema_has_it() {
        let (mut datum, mut shown) = (Vec::new(), Vec::new());
        samples::with_record("matched", |record| {
            FlatDatum::default().encode(record, &mut datum).unwrap();
        });
        push_json_line(Profile::Flat, &datum, &mut shown).unwrap();
        let shown: serde_json::Value = serde_json::from_slice(&shown).unwrap();
        for (name, value) in [
            ("event_time", "2023-11-14T22:13:20.001000Z"),
            ("record_id", "07070707070707070001000000000002"),
            ("answers", "www.example.test 4294967295 IN A 192.0.2.80"),
            ("response_wire", "00ff"),
        ] {
            assert_eq!(shown[name], value, "{name}");
        }
        assert_eq!(shown["response_time_us"], 1_700_000_000_001_250_u64);
        assert!(push_json_line(Profile::Full, &datum, &mut Vec::new()).is_err());
    }

    #[test]
    fn other_data_is_refused() {
        let mut out = b"before".to_vec();
        let mut datum = Vec::new();
        samples::with_record("matched", |record| {
            Datum::default().encode(record, &mut datum).unwrap();
        });
        assert!(push_json_line(Profile::Full, &datum[..datum.len() - 1], &mut out).is_err());
        datum.push(0);
        assert!(push_json_line(Profile::Full, &datum, &mut out).is_err());
        assert_eq!(out, b"before");
    }
}
