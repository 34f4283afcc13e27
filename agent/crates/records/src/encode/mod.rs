//! Encodes transactions to bytes.
//!
//! ```text
//!  transaction ─▶ record ─▶ Avro datum | JSON line | row ─▶ text line, CSV line ─▶ batch ─▶ sink
//! ```
//!
//! The schema is `agent/schema/dns_transaction.avsc`; [`Record`] lists its fields in the same
//! order, once for every encoding. [`Profile::Flat`] is the same record by
//! `dns_transaction_flat.avsc`. An [`Encode`] appends one record to a buffer or leaves it
//! unchanged. Encoders are replaceable: a sink selects one by [`Format`] and only sees bytes.

mod address;
mod array;
mod avro;
mod batch;
mod binary;
mod columns;
mod fields;
mod flat;
mod framing;
mod item;
mod key;
mod layout;
mod message;
mod mnemonic;
mod node_role;
mod notes;
mod owner;
mod portion;
mod profile;
mod record;
mod row;
#[cfg(any(test, feature = "testing"))]
pub mod samples;
mod shown;
mod symbol;
#[cfg(test)]
mod tests;
mod text;
mod value;
mod versions;
mod workload;

use serde::Serialize;

pub use avro::fingerprint_of;
pub use avro::{Datum, FlatDatum, SingleObject, fingerprint, schema};
pub use batch::{Batch, Entry, WindowSlot};
pub use binary::push_long;
pub use columns::{Column, Columns};
pub use framing::{Fingerprint, frame, read_single_object, single_object_header, unframe};
pub use key::Key;
pub use message::MessageLine;
pub use node_role::NodeRole;
pub use owner::{
    Attribution, Identity, NodeTag, Observer, Owner, OwnerSource, Process, Provenance,
};
pub use portion::{DEFAULT_MAX_BYTES, LEAST_MAX_BYTES, Portion};
pub use profile::Profile;
pub use record::{Clock, Record, SCHEMA_VERSION};
pub use row::{Length, Moment, Row, RowAnswer, RowEnd, RowQuestion};
pub use shown::{push_compact_line, push_json_line};
pub use text::{Csv, Text, TextOptions};
pub use versions::{FLAT_SCHEMA_VERSIONS, RECORD_NAME, SCHEMA_VERSIONS, SchemaVersion};
pub use workload::Workload;

/// Text of the Avro schema of a record.
pub const SCHEMA_TEXT: &str = include_str!("../../../../schema/dns_transaction.avsc");

/// Text of the Avro schema of a record in the flat profile.
pub const FLAT_SCHEMA_TEXT: &str = include_str!("../../../../schema/dns_transaction_flat.avsc");

/// Errors of encoding a record.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Record and schema disagree, which is a defect of this program.
    #[error("record does not fit schema tap53.DnsTransaction: {0}")]
    Avro(String),
    /// JSON cannot represent the record, which is a defect of this program.
    #[error("record cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// CSV cannot represent the record, which is a defect of this program.
    #[error("record cannot be written as CSV: {0}")]
    Csv(#[from] csv::Error),
}

/// Appends records to a buffer.
pub trait Encode: Send {
    /// Appends `record` to `out`.
    ///
    /// # Errors
    /// Fails if the record cannot be written; `out` is unchanged then.
    fn encode(&mut self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<(), Error>;
}

/// The encoding that a sink selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An Avro datum without a header, for object container files.
    AvroDatum,
    /// An Avro datum after the single-object header.
    AvroSingleObject,
    /// An Avro datum of the flat profile without a header.
    FlatAvroDatum,
    /// An Avro datum of the flat profile after the single-object header.
    FlatAvroSingleObject,
    /// One JSON object and a line feed.
    Json,
    /// The same without the fields that are null or an empty list.
    CompactJson,
    /// One JSON object and a line feed per message; see [`MessageLine`].
    Message,
    /// Aligned columns and a line feed.
    Text(TextOptions),
    /// A line of CSV (RFC 4180).
    Csv(TextOptions),
    /// The part of a record that people read, as one JSON object and a line feed; see [`Row`].
    Row,
}

impl Format {
    /// Returns the profile of records in this format.
    #[must_use]
    pub const fn profile(self) -> Profile {
        match self {
            Self::FlatAvroDatum | Self::FlatAvroSingleObject => Profile::Flat,
            Self::AvroDatum
            | Self::AvroSingleObject
            | Self::Json
            | Self::CompactJson
            | Self::Message
            | Self::Text(_)
            | Self::Csv(_)
            | Self::Row => Profile::Full,
        }
    }

    /// Creates an encoder of this format.
    ///
    /// # Errors
    /// Fails if the schema does not parse, which is a defect of this program.
    pub fn build(self) -> Result<Box<dyn Encode>, Error> {
        Ok(match self {
            Self::AvroDatum => Box::new(Datum::default()),
            Self::AvroSingleObject => Box::new(SingleObject::new()?),
            Self::FlatAvroDatum => Box::new(FlatDatum::default()),
            Self::FlatAvroSingleObject => Box::new(SingleObject::flat()?),
            Self::Json => Box::new(JsonLine),
            Self::CompactJson => Box::new(CompactJsonLine),
            Self::Message => Box::new(MessageLine),
            Self::Text(options) => Box::new(Text::new(options)),
            Self::Csv(options) => Box::new(Csv::new(options)),
            Self::Row => Box::new(RowLine),
        })
    }

    /// Returns the lines above the first record; empty in formats without any.
    ///
    /// # Errors
    /// None in practice: memory can be written to.
    pub fn heading(self) -> Result<String, Error> {
        match self {
            Self::Text(options) => Ok(Text::new(options).heading()),
            Self::Csv(options) => Csv::new(options).heading(),
            _ => Ok(String::new()),
        }
    }
}

/// Encodes the part of a record that people read as one JSON object and a line feed.
pub struct RowLine;

impl Encode for RowLine {
    fn encode(&mut self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        push_line(&Row::of(record), out)
    }
}

/// Encodes a record as one JSON object and a line feed, with the schema's field names. Bytes are
/// hexadecimal, times as in RFC 3339.
pub struct JsonLine;

impl Encode for JsonLine {
    fn encode(&mut self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        push_line(record, out)
    }
}

/// Encodes a record like [`JsonLine`], without the fields that are null or an empty list: for a usual
/// transaction, they are two thirds of the fields.
pub struct CompactJsonLine;

impl Encode for CompactJsonLine {
    fn encode(&mut self, record: &Record<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        push_line(&record::Compact(record), out)
    }
}

/// Appends a value as JSON and a line feed, or leaves `out` unchanged.
fn push_line(value: &impl Serialize, out: &mut Vec<u8>) -> Result<(), Error> {
    let start = out.len();
    if let Err(error) = serde_json::to_writer(&mut *out, value) {
        out.truncate(start);
        return Err(error.into());
    }
    out.push(b'\n');
    Ok(())
}
