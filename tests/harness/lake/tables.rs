//! SQL over the lake's tables, by DuckDB, which reads the Parquet files that the catalog names.

use std::{ffi::OsStr, path::Path, process::Command};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{parts, store::Store};
use crate::python::json_lines_of;

const SCRIPT: &str = "read_lake.py";
const TAMPERING: &str = "tamper_lake.py";

/// The tables as they are at each question.
#[derive(Clone, Copy)]
pub struct Tables<'a> {
    store: &'a Store<'a>,
}

impl<'a> Tables<'a> {
    /// The tables of a store.
    #[must_use]
    pub const fn of(store: &'a Store<'a>) -> Self {
        Self { store }
    }

    /// Creates a namespace for tables. Where two connectors create it at once, `SeaweedFS` answers one
    /// of them with an error while the other is at it, and its task fails.
    ///
    /// # Errors
    /// When the catalog refuses.
    pub fn create_namespace(&self, name: &str) -> Result<()> {
        self.ask([&*format!("create {name}")]).map(|[_]| ())
    }

    /// The rows of each of `queries`. The tables are `dns_transactions` and `ledger_summaries`; times
    /// come as microseconds, bytes as hex. Not SQL, and answered where there is no table yet:
    /// `count TABLE`.
    ///
    /// # Errors
    /// When DuckDB refuses a statement, or a table is not there.
    pub fn ask<const COUNT: usize>(&self, queries: [&str; COUNT]) -> Result<[Vec<Value>; COUNT]> {
        self.run(None, queries)
    }

    /// Does the same as [`ask`](Self::ask), after the statements of `deploy/sql/completeness.sql`.
    ///
    /// # Errors
    /// See [`ask`](Self::ask).
    pub fn ask_completeness<const COUNT: usize>(
        &self,
        queries: [&str; COUNT],
    ) -> Result<[Vec<Value>; COUNT]> {
        let sql =
            Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("deploy/sql/completeness.sql");
        self.run(Some(&sql), queries)
    }

    /// All rows of a table, as `dns.transactions`; none while it is not there.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn rows(&self, table: &str) -> Result<Vec<Value>> {
        let [rows] = self.ask([&*format!("rows {table}")])?;
        Ok(rows)
    }

    /// Exports the tables for `tap53 verify`, as they are and with each column altered in one row; see
    /// `tamper_lake.py`.
    ///
    /// # Errors
    /// When a table is not there.
    pub fn tamper(&self) -> Result<Vec<Value>> {
        let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("agent/schema");
        let settings = self.settings();
        let arguments = [OsStr::new(&settings), schemas.as_os_str()];
        json_lines_of(self.python()?, TAMPERING, arguments, &[])
    }

    fn settings(&self) -> String {
        let environment = self.store.environment().into_iter();
        environment.map(|(name, value)| (name, json!(value))).collect::<Value>().to_string()
    }

    fn python(&self) -> Result<Command> {
        Ok(self.store.namespace.command(parts::environment()?.join("bin/python")))
    }

    fn run<const COUNT: usize>(
        &self,
        sql: Option<&Path>,
        queries: [&str; COUNT],
    ) -> Result<[Vec<Value>; COUNT]> {
        let settings = self.settings();
        let sql = sql.map_or(OsStr::new(""), Path::as_os_str);
        let arguments = [OsStr::new(&settings), sql].into_iter().chain(queries.map(OsStr::new));
        let answers = json_lines_of(self.python()?, SCRIPT, arguments, &[])?;
        let rows: Vec<Vec<Value>> = answers
            .into_iter()
            .map(|answer| serde_json::from_value(answer).context("a list of rows"))
            .collect::<Result<_>>()?;
        rows.try_into().map_err(|rows: Vec<_>| anyhow::anyhow!("{} answers", rows.len()))
    }
}
