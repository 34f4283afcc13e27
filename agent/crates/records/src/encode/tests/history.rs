//! Versions of the schema read each other's records.
//!
//! `agent/schema/history` has each earlier version of the schema, and of every version
//! single-object messages that the agent of that version has written, one line of hexadecimal each.
//! `UPDATE_GOLDEN=1 cargo test -p tap53 --lib byte_for_byte` creates those of a new version, which
//! never change afterwards.

use std::{collections::HashMap, env, fs, path::Path};

use apache_avro::{Schema, reader::datum::GenericDatumReader, types::Value as AvroValue};
use data_encoding::HEXLOWER;

use super::{encoded, samples, schema};
use crate::encode::{
    Attribution, Encode as _, Identity, Owner, Record, SCHEMA_TEXT, SCHEMA_VERSION,
    SCHEMA_VERSIONS, SingleObject, read_single_object,
};

/// An earlier version of the schema.
struct Version {
    number: i32,
    schema: &'static str,
    messages: &'static str,
}

const EARLIER: [Version; 4] = [
    Version {
        number: 1,
        schema: include_str!("../../../../../schema/history/dns_transaction_v1.avsc"),
        messages: include_str!("../../../../../schema/history/dns_transaction_v1.hex"),
    },
    Version {
        number: 2,
        schema: include_str!("../../../../../schema/history/dns_transaction_v2.avsc"),
        messages: include_str!("../../../../../schema/history/dns_transaction_v2.hex"),
    },
    Version {
        number: 3,
        schema: include_str!("../../../../../schema/history/dns_transaction_v3.avsc"),
        messages: include_str!("../../../../../schema/history/dns_transaction_v3.hex"),
    },
    Version {
        number: 4,
        schema: include_str!("../../../../../schema/history/dns_transaction_v4.avsc"),
        messages: include_str!("../../../../../schema/history/dns_transaction_v4.hex"),
    },
];

/// Size of marker and fingerprint before a datum (Avro 1.12, "Single-object encoding").
const HEADER_SIZE: usize = 10;

impl Version {
    fn parsed(&self) -> Schema {
        Schema::parse_str(self.schema).unwrap()
    }

    fn data(&self) -> impl Iterator<Item = Vec<u8>> {
        self.messages.lines().map(|line| {
            let digits = line.as_bytes().chunks(2).skip(HEADER_SIZE);
            digits
                .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
                .collect()
        })
    }
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

fn symbol(value: &AvroValue) -> &str {
    match value {
        AvroValue::Enum(_, symbol) => symbol,
        other => panic!("not an enum: {other:?}"),
    }
}

/// A change of the schema, or of its encoding, is a new version: move this one's schema to the
/// history, and increment [`SCHEMA_VERSION`].
#[test]
fn this_version_writes_byte_for_byte_what_its_golden_messages_are() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("../../schema/history/dns_transaction_v{SCHEMA_VERSION}.hex"));
    let written: String = samples::NAMES
        .iter()
        .map(|sample| {
            let mut message = Vec::new();
            samples::with_record(sample, |record| {
                SingleObject::new().unwrap().encode(record, &mut message).unwrap();
            });
            HEXLOWER.encode(&message) + "\n"
        })
        .collect();
    if env::var_os("UPDATE_GOLDEN").is_some() {
        assert!(!path.exists(), "a version that is there is not changed any more");
        fs::write(&path, &written).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap_or_default(), written);
}

/// Registries and the spool identify versions by it.
#[test]
fn golden_messages_begin_with_the_fingerprint_of_their_schema() {
    let messages = EARLIER.map(|version| version.messages).into_iter().map(str::to_owned);
    let path = format!("../../schema/history/dns_transaction_v{SCHEMA_VERSION}.hex");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let messages = messages.chain([fs::read_to_string(path).unwrap()]);
    for (version, messages) in SCHEMA_VERSIONS.iter().zip(messages) {
        assert_eq!(messages.lines().count(), 3);
        for line in messages.lines() {
            let message = HEXLOWER.decode(line.as_bytes()).unwrap();
            let (fingerprint, _) = read_single_object(&message).unwrap();
            assert_eq!(fingerprint, version.fingerprint().unwrap(), "version {}", version.number);
        }
    }
}

#[test]
fn this_version_is_one_more_than_the_last_in_history() {
    let numbers = EARLIER.map(|version| version.number);
    assert_eq!(numbers, [1, 2, 3, 4]);
    assert_eq!(SCHEMA_VERSION, 5);
}

#[test]
fn this_version_reads_what_earlier_ones_wrote() {
    let now = schema().unwrap();
    for version in EARLIER {
        let records: Vec<_> =
            version.data().map(|datum| resolved(&version.parsed(), now, &datum)).collect();
        assert_eq!(records.len(), 3);
        for record in &records {
            assert_eq!(record["schema_version"], AvroValue::Int(version.number));
            assert_eq!(
                record["qname"],
                AvroValue::Union(1, Box::new(AvroValue::String("www.example.test".into())))
            );
            assert_eq!(record["copy_count"], AvroValue::Int(0));
            assert_eq!(record["updates"], AvroValue::Array(Vec::new()));
            assert_eq!(record["prerequisites"], AvroValue::Array(Vec::new()));
            for field in ["relation", "client_node_name", "server_service_name"] {
                assert!(matches!(&record[field], AvroValue::Union(0, _)), "{:?}", record[field]);
            }
            assert_eq!(symbol(&record["client_attribution"]), "UNATTRIBUTED");
            // Records have numbers since version 4, and numbers begin with 1.
            let AvroValue::Long(number) = record["record_number"] else { panic!("not a long") };
            assert_eq!(number == 0, version.number < 4, "version {}", version.number);
        }
    }
}

#[test]
fn earlier_versions_read_what_this_version_writes() {
    let now = schema().unwrap();
    for version in EARLIER {
        for sample in samples::NAMES {
            let datum = samples::with_record(sample, encoded);
            let written = resolved(now, now, &datum);
            let read = resolved(now, &version.parsed(), &datum);
            assert_eq!(read["schema_version"], AvroValue::Int(SCHEMA_VERSION));
            assert_eq!(read.len(), fields(version.schema).len());
            for (field, value) in read {
                assert_eq!(value, written[&field], "{field} of {sample}");
            }
        }
    }
}

/// Readers of versions 1 and 2 know three of the attributions.
#[test]
fn an_attribution_that_a_reader_does_not_know_is_unattributed() {
    let now = schema().unwrap();
    for (attribution, text, read_as) in [
        (Attribution::Unattributed, "UNATTRIBUTED", "UNATTRIBUTED"),
        (Attribution::Pod, "POD", "POD"),
        (Attribution::AmbiguousHostNetwork, "AMBIGUOUS_HOST_NETWORK", "AMBIGUOUS_HOST_NETWORK"),
        (Attribution::Node, "NODE", "UNATTRIBUTED"),
        (Attribution::Service, "SERVICE", "UNATTRIBUTED"),
        (Attribution::Unknown, "UNKNOWN", "UNATTRIBUTED"),
        (Attribution::External, "EXTERNAL", "UNATTRIBUTED"),
    ] {
        let owner = Owner::new(Identity { attribution, ..Default::default() });
        let datum = samples::with_record("matched", |record| {
            encoded(&Record { client: &owner, server: &owner, ..*record })
        });
        for field in ["client_attribution", "server_attribution"] {
            assert_eq!(symbol(&resolved(now, now, &datum)[field]), text);
            for version in EARLIER {
                let expected = if version.number < 3 { read_as } else { text };
                assert_eq!(symbol(&resolved(now, &version.parsed(), &datum)[field]), expected);
            }
        }
    }
}

/// Reduces a type to its name and content: without documentation, and without the symbols of an
/// enum that later versions may extend, since readers have a default for those.
fn plain(part: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match part {
        Value::Object(parts) => {
            let open = parts.get("type").is_some_and(|kind| kind == "enum")
                && parts.contains_key("default");
            let keep = |key: &str| key != "doc" && !(open && key == "symbols");
            let kept = parts.iter().filter(|(key, _)| keep(key));
            Value::Object(kept.map(|(key, part)| (key.clone(), plain(part))).collect())
        }
        Value::Array(parts) => Value::Array(parts.iter().map(plain).collect()),
        other => other.clone(),
    }
}

/// Returns the symbols of each enum, by the name of its field.
fn symbols(fields: &[serde_json::Value]) -> HashMap<String, Vec<String>> {
    let mut found = HashMap::new();
    for field in fields {
        let union = field["type"].as_array().cloned().unwrap_or_default();
        for kind in std::iter::once(&field["type"]).chain(&union) {
            if let Some(symbols) = kind["symbols"].as_array() {
                let text = |symbol: &serde_json::Value| symbol.as_str().unwrap().to_owned();
                let name = field["name"].as_str().unwrap().to_owned();
                found.insert(name, symbols.iter().map(text).collect());
            }
        }
    }
    found
}

#[test]
fn a_version_adds_fields_with_defaults_and_symbols_at_the_end_and_changes_nothing() {
    let texts = EARLIER.map(|version| version.schema).into_iter().chain([SCHEMA_TEXT]);
    let texts: Vec<_> = texts.collect();
    for pair in texts.windows(2) {
        let (old, new) = (fields(pair[0]), fields(pair[1]));
        let known = |field: &serde_json::Value| old.iter().any(|old| old["name"] == field["name"]);
        let (kept, added): (Vec<_>, Vec<_>) = new.iter().partition(|field| known(field));
        let plain_old: Vec<_> = old.iter().map(plain).collect();
        assert_eq!(kept.into_iter().map(plain).collect::<Vec<_>>(), plain_old);
        assert!(!added.is_empty());
        for field in added {
            assert!(field.get("default").is_some(), "{} has no default", field["name"]);
        }
        let (old, new) = (symbols(&old), symbols(&new));
        assert!(old.contains_key("client_attribution") && old.contains_key("outcome"));
        for (field, symbols) in old {
            assert!(new[&field].starts_with(&symbols), "symbols of {field} moved");
        }
    }
}

#[test]
fn every_field_is_documented() {
    fn check(field: &serde_json::Value) {
        assert!(field["doc"].as_str().is_some_and(|doc| !doc.is_empty()), "{}", field["name"]);
        for inner in field["type"]["items"]["fields"].as_array().into_iter().flatten() {
            check(inner);
        }
    }
    fields(SCHEMA_TEXT).iter().for_each(check);
}
