//! All published versions of the record's schema.
//!
//! A spool may contain records of an earlier version of the agent, which a registry knows by the id
//! of the schema that they were written with.

use super::{
    Error, FLAT_SCHEMA_TEXT, Fingerprint, SCHEMA_TEXT, SCHEMA_VERSION, avro::fingerprint_of,
};

/// Full name of the record.
pub const RECORD_NAME: &str = "tap53.DnsTransaction";

/// A version of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaVersion {
    /// Its number, which each record contains as `schema_version`.
    pub number: i32,
    /// The schema, byte for byte.
    pub text: &'static str,
}

/// All versions, oldest first; this agent writes the last one.
pub const SCHEMA_VERSIONS: [SchemaVersion; 5] = [
    SchemaVersion {
        number: 1,
        text: include_str!("../../../../schema/history/dns_transaction_v1.avsc"),
    },
    SchemaVersion {
        number: 2,
        text: include_str!("../../../../schema/history/dns_transaction_v2.avsc"),
    },
    SchemaVersion {
        number: 3,
        text: include_str!("../../../../schema/history/dns_transaction_v3.avsc"),
    },
    SchemaVersion {
        number: 4,
        text: include_str!("../../../../schema/history/dns_transaction_v4.avsc"),
    },
    SchemaVersion { number: SCHEMA_VERSION, text: SCHEMA_TEXT },
];

/// All versions of the flat profile. They have the numbers of the full profile, since both contain
/// the same data: a change of either is a version of both. The first one is 5.
pub const FLAT_SCHEMA_VERSIONS: [SchemaVersion; 1] =
    [SchemaVersion { number: SCHEMA_VERSION, text: FLAT_SCHEMA_TEXT }];

impl SchemaVersion {
    /// Returns its fingerprint.
    ///
    /// # Errors
    /// Fails if it does not parse, which is a defect of this program.
    pub fn fingerprint(&self) -> Result<Fingerprint, Error> {
        fingerprint_of(self.text)
    }
}
