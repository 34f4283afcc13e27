//! Versions of the schema read each other's records.
//!
//! `agent/schema/history` has each earlier version as it was, and single-object messages that the
//! agent of that version wrote, one line of hexadecimal each.

use std::collections::HashMap;

use apache_avro::{Schema, reader::datum::GenericDatumReader, types::Value as AvroValue};

use super::{encoded, samples, schema};
use crate::encode::{SCHEMA_TEXT, SCHEMA_VERSION};

const V1: &str = include_str!("../../../schema/history/dns_transaction_v1.avsc");
const V1_MESSAGES: &str = include_str!("../../../schema/history/dns_transaction_v1.hex");

/// Marker and fingerprint before a datum (Avro 1.12, "Single-object encoding").
const HEADER_SIZE: usize = 10;

fn v1() -> Schema {
    Schema::parse_str(V1).unwrap()
}

fn v1_data() -> impl Iterator<Item = Vec<u8>> {
    V1_MESSAGES.lines().map(|line| {
        let digits = line.as_bytes().chunks(2).skip(HEADER_SIZE);
        digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    })
}

fn resolved(writer: &Schema, reader: &Schema, mut datum: &[u8]) -> HashMap<String, AvroValue> {
    let reading = GenericDatumReader::builder(writer).reader_schema(reader).build().unwrap();
    let value = reading.read_value(&mut datum).unwrap();
    assert!(datum.is_empty(), "{} bytes left over", datum.len());
    match value {
        AvroValue::Record(fields) => fields.into_iter().collect(),
        other => panic!("not a record: {other:?}"),
    }
}

fn fields(text: &str) -> Vec<serde_json::Value> {
    let schema: serde_json::Value = serde_json::from_str(text).unwrap();
    schema["fields"].as_array().unwrap().clone()
}

#[test]
fn this_version_reads_what_version_1_wrote() {
    let (v1, v2) = (v1(), schema().unwrap());
    let records: Vec<_> = v1_data().map(|datum| resolved(&v1, v2, &datum)).collect();
    assert_eq!(records.len(), 3);
    for record in &records {
        assert_eq!(record["schema_version"], AvroValue::Int(1));
        assert_eq!(
            record["qname"],
            AvroValue::Union(1, Box::new(AvroValue::String("www.example.test".into())))
        );
        assert_eq!(record["copy_count"], AvroValue::Int(0));
        assert_eq!(record["updates"], AvroValue::Array(Vec::new()));
        assert!(matches!(&record["relation"], AvroValue::Union(0, _)), "{:?}", record["relation"]);
    }
}

#[test]
fn version_1_reads_what_this_version_writes() {
    let (v1, v2) = (v1(), schema().unwrap());
    for sample in samples::NAMES {
        let datum = samples::with_record(sample, encoded);
        let written = resolved(v2, v2, &datum);
        let read = resolved(v2, &v1, &datum);
        assert_eq!(read["schema_version"], AvroValue::Int(SCHEMA_VERSION));
        assert_eq!(read.len(), fields(V1).len());
        for (field, value) in read {
            assert_eq!(value, written[&field], "{field} of {sample}");
        }
    }
}

#[test]
fn a_version_adds_fields_with_defaults_and_changes_none() {
    /// A type with its name and content, and without what is said about it.
    fn plain(field: &serde_json::Value) -> serde_json::Value {
        let mut field = field.clone();
        if let Some(parts) = field.as_object_mut() {
            parts.remove("doc");
        }
        field
    }
    let (old, new) = (fields(V1), fields(SCHEMA_TEXT));
    let known = |field: &serde_json::Value| old.iter().any(|old| old["name"] == field["name"]);
    let (kept, added): (Vec<_>, Vec<_>) = new.iter().partition(|field| known(field));
    let plain_old: Vec<_> = old.iter().map(plain).collect();
    assert_eq!(kept.into_iter().map(plain).collect::<Vec<_>>(), plain_old);
    assert!(!added.is_empty());
    for field in added {
        assert!(field.get("default").is_some(), "{} has no default", field["name"]);
    }
}

#[test]
fn every_field_says_what_it_is() {
    fn check(field: &serde_json::Value) {
        assert!(field["doc"].as_str().is_some_and(|doc| !doc.is_empty()), "{}", field["name"]);
        for inner in field["type"]["items"]["fields"].as_array().into_iter().flatten() {
            check(inner);
        }
    }
    fields(SCHEMA_TEXT).iter().for_each(check);
}
