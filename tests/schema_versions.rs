//! Versions of the schema read each other's records, by an Avro implementation that is not the
//! agent's. What is asked of each field stands in the agent's own tests.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tap53::{
    decode::{Message, Transport},
    encode::{self, Attribution, Clock, Format, Identity, Observer, Owner, Portion, Record},
    pair::{
        Anomalies, Exchange, Flow, Observation, RecordId, RecordIds, Related, Relation, Transaction,
    },
    privacy::Policy,
};
use tap53_harness::fastavro;

fn schema(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/schema").join(file)
}

/// What the agent of an earlier version wrote.
fn messages_of(version: u32) -> Result<Vec<Vec<u8>>> {
    let file = format!("history/dns_transaction_v{version}.hex");
    let text = std::fs::read_to_string(schema(&file))?;
    text.lines()
        .map(|line| {
            line.as_bytes()
                .chunks(2)
                .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
                .collect()
        })
        .collect()
}

/// Versions before this one, and their numbers of fields.
const EARLIER: [(u32, usize); 4] = [(1, 70), (2, 89), (3, 95), (4, 98)];

fn schema_of(version: u32) -> PathBuf {
    schema(&format!("history/dns_transaction_v{version}.avsc"))
}

#[test]
fn fastavro_reads_earlier_versions_as_this_version() -> Result<()> {
    let new = schema("dns_transaction.avsc");
    for (version, _) in EARLIER {
        let (old, messages) = (schema_of(version), messages_of(version)?);
        let as_written = fastavro::read_single_objects(&old, messages.iter().map(Vec::as_slice))?;
        let resolved =
            fastavro::resolve_single_objects(&old, Some(&new), messages.iter().map(Vec::as_slice))?;
        assert_eq!((as_written.len(), resolved.len()), (3, 3));
        for (as_written, resolved) in as_written.iter().zip(&resolved) {
            for (field, value) in as_written.as_object().context("a record")? {
                assert_eq!(resolved[field], *value, "{field}");
            }
            for (field, value) in [
                ("relation", Value::Null),
                ("copy_count", json!(0)),
                ("updates", json!([])),
                ("client_node_name", Value::Null),
                ("server_service_name", Value::Null),
                ("run_id", json!("")),
                ("record_number", json!(0)),
                ("response_direction", Value::Null),
                ("response_interface", Value::Null),
                ("anomalies", json!([])),
                ("latest_query_time", Value::Null),
                ("latency_from_latest_query_ns", Value::Null),
                ("query_file", Value::Null),
                ("response_file", Value::Null),
                ("questions_omitted", json!(0)),
                ("edns_options_omitted", json!(0)),
                ("wire_omitted", json!(0)),
                ("prerequisites", json!([])),
            ] {
                // Version 4 is the first with runs and numbers.
                if as_written.get(field).is_none() {
                    assert_eq!(resolved.get(field), Some(&value), "{field}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn fastavro_reads_this_version_as_earlier_ones() -> Result<()> {
    let new = schema("dns_transaction.avsc");
    let message = this_version_message()?;
    let as_written = fastavro::read_single_objects(&new, std::iter::once(&message[..]))?;
    assert_eq!(as_written[0]["relation"], "LATE_RESPONSE");
    assert_eq!(as_written[0]["schema_version"], encode::SCHEMA_VERSION);
    assert_eq!(as_written[0]["client_attribution"], "EXTERNAL");
    assert_eq!(as_written[0]["server_attribution"], "SERVICE");
    assert_eq!(as_written[0]["server_service_name"], "kube-dns");
    for (version, count) in EARLIER {
        let resolved = fastavro::resolve_single_objects(
            &new,
            Some(&schema_of(version)),
            std::iter::once(&message[..]),
        )?;
        let fields = resolved[0].as_object().context("a record")?;
        assert_eq!(fields.len(), count);
        for (field, value) in fields {
            // Versions 1 and 2 have no symbols for addresses that name no pod.
            let expected = match field.as_str() {
                "client_attribution" | "server_attribution" if version < 3 => {
                    &json!("UNATTRIBUTED")
                }
                field => &as_written[0][field],
            };
            assert_eq!(value, expected, "{field}");
        }
    }
    Ok(())
}

/// A record with something in fields that earlier versions do not have.
fn this_version_message() -> Result<Vec<u8>> {
    // An UPDATE that asks about two names and adds an address if there is none, with an unknown EDNS
    // option.
    let wire = b"\x12\x34\x28\0\0\x02\0\x01\0\x01\0\x01\
        \x01a\x04test\0\0\x06\0\x01\x01b\x04test\0\0\x06\0\x01\
        \xc0\x0c\0\x01\0\xfe\0\0\0\0\0\0\
        \xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01\
        \0\0\x29\x04\xd0\0\0\0\0\0\x06\xfd\xe9\0\x02ab";
    let message = Message::parse(wire).context("a message")?;
    let query = Observation { message, frame: 7, ..Default::default() };
    let id = RecordId::new([7; 8], 1, 2);
    let transaction = Transaction {
        id,
        flow: Flow {
            transport: Transport::Tcp,
            client: ([192, 0, 2, 1], 40_000).into(),
            server: ([192, 0, 2, 53], 53).into(),
            tunnel: None,
            ifindex: 0,
        },
        exchange: Exchange::Query(&query),
        query_count: 1,
        latest_query_ns: 0,
        copy_count: 2,
        capture_gap: false,
        related: Some(Related { relation: Relation::LateResponse, record: id }),
        anomalies: Anomalies::NONE,
    };
    let record = Record {
        observer: &Observer::new("node-1", "eth0", RecordIds::new([7; 8], 1)),
        response_observer: &Observer::new("node-1", "eth0", RecordIds::new([7; 8], 1)),
        number: 5,
        files: &[],
        policy: &Policy::default(),
        clock: Clock { utc_offset_ns: 0 },
        transaction: &transaction,
        client: &Owner::new(Identity { attribution: Attribution::External, ..Default::default() }),
        server: &Owner::new(Identity {
            attribution: Attribution::Service,
            service_name: Some("kube-dns".into()),
            service_namespace: Some("kube-system".into()),
            ..Default::default()
        }),
        portion: &Portion::ALL,
    };
    let mut out = Vec::new();
    Format::AvroSingleObject.build()?.encode(&record, &mut out)?;
    Ok(out)
}
