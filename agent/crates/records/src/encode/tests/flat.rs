//! The flat profile contains the same data as the full one, as primitive values within the widths
//! of its schema.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    env, fs,
    path::Path,
};

use apache_avro::{
    Schema, reader::datum::GenericDatumReader, types::Value as AvroValue,
    writer::datum::GenericDatumWriter,
};
use data_encoding::HEXLOWER;
use proptest::{prelude::*, sample::select, strategy::ValueTree, test_runner::TestRunner};
use serde_json::Value as Json;
use tap53_signals::Signal;
use tap53_transactions::{
    pair::Anomaly,
    privacy::{
        Key, Policy,
        config::{AddressRule, KeyFile, PrivacyConfig},
    },
};

use super::{Names, bounds, decoded, encoded, random};
use crate::encode::{
    Attribution, DEFAULT_MAX_BYTES, Encode as _, FLAT_SCHEMA_VERSIONS, FlatDatum, Identity,
    LEAST_MAX_BYTES, Owner, Portion, Profile, Record, SCHEMA_VERSION, SCHEMA_VERSIONS,
    SingleObject, flat::FlatRecord, samples,
};

fn flat(record: &Record<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    FlatDatum::default().encode(record, &mut out).unwrap();
    out
}

/// Returns the fields of a flat datum as apache-avro reads them; a union is replaced by its value.
fn read(mut datum: &[u8]) -> Vec<(String, AvroValue)> {
    let reader = GenericDatumReader::builder(Profile::Flat.schema().unwrap()).build().unwrap();
    let value = reader.read_value(&mut datum).unwrap();
    assert!(datum.is_empty(), "{} bytes left over", datum.len());
    let AvroValue::Record(fields) = value else { panic!("not a record") };
    fields.into_iter().map(|(name, value)| (name, plain(value))).collect()
}

fn plain(value: AvroValue) -> AvroValue {
    match value {
        AvroValue::Union(_, value) => *value,
        value => value,
    }
}

fn schema_fields() -> Vec<Json> {
    let schema: Json = serde_json::from_str(Profile::Flat.schema_text()).unwrap();
    schema["fields"].as_array().unwrap().clone()
}

fn schema_names() -> Vec<String> {
    schema_fields().iter().map(|field| field["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn fields_are_named_in_the_order_of_the_schema() {
    for sample in samples::NAMES {
        samples::with_record(sample, |record| {
            let mut names = Names(Vec::new());
            let Ok(()) = FlatRecord(record).fields(&mut names);
            assert_eq!(names.0, schema_names());
        });
    }
}

#[test]
fn the_schema_has_primitive_types_and_unions_with_null_alone() {
    let is_primitive = |kind: &Json| match kind {
        Json::String(name) => ["int", "long", "boolean", "string"].contains(&name.as_str()),
        kind => *kind == serde_json::json!({"type": "long", "logicalType": "timestamp-millis"}),
    };
    for field in schema_fields() {
        match &field["type"] {
            Json::Array(union) => {
                assert_eq!((union.len(), &union[0]), (2, &Json::from("null")), "{field}");
                assert!(is_primitive(&union[1]), "{field}");
                assert_eq!(field.get("default"), Some(&Json::Null), "{field}");
            }
            kind => assert!(is_primitive(kind), "{field}"),
        }
        assert!(field["doc"].as_str().is_some_and(|doc| doc.ends_with('.')), "{field}");
    }
}

#[test]
fn both_profiles_have_the_same_versions_from_the_first_flat_one_on() {
    let numbers = FLAT_SCHEMA_VERSIONS.map(|version| version.number);
    let full: Vec<_> = SCHEMA_VERSIONS.iter().map(|version| version.number).collect();
    assert!(full.ends_with(&numbers), "{numbers:?} of {full:?}");
    assert_eq!(numbers[0], 5);
    let names = Profile::ALL.map(|profile| match profile.schema().unwrap() {
        Schema::Record(record) => record.name.to_string(),
        other => panic!("{other:?}"),
    });
    assert_eq!(names, Profile::ALL.map(Profile::record_name));
}

/// A change is a new version of both profiles: see `history`.
#[test]
fn this_version_writes_byte_for_byte_what_its_golden_messages_are() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("../../schema/history/dns_transaction_flat_v{SCHEMA_VERSION}.hex"));
    let fingerprint = Profile::Flat.fingerprint().unwrap();
    let written: String = samples::NAMES
        .iter()
        .map(|sample| {
            let mut message = Vec::new();
            samples::with_record(sample, |record| {
                SingleObject::flat().unwrap().encode(record, &mut message).unwrap();
            });
            assert_eq!(message[2..10], fingerprint);
            HEXLOWER.encode(&message) + "\n"
        })
        .collect();
    if env::var_os("UPDATE_GOLDEN").is_some() {
        assert!(!path.exists(), "a version that is there is not changed any more");
        fs::write(&path, &written).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap_or_default(), written);
}

proptest! {
    #[test]
    fn the_direct_encoding_is_apache_avros_byte_for_byte(parts in random::parts()) {
        let writer = GenericDatumWriter::builder(Profile::Flat.schema().unwrap())
            .human_readable(false)
            .build()
            .unwrap();
        parts.with_record(|record| {
            let expected = writer.write_ser_to_vec(&FlatRecord(record)).unwrap();
            prop_assert_eq!(flat(record), expected);
            Ok(())
        })?;
    }

    #[test]
    fn it_has_the_data_of_the_full_profile(parts in random::parts()) {
        parts.with_record(|record| {
            let mut flat = read(&flat(record)).into_iter();
            let began_us = record.clock.utc_us(record.transaction.first().at_ns);
            let event = [
                ("event_time".to_owned(), AvroValue::TimestampMillis(began_us.div_euclid(1_000))),
                ("event_time_us".to_owned(), AvroValue::Long(began_us)),
            ];
            for expected in event {
                prop_assert_eq!(flat.next(), Some(expected));
            }
            for (name, value) in decoded(&encoded(record)) {
                for expected in flattened(name, plain(value)) {
                    prop_assert_eq!(flat.next(), Some(expected));
                }
            }
            prop_assert_eq!(flat.next(), None);
            Ok(())
        })?;
    }

    #[test]
    fn nor_is_a_record_longer_than_its_lengths_say(parts in random::parts()) {
        parts.with_record(|record| {
            prop_assert!(flat(record).len() <= record.most_bytes(Profile::Flat));
            let mut portion = None;
            let datum = flat(&record.within_as(Profile::Flat, LEAST_MAX_BYTES, &mut portion));
            prop_assert!(datum == flat(record), "a record of usual size is whole");
            Ok(())
        })?;
    }
}

/// Derives the flat fields from a field of the full profile as apache-avro reads it, independently
/// of the encoder.
fn flattened(name: String, value: AvroValue) -> Vec<(String, AvroValue)> {
    let text = |text: String| AvroValue::String(text);
    let counted = |lines: Vec<String>| {
        let count = AvroValue::Int(i32::try_from(lines.len()).unwrap());
        let lines = if lines.is_empty() { AvroValue::Null } else { text(lines.join("\n")) };
        vec![(name.clone(), lines), (format!("{name}_recorded"), count)]
    };
    let is_time = name.ends_with("_time");
    match value {
        AvroValue::Null if is_time => {
            vec![(format!("{name}_us"), AvroValue::Null), (name, AvroValue::Null)]
                .into_iter()
                .rev()
                .collect()
        }
        AvroValue::TimestampMicros(us) => vec![
            (name.clone(), AvroValue::TimestampMillis(us.div_euclid(1_000))),
            (format!("{name}_us"), AvroValue::Long(us)),
        ],
        AvroValue::Enum(_, symbol) => vec![(name, text(symbol))],
        AvroValue::Bytes(octets) | AvroValue::Fixed(_, octets) => {
            vec![(name, text(HEXLOWER.encode(&octets)))]
        }
        AvroValue::Array(words)
            if matches!(name.as_str(), "anomalies" | "signals" | "resolved_addresses") =>
        {
            let words: Vec<_> = words.into_iter().map(string).collect();
            let none = words.is_empty();
            vec![(name, if none { AvroValue::Null } else { text(words.join(" ")) })]
        }
        AvroValue::Array(rows) => counted(rows.into_iter().map(line).collect()),
        AvroValue::Map(labels) => {
            let labels: BTreeMap<_, _> =
                labels.into_iter().map(|(key, value)| (key, string(value))).collect();
            vec![(name, text(serde_json::to_string(&labels).unwrap()))]
        }
        other => vec![(name, other)],
    }
}

fn string(value: AvroValue) -> String {
    match value {
        AvroValue::String(text) => text,
        other => panic!("not a string: {other:?}"),
    }
}

/// A line that can be split into its parts again.
fn line(row: AvroValue) -> String {
    let AvroValue::Record(fields) = row else { panic!("not a record") };
    let parts: HashMap<_, _> = fields
        .into_iter()
        .map(|(name, value)| match value {
            AvroValue::String(text) => (name, text),
            AvroValue::Int(number) => (name, number.to_string()),
            AvroValue::Long(number) => (name, number.to_string()),
            AvroValue::Bytes(octets) => (name, HEXLOWER.encode(&octets)),
            other => panic!("{other:?}"),
        })
        .collect();
    let order: &[&str] = match parts.len() {
        2 => &["code", "data"],
        3 => &["name", "class", "type"],
        _ => &["name", "ttl", "class", "type", "rdata"],
    };
    let parts: Vec<_> = order.iter().map(|name| parts[*name].clone()).collect();
    let line = parts.join(" ");
    assert!(!line.contains('\n'), "{line:?}");
    assert_eq!(line.splitn(parts.len(), ' ').collect::<Vec<_>>(), parts);
    line
}

/// Fields that are null, empty, false or zero in all random records are not compared.
#[test]
fn the_comparison_draws_something_for_every_field() {
    let mut runner = TestRunner::deterministic();
    let mut missing: HashSet<String> = schema_names().into_iter().collect();
    // The same exceptions as for the full profile.
    let omitted = ["answers", "questions", "edns_options", "wire"];
    missing.retain(|name| !omitted.iter().any(|of| *name == format!("{of}_omitted")));
    for _ in 0..300 {
        let parts = random::parts().new_tree(&mut runner).unwrap().current();
        for (name, value) in read(&parts.with_record(flat)) {
            let nothing = [AvroValue::Null, AvroValue::Boolean(false), AvroValue::Int(0)];
            if !nothing.contains(&value) {
                missing.remove(&name);
            }
        }
    }
    assert!(missing.is_empty(), "never drawn: {missing:?}");
}

/// Widths of the text fields in tables, in octets.
fn widths(max_bytes: usize) -> HashMap<String, usize> {
    let fields =
        schema_fields().into_iter().filter(|field| field.to_string().contains("\"string\""));
    let width =
        |field: &Json| field["maxOctets"].as_u64().map(|width| usize::try_from(width).unwrap());
    fields
        .map(|field| {
            let width = width(&field).unwrap_or(max_bytes).min(max_bytes);
            (field["name"].as_str().unwrap().to_owned(), width)
        })
        .collect()
}

/// Maximum size of each text field so far, in octets.
#[derive(Default)]
struct Longest(HashMap<String, usize>);

impl Longest {
    /// Requires that each text of the record fits; returns its fields.
    fn require_fits(
        &mut self,
        record: &Record<'_>,
        max_bytes: usize,
    ) -> HashMap<String, AvroValue> {
        let (datum, widths) = (flat(record), widths(max_bytes));
        assert!(datum.len() <= max_bytes, "{} bytes of {max_bytes}", datum.len());
        let fields: HashMap<_, _> = read(&datum).into_iter().collect();
        for (name, value) in &fields {
            let AvroValue::String(text) = value else { continue };
            assert!(text.len() <= widths[name], "{name}: {} octets", text.len());
            let longest = self.0.entry(name.clone()).or_default();
            *longest = text.len().max(*longest);
        }
        fields
    }
}

fn hashing() -> Policy {
    let mut octets = [7; 32];
    octets[0] = 1;
    let key = KeyFile { key_file: "key".into(), key: Key::from_content(&octets).unwrap() };
    let hash = || AddressRule::Hash(key.clone());
    Policy::new(&PrivacyConfig {
        client_address: hash(),
        server_address: hash(),
        reverse_names: hash(),
        ..Default::default()
    })
}

/// An owner with the longest names that Kubernetes allows, or with endless ones of multi-octet
/// characters.
fn owner(text: &str, labels: usize) -> Owner {
    let name = || Some(text.repeat(400));
    let label = |number: usize| (format!("{number:0317}"), text.repeat(labels));
    Owner::new(Identity {
        attribution: Attribution::AmbiguousHostNetwork,
        pod_uid: name(),
        pod_name: name(),
        pod_namespace: name(),
        workload_kind: name(),
        workload_name: name(),
        labels: Some((0..32).map(label).collect()),
        node_name: name(),
        service_name: name(),
        service_namespace: name(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn extreme_records_are_within_their_limit_and_every_text_within_its_width(
        query in proptest::option::of(bounds::hostile(false)),
        response in bounds::hostile(true),
        has_response in any::<bool>(),
        kept in any::<bool>(),
        policy in select([bounds::policies(), vec![hashing()]].concat()),
        max_bytes in select(vec![LEAST_MAX_BYTES, 100_001, DEFAULT_MAX_BYTES, 900_000]),
    ) {
        let query = query.map(|wire| bounds::observation(&wire, kept));
        let response = (has_response || query.is_none()).then(|| bounds::observation(&response, kept));
        let (query, response) = (query.as_ref(), response.as_ref());
        let owners = [owner("x", 63), owner("\u{1}é", 4_000)];
        bounds::with_record_as(Profile::Flat, query, response, &policy, max_bytes, |record| {
            let record = Record { client: &owners[0], server: &owners[1], ..*record };
            let mut portion = None;
            let whole = Record { portion: &Portion::ALL, ..record };
            let record = whole.within_as(Profile::Flat, max_bytes, &mut portion);
            prop_assert!(flat(&whole).len() <= whole.most_bytes(Profile::Flat));
            let fields = Longest::default().require_fits(&record, max_bytes);
            // Every missing entry is counted.
            let number = |name: &str| match &fields[name] {
                AvroValue::Int(number) => usize::try_from(*number).unwrap(),
                other => panic!("{name}: {other:?}"),
            };
            let of_update = |seen: &tap53_transactions::pair::Observation| {
                seen.message.prerequisites().len() + seen.message.updates().len()
            };
            let of_response = |seen: &tap53_transactions::pair::Observation| {
                let message = &seen.message;
                message.answers().len() + message.authorities().len() + message.additionals().len()
            };
            let unread = [query, response].into_iter().flatten().map(|it| it.message.answers_omitted);
            prop_assert_eq!(
                number("answers_recorded") + number("authorities_recorded")
                    + number("additionals_recorded") + number("updates_recorded")
                    + number("prerequisites_recorded") + number("answers_omitted"),
                response.map_or(0, of_response) + query.map_or(0, of_update) + unread.sum::<u32>() as usize
            );
            prop_assert_eq!(
                number("more_questions_recorded") + number("questions_omitted"),
                record.transaction.first().message.more_questions().len()
            );
            Ok(())
        })?;
    }

    #[test]
    fn texts_of_any_other_record_are_within_their_width(parts in random::parts()) {
        parts.with_record(|record| Longest::default().require_fits(record, DEFAULT_MAX_BYTES));
    }
}

/// Widths are only useful if they are not far above the possible maximum.
#[test]
fn the_longest_texts_reach_their_widths() {
    let name = |octet: u8| {
        let label = |length: u8| [vec![length], vec![octet; length.into()]].concat();
        [label(63), label(63), label(63), label(61), vec![0]].concat()
    };
    let option = |code: u16, data: Vec<u8>| {
        let length = u16::try_from(data.len()).unwrap().to_be_bytes();
        [code.to_be_bytes().to_vec(), length.to_vec(), data].concat()
    };
    let message = |options: Vec<u8>| {
        let mut wire = b"\x12\x34\x80\0\0\x01\0\0\0\0\0\x01".to_vec();
        wire.extend(name(0));
        wire.extend([0xfe, 0xff, 0xfe, 0xff]);
        wire.extend(b"\0\0\x29\x04\xd0\0\0\0\0");
        wire.extend(u16::try_from(options.len()).unwrap().to_be_bytes());
        wire.extend(options);
        bounds::observation(&wire, true)
    };
    let cookies = option(10, vec![0xff; 40]);
    let subnet = option(8, [&[0, 2, 128, 0][..], &[0xff; 16]].concat());
    let nsid = option(3, vec![0xff; 65_000]);
    let mut longest = Longest::default();
    for (query, response) in [(cookies.clone(), nsid.clone()), (nsid, [cookies, subnet].concat())] {
        let (query, response) = (message(query), message(response));
        let owner = owner("x", 63);
        let [query, response] = [Some(&query), Some(&response)];
        let policy = Policy::default();
        bounds::with_record_as(Profile::Flat, query, response, &policy, 1 << 20, |record| {
            let transaction = tap53_transactions::pair::Transaction {
                anomalies: Anomaly::ALL.into_iter().collect(),
                chain: None,
                ..*record.transaction
            };
            let signals = Some(Signal::ALL.into_iter().collect());
            let record = Record {
                client: &owner,
                server: &owner,
                transaction: &transaction,
                signals,
                ..*record
            };
            longest.require_fits(&record, 1 << 20);
        });
    }
    let widths = widths(1 << 20);
    for (name, least) in [
        ("record_id", 32),
        ("qname", 1_000),
        ("qtype", 9),
        ("query_cookie", 80),
        ("response_cookie", 80),
        ("query_nsid", 130_000),
        ("response_nsid", 130_000),
        ("response_client_subnet", 43),
        ("client_pod_name", 253),
        ("server_service_namespace", 253),
        ("client_labels", 12_353),
        ("query_wire", 130_500),
        ("anomalies", 100),
        ("signals", 90),
    ] {
        let reached = longest.0[name];
        assert!((least..=widths[name]).contains(&reached), "{name}: {reached} of {}", widths[name]);
    }
}
