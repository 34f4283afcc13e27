use std::{borrow::Cow, collections::BTreeMap};

use proptest::prelude::*;

use super::*;
use crate::{
    avro::{Damaged, Shape},
    format::humane_duration,
    row::Projection,
};

/// A record with the fields of the reports.
#[derive(Clone, Debug, Default)]
struct Sample {
    time: i64,
    client: &'static str,
    qname: Cow<'static, str>,
    rcode: Option<&'static str>,
    latency: Option<i64>,
    anomalies: Vec<&'static str>,
    answered_from: Option<&'static str>,
    signals: Option<Vec<&'static str>>,
    /// Number of the query's frame, in a replay.
    frame: Option<i64>,
}

const SCHEMA: &str = r#"{"type": "record", "name": "R", "fields": [
    {"name": "query_time", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "client_address", "type": "string"},
    {"name": "server_address", "type": "string"},
    {"name": "qname", "type": "string"},
    {"name": "rcode", "type": ["null", "string"]},
    {"name": "outcome", "type": "string"},
    {"name": "latency_ns", "type": ["null", "long"]},
    {"name": "anomalies", "type": {"type": "array", "items": "string"}},
    {"name": "answered_from", "type": ["null", "string"]},
    {"name": "upstream_count", "type": "int"},
    {"name": "qtype", "type": "string"},
    {"name": "query_size", "type": "int"},
    {"name": "response_size", "type": "int"},
    {"name": "signals", "type": ["null", {"type": "array", "items": "string"}]},
    {"name": "query_frame", "type": ["null", "long"]}
]}"#;

impl Sample {
    fn encode(&self, out: &mut Vec<u8>) {
        let long = tap53_records::encode::push_long;
        let text = |out: &mut Vec<u8>, text: &str| {
            long(out, i64::try_from(text.len()).unwrap());
            out.extend_from_slice(text.as_bytes());
        };
        let optional = |out: &mut Vec<u8>, value: Option<&str>| {
            long(out, i64::from(value.is_some()));
            value.into_iter().for_each(|value| text(out, value));
        };
        long(out, self.time);
        text(out, self.client);
        text(out, "10.0.0.53");
        text(out, &self.qname);
        optional(out, self.rcode);
        text(out, if self.rcode.is_some() { "MATCHED" } else { "UNANSWERED" });
        long(out, i64::from(self.latency.is_some()));
        self.latency.into_iter().for_each(|it| long(out, it));
        let texts = |out: &mut Vec<u8>, texts: &[&str]| {
            if !texts.is_empty() {
                long(out, i64::try_from(texts.len()).unwrap());
                texts.iter().for_each(|it| text(out, it));
            }
            long(out, 0);
        };
        texts(out, &self.anomalies);
        optional(out, self.answered_from);
        long(out, 2);
        text(out, "TXT");
        long(out, 100);
        long(out, 400);
        long(out, i64::from(self.signals.is_some()));
        self.signals.iter().for_each(|it| texts(out, it));
        long(out, i64::from(self.frame.is_some()));
        self.frame.into_iter().for_each(|it| long(out, it));
    }
}

fn report(kind: Kind, samples: &[Sample], rows: usize) -> Table {
    let mut fields = Fields::default();
    let mut tables = Tables::new(kind, &mut fields);
    let (_, shape) = Shape::parse(SCHEMA).unwrap();
    let projection = Projection::new(&shape, &fields, &[]).unwrap();
    let mut block = Vec::new();
    samples.iter().for_each(|sample| sample.encode(&mut block));
    let add = |row: Row<'_, '_>| {
        tables.add(&row);
        Ok::<_, Damaged>(())
    };
    projection.rows(&block, samples.len() as u64, add).unwrap();
    let table = tables.table(rows);
    assert!(table.rows.iter().all(|row| row.len() == table.columns.len()), "{table:?}");
    table
}

/// Three clients: two share a name, one gets no answer.
fn samples() -> Vec<Sample> {
    let ms = |ms: i64| Some(ms * 1_000_000);
    let one = Sample { client: "10.0.0.1", qname: "a.test".into(), ..Sample::default() };
    vec![
        Sample {
            time: 5,
            rcode: Some("NOERROR"),
            latency: ms(1),
            answered_from: Some("CACHE"),
            ..one.clone()
        },
        Sample {
            time: 3,
            rcode: Some("NXDOMAIN"),
            latency: ms(3),
            client: "10.0.0.2",
            answered_from: Some("UPSTREAM"),
            ..one.clone()
        },
        Sample { time: 4, qname: "b.test".into(), ..one.clone() },
        Sample {
            time: 9,
            rcode: Some("NOERROR"),
            latency: ms(2),
            anomalies: vec!["CONFLICTING_RESPONSE", "CASE_MISMATCH"],
            ..one
        },
    ]
}

fn text(kind: Kind) -> String {
    String::from_utf8(report(kind, &samples(), 10).write(Format::Csv)).unwrap()
}

#[test]
fn each_report_counts_what_it_names() {
    assert_eq!(
        text(Kind::TopNames),
        "qname,transactions,share,nxdomain,servfail,unanswered\na.test,3,75,1,0,0\nb.test,1,25,0,0,1\n"
    );
    let clients = text(Kind::Clients);
    assert!(clients.contains("\n10.0.0.1,3,75,0,0,1,"), "{clients}");
    // The middle of the bucket of 3 ms.
    assert!(clients.contains("\n10.0.0.2,1,25,1,0,0,2949120,2949120\n"), "{clients}");
    let rcodes = text(Kind::Rcodes);
    assert!(rcodes.contains("\nNOERROR,2,50,"), "{rcodes}");
    assert!(rcodes.contains("\n(no response),1,25,\n"), "{rcodes}");
    let latency = text(Kind::Latency);
    assert!(latency.contains("\n10.0.0.53,3,"), "{latency}");
    assert!(latency.ends_with(",2949120,2949120,3000000\n"), "{latency}");
    assert_eq!(
        text(Kind::Unanswered),
        "client,server,unanswered,transactions,share\n10.0.0.1,10.0.0.53,1,3,33.33\n"
    );
    let chains = text(Kind::Chains);
    assert!(chains.contains("\n10.0.0.53,UPSTREAM,1,25,2949120,2,,\n"), "{chains}");
    assert_eq!(chains.lines().count(), 3);
    let conflicts = text(Kind::Conflicts);
    assert!(
        conflicts.contains(
            "\nCONFLICTING_RESPONSE,10.0.0.1,10.0.0.53,a.test,1,1970-01-01T00:00:00.000009Z,"
        ),
        "{conflicts}"
    );
    assert_eq!(conflicts.lines().count(), 3);
}

#[test]
fn a_report_ends_after_its_rows_and_the_largest_come_first() {
    let table = report(Kind::TopNames, &samples(), 1);
    assert_eq!(table.rows.len(), 1);
    assert_eq!(table.rows[0][0], Cell::Text("a.test".to_owned()));
    assert!(report(Kind::Conflicts, &[], 5).rows.is_empty());
}

/// Queries of one client: as many with data in their names, and one of an everyday name before each.
fn tunnel(count: usize) -> Vec<Sample> {
    let of = |number: usize, qname: String| Sample {
        time: i64::try_from(number).unwrap() * 100_000,
        client: "10.0.0.9",
        qname: qname.into(),
        rcode: Some("NOERROR"),
        ..Sample::default()
    };
    let data = |number: usize| {
        // Different in every place, as encoded data are.
        let letters = ('a'..='z').collect::<Vec<_>>();
        let label: String = (0..60).map(|at| letters[(number * 7 + at * at * 5) % 26]).collect();
        format!("{label}.{number}x{}.t.example.com", &label[..20])
    };
    let both = |number| [of(number, "www.example.org".to_owned()), of(number, data(number))];
    (0..count).flat_map(both).collect()
}

fn rows(kind: Kind, samples: &[Sample]) -> Vec<serde_json::Value> {
    let json = report(kind, samples, 10).write(Format::Json);
    json.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

#[test]
fn a_tunnel_is_found_in_records_without_signals() {
    let samples = tunnel(200);
    let tunnels = rows(Kind::Tunnels, &samples);
    let [tunnel] = &tunnels[..] else { panic!("{tunnels:?}") };
    assert_eq!((&tunnel["client"], &tunnel["domain"]), (&"10.0.0.9".into(), &"example.com".into()));
    assert_eq!((&tunnel["transactions"], &tunnel["names"]), (&200.into(), &200.into()));
    let marked = tunnel["marked"].as_u64().unwrap();
    assert!((1..200).contains(&marked), "{marked}: the first names are not conspicuous yet");
    assert_eq!((&tunnel["bytes"], &tunnel["qtypes"]), (&100_000.into(), &"TXT".into()));
    assert_eq!(tunnel["duration_ns"], 19_900_000_000_i64);
    let signals = rows(Kind::Signals, &samples);
    let [signal] = &signals[..] else { panic!("all domains are new here: {signals:?}") };
    // Not the same number: names are counted by hashes, whose key is different in each detector.
    assert_eq!(signal["signal"], "TUNNEL");
    assert!((1..200).contains(&signal["transactions"].as_u64().unwrap()), "{signal}");
    let new = rows(Kind::NewDomains, &samples);
    let domains: Vec<_> = new.iter().map(|row| row["domain"].as_str().unwrap()).collect();
    assert_eq!(domains, ["example.com", "example.org"]);
    assert_eq!((&new[0]["names"], &new[0]["clients"]), (&200.into(), &1.into()));
    assert_eq!(
        (&new[1]["first_qname"], &new[1]["transactions"]),
        (&"www.example.org".into(), &200.into())
    );
}

#[test]
fn recorded_signals_are_those_of_the_agent() {
    let mut samples = tunnel(200);
    samples.iter_mut().for_each(|sample| sample.signals = Some(Vec::new()));
    for kind in [Kind::Tunnels, Kind::NewDomains, Kind::Signals] {
        assert_eq!(rows(kind, &samples), Vec::<serde_json::Value>::new(), "{kind:?}");
    }
    samples[6].signals = Some(vec!["NEW_DOMAIN_WORKLOAD", "OF_A_LATER_VERSION", "REBINDING"]);
    let new = rows(Kind::NewDomains, &samples);
    assert_eq!((new.len(), &new[0]["domain"]), (1, &"example.org".into()));
    assert_eq!(new[0]["first"], "1970-01-01T00:00:00.300000Z");
    let signals: Vec<_> =
        rows(Kind::Signals, &samples).iter().map(|row| row["signal"].clone()).collect();
    assert_eq!(signals, ["NEW_DOMAIN_WORKLOAD", "REBINDING"]);
}

#[test]
fn domains_that_are_new_in_a_replay_are_no_news() {
    let signals = Some(vec!["NEW_DOMAIN_NODE", "REBINDING"]);
    let replayed = [Sample { signals, frame: Some(1), ..tunnel(1).swap_remove(0) }];
    let found = rows(Kind::Signals, &replayed);
    assert_eq!((found.len(), &found[0]["signal"]), (1, &"REBINDING".into()));
    let new = rows(Kind::NewDomains, &replayed);
    assert_eq!((new.len(), &new[0]["domain"]), (1, &"example.org".into()));
}

#[test]
fn a_table_is_aligned_as_text_and_an_object_for_each_row_as_json() {
    let table = report(Kind::Rcodes, &samples(), 10);
    let shown = String::from_utf8(table.write(Format::Text)).unwrap();
    assert!(shown.starts_with("RCODE          TRANSACTIONS    SHARE     P50\n"), "{shown}");
    assert!(shown.contains("\nNOERROR                   2  50.00 %  "), "{shown}");
    let json = String::from_utf8(table.write(Format::Json)).unwrap();
    for line in json.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(row["transactions"].as_u64().unwrap() >= 1);
    }
    assert_eq!(json.lines().count(), 3);
}

#[test]
fn durations_have_three_digits() {
    let cases = [
        (0, "0ns"),
        (999, "999ns"),
        (1_500, "1.50µs"),
        (12_345_678, "12.3ms"),
        (123_456_789, "123ms"),
        (2_500_000_000, "2.50s"),
        (1_798_000_000_000, "30.0m"),
    ];
    for (nanoseconds, shown) in cases {
        assert_eq!(humane_duration(nanoseconds), shown);
    }
}

proptest! {
    #[test]
    fn percentiles_are_close_to_the_exact_ones(
        values in prop::collection::vec(0i64..1 << 40, 1..200),
        percent in 0u64..=100,
    ) {
        let mut histogram = Histogram::default();
        values.iter().for_each(|value| histogram.add(*value));
        let mut sorted = values;
        sorted.sort_unstable();
        let rank = (sorted.len() * usize::try_from(percent).unwrap()).div_ceil(100).max(1);
        let exact = sorted[rank - 1] as f64;
        let read = histogram.percentile(percent).unwrap() as f64;
        prop_assert!((read - exact).abs() <= exact * 0.032 + 1.0, "{read} for {exact}");
        prop_assert_eq!(histogram.max(), sorted.last().copied());
    }

    #[test]
    fn counts_of_names_are_exact(names in prop::collection::vec(0usize..5, 0..60)) {
        const NAMES: [&str; 5] = ["a.test", "b.test", "c.test", "", "e.test"];
        let samples: Vec<Sample> = names
            .iter()
            .map(|name| Sample { qname: NAMES[*name].into(), client: "10.0.0.1", ..Sample::default() })
            .collect();
        let mut exact = BTreeMap::<&str, u64>::new();
        for name in names {
            *exact.entry(NAMES[name]).or_default() += 1;
        }
        let table = report(Kind::TopNames, &samples, 10);
        let counted: BTreeMap<&str, u64> = table.rows.iter().map(|row| match &row[..2] {
            [Cell::Text(name), Cell::Number(count)] => (name.as_str(), *count),
            other => panic!("{other:?}"),
        }).collect();
        prop_assert_eq!(counted, exact);
    }
}
