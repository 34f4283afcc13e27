//! The two profiles of a record, each with its schema.

use std::sync::OnceLock;

use apache_avro::Schema;
use clap::ValueEnum;
use serde::Serialize;

use super::{
    Error, Fingerprint, Format, SchemaVersion,
    avro::fingerprint_of,
    versions::{FLAT_SCHEMA_VERSIONS, SCHEMA_VERSIONS},
};

/// The schema by which a record is written as Avro.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ValueEnum,
)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Profile {
    /// `tap53.DnsTransaction`: arrays of records, maps, enums, octets and microseconds.
    #[default]
    Full,
    /// `tap53.DnsTransactionFlat`: only primitive types and unions with null.
    Flat,
}

impl Profile {
    /// Both profiles, the default one first.
    pub const ALL: [Self; 2] = [Self::Full, Self::Flat];

    /// Returns the full name of the record.
    #[must_use]
    pub const fn record_name(self) -> &'static str {
        match self {
            Self::Full => super::RECORD_NAME,
            Self::Flat => "tap53.DnsTransactionFlat",
        }
    }

    /// Returns the text of the schema.
    #[must_use]
    pub const fn schema_text(self) -> &'static str {
        match self {
            Self::Full => super::SCHEMA_TEXT,
            Self::Flat => super::FLAT_SCHEMA_TEXT,
        }
    }

    /// Returns the parsed schema.
    ///
    /// # Errors
    /// Fails if the embedded schema does not parse, which is a defect of this program.
    pub fn schema(self) -> Result<&'static Schema, Error> {
        static SCHEMAS: [OnceLock<Schema>; 2] = [OnceLock::new(), OnceLock::new()];
        let cell = &SCHEMAS[self as usize];
        if let Some(schema) = cell.get() {
            return Ok(schema);
        }
        let parsed = Schema::parse_str(self.schema_text());
        let parsed = parsed.map_err(|error| Error::Avro(error.to_string()))?;
        Ok(cell.get_or_init(|| parsed))
    }

    /// Returns the CRC-64-AVRO fingerprint of the schema, little-endian.
    ///
    /// # Errors
    /// See [`Self::schema`].
    pub fn fingerprint(self) -> Result<Fingerprint, Error> {
        fingerprint_of(self.schema_text())
    }

    /// Returns every version of the schema, oldest first; this agent writes the last one.
    #[must_use]
    pub const fn versions(self) -> &'static [SchemaVersion] {
        match self {
            Self::Full => &SCHEMA_VERSIONS,
            Self::Flat => &FLAT_SCHEMA_VERSIONS,
        }
    }

    /// Returns the format of a datum without a header, for object container files.
    #[must_use]
    pub const fn datum(self) -> Format {
        match self {
            Self::Full => Format::AvroDatum,
            Self::Flat => Format::FlatAvroDatum,
        }
    }

    /// Returns the format of a datum after the single-object header.
    #[must_use]
    pub const fn single_object(self) -> Format {
        match self {
            Self::Full => Format::AvroSingleObject,
            Self::Flat => Format::FlatAvroSingleObject,
        }
    }
}
