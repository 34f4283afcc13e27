//! The flat profile goes to its table as it is, by a connector without transforms.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};
use tap53_harness::{lake::FLAT, varied::Sent};

use super::stage::Stage;

/// The timestamps, in milliseconds. DuckDB gives microseconds.
const TIMESTAMPS: [&str; 4] = ["event_time", "query_time", "response_time", "latest_query_time"];

type Row = Map<String, Value>;

/// Every field of each record is in one row, and each row is of one record. Nothing in a row says where
/// its message was, so each record looks for its row.
pub(super) fn require_equal(stage: &Stage<'_>, sent: &[Sent]) -> Result<()> {
    let records = sent.iter().filter_map(|sent| sent.record.as_ref());
    let expected: Vec<Row> = records.map(|(_, record)| row(record)).collect::<Result<_>>()?;
    let mut rows = stage.lake.wait_for("the flat records to be committed", || {
        let rows = stage.lake.tables().rows(FLAT.table)?;
        Ok((rows.len() >= expected.len()).then_some(rows))
    })?;
    ensure!(rows.len() == expected.len(), "{} rows of {} records", rows.len(), expected.len());
    for record in &expected {
        let found = rows.iter().position(|row| row.as_object() == Some(record));
        let Some(index) = found else {
            bail!("no row equals {record:?}; the nearest differs: {:?}", nearest(record, &rows));
        };
        rows.swap_remove(index);
    }
    Ok(())
}

/// A record as it should be in the table.
fn row(record: &Value) -> Result<Row> {
    let mut row = record.as_object().context("fields")?.clone();
    for timestamp in TIMESTAMPS {
        let value = row.get_mut(timestamp).context(timestamp)?;
        *value = value.as_i64().map_or(Value::Null, |millis| json!(millis * 1_000));
    }
    Ok(row)
}

/// The columns in which the row that is most like `record` differs from it.
fn nearest(record: &Row, rows: &[Value]) -> Option<Vec<String>> {
    let differences = |row: &Value| -> Vec<String> {
        let more = row.as_object().into_iter().flat_map(Map::keys);
        let columns = record.keys().chain(more.filter(|column| !record.contains_key(*column)));
        let differ = columns.filter(|column| record.get(*column) != row.get(column));
        differ.map(|column| format!("{column}: {:?}", row.get(column))).collect()
    };
    rows.iter().map(differences).min_by_key(Vec::len)
}
