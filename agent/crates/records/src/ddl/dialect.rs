//! The SQL syntax of each system.

use std::fmt::Write as _;

use super::{
    Dialect, Error, TableName,
    columns::{Column, Kind, Table},
};

/// Maximum octets of Vertica's VARCHAR; longer texts are LONG VARCHAR.
const VERTICA_VARCHAR: usize = 65_000;
/// Columns that identify a record.
const RECORD_KEY: &[&str] = &["record_id"];
/// Columns that identify a summary of the ledger.
const SUMMARY_KEY: &[&str] = &["run_id", "sink", "window_number"];

/// Returns the statements that create the table.
pub(super) fn statements(
    table: &Table,
    dialect: Dialect,
    name: &TableName,
    max_bytes: usize,
) -> Result<String, Error> {
    let writer = Writer { dialect, max_bytes };
    let mut sql = writer.heading();
    writer.create(&mut sql, table, name)?;
    writer.comments(&mut sql, table, name);
    if dialect == Dialect::Vertica {
        writer.view_of_times(&mut sql, table, name);
    }
    Ok(sql)
}

struct Writer {
    dialect: Dialect,
    max_bytes: usize,
}

impl Writer {
    /// Writes notes for the person who runs the statements.
    fn heading(&self) -> String {
        let mut sql = format!(
            "-- {}: made by tap53 {} (tap53 schema --ddl), by the schema of its records.\n",
            self.dialect,
            env!("CARGO_PKG_VERSION")
        );
        let notes: &[&str] = match self.dialect {
            Dialect::Vertica => &[
                "By Vertica's documents; it was not run on a Vertica. Widths are octets, and cover the",
                "longest text that a record can hold with the agents' record.max_bytes below. Load with",
                "KafkaAvroParser(enforce_length=true): without it, what is too wide is cut silently.",
                "Times are INTEGER, since its documents name no logical types for that parser; the view",
                "at the end has them as TIMESTAMPTZ, in microseconds.",
            ],
            Dialect::Iceberg => &[
                "Spark's SQL, with Iceberg's extensions. For Kafka Connect set",
                "iceberg.tables.schema-force-optional=true: otherwise a record of an earlier version that",
                "comes after one of a later version stops the task. No column is NOT NULL for its sake.",
            ],
            Dialect::Spark => &["Spark's SQL."],
            Dialect::Postgres | Dialect::Duckdb => &[],
        };
        for note in notes {
            let _ = writeln!(sql, "-- {note}");
        }
        if self.dialect == Dialect::Vertica {
            let _ = writeln!(sql, "-- record.max_bytes: {}", self.max_bytes);
        }
        sql
    }

    fn create(&self, sql: &mut String, table: &Table, name: &TableName) -> Result<(), Error> {
        let _ = write!(sql, "CREATE TABLE {} (", self.table(name));
        let has = |name: &str| table.columns.iter().any(|column| column.name == name);
        for (position, column) in table.columns.iter().enumerate() {
            sql.push_str(if position == 0 { "\n" } else { ",\n" });
            let kind = self.column_type(column)?;
            let _ = write!(sql, "  {} {kind}", self.quoted(&column.name));
            if self.has_required() && column.is_required {
                sql.push_str(" NOT NULL");
            }
            if self.has_comments_in_columns() {
                let _ = write!(sql, " COMMENT {}", self.literal(&column.doc));
            }
        }
        // A message may be duplicated; the key drops duplicates: INSERT … ON CONFLICT DO NOTHING.
        if self.dialect == Dialect::Postgres {
            let key = if has("record_id") { RECORD_KEY } else { SUMMARY_KEY };
            let key: Vec<_> = key.iter().map(|name| self.quoted(name)).collect();
            let _ = write!(sql, ",\n  PRIMARY KEY ({})", key.join(", "));
        }
        sql.push_str("\n)");
        let has_time = has("event_time");
        match self.dialect {
            Dialect::Postgres | Dialect::Duckdb => {}
            Dialect::Vertica => {
                let _ = write!(
                    sql,
                    "\nORDER BY {} SEGMENTED BY HASH({}) ALL NODES",
                    self.quoted("event_time"),
                    self.quoted("record_id")
                );
            }
            Dialect::Iceberg => {
                sql.push_str("\nUSING iceberg");
                if has_time {
                    let _ = write!(sql, "\nPARTITIONED BY (hours({}))", self.quoted("event_time"));
                }
                let _ = write!(sql, "\nCOMMENT {}", self.literal(&table.doc));
                sql.push_str("\nTBLPROPERTIES ('format-version' = '2')");
            }
            Dialect::Spark => {
                let _ = write!(sql, "\nUSING parquet\nCOMMENT {}", self.literal(&table.doc));
            }
        }
        sql.push_str(";\n");
        Ok(())
    }

    /// Returns true if required columns are NOT NULL. Those of Iceberg and Spark are not: see the
    /// heading, and Spark ignores it for Parquet.
    const fn has_required(&self) -> bool {
        !self.has_comments_in_columns()
    }

    const fn has_comments_in_columns(&self) -> bool {
        matches!(self.dialect, Dialect::Iceberg | Dialect::Spark)
    }

    fn comments(&self, sql: &mut String, table: &Table, name: &TableName) {
        if self.has_comments_in_columns() {
            return;
        }
        let of = self.table(name);
        let _ = writeln!(sql, "COMMENT ON TABLE {of} IS {};", self.literal(&table.doc));
        for column in table.columns.iter().filter(|column| !column.doc.is_empty()) {
            let (column, doc) = (self.quoted(&column.name), self.literal(&column.doc));
            let _ = writeln!(sql, "COMMENT ON COLUMN {of}.{column} IS {doc};");
        }
    }

    /// Writes a view for Vertica that contains the times as timestamps, from the exact
    /// microseconds.
    fn view_of_times(&self, sql: &mut String, table: &Table, name: &TableName) {
        let (view, of) = (self.table(&name.with_suffix("_with_times")), self.table(name));
        let _ = write!(sql, "CREATE VIEW {view} AS\nSELECT");
        for column in &table.columns {
            let name = self.quoted(&column.name);
            let _ = match column.kind {
                Kind::Millis => {
                    let us = self.quoted(&format!("{}_us", column.name));
                    write!(sql, "\n  TO_TIMESTAMP_TZ({us} / 1000000.0) AS {name},")
                }
                _ => write!(sql, "\n  {name},"),
            };
        }
        // Remove the last comma.
        sql.pop();
        let _ = writeln!(sql, "\nFROM {of};");
    }

    fn table(&self, name: &TableName) -> String {
        name.0.iter().map(|part| self.quoted(part)).collect::<Vec<_>>().join(".")
    }

    /// Quotes a name. Names consist of lower case letters, digits and underscores, so nothing is
    /// escaped.
    fn quoted(&self, name: &str) -> String {
        if self.has_comments_in_columns() { format!("`{name}`") } else { format!("\"{name}\"") }
    }

    fn literal(&self, text: &str) -> String {
        match self.has_comments_in_columns() {
            // Spark interprets backslashes as escapes.
            true => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")),
            false => format!("'{}'", text.replace('\'', "''")),
        }
    }

    fn column_type(&self, column: &Column) -> Result<String, Error> {
        if self.dialect == Dialect::Vertica
            && let Some(what) = column.kind.nested()
        {
            let (dialect, field) = (self.dialect, column.name.clone());
            return Err(Error::Nested { dialect, field, what });
        }
        Ok(self.type_of(&column.kind))
    }

    fn type_of(&self, kind: &Kind) -> String {
        match self.dialect {
            Dialect::Postgres => postgres(kind).to_owned(),
            Dialect::Vertica => vertica(kind, self.max_bytes),
            Dialect::Duckdb => duckdb(kind),
            Dialect::Iceberg => spark(kind, Dialect::Iceberg),
            Dialect::Spark => spark(kind, Dialect::Spark),
        }
    }
}

/// Nested values are JSON: composite types would need a CREATE TYPE each, and no loader fills them.
fn postgres(kind: &Kind) -> &'static str {
    match kind {
        Kind::Boolean => "BOOLEAN",
        Kind::Int => "INTEGER",
        Kind::Long => "BIGINT",
        Kind::Millis | Kind::Micros => "TIMESTAMPTZ",
        Kind::Text(_) => "TEXT",
        Kind::Octets => "BYTEA",
        Kind::Array(items) if matches!(**items, Kind::Text(_)) => "TEXT[]",
        Kind::Array(_) | Kind::Map(_) | Kind::Structure(_) => "JSONB",
    }
}

fn vertica(kind: &Kind, max_bytes: usize) -> String {
    match kind {
        Kind::Boolean => "BOOLEAN".to_owned(),
        Kind::Int | Kind::Long | Kind::Millis | Kind::Micros => "INTEGER".to_owned(),
        Kind::Text(width) => {
            let width = width.unwrap_or(max_bytes).min(max_bytes);
            let long = if width > VERTICA_VARCHAR { "LONG " } else { "" };
            format!("{long}VARCHAR({width})")
        }
        // Refused before, or in no profile that is accepted.
        Kind::Octets | Kind::Array(_) | Kind::Map(_) | Kind::Structure(_) => {
            format!("LONG VARBINARY({max_bytes})")
        }
    }
}

fn duckdb(kind: &Kind) -> String {
    match kind {
        Kind::Boolean => "BOOLEAN".to_owned(),
        Kind::Int => "INTEGER".to_owned(),
        Kind::Long => "BIGINT".to_owned(),
        Kind::Millis | Kind::Micros => "TIMESTAMPTZ".to_owned(),
        Kind::Text(_) => "VARCHAR".to_owned(),
        Kind::Octets => "BLOB".to_owned(),
        Kind::Array(items) => format!("{}[]", duckdb(items)),
        Kind::Map(values) => format!("MAP(VARCHAR, {})", duckdb(values)),
        Kind::Structure(fields) => {
            let fields = fields.iter().map(|it| format!("\"{}\" {}", it.name, duckdb(&it.kind)));
            format!("STRUCT({})", fields.collect::<Vec<_>>().join(", "))
        }
    }
}

fn spark(kind: &Kind, dialect: Dialect) -> String {
    match kind {
        Kind::Boolean => "BOOLEAN".to_owned(),
        Kind::Int => "INT".to_owned(),
        Kind::Long => "BIGINT".to_owned(),
        // Connect, which writes most Iceberg tables, has no microseconds: it would silently read
        // them as milliseconds, but copies them unchanged to a BIGINT.
        Kind::Micros if dialect == Dialect::Iceberg => "BIGINT".to_owned(),
        Kind::Millis | Kind::Micros => "TIMESTAMP".to_owned(),
        Kind::Text(_) => "STRING".to_owned(),
        Kind::Octets => "BINARY".to_owned(),
        Kind::Array(items) => format!("ARRAY<{}>", spark(items, dialect)),
        Kind::Map(values) => format!("MAP<STRING, {}>", spark(values, dialect)),
        Kind::Structure(fields) => {
            let fields =
                fields.iter().map(|it| format!("`{}`: {}", it.name, spark(&it.kind, dialect)));
            format!("STRUCT<{}>", fields.collect::<Vec<_>>().join(", "))
        }
    }
}
