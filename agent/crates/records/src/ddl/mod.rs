//! Derives SQL tables for records from the Avro schema, with its widths and its documentation of
//! each field.
//!
//! ```text
//!  schema (JSON) ─▶ columns: name, type, required, doc ─▶ dialect ─▶ CREATE TABLE, comments
//! ```
//!
//! The reasons for the types of each dialect are in `docs/decisions/records.md`.

mod columns;
mod dialect;
#[cfg(test)]
mod tests;

use std::fmt;

use clap::ValueEnum;

use crate::encode::{LEAST_MAX_BYTES, Profile};

pub use columns::Error;
use columns::Table;

/// The target system of the SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Dialect {
    /// PostgreSQL.
    Postgres,
    /// Vertica; only for the flat profile.
    Vertica,
    /// `DuckDB`.
    Duckdb,
    /// An Iceberg table, in Spark's SQL.
    Iceberg,
    /// A Parquet table of Spark.
    Spark,
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "PostgreSQL",
            Self::Vertica => "Vertica",
            Self::Duckdb => "DuckDB",
            Self::Iceberg => "Iceberg",
            Self::Spark => "Spark",
        })
    }
}

/// The name of a table, with those of its schema and database if they are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName(Vec<String>);

impl TableName {
    /// Maximum number of parts: database, schema, table.
    const MAX_PARTS: usize = 3;
    /// Maximum number of characters in a part, as in PostgreSQL.
    const MAX_CHARACTERS: usize = 63;

    /// Returns the name of the records' table in the documentation.
    #[must_use]
    pub fn of_transactions() -> Self {
        Self(vec!["dns_transactions".to_owned()])
    }

    /// Returns the name of the summaries' table in the documentation.
    #[must_use]
    pub fn of_summaries() -> Self {
        Self(vec!["ledger_summaries".to_owned()])
    }

    /// Returns the name with a suffix.
    fn with_suffix(&self, suffix: &str) -> Self {
        let mut parts = self.0.clone();
        if let Some(table) = parts.last_mut() {
            table.push_str(suffix);
        }
        Self(parts)
    }
}

impl std::str::FromStr for TableName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_name = |part: &str| {
            part.len() <= Self::MAX_CHARACTERS
                && part.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
                && part
                    .chars()
                    .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_')
        };
        let parts: Vec<_> = text.split('.').map(str::to_owned).collect();
        if parts.len() <= Self::MAX_PARTS && parts.iter().all(|part| is_name(part)) {
            return Ok(Self(parts));
        }
        Err(format!(
            "must be table, schema.table or database.schema.table, each of at most {} lower case \
             letters, digits and underscores, without a digit at its beginning",
            Self::MAX_CHARACTERS
        ))
    }
}

/// Configures the generated table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The target system.
    pub dialect: Dialect,
    /// The table's name.
    pub table: TableName,
    /// `record.max_bytes` of the agents that write the records, which bounds the widths of long
    /// texts.
    pub max_bytes: usize,
}

/// Returns the statements that create a table for records of a profile.
///
/// # Errors
/// [`Error::Nested`] if the dialect has no column types for the profile.
pub fn of_transactions(profile: Profile, options: &Options) -> Result<String, Error> {
    of_schema(profile.schema_text(), options)
}

/// Returns the statements that create a table for records of a schema.
///
/// # Errors
/// See [`of_transactions`]; also if the schema has a form that no schema of this program has.
pub fn of_schema(schema: &str, options: &Options) -> Result<String, Error> {
    let max_bytes = options.max_bytes.max(LEAST_MAX_BYTES);
    dialect::statements(&Table::of(schema)?, options.dialect, &options.table, max_bytes)
}
