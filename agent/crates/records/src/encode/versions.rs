//! Every version of the record's schema, with what each was published as.
//!
//! A spool may hold records that an earlier version of the agent wrote, which a registry knows by
//! the id of the schema that they were written with.

use super::{
    Error, FLAT_SCHEMA_TEXT, Fingerprint, SCHEMA_TEXT, SCHEMA_VERSION, avro::fingerprint_of,
};

/// Full name of the record.
pub const RECORD_NAME: &str = "tap53.DnsTransaction";

/// One version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaVersion {
    /// Its number, which each record carries as `schema_version`.
    pub number: i32,
    /// The schema, byte for byte.
    pub text: &'static str,
}

/// All versions, oldest first; the last one is what this agent writes.
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

/// The same of the flat profile. Its versions have the numbers of the full one's, since both say the
/// same: a change of either is a version of both. The first that there is is 5.
pub const FLAT_SCHEMA_VERSIONS: [SchemaVersion; 1] =
    [SchemaVersion { number: SCHEMA_VERSION, text: FLAT_SCHEMA_TEXT }];

impl SchemaVersion {
    /// Its fingerprint.
    ///
    /// # Errors
    /// When it does not parse, which is a defect of this program.
    pub fn fingerprint(&self) -> Result<Fingerprint, Error> {
        fingerprint_of(self.text)
    }
}
