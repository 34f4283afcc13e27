//! Encodes Avro, bare or as a single object.

use apache_avro::{Schema, rabin::Rabin};
use serde_json::Value;

use super::{
    Encode, Error, Fingerprint, Profile, Record, binary::RecordBuffers, flat::FlatRecord,
    framing::single_object_header,
};

/// Returns the parsed schema of a record in the full profile.
///
/// # Errors
/// Fails if the embedded schema does not parse, which is a defect of this program.
pub fn schema() -> Result<&'static Schema, Error> {
    Profile::Full.schema()
}

/// Returns the CRC-64-AVRO fingerprint of the full profile's schema, little-endian.
///
/// # Errors
/// See [`schema`].
pub fn fingerprint() -> Result<Fingerprint, Error> {
    Profile::Full.fingerprint()
}

/// Returns the CRC-64-AVRO fingerprint of a schema, little-endian.
///
/// The canonical form (Avro 1.12, "Transforming into Parsing Canonical Form") contains neither
/// logical types nor primitive types in the form of an object. apache-avro 0.22 drops the logical
/// type of `{"type": "long", "logicalType": "timestamp-micros"}` but keeps the object, so its
/// fingerprint differs from that of every other implementation. Hence this function removes logical
/// types first.
pub fn fingerprint_of(text: &str) -> Result<Fingerprint, Error> {
    let defect = |error: &dyn std::fmt::Display| Error::Avro(error.to_string());
    let mut plain = serde_json::from_str(text).map_err(|error| defect(&error))?;
    drop_logical_types(&mut plain);
    let plain = Schema::parse(&plain).map_err(|error| defect(&error))?;
    let bytes = plain.fingerprint::<Rabin>().bytes;
    bytes.try_into().map_err(|_| defect(&"CRC-64-AVRO has 8 bytes"))
}

/// Replaces primitive types that have a logical type by the primitive type alone.
fn drop_logical_types(schema: &mut Value) {
    match schema {
        Value::Array(parts) => parts.iter_mut().for_each(drop_logical_types),
        Value::Object(parts) => {
            parts.values_mut().for_each(drop_logical_types);
            if parts.contains_key("logicalType")
                && let Some(primitive @ Value::String(_)) = parts.get("type").cloned()
            {
                *schema = primitive;
            }
        }
        _ => {}
    }
}

/// Encodes an Avro datum without a header.
#[derive(Default)]
pub struct Datum {
    buffers: RecordBuffers,
}

impl Encode for Datum {
    fn encode(&mut self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        self.buffers.append(record, out);
        Ok(())
    }
}

/// Encodes an Avro datum of the flat profile without a header.
#[derive(Default)]
pub struct FlatDatum {
    buffers: RecordBuffers,
}

impl Encode for FlatDatum {
    fn encode(&mut self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        self.buffers.append(&FlatRecord(record), out);
        Ok(())
    }
}

/// Encodes a datum after the header of the single-object encoding: `C3 01`, then the little-endian
/// CRC-64-AVRO fingerprint of the schema's canonical form (Avro 1.12, "Single-object encoding").
pub struct SingleObject<D = Datum> {
    header: [u8; 10],
    datum: D,
}

impl SingleObject {
    /// Creates an encoder for the schema of the full profile.
    ///
    /// # Errors
    /// See [`schema`].
    pub fn new() -> Result<Self, Error> {
        Ok(Self { header: single_object_header(fingerprint()?), datum: Datum::default() })
    }
}

impl SingleObject<FlatDatum> {
    /// Creates an encoder for the schema of the flat profile.
    ///
    /// # Errors
    /// See [`schema`].
    pub fn flat() -> Result<Self, Error> {
        let header = single_object_header(Profile::Flat.fingerprint()?);
        Ok(Self { header, datum: FlatDatum::default() })
    }
}

impl<D: Encode> Encode for SingleObject<D> {
    fn encode(&mut self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        out.extend_from_slice(&self.header);
        self.datum.encode(record, out)
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::{reader::datum::GenericDatumReader, types::Value};

    use super::*;
    use crate::encode::samples;

    fn fields(name: &str) -> Vec<(String, Value)> {
        let mut out = Vec::new();
        samples::with_record(name, |record| Datum::default().encode(record, &mut out).unwrap());
        let mut rest = &out[..];
        let value = GenericDatumReader::builder(schema().unwrap())
            .build()
            .unwrap()
            .read_value(&mut rest)
            .unwrap();
        assert!(rest.is_empty(), "{} bytes left over", rest.len());
        match value {
            Value::Record(fields) => fields,
            other => panic!("not a record: {other:?}"),
        }
    }

    fn field(name: &str, field: &str) -> Value {
        let found = fields(name).into_iter().find(|(name, _)| name == field);
        match found.unwrap().1 {
            Value::Union(_, value) => *value,
            value => value,
        }
    }

    #[test]
    fn every_sample_reads_back_by_the_schema() {
        for name in samples::NAMES {
            assert_eq!(fields(name).len(), 153);
        }
        assert_eq!(
            field("matched", "record_id"),
            Value::Fixed(16, [[7; 8], [0, 1, 0, 0, 0, 0, 0, 2]].concat())
        );
        assert_eq!(field("matched", "query_time"), Value::TimestampMicros(1_700_000_000_001_000));
        assert_eq!(field("matched", "latency_ns"), Value::Long(250_000));
        assert_eq!(
            field("matched", "query_client_subnet"),
            Value::String("198.51.100.0/24".into())
        );
        assert_eq!(field("matched", "response_wire"), Value::Bytes(vec![0, 255]));
        assert_eq!(field("unanswered", "rcode"), Value::Null);
        assert_eq!(field("unanswered", "outcome"), Value::Enum(1, "UNANSWERED".into()));
        assert_eq!(field("response", "direction"), Value::Enum(0, "INGRESS".into()));
        let Value::Array(answers) = field("response", "answers") else { panic!("no array") };
        let Value::Record(answer) = &answers[0] else { panic!("no record") };
        assert_eq!(answer[3], ("ttl".into(), Value::Long(4_294_967_295)));
    }

    #[test]
    fn single_objects_begin_with_marker_and_fingerprint() {
        let (mut plain, mut framed) = (Vec::new(), Vec::new());
        samples::with_record("matched", |record| {
            Datum::default().encode(record, &mut plain).unwrap();
            SingleObject::new().unwrap().encode(record, &mut framed).unwrap();
        });
        assert_eq!(framed[..2], [0xc3, 0x01]);
        // Computed by fastavro: fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO").
        assert_eq!(framed[2..10], [0x11, 0x2c, 0x72, 0x73, 0x3b, 0xbf, 0x1f, 0x2e]);
        assert_eq!(framed[10..], plain);
    }
}
