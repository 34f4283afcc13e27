//! Tables of `tap53 schema --ddl duckdb` in DuckDB, with records that fastavro has read.

use std::{ffi::OsStr, path::Path};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::python::json_lines;

/// The rows of each of `queries`, with single-object messages of the schema in the file `schema` in
/// `table`, which the statements of `ddl` make.
///
/// # Errors
/// When DuckDB refuses a statement or a record, or fastavro cannot read one.
pub fn ask<const COUNT: usize>(
    schema: &Path,
    ddl: &str,
    table: &str,
    messages: &[Vec<u8>],
    queries: [&str; COUNT],
) -> Result<[Vec<Value>; COUNT]> {
    let messages: Vec<_> =
        messages.iter().map(|message| data_encoding::HEXLOWER.encode(message)).collect();
    let input = json!({"ddl": ddl, "messages": messages});
    let arguments = [schema.as_os_str(), OsStr::new(table)];
    let arguments = arguments.into_iter().chain(queries.map(OsStr::new));
    let answers = json_lines("tables.py", arguments, input.to_string().as_bytes())?;
    let rows: Vec<Vec<Value>> = answers
        .into_iter()
        .map(|answer| serde_json::from_value(answer).context("a list of rows"))
        .collect::<Result<_>>()?;
    rows.try_into().map_err(|rows: Vec<_>| anyhow::anyhow!("{} answers", rows.len()))
}
