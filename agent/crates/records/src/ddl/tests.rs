//! Tests the form of the tables. The integration tests run the statements on real systems.

use serde_json::Value;

use super::*;
use crate::encode::DEFAULT_MAX_BYTES;

const SUMMARY_SCHEMA_TEXT: &str = include_str!("../../../../schema/ledger_summary.avsc");

const ALL: [Dialect; 5] =
    [Dialect::Postgres, Dialect::Vertica, Dialect::Duckdb, Dialect::Iceberg, Dialect::Spark];

fn options(dialect: Dialect) -> Options {
    Options { dialect, table: TableName::of_transactions(), max_bytes: DEFAULT_MAX_BYTES }
}

fn sql(profile: Profile, dialect: Dialect) -> String {
    of_transactions(profile, &options(dialect)).unwrap()
}

/// Returns the names of the schema's fields with their documentation.
fn fields(profile: Profile) -> Vec<(String, String)> {
    let schema: Value = serde_json::from_str(profile.schema_text()).unwrap();
    let text = |field: &Value, key: &str| field[key].as_str().unwrap().to_owned();
    let fields = schema["fields"].as_array().unwrap().iter();
    fields.map(|field| (text(field, "name"), text(field, "doc"))).collect()
}

/// Returns name and type of the columns.
fn columns(sql: &str) -> Vec<(String, String)> {
    let lines = sql.lines().skip_while(|line| !line.starts_with("CREATE TABLE"));
    let lines = lines.take_while(|line| !line.starts_with(')'));
    let lines = lines.filter(|line| line.starts_with("  \"") || line.starts_with("  `"));
    lines
        .map(|line| {
            let (name, kind) = line.trim_start().split_once(' ').unwrap();
            let kind = kind.split(" COMMENT ").next().unwrap().trim_end_matches(',');
            (name.trim_matches(['"', '`']).to_owned(), kind.to_owned())
        })
        .collect()
}

fn type_in(profile: Profile, dialect: Dialect, column: &str) -> String {
    let columns = columns(&sql(profile, dialect));
    columns.into_iter().find(|(name, _)| name == column).unwrap().1
}

#[test]
fn a_table_has_a_column_and_a_comment_for_every_field_in_the_schemas_order() {
    for profile in Profile::ALL {
        for dialect in ALL {
            if (profile, dialect) == (Profile::Full, Dialect::Vertica) {
                continue;
            }
            let sql = sql(profile, dialect);
            let names: Vec<_> = columns(&sql).into_iter().map(|(name, _)| name).collect();
            let fields = fields(profile);
            let expected: Vec<_> = fields.iter().map(|(name, _)| name.clone()).collect();
            assert_eq!(names, expected, "{dialect}");
            for (name, doc) in fields {
                let doc = match dialect {
                    Dialect::Iceberg | Dialect::Spark => doc.replace('\'', "\\'"),
                    _ => doc.replace('\'', "''"),
                };
                assert!(sql.contains(&format!("'{doc}'")), "{dialect}: {name}");
            }
        }
    }
}

#[test]
fn postgres_has_a_key_that_drops_duplicates() {
    let records = sql(Profile::Full, Dialect::Postgres);
    assert!(records.contains(",\n  PRIMARY KEY (\"record_id\")\n);"), "{records}");
    let options = Options { table: TableName::of_summaries(), ..options(Dialect::Postgres) };
    let summaries = of_schema(SUMMARY_SCHEMA_TEXT, &options).unwrap();
    let key = ",\n  PRIMARY KEY (\"run_id\", \"sink\", \"window_number\")\n);";
    assert!(summaries.contains(key), "{summaries}");
}

#[test]
fn types_are_those_that_the_writers_of_a_system_fill() {
    use Dialect::{Duckdb, Iceberg, Postgres, Spark, Vertica};
    let types = [
        (Profile::Flat, Postgres, "event_time", "TIMESTAMPTZ NOT NULL"),
        (Profile::Flat, Postgres, "query_time_us", "BIGINT"),
        (Profile::Flat, Postgres, "record_id", "TEXT NOT NULL"),
        (Profile::Flat, Postgres, "worker", "INTEGER"),
        (Profile::Flat, Vertica, "event_time", "INTEGER NOT NULL"),
        (Profile::Flat, Vertica, "record_id", "VARCHAR(32) NOT NULL"),
        (Profile::Flat, Vertica, "qname", "VARCHAR(1040)"),
        (Profile::Flat, Vertica, "answers", "LONG VARCHAR(262144)"),
        (Profile::Flat, Vertica, "query_wire", "LONG VARCHAR(131070)"),
        (Profile::Flat, Vertica, "client_labels", "VARCHAR(13312)"),
        (Profile::Flat, Vertica, "capture_gap", "BOOLEAN NOT NULL"),
        (Profile::Flat, Duckdb, "answers", "VARCHAR"),
        (Profile::Flat, Iceberg, "event_time", "TIMESTAMP"),
        (Profile::Flat, Iceberg, "latency_ns", "BIGINT"),
        (Profile::Full, Postgres, "answers", "JSONB"),
        (Profile::Full, Postgres, "anomalies", "TEXT[]"),
        (Profile::Full, Postgres, "record_id", "BYTEA NOT NULL"),
        (Profile::Full, Duckdb, "client_labels", "MAP(VARCHAR, VARCHAR)"),
        (Profile::Full, Duckdb, "query_edns_options", "STRUCT(\"code\" INTEGER, \"data\" BLOB)[]"),
        (Profile::Full, Iceberg, "query_time", "BIGINT"),
        (Profile::Full, Iceberg, "record_id", "BINARY"),
        (Profile::Full, Spark, "query_time", "TIMESTAMP"),
        (Profile::Full, Spark, "server_labels", "MAP<STRING, STRING>"),
    ];
    for (profile, dialect, column, kind) in types {
        assert_eq!(type_in(profile, dialect, column), kind, "{dialect}: {column}");
    }
    let answers = "ARRAY<STRUCT<`name`: STRING, `type`: STRING, `class`: STRING, `ttl`: BIGINT, \
                   `rdata`: STRING>>";
    assert_eq!(type_in(Profile::Full, Spark, "answers"), answers);
}

/// Limits in Vertica's documentation: VARCHAR up to 65,000 octets, LONG VARCHAR up to 32,000,000,
/// comments of up to 8,192 characters, names of up to 128 octets.
#[test]
fn the_table_for_vertica_keeps_to_its_limits() {
    for max_bytes in [LEAST_MAX_BYTES, DEFAULT_MAX_BYTES, 16 << 20] {
        let options = Options { max_bytes, ..options(Dialect::Vertica) };
        let sql = of_transactions(Profile::Flat, &options).unwrap();
        assert!(sql.contains(&format!("-- record.max_bytes: {max_bytes}\n")));
        for (name, kind) in columns(&sql) {
            let kind = kind.trim_end_matches(" NOT NULL");
            let width = |prefix: &str| -> Option<usize> {
                kind.strip_prefix(prefix)?.strip_suffix(')')?.parse().ok()
            };
            match (width("VARCHAR("), width("LONG VARCHAR(")) {
                (Some(width), None) => assert!((1..=65_000).contains(&width), "{name} {kind}"),
                (None, Some(width)) => {
                    assert!((65_001..=max_bytes.min(32_000_000)).contains(&width), "{name} {kind}");
                }
                _ => assert!(["BOOLEAN", "INTEGER"].contains(&kind), "{name} {kind}"),
            }
            assert!(name.len() <= 128);
        }
        for (name, doc) in fields(Profile::Flat) {
            assert!(doc.chars().count() <= 8_192, "{name}");
        }
    }
}

#[test]
fn the_view_for_vertica_has_every_column_and_each_time_by_its_microseconds() {
    let sql = sql(Profile::Flat, Dialect::Vertica);
    let (_, view) = sql.split_once("CREATE VIEW \"dns_transactions_with_times\" AS\n").unwrap();
    for (name, _) in fields(Profile::Flat) {
        let column = match name.as_str() {
            "event_time" | "query_time" | "response_time" | "latest_query_time" => {
                format!("  TO_TIMESTAMP_TZ(\"{name}_us\" / 1000000.0) AS \"{name}\"")
            }
            _ => format!("  \"{name}\""),
        };
        assert!(view.lines().any(|line| line.trim_end_matches(',') == column), "{column}");
    }
    assert!(view.ends_with("\"wire_omitted\"\nFROM \"dns_transactions\";\n"), "{view}");
}

#[test]
fn unsupported_fields_are_refused_with_the_remedy() {
    let error = of_transactions(Profile::Full, &options(Dialect::Vertica)).unwrap_err().to_string();
    assert!(error.contains("anomalies, which holds an array"), "{error}");
    assert!(error.contains("record.profile: flat"), "{error}");
    assert!(of_schema(SUMMARY_SCHEMA_TEXT, &options(Dialect::Vertica)).is_err());
    for schema in ["{", "\"string\"", "{\"type\": \"record\"}", "{\"type\": \"float\"}"] {
        assert!(of_schema(schema, &options(Dialect::Duckdb)).is_err(), "{schema}");
    }
}

#[test]
fn summaries_have_tables_too() {
    let options = Options { table: TableName::of_summaries(), ..options(Dialect::Duckdb) };
    let sql = of_schema(SUMMARY_SCHEMA_TEXT, &options).unwrap();
    assert!(sql.contains("CREATE TABLE \"ledger_summaries\" ("), "{sql}");
    assert!(sql.contains("\"workers\" STRUCT(\"worker\" INTEGER, "), "{sql}");
}

#[test]
fn names_of_tables_are_checked() {
    let quoted = |text: &str| {
        let table = text.parse().unwrap();
        of_transactions(Profile::Flat, &Options { table, ..options(Dialect::Postgres) }).unwrap()
    };
    assert!(quoted("dns").contains("CREATE TABLE \"dns\" ("));
    assert!(quoted("lake.public.dns_2").contains("CREATE TABLE \"lake\".\"public\".\"dns_2\" ("));
    let long = "x".repeat(64);
    for text in ["", ".", "a.b.c.d", "1a", "a b", "a\"; DROP TABLE x", "Dns", "é", &long] {
        let error = text.parse::<TableName>().unwrap_err();
        assert!(error.starts_with("must be table"), "{text}: {error}");
    }
}
