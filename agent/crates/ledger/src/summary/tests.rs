use std::collections::HashMap;

use apache_avro::{reader::datum::GenericDatumReader, types::Value as AvroValue};
use tap53_base::amount::Amount;
use tap53_records::encode::{SchemaVersion, read_single_object};
use tap53_transactions::filter::FilterReason;

use super::*;
use crate::{
    SUMMARY_SCHEMA_TEXT, SUMMARY_SCHEMA_VERSIONS, SinkCounts, SinkLoss, Sources, SummaryEncoder,
    WorkerCounts, chain::Link, summary_schema,
};

const HEADER_SIZE: usize = 10;

/// A ledger of two workers whose last records have these numbers, of which `lost` were lost.
fn ledger(numbers: [u64; 2], lost: u64) -> Ledger {
    let records: u64 = numbers.iter().sum();
    let mut workers = WorkerCounts {
        messages_decoded: 2 * records + 3,
        messages_pending: 1,
        messages_in_records: 2 * records,
        records_created: records + 1,
        ..Default::default()
    };
    workers.filtered[FilterReason::QnameDenied as usize] = Amount { records: 1, messages: 2 };
    let amount = |records| Amount { records, messages: 2 * records };
    let mut sink = SinkCounts { offered: amount(records), ..Default::default() };
    sink.carried = amount(4);
    sink.delivered = amount(records - lost);
    sink.spooled = amount(3);
    sink.in_flight = amount(1);
    sink.lose(SinkLoss::Expired, amount(lost));
    Ledger::new(&Sources {
        node: "node-1".into(),
        run: [0xab; 8],
        taken_at_us: 0,
        ended: false,
        is_abandoned: false,
        interfaces: Vec::new(),
        workers,
        last_numbers: numbers.to_vec(),
        sinks: vec![("kafka".into(), sink)],
    })
}

fn at(seconds: i64) -> Moment {
    let monotonic_ns = seconds.unsigned_abs() * 1_000_000_000;
    Moment { utc_us: 1_700_000_000_000_000 + seconds * 1_000_000, monotonic_ns }
}

/// The first three summaries of a run.
fn summaries() -> [Summary; 3] {
    let mut windows = Windows::begin("dns", at(0));
    let mut end = |kind, ledger: Ledger, settled_window, now| {
        let progress = Progress { settled_window, carried_lost: 1 };
        windows.end(kind, "kafka", &ledger, progress, at(now)).unwrap()
    };
    [
        end(Kind::Start, ledger([0, 0], 0), None, 1),
        end(Kind::Window, ledger([5, 3], 2), Some(0), 61),
        end(Kind::Final, ledger([9, 3], 2), Some(2), 100),
    ]
}

fn fields(summary: &Summary) -> HashMap<String, AvroValue> {
    let message = SummaryEncoder::new().unwrap().encode(summary).unwrap();
    let mut datum = &message[HEADER_SIZE..];
    let reader = GenericDatumReader::builder(summary_schema().unwrap()).build().unwrap();
    let value = reader.read_value(&mut datum).unwrap();
    assert!(datum.is_empty());
    match value {
        AvroValue::Record(fields) => fields.into_iter().collect(),
        other => panic!("not a record: {other:?}"),
    }
}

#[test]
fn a_window_has_the_numbers_between_two_summaries() {
    let [start, window, last] = summaries();
    assert_eq!((start.window_number, window.window_number, last.window_number), (0, 1, 2));
    assert_eq!((start.records_expected, start.records_expected_total), (0, 0));
    assert_eq!((window.records_expected, window.records_expected_total), (8, 8));
    assert_eq!((last.records_expected, last.records_expected_total), (4, 12));
    let of =
        |worker, last_record_number, records| WorkerNumbers { worker, last_record_number, records };
    assert_eq!(window.workers, [of(0, 5, 5), of(1, 3, 3)]);
    assert_eq!(last.workers, [of(0, 9, 4), of(1, 3, 0)]);
    assert_eq!((window.window_began_at, window.window_ended_at), (at(1).utc_us, at(61).utc_us));
    assert_eq!(window.window_ns, 60_000_000_000);
    assert!(window.balanced);
}

/// Result of the SQL for each summary.
#[test]
fn in_each_stage_the_sum_of_taken_is_the_sum_of_all_others() {
    for summary in summaries() {
        let mut sums: HashMap<&str, (i64, i64)> = HashMap::new();
        for count in &summary.counts {
            let sign = if count.fate == "taken" { 1 } else { -1 };
            let (total, change) = sums.entry(count.stage).or_default();
            *total += sign * count.total;
            *change += sign * count.change;
        }
        assert!(sums.values().all(|sum| *sum == (0, 0)) || !summary.balanced, "{sums:?}");
        assert!(sums.contains_key("sink") && sums.contains_key("transactions"));
    }
}

#[test]
fn losses_change_when_they_become_known_and_stay_in_the_total() {
    let expired = |summary: &Summary| {
        let found = summary.counts.iter().find(|count| count.reason == "expired");
        found.map(|count| (count.total, count.change))
    };
    let [start, window, last] = summaries();
    assert_eq!(expired(&start), None);
    assert_eq!(expired(&window), Some((2, 2)));
    assert_eq!(expired(&last), Some((2, 0)));
}

#[test]
fn the_schema_reads_what_is_written() {
    let read = fields(&summaries()[1]);
    assert_eq!(read["node"], AvroValue::String("node-1".into()));
    assert_eq!(read["run_id"], AvroValue::String("abababababababab".into()));
    assert_eq!(read["kind"], AvroValue::Enum(2, "WINDOW".into()));
    assert_eq!(read["window_ended_at"], AvroValue::TimestampMicros(at(61).utc_us));
    assert_eq!(read["settled_window"], AvroValue::Union(1, Box::new(AvroValue::Long(0))));
    assert_eq!(read["records_carried"], AvroValue::Long(4));
    assert_eq!(read["records_carried_lost_total"], AvroValue::Long(1));
    let AvroValue::Array(workers) = &read["workers"] else { panic!("no array") };
    assert_eq!(workers.len(), 2);
}

/// The same summaries with the fields of version 2: the links of two workers, and signed.
fn sealed() -> [Summary; 3] {
    let mut previous = None;
    summaries().map(|summary| {
        let last = summary.workers[0].last_record_number;
        let links = (last > 0).then_some(Link {
            last_record_number: last,
            records: summary.workers[0].records,
            digest: Digest([1; 32]),
        });
        let chain =
            |worker, before, links| WorkerChain { worker, before: Digest([before; 32]), links };
        let before = previous.replace(Digest([2; 32]));
        Summary {
            tap53_version: "0.1.0",
            summaries_lost_total: 3,
            record_fingerprint: Some("3e4014d5e4b58b79".into()),
            chains: vec![chain(0, 7, links.into_iter().collect()), chain(1, 8, Vec::new())],
            previous_digest: before,
            signing_key: Some("0123456789abcdef".into()),
            signature: Some([3; 64]),
            ..summary
        }
    })
}

/// A change of the schema takes another version, and the one before into the history. A new version gets
/// its messages by `UPDATE_GOLDEN=1 cargo test -p tap53 --lib as_it_was`, and is then not changed any
/// more.
#[test]
fn this_version_is_as_it_was_when_it_became_one() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("../../schema/history/ledger_summary_v{SUMMARY_SCHEMA_VERSION}.hex"));
    let messages = sealed().map(|summary| {
        let message = SummaryEncoder::new().unwrap().encode(&summary).unwrap();
        data_encoding::HEXLOWER.encode(&message) + "\n"
    });
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        assert!(!path.exists(), "a version that is there is not changed any more");
        std::fs::write(&path, messages.concat()).unwrap();
    }
    assert_eq!(SUMMARY_SCHEMA_VERSION, 2);
    assert_eq!(messages.concat(), std::fs::read_to_string(&path).unwrap_or_default());
}

#[test]
fn this_version_reads_what_the_first_one_wrote_and_the_other_way_round() {
    let [first, newest] = [&SUMMARY_SCHEMA_VERSIONS[0], &SUMMARY_SCHEMA_VERSIONS[1]];
    let parsed = |version: &SchemaVersion| apache_avro::Schema::parse_str(version.text).unwrap();
    let (old, new) = (parsed(first), parsed(newest));
    let read = |writer, reader, mut datum: &[u8]| {
        let reading = GenericDatumReader::builder(writer).reader_schema(reader).build().unwrap();
        let value = reading.read_value(&mut datum).unwrap();
        assert!(datum.is_empty());
        match value {
            AvroValue::Record(fields) => fields.into_iter().collect::<HashMap<_, _>>(),
            other => panic!("not a record: {other:?}"),
        }
    };
    let golden = include_str!("../../../../schema/history/ledger_summary_v1.hex");
    assert_eq!(golden.lines().count(), 3);
    for line in golden.lines() {
        let message = data_encoding::HEXLOWER.decode(line.as_bytes()).unwrap();
        let (fingerprint, datum) = read_single_object(&message).unwrap();
        assert_eq!(fingerprint, first.fingerprint().unwrap());
        let fields = read(&old, &new, datum);
        assert_eq!(fields["schema_version"], AvroValue::Int(1));
        assert_eq!(fields["chains"], AvroValue::Array(Vec::new()));
        assert!(matches!(&fields["signature"], AvroValue::Union(0, _)));
    }
    for summary in sealed() {
        let message = SummaryEncoder::new().unwrap().encode(&summary).unwrap();
        let fields = read(&new, &old, &message[HEADER_SIZE..]);
        assert_eq!(fields["node"], AvroValue::String("node-1".into()));
        assert!(!fields.contains_key("chains"));
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
    let schema: serde_json::Value = serde_json::from_str(SUMMARY_SCHEMA_TEXT).unwrap();
    schema["fields"].as_array().unwrap().iter().for_each(check);
}
