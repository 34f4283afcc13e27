//! Runs the documented SQL about completeness on messages that were consumed: fastavro reads them,
//! DuckDB evaluates the SQL.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{kafka::Message, python::json_lines};

const SCRIPT: &str = "completeness.py";

/// Messages of the two topics.
#[derive(Clone, Debug)]
pub struct Consumed {
    /// Records.
    pub records: Vec<Message>,
    /// Summaries of the ledger.
    pub summaries: Vec<Message>,
}

impl Consumed {
    /// The rows of each of `queries`.
    ///
    /// # Errors
    /// When a message cannot be read by its schema, or DuckDB refuses a statement.
    pub fn ask<const COUNT: usize>(&self, queries: [&str; COUNT]) -> Result<[Vec<Value>; COUNT]> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let file = |path: &str| -> PathBuf { repository.join(path) };
        let hex = |messages: &[Message]| -> Vec<String> {
            let digits = |byte: &u8| format!("{byte:02x}");
            messages.iter().map(|message| message.value.iter().map(digits).collect()).collect()
        };
        let input = json!({"records": hex(&self.records), "summaries": hex(&self.summaries)});
        let views = file("deploy/sql/completeness.sql");
        let rollups = file("deploy/warehouse/rollups.sql");
        let paths = [
            file("agent/schema/dns_transaction.avsc"),
            file("agent/schema/ledger_summary.avsc"),
            format!("{},{}", views.display(), rollups.display()).into(),
        ];
        let arguments = paths.iter().map(|path| path.as_os_str()).chain(queries.map(OsStr::new));
        let answers = json_lines(SCRIPT, arguments, input.to_string().as_bytes())?;
        let rows: Vec<Vec<Value>> = answers
            .into_iter()
            .map(|answer| serde_json::from_value(answer).context("a list of rows"))
            .collect::<Result<_>>()?;
        rows.try_into().map_err(|rows: Vec<_>| anyhow::anyhow!("{} answers", rows.len()))
    }
}

/// A number in a column of a row.
///
/// # Errors
/// When there is none.
pub fn number(row: &Value, column: &str) -> Result<i64> {
    row[column].as_i64().with_context(|| format!("no number {column} in {row}"))
}
