//! Records of every version with varied and extreme values, in any order, between messages that are
//! none; made by fastavro from the schemas alone.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    namespace::Namespace,
    python::{json_lines_of, python},
};

/// A version of a schema.
#[derive(Clone, Debug)]
pub struct Version {
    /// Id of the schema in a registry.
    pub id: u64,
    /// The schema.
    pub schema: PathBuf,
    /// Records that an agent of this version wrote: single-object encoding, a line of hex each.
    pub written: PathBuf,
}

/// A message that was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Partition and offset.
    pub position: (i64, i64),
    /// Milliseconds since 1970 UTC.
    pub timestamp_ms: i64,
    /// The file name of its schema, without its extension, and its fields; `None`: it is no record.
    pub record: Option<(String, Value)>,
}

/// Produces `count` generated records for each version, beside those that were written.
///
/// # Errors
/// When the broker refuses one.
pub fn produce(
    namespace: &Namespace,
    (broker, topic): (&str, &str),
    seed: u64,
    count: usize,
    versions: &[Version],
) -> Result<Vec<Sent>> {
    let mut arguments =
        vec![broker.to_owned(), topic.to_owned(), seed.to_string(), count.to_string()];
    arguments.extend(versions.iter().map(|Version { id, schema, written }| {
        format!("{id}={}={}", schema.display(), written.display())
    }));
    let lines = json_lines_of(namespace.command(python()?), "produce_varied.py", &arguments, &[])?;
    lines.into_iter().map(sent).collect()
}

fn sent(mut line: Value) -> Result<Sent> {
    let number = |key: &str| line[key].as_i64().with_context(|| format!("no {key} in {line}"));
    let position = (number("partition")?, number("offset")?);
    let timestamp_ms = number("timestamp_ms")?;
    let schema = line["schema"].as_str().map(str::to_owned);
    let record = schema.map(|schema| (schema, line["record"].take()));
    Ok(Sent { position, timestamp_ms, record })
}
