//! Messages taken through Parquet, as a lake does, to what `tap53 verify` reads.

use std::{ffi::OsStr, path::Path};

use anyhow::Result;
use serde_json::json;

use crate::{kafka::Message, python::json_lines};

const SCRIPT: &str = "parquet.py";

/// Executes `statements` on tables of the messages, makes Parquet files of those, and writes
/// `records.json` and `summaries.json` of these into `directory`.
///
/// # Errors
/// When a message cannot be read by its schema, or DuckDB refuses a statement.
pub fn export(
    records: &[Message],
    summaries: &[Message],
    directory: &Path,
    statements: &[&str],
) -> Result<()> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let hex = |messages: &[Message]| -> Vec<String> {
        let digits = |byte: &u8| format!("{byte:02x}");
        messages.iter().map(|message| message.value.iter().map(digits).collect()).collect()
    };
    let input = json!({"records": hex(records), "summaries": hex(summaries)});
    let paths = [
        "agent/schema/dns_transaction.avsc",
        "agent/schema/ledger_summary.avsc",
        "deploy/sql/verify_export.sql",
    ];
    let paths = paths.map(|path| repository.join(path));
    let arguments = paths.iter().map(|path| path.as_os_str()).chain([directory.as_os_str()]);
    json_lines(
        SCRIPT,
        arguments.chain(statements.iter().map(OsStr::new)),
        input.to_string().as_bytes(),
    )?;
    Ok(())
}
