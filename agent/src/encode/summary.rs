//! Summaries of the ledger as Avro: by apache-avro, since there is one a minute.

use std::sync::OnceLock;

use apache_avro::{Schema, writer::datum::GenericDatumWriter};

use super::{Error, avro};
use crate::ledger::Summary;

/// The Avro schema of a summary, as text.
pub const SUMMARY_SCHEMA_TEXT: &str = include_str!("../../schema/ledger_summary.avsc");

/// The parsed schema of a summary.
///
/// # Errors
/// When the embedded schema does not parse, which is a defect of this program.
pub fn summary_schema() -> Result<&'static Schema, Error> {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    if let Some(schema) = SCHEMA.get() {
        return Ok(schema);
    }
    let parsed = Schema::parse_str(SUMMARY_SCHEMA_TEXT);
    let parsed = parsed.map_err(|error| Error::Avro(error.to_string()))?;
    Ok(SCHEMA.get_or_init(|| parsed))
}

/// Writes summaries behind a header: that of the single-object encoding, or of a registry.
pub struct SummaryEncoder {
    header: Vec<u8>,
}

impl SummaryEncoder {
    /// In single-object encoding.
    ///
    /// # Errors
    /// See [`summary_schema`].
    pub fn single_object() -> Result<Self, Error> {
        Ok(Self { header: avro::single_object_header(SUMMARY_SCHEMA_TEXT)?.to_vec() })
    }

    /// The bytes of a message.
    ///
    /// # Errors
    /// When summary and schema disagree, which is a defect of this program.
    pub fn encode(&self, summary: &Summary) -> Result<Vec<u8>, Error> {
        let defect = |error: apache_avro::Error| Error::Avro(error.to_string());
        let writer = GenericDatumWriter::builder(summary_schema()?).human_readable(false);
        let datum = writer.build().map_err(defect)?.write_ser_to_vec(summary).map_err(defect)?;
        Ok([&self.header[..], &datum].concat())
    }
}
