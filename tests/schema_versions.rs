//! Versions of the schema read each other's records, by an Avro implementation that is not the
//! agent's. What is asked of each field stands in the agent's own tests.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tap53_dns::{Flow, Message, Transport};
use tap53_harness::{agent, fastavro, tables};
use tap53_records::encode::{
    self, Attribution, Clock, Identity, NodeRole, Observer, Owner, Portion, Profile, Provenance,
    Record,
};
use tap53_transactions::{
    pair::{
        Anomalies, Exchange, Observation, RecordId, RecordIds, Related, Relation, Sightings,
        Transaction,
    },
    privacy::Policy,
};

fn schema(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/schema").join(file)
}

/// Returns messages that the agent of an earlier version wrote.
fn messages_of(version: u32) -> Result<Vec<Vec<u8>>> {
    golden(&format!("history/dns_transaction_v{version}.hex"))
}

fn golden(file: &str) -> Result<Vec<Vec<u8>>> {
    let text = std::fs::read_to_string(schema(file))?;
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
                ("signals", Value::Null),
                ("latest_query_time", Value::Null),
                ("latency_from_latest_query_ns", Value::Null),
                ("query_file", Value::Null),
                ("response_file", Value::Null),
                ("questions_omitted", json!(0)),
                ("edns_options_omitted", json!(0)),
                ("wire_omitted", json!(0)),
                ("prerequisites", json!([])),
                ("soa_minimum", Value::Null),
                ("authorities", json!([])),
                ("additionals", json!([])),
                ("backend_address", Value::Null),
                ("translated_client_port", Value::Null),
                ("nat", json!("NONE")),
                ("sighting_count", json!(1)),
                ("exchange_id", Value::Null),
                ("client_pid", Value::Null),
                ("client_command", Value::Null),
                ("observation", json!("UNKNOWN")),
                ("answered_from", Value::Null),
                ("upstream_count", Value::Null),
                ("served_record_id", Value::Null),
                ("search_group", Value::Null),
                ("kept_per_million", Value::Null),
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

#[test]
fn fastavro_reads_the_same_values_from_both_profiles() -> Result<()> {
    let full = fastavro::read_single_objects(
        &schema("dns_transaction.avsc"),
        std::iter::once(&this_version_message()?[..]),
    )?;
    let message = message_in(Profile::Flat)?;
    let flat = fastavro::read_single_objects(
        &schema("dns_transaction_flat.avsc"),
        std::iter::once(&message[..]),
    )?;
    let (full, flat) = (&full[0], flat[0].as_object().context("a record")?);
    assert_eq!(flat.len(), 166);
    let us = full["query_time"].as_i64().context("a time")?;
    for (field, value) in flat {
        let expected = match field.as_str() {
            "event_time" | "query_time" | "latest_query_time" => json!(us.div_euclid(1_000)),
            "event_time_us" | "query_time_us" | "latest_query_time_us" => json!(us),
            "response_time_us" => Value::Null,
            "more_questions" => json!("b.test IN SOA"),
            "updates" => json!("a.test 60 IN A 192.0.2.1"),
            "prerequisites" => json!("a.test 0 NONE A "),
            "query_edns_options" => json!("65001 6162"),
            "answers"
            | "authorities"
            | "additionals"
            | "response_edns_options"
            | "anomalies"
            | "resolved_addresses" => Value::Null,
            field if field.ends_with("_recorded") => {
                let list = field.trim_end_matches("_recorded");
                json!(full[list].as_array().context("an array")?.len())
            }
            field => full[field].clone(),
        };
        assert_eq!(*value, expected, "{field}");
    }
    Ok(())
}

/// `tap53 verify` reads bytes as hexadecimal digits.
#[test]
fn the_export_for_verify_converts_each_field_of_bytes() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("deploy/sql/verify_export.sql");
    let export = std::fs::read_to_string(path)?;
    let text = std::fs::read_to_string(schema("dns_transaction.avsc"))?;
    let schema: Value = serde_json::from_str(&text)?;
    let fields = schema["fields"].as_array().context("fields")?;
    let mut of_bytes = 0;
    for field in fields {
        let kinds = field["type"].as_array().map_or(std::slice::from_ref(&field["type"]), |it| it);
        let is_bytes = |kind: &Value| {
            kind["type"] == "fixed"
                || ["bytes", "RecordId", "ExchangeId"].iter().any(|it| kind == it)
        };
        if kinds.iter().any(is_bytes) {
            let name = field["name"].as_str().context("name")?;
            ensure!(export.contains(&format!("hex({name}) AS {name}")), "{name}");
            of_bytes += 1;
        }
    }
    assert_eq!(of_bytes, 11);
    Ok(())
}

fn ddl(arguments: &[&str]) -> Result<String> {
    let output = agent::run(&[&["schema", "--ddl"], arguments].concat())?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn duckdb_takes_the_tables_and_the_records_of_both_profiles() -> Result<()> {
    let comments = "SELECT count(*) AS columns, count(comment) AS comments FROM duckdb_columns() \
                    WHERE table_name = 'dns_transactions'";
    let flat = tables::ask(
        &schema("dns_transaction_flat.avsc"),
        &ddl(&["duckdb", "--profile", "flat"])?,
        "dns_transactions",
        &golden(&format!("history/dns_transaction_flat_v{}.hex", encode::SCHEMA_VERSION))?,
        [
            comments,
            "SELECT outcome, event_time, event_time_us FROM dns_transactions ORDER BY ALL",
            // As the documentation has it.
            "SELECT split_part(line, ' ', 1) AS name, split_part(line, ' ', 2)::BIGINT AS ttl, \
             split_part(line, ' ', 4) AS type, split_part(line, ' ', 5) AS rdata, \
             answers_recorded AS lines \
             FROM (SELECT unnest(string_split(answers, chr(10))) AS line, answers_recorded \
             FROM dns_transactions WHERE outcome = 'MATCHED')",
        ],
    )?;
    assert_eq!(flat[0], [json!({"columns": 166, "comments": 166})]);
    assert_eq!(flat[1].len(), 3);
    assert_eq!(
        flat[1][0],
        json!({
            "outcome": "MATCHED",
            "event_time": "2023-11-14T22:13:20.001000+00:00",
            "event_time_us": 1_700_000_000_001_000_i64,
        })
    );
    let answer = json!({"name": "www.example.test", "ttl": 4_294_967_295_u32, "type": "A",
        "rdata": "192.0.2.80", "lines": 1});
    assert_eq!(flat[2], [answer]);
    let full = tables::ask(
        &schema("dns_transaction.avsc"),
        &ddl(&["duckdb", "--table", "dns_transactions"])?,
        "dns_transactions",
        &messages_of(encode::SCHEMA_VERSION.unsigned_abs())?,
        [
            comments,
            "SELECT answers[1].rdata AS rdata, query_time FROM dns_transactions WHERE outcome = 'MATCHED'",
        ],
    )?;
    assert_eq!(full[0], [json!({"columns": 153, "comments": 153})]);
    assert_eq!(
        full[1],
        [json!({"rdata": "192.0.2.80", "query_time": "2023-11-14T22:13:20.001000+00:00"})]
    );
    let newest = tap53_ledger::SUMMARY_SCHEMA_VERSIONS.last().map_or(0, |version| version.number);
    let summaries = tables::ask(
        &schema("ledger_summary.avsc"),
        &ddl(&["duckdb", "--summary"])?,
        "ledger_summaries",
        &golden(&format!("history/ledger_summary_v{newest}.hex"))?,
        ["SELECT count(*) AS summaries FROM ledger_summaries WHERE workers IS NOT NULL"],
    )?;
    let [row] = &summaries[0][..] else { bail!("{summaries:?}") };
    assert!(row["summaries"].as_u64() > Some(0), "{row}");
    Ok(())
}

#[test]
fn a_table_that_a_system_cannot_hold_is_refused_with_the_remedy() -> Result<()> {
    for (arguments, named) in [
        (&["vertica", "--profile", "full"][..], "--profile flat"),
        (&["vertica", "--summary"], "workers, which holds an array"),
        (&["vertica", "--max-bytes", "1"], "65536"),
        (&["postgres", "--table", "a b"], "lower case"),
        (&["oracle"], "postgres"),
    ] {
        let output = agent::run(&[&["schema", "--ddl"], arguments].concat())?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && output.stdout.is_empty(), "{arguments:?}");
        assert!(said.contains(named), "{arguments:?}: {said}");
    }
    assert!(ddl(&["vertica"])?.contains("\"answers\" LONG VARCHAR(262144)"));
    Ok(())
}

/// A record with something in fields that earlier versions do not have.
fn this_version_message() -> Result<Vec<u8>> {
    message_in(Profile::Full)
}

fn message_in(profile: Profile) -> Result<Vec<u8>> {
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
    let flow = Flow {
        transport: Transport::Tcp,
        client: ([192, 0, 2, 1], 40_000).into(),
        server: ([192, 0, 2, 53], 53).into(),
        tunnel: None,
        ifindex: 0,
    };
    let transaction = Transaction {
        id,
        flow,
        exchange: Exchange::Query(&query),
        query_count: 1,
        latest_query_ns: 0,
        copy_count: 2,
        capture_gap: false,
        related: Some(Related { relation: Relation::LateResponse, record: id }),
        anomalies: Anomalies::NONE,
        sightings: Sightings::single(&flow),
        chain: None,
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
        client_provenance: Provenance::default(),
        server_provenance: Provenance::default(),
        node_role: NodeRole::Unknown,
        signals: None,
        kept_per_million: None,
        portion: &Portion::ALL,
    };
    let mut out = Vec::new();
    profile.single_object().build()?.encode(&record, &mut out)?;
    Ok(out)
}
