//! Summaries of the ledger as Avro. apache-avro writes them, since there is one a minute.

use std::sync::OnceLock;

use apache_avro::{Schema, writer::datum::GenericDatumWriter};
use tap53_records::encode::{
    Error, Fingerprint, SchemaVersion, fingerprint_of, single_object_header,
};

use super::{SUMMARY_SCHEMA_VERSION, Summary};

/// The Avro schema of a summary, as text.
pub const SUMMARY_SCHEMA_TEXT: &str = include_str!("../../../../schema/ledger_summary.avsc");

/// Returns the parsed schema of a summary.
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

/// All versions of a summary's schema, oldest first; the last one is what this agent writes. A spool may
/// hold summaries of an earlier agent.
pub const SUMMARY_SCHEMA_VERSIONS: [SchemaVersion; 2] = [
    SchemaVersion {
        number: 1,
        text: include_str!("../../../../schema/history/ledger_summary_v1.avsc"),
    },
    SchemaVersion { number: SUMMARY_SCHEMA_VERSION, text: SUMMARY_SCHEMA_TEXT },
];

/// Full name of a summary.
pub const SUMMARY_NAME: &str = "tap53.LedgerSummary";

/// Writes summaries as single objects.
pub struct SummaryEncoder {
    fingerprint: Fingerprint,
}

impl SummaryEncoder {
    /// Creates a writer for the summary's schema.
    ///
    /// # Errors
    /// See [`summary_schema`].
    pub fn new() -> Result<Self, Error> {
        Ok(Self { fingerprint: fingerprint_of(SUMMARY_SCHEMA_TEXT)? })
    }

    /// Returns the fingerprint of the schema.
    #[must_use]
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Returns the bytes of a summary.
    ///
    /// # Errors
    /// When summary and schema disagree, which is a defect of this program.
    pub fn encode(&self, summary: &Summary) -> Result<Vec<u8>, Error> {
        let defect = |error: apache_avro::Error| Error::Avro(error.to_string());
        let writer = GenericDatumWriter::builder(summary_schema()?).human_readable(false);
        let datum = writer.build().map_err(defect)?.write_ser_to_vec(summary).map_err(defect)?;
        Ok([&single_object_header(self.fingerprint)[..], &datum].concat())
    }
}
