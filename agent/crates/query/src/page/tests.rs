use super::*;
use crate::{avro::Shape, query::Query};

/// A name that anybody can send, and that would be a script if it were not escaped.
const HOSTILE: &str = "</td><script>alert('1')</script>&\u{202e}\u{0}\"";

const SCHEMA: &str = r#"{"type": "record", "name": "R", "fields": [
    {"name": "query_time", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "client_address", "type": "string"},
    {"name": "qname", "type": "string"},
    {"name": "rcode", "type": ["null", "string"]},
    {"name": "latency_ns", "type": ["null", "long"]},
    {"name": "capture_gap", "type": "boolean"},
    {"name": "run_id", "type": "string"},
    {"name": "worker", "type": "int"},
    {"name": "record_number", "type": "long"},
    {"name": "qname_registrable_domain", "type": "string"},
    {"name": "signals", "type": {"type": "array", "items": "string"}}
]}"#;

/// A page of records with these times and record numbers.
fn page(records: &[(i64, i64)]) -> String {
    let long = tap53_records::encode::push_long;
    let text = |out: &mut Vec<u8>, text: &str| {
        long(out, i64::try_from(text.len()).unwrap());
        out.extend_from_slice(text.as_bytes());
    };
    let mut block = Vec::new();
    for (time, number) in records {
        long(&mut block, *time);
        text(&mut block, "10.0.0.1");
        text(&mut block, HOSTILE);
        long(&mut block, 1);
        text(&mut block, "NXDOMAIN");
        long(&mut block, 1);
        long(&mut block, 3_000_000);
        block.push(1);
        text(&mut block, HOSTILE);
        long(&mut block, 0);
        long(&mut block, *number);
        text(&mut block, HOSTILE);
        long(&mut block, 1);
        text(&mut block, "DGA");
        block.push(0);
    }
    let mut fields = Fields::default();
    let page = Page::new(&mut fields);
    let mut query = Query::new(fields, None, page, None);
    let projection = query.projection(&Shape::parse(SCHEMA).unwrap().1).unwrap();
    query.take(&projection, &block, records.len() as u64).unwrap();
    let context = Context {
        sources: vec![HOSTILE.to_owned()],
        expression: Some(HOSTILE.to_owned()),
        read: query.counts().read,
        ledgers: vec![HOSTILE.to_owned()],
        errors: vec![HOSTILE.to_owned()],
        notes: vec![HOSTILE.to_owned()],
    };
    let mut out = Vec::new();
    query.consumer().write(&context, 20, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn texts_of_records_are_never_markup() {
    let html = page(&[(0, 1), (5_000_000, 4)]);
    assert!(!html.contains("<script"), "{html}");
    let escaped =
        "&lt;/td&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;\\u202e\\u0000&quot;";
    // Source, expression, error, note, ledger, the domain of the signal, and the name in its table.
    assert_eq!(html.matches(escaped).count(), 7);
    assert_eq!(html.matches("alert(").count(), 7);
    for forbidden in ["http://", "https://", "src=", "href=", "url(", "@import"] {
        let html = html.replace("http://www.w3.org/", "");
        assert!(!html.contains(forbidden), "the page loads something: {forbidden}");
    }
}

#[test]
fn the_page_has_every_section_and_both_pictures() {
    let html = page(&[(0, 1), (5_000_000, 4)]);
    for (_, heading, _) in SECTIONS {
        assert!(html.contains(&format!("<h2>{heading}</h2>")), "{heading}");
    }
    assert_eq!(html.matches("<svg ").count(), 2);
    // One bar at each end, and a cell of the map below each.
    assert_eq!(html.matches("<rect class=\"c1\"").count(), 2);
    assert_eq!(html.matches("<rect class=\"heat\"").count(), 2);
    assert!(html.contains("2 of 2 read"));
    assert!(html.contains("1970-01-01T00:00:00.000Z to 1970-01-01T00:00:05.000Z"));
    let row =
        |name: &str, count: u64| format!("({name})</span></td><td class=\"number\">{count}</td>");
    assert!(html.contains(&row("capture_gap", 2)), "{html}");
    assert!(html.contains(&row("record_number", 2)), "numbers 2 and 3 are missing");
}

#[test]
fn a_page_without_records_says_so() {
    let html = page(&[]);
    assert!(html.contains("<p>No records.</p>") && html.contains("0 of 0 read"), "{html}");
    assert!(!html.contains("<h2>Signals</h2>"), "there is none");
}

#[test]
fn any_span_of_time_has_few_buckets_and_no_record_is_lost() {
    let day_us = 86_400_000_000;
    for records in
        [vec![(i64::MIN, 1), (i64::MAX, 2)], (0..10_000).map(|it| (it * day_us, it)).collect()]
    {
        let html = page(&records);
        let bars = html.matches("<rect class=\"c1\"").count();
        assert!((2..=96).contains(&bars), "{bars}");
        let counted: usize = html
            .split("<rect class=\"c1\"")
            .skip(1)
            .filter_map(|bar| bar.split(": ").nth(1)?.split(' ').next()?.parse::<usize>().ok())
            .sum();
        assert_eq!(counted, records.len());
    }
}
