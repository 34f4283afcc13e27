//! Record and schema agree: by the names and order of the fields, and byte by byte with the output
//! of apache-avro, which looks up every field.

mod bounds;
mod flat;
mod history;
mod privacy;
mod random;

use std::collections::HashSet;

use apache_avro::{
    Schema, reader::datum::GenericDatumReader, types::Value as AvroValue,
    writer::datum::GenericDatumWriter,
};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use super::{
    CompactJsonLine, Datum, Encode, JsonLine, Record,
    fields::{Fields, Value},
    push_compact_line, samples, schema,
};

/// Collects the names of fields.
struct Names(Vec<&'static str>);

impl Fields for Names {
    type Error = std::convert::Infallible;

    fn field(&mut self, name: &'static str, _value: impl Value) -> Result<(), Self::Error> {
        self.0.push(name);
        Ok(())
    }

    fn nulls(&mut self, names: &[&'static str]) -> Result<(), Self::Error> {
        self.0.extend(names);
        Ok(())
    }
}

fn schema_names() -> Vec<&'static str> {
    let Schema::Record(record) = schema().unwrap() else { panic!("not a record") };
    record.fields.iter().map(|field| field.name.as_str()).collect()
}

/// Returns the fields of an encoded record as apache-avro reads them.
fn decoded(mut datum: &[u8]) -> Vec<(String, AvroValue)> {
    let reader = GenericDatumReader::builder(schema().unwrap()).build().unwrap();
    let value = reader.read_value(&mut datum).unwrap();
    assert!(datum.is_empty(), "{} bytes left over", datum.len());
    match value {
        AvroValue::Record(fields) => fields,
        other => panic!("not a record: {other:?}"),
    }
}

fn encoded(record: &Record<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    Datum::default().encode(record, &mut out).unwrap();
    out
}

#[test]
fn fields_are_named_in_the_order_of_the_schema() {
    for sample in samples::NAMES {
        samples::with_record(sample, |record| {
            let mut names = Names(Vec::new());
            let Ok(()) = record.fields(&mut names);
            assert_eq!(names.0, schema_names());
        });
    }
}

#[test]
fn json_has_the_fields_of_the_schema() {
    let expected: HashSet<&str> = schema_names().into_iter().collect();
    for sample in samples::NAMES {
        let mut out = Vec::new();
        samples::with_record(sample, |record| JsonLine.encode(record, &mut out).unwrap());
        let json: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&out).unwrap();
        assert_eq!(json.keys().map(String::as_str).collect::<HashSet<_>>(), expected);
    }
}

/// Both ways to compact JSON, from a record and from a line of JSON.
#[test]
fn compact_json_is_json_without_nulls_and_empty_lists() {
    for sample in samples::NAMES {
        let (mut whole, mut compact, mut compacted) = (Vec::new(), Vec::new(), Vec::new());
        samples::with_record(sample, |record| {
            JsonLine.encode(record, &mut whole).unwrap();
            CompactJsonLine.encode(record, &mut compact).unwrap();
        });
        push_compact_line(&whole, &mut compacted).unwrap();
        let [whole, compact, compacted] =
            [whole, compact, compacted].map(|line| String::from_utf8(line).unwrap());
        assert_eq!(compact, compacted, "{sample}");
        let [mut whole, compact] = [whole, compact].map(|line| {
            serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&line).unwrap()
        });
        whole.retain(|_, value| {
            let is_empty_list = value.as_array().is_some_and(Vec::is_empty);
            let is_empty_map = value.as_object().is_some_and(serde_json::Map::is_empty);
            !value.is_null() && !is_empty_list && !is_empty_map
        });
        assert_eq!(compact, whole, "{sample}");
    }
    let mut out = b"kept".to_vec();
    assert!(push_compact_line(b"[]", &mut out).is_err());
    assert_eq!(out, b"kept");
}

proptest! {
    #[test]
    fn the_direct_encoding_is_apache_avros_byte_for_byte(parts in random::parts()) {
        let writer = GenericDatumWriter::builder(schema().unwrap())
            .human_readable(false)
            .build()
            .unwrap();
        parts.with_record(|record| {
            let expected = writer.write_ser_to_vec(record).unwrap();
            prop_assert_eq!(encoded(record), expected);
            Ok(())
        })?;
    }
}

/// Fields that are null, empty, false or zero in all random records are not compared.
#[test]
fn the_comparison_draws_something_for_every_field() {
    let mut runner = TestRunner::deterministic();
    let mut missing: HashSet<&str> = schema_names().into_iter().collect();
    // It takes a message of many records, and is written like the other counts.
    missing.remove("answers_omitted");
    // They take a record that exceeds the limit; `bounds` generates such.
    for omitted in ["questions_omitted", "edns_options_omitted", "wire_omitted"] {
        missing.remove(omitted);
    }
    for _ in 0..300 {
        let parts = random::parts().new_tree(&mut runner).unwrap().current();
        for (name, value) in decoded(&parts.with_record(encoded)) {
            if !is_nothing(&value) {
                missing.remove(name.as_str());
            }
        }
    }
    assert!(missing.is_empty(), "never drawn: {missing:?}");
}

fn is_nothing(value: &AvroValue) -> bool {
    match value {
        AvroValue::Null | AvroValue::Boolean(false) | AvroValue::Int(0) => true,
        AvroValue::Union(_, value) => is_nothing(value),
        AvroValue::Array(items) => items.is_empty(),
        _ => false,
    }
}
