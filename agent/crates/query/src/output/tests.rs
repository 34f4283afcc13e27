use std::cell::RefCell;

use tap53_records::encode::{Profile, samples};

use super::*;
use crate::{
    avro::Shape,
    expression,
    query::{Error, Query},
};

/// An output that the test reads afterwards.
#[derive(Clone, Copy)]
struct Shared<'a>(&'a RefCell<Vec<u8>>);

impl Write for Shared<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the result of a question to the samples in a profile.
fn ask(profile: Profile, text: Option<&str>, format: Format, names: &[&str]) -> String {
    let catalogue = Catalogue::new(profile).unwrap();
    let expression = text.map(|text| expression::parse(text, &catalogue).unwrap());
    let mut fields = Fields::default();
    let columns = columns(names.iter().copied(), &catalogue, &mut fields).unwrap();
    let out = RefCell::new(Vec::new());
    let lines = Lines::new(format, columns, Shared(&out));
    let mut query = Query::new(fields, expression.as_ref(), lines, None);
    let (_, shape) = Shape::parse(profile.schema_text()).unwrap();
    let projection = query.projection(&shape).unwrap();
    let (bytes, records) = data(profile);
    query.take(&projection, &bytes, records).unwrap();
    assert_eq!(query.counts().read, records);
    query.finish().unwrap();
    String::from_utf8(out.into_inner()).unwrap()
}

fn data(profile: Profile) -> (Vec<u8>, u64) {
    let (mut bytes, mut encoder) = (Vec::new(), profile.datum().build().unwrap());
    for name in samples::NAMES {
        samples::with_record(name, |record| encoder.encode(record, &mut bytes).unwrap());
    }
    (bytes, samples::NAMES.len() as u64)
}

#[test]
fn all_fields_in_json_are_the_lines_of_the_agent() {
    let mut lines = Vec::new();
    let mut encoder = tap53_records::encode::Format::Json.build().unwrap();
    for name in samples::NAMES {
        samples::with_record(name, |record| encoder.encode(record, &mut lines).unwrap());
    }
    let asked = ask(Profile::Full, None, Format::Json, &["all"]);
    let parse = |text: &str| -> Vec<serde_json::Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    assert_eq!(parse(&asked), parse(str::from_utf8(&lines).unwrap()));
    assert!(asked.starts_with("{\"record_id\":\""), "in the schema's order");
}

#[test]
fn both_profiles_give_one_answer() {
    let names = ["record_id", "query_time", "outcome", "qname", "resolved_addresses", "anomalies"];
    for text in [
        None,
        Some("outcome = matched"),
        Some("query_time < 2100-01-01 and latency > 1ns"),
        Some("resolved_addresses in 0.0.0.0/0 or resolved_addresses in ::/0"),
        Some("anomalies != null or client_labels.app = \"web\""),
    ] {
        let [full, flat] = Profile::ALL.map(|it| ask(it, text, Format::Csv, &names));
        assert_eq!(full, flat, "{text:?}");
    }
}

#[test]
fn expressions_select_by_each_kind_of_value() {
    let count = |text: &str| {
        let asked = ask(Profile::Full, Some(text), Format::Csv, &["qname"]);
        asked.lines().count() - 1
    };
    let all = samples::NAMES.len();
    assert_eq!(count("qname != null or qname = null"), all);
    assert_eq!(count("schema_version = 5"), all);
    assert_eq!(
        count("outcome = MATCHED or outcome = UNANSWERED or outcome = unmatched_response"),
        all
    );
    assert_eq!(count("not (outcome = MATCHED) and outcome = MATCHED"), 0);
    let matched = count("outcome = MATCHED");
    assert!((1..all).contains(&matched));
    assert_eq!(count("latency >= 0ns"), matched);
    assert_eq!(count("response_time != null and query_time != null"), matched);
    assert_eq!(count("client in (0.0.0.0/0, ::/0)"), all);
    assert_eq!(count("client in (192.0.2.255, 2001:db8:ffff::/48)"), 0);
    assert_eq!(count("transport in (UDP, TCP)"), all);
    assert_eq!(count("rcode ~ '*'"), count("rcode != null"));
    let answered = count("answer_count > 0");
    assert_eq!(count("answers.ttl >= 0"), answered);
    assert!(answered > 0);
    assert_eq!(count("record_id = 00000000000000000000000000000000"), 0);
}

#[test]
fn a_suffix_is_the_name_itself_or_below_it() {
    let (all, mut found) = (ask(Profile::Full, None, Format::Csv, &["qname"]), 0);
    for name in all.lines().skip(1).filter(|name| name.contains('.')) {
        let count = |text: &str| {
            let asked = ask(Profile::Full, Some(text), Format::Csv, &["qname"]);
            asked.lines().skip(1).filter(|line| *line == name).count()
        };
        let (_, parent) = name.split_once('.').unwrap();
        assert!(count(&format!("qname ~ \"{parent}\"")) > 0, "{parent}");
        assert!(count(&format!("qname ~ \"{}\"", name.to_uppercase())) > 0, "{name}");
        assert!(count(&format!("qname ~ \"*{parent}\"")) > 0, "{parent}");
        assert_eq!(count(&format!("qname ~ \"{}\"", &name[1..])), 0, "a part of a label");
        found += 1;
    }
    assert!(found > 0);
}

#[test]
fn text_in_the_flat_profile_has_no_parts() {
    let catalogue = Catalogue::new(Profile::Full).unwrap();
    let expression = expression::parse("answers.rdata = a", &catalogue).unwrap();
    let lines = Lines::new(Format::Json, Vec::new(), Vec::new());
    let query = Query::new(Fields::default(), Some(&expression), lines, None);
    let (_, shape) = Shape::parse(Profile::Flat.schema_text()).unwrap();
    let error = query.projection(&shape).unwrap_err().to_string();
    assert!(error.contains("`answers` is text"), "{error}");
    assert_eq!(
        ask(Profile::Flat, Some("answers ~ '* A *'"), Format::Csv, &["qname"]).lines().count(),
        3
    );
    let flat = Catalogue::new(Profile::Flat).unwrap();
    let error = expression::parse("answers.rdata = a", &flat).unwrap_err();
    assert!(error.why.contains("`answers` has no parts"), "{error}");
}

/// Data of every earlier version, each after a single-object header of ten bytes.
const HISTORY: [&str; 4] = [
    include_str!("../../../../schema/history/dns_transaction_v1.hex"),
    include_str!("../../../../schema/history/dns_transaction_v2.hex"),
    include_str!("../../../../schema/history/dns_transaction_v3.hex"),
    include_str!("../../../../schema/history/dns_transaction_v4.hex"),
];

#[test]
fn earlier_versions_are_read_and_their_missing_fields_are_null() {
    let catalogue = Catalogue::new(Profile::Full).unwrap();
    for (version, hexadecimal) in Profile::Full.versions().iter().zip(HISTORY) {
        let mut fields = Fields::default();
        let names = ["schema_version", "exchange_id", "qname"];
        let columns = columns(names, &catalogue, &mut fields).unwrap();
        let out = RefCell::new(Vec::new());
        let lines = Lines::new(Format::Json, columns, Shared(&out));
        let mut query = Query::new(fields, None, lines, None);
        let projection = query.projection(&Shape::parse(version.text).unwrap().1).unwrap();
        for line in hexadecimal.lines() {
            let framed = data_encoding::HEXLOWER.decode(line.as_bytes()).unwrap();
            query.take(&projection, &framed[10..], 1).unwrap();
        }
        let text = String::from_utf8(out.borrow().clone()).unwrap();
        let begin = format!("{{\"schema_version\":{},\"exchange_id\":null,", version.number);
        assert_eq!(text.lines().filter(|line| line.starts_with(&begin)).count(), 3, "{text}");
    }
}

#[test]
fn a_limit_ends_the_question() {
    let lines = Lines::new(Format::Json, Vec::new(), Vec::new());
    let mut query = Query::new(Fields::default(), None, lines, Some(1));
    let (_, shape) = Shape::parse(Profile::Full.schema_text()).unwrap();
    let projection = query.projection(&shape).unwrap();
    let (bytes, records) = data(Profile::Full);
    assert!(matches!(query.take(&projection, &bytes, records), Err(Error::Limit)));
    assert_eq!(query.counts().selected, 1);
}

#[test]
fn strangers_texts_are_escaped_on_a_terminal_and_quoted_in_csv() {
    let mut out = Vec::new();
    crate::format::push_csv_text(b"a,\"b\"\nc", &mut out);
    assert_eq!(out, b"\"a,\"\"b\"\"\nc\"");
    let catalogue = Catalogue::new(Profile::Full).unwrap();
    let mut fields = Fields::default();
    let columns = columns(["node"], &catalogue, &mut fields).unwrap();
    let shape = Shape::Record(vec![("node".to_owned(), Shape::Text)]);
    let out = RefCell::new(Vec::new());
    let lines = Lines::new(Format::Text, columns, Shared(&out));
    let mut query = Query::new(fields, None, lines, None);
    let projection = query.projection(&shape).unwrap();
    query.take(&projection, b"\x08\x1b[2J", 1).unwrap();
    assert_eq!(out.borrow().as_slice(), b"NODE\n\\u001b[2J\n");
}

#[test]
fn an_unknown_column_names_the_nearest() {
    let catalogue = Catalogue::new(Profile::Full).unwrap();
    let error = columns(["rcod"], &catalogue, &mut Fields::default()).unwrap_err();
    assert_eq!(error.to_string(), "unknown field `rcod`; did you mean `rcode`?");
}

/// Labels and texts: two of each, none, and no value.
const LABELLED: [&[u8]; 3] = [
    // The variant of the union, a part of two items, and the end.
    b"\x02\x04\x02a\x02x\x02b\x02y\0\x04\x02p\x02q\0",
    b"\x02\0\0",
    b"\0\x02\x02r\0",
];

#[test]
fn parquet_has_the_labels_and_lists_of_each_record() {
    use ::parquet::file::reader::{FileReader, SerializedFileReader};
    const SCHEMA: &str = r#"{"type": "record", "name": "R", "fields": [
        {"name": "client_labels", "type": ["null", {"type": "map", "values": "string"}]},
        {"name": "anomalies", "type": {"type": "array", "items": "string"}}
    ]}"#;
    let catalogue = Catalogue::new(Profile::Full).unwrap();
    let mut fields = Fields::default();
    let columns = columns(["client_labels", "anomalies"], &catalogue, &mut fields).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let parquet = Parquet::begin(columns, file.reopen().unwrap()).unwrap();
    let mut query = Query::new(fields, None, parquet, None);
    let projection = query.projection(&Shape::parse(SCHEMA).unwrap().1).unwrap();
    query.take(&projection, &LABELLED.concat(), 3).unwrap();
    query.finish().unwrap();
    let reader = SerializedFileReader::new(file.reopen().unwrap()).unwrap();
    let rows = reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string());
    let expected = [
        r#"{client_labels: {"a" -> "x", "b" -> "y"}, anomalies: ["p", "q"]}"#,
        "{client_labels: {}, anomalies: []}",
        r#"{client_labels: null, anomalies: ["r"]}"#,
    ];
    assert_eq!(rows.collect::<Vec<_>>(), expected);
}

#[test]
fn labels_are_compared_by_their_key() {
    let shape = r#"{"type": "record", "name": "R", "fields": [
        {"name": "client_labels", "type": ["null", {"type": "map", "values": "string"}]},
        {"name": "anomalies", "type": {"type": "array", "items": "string"}}
    ]}"#;
    let (_, shape) = Shape::parse(shape).unwrap();
    let catalogue = Catalogue::new(Profile::Full).unwrap();
    let count = |text: &str| {
        let expression = expression::parse(text, &catalogue).unwrap();
        let lines = Lines::new(Format::Json, Vec::new(), Vec::new());
        let mut query = Query::new(Fields::default(), Some(&expression), lines, None);
        let projection = query.projection(&shape).unwrap();
        query.take(&projection, &LABELLED.concat(), 3).unwrap();
        query.counts().selected
    };
    assert_eq!(count("client_labels.b = y"), 1);
    assert_eq!(count("client_labels.b = x"), 0);
    assert_eq!(count("client_labels.b != y"), 2);
    assert_eq!(count("client_labels.c = null"), 3);
    assert_eq!(count("anomalies = q or anomalies = r"), 2);
    assert_eq!(count("anomalies = null"), 1);
}
