//! The SQL about questions in DuckDB, on the records of several agents.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::python::json_lines;

const SCRIPT: &str = "questions.py";
/// The files of views, in the order in which they need each other.
pub const VIEWS: [&str; 4] = ["questions.sql", "chains.sql", "cache_hits.sql", "search_waste.sql"];

/// Path of one of [`VIEWS`].
#[must_use]
pub fn views_path(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/sql").join(name);
    file.display().to_string()
}

/// Records of several agents, to be put in one table.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// Object container files.
    pub containers: Vec<PathBuf>,
    /// Messages in single-object encoding.
    pub messages: Vec<Vec<u8>>,
    /// File to which the table is written in addition, for other engines.
    pub parquet: Option<PathBuf>,
}

impl Tables {
    /// The rows of each of `queries`, after the views of `deploy/sql` were created.
    ///
    /// # Errors
    /// When a record cannot be read by its schema, or DuckDB refuses a statement.
    pub fn ask<const COUNT: usize>(&self, queries: [&str; COUNT]) -> Result<[Vec<Value>; COUNT]> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let messages: Vec<_> =
            self.messages.iter().map(|message| data_encoding::HEXLOWER.encode(message)).collect();
        let input = json!({
            "containers": self.containers, "messages": messages, "parquet": self.parquet,
        });
        let schema = repository.join("agent/schema/dns_transaction.avsc");
        let views = VIEWS.map(views_path).join(",");
        let arguments = [schema.as_os_str(), OsStr::new(&views)];
        let arguments = arguments.into_iter().chain(queries.map(OsStr::new));
        let answers = json_lines(SCRIPT, arguments, input.to_string().as_bytes())?;
        let rows: Vec<Vec<Value>> = answers
            .into_iter()
            .map(|answer| serde_json::from_value(answer).context("a list of rows"))
            .collect::<Result<_>>()?;
        rows.try_into().map_err(|rows: Vec<_>| anyhow::anyhow!("{} answers", rows.len()))
    }
}
