//! Ids of schemas, from a registry with Confluent's API.
//!
//! ```text
//!  workers, sender ── frame ──▶ SchemaIds ◀── refresher (a thread) ──▶ client ──▶ registry
//!                                   ▲             │
//!                         next start└─── cache ◀──┘  a file
//! ```
//!
//! - **No worker waits for the registry.** A separate thread queries it. Framing reads an atomic
//!   number; without one, the record waits.
//! - **Known ids are used at once**, from the file of an earlier run, also while the registry is
//!   unreachable.
//! - **The registry's current answer is authoritative.** It is queried again every ten minutes; if it
//!   was wiped, the schema is registered again, and an id that changed is used from then on.
//! - **A schema is looked up first**, which needs no right to write, and then checked for
//!   compatibility, before it is registered.
//! - A spool may hold records of earlier schemas. Their ids are requested only then, oldest first, so
//!   that the newest is the subject's latest. Of a later schema, only the id from the file is known;
//!   without it such a record is rejected.
//!
//! `docs/decisions/delivery.md` has the reasons.

mod cache;
mod client;
mod error;
mod ids;
mod refresher;
#[cfg(any(test, feature = "testing"))]
pub mod stub;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use tap53_ledger::{SUMMARY_NAME, SUMMARY_SCHEMA_VERSIONS};
use tap53_records::encode::{self, Fingerprint, Profile};

use crate::config::{RegistryConfig, SubjectStrategy};
pub use client::{Client, Compatibility};
pub use error::Error;
pub(crate) use ids::{FrameOutcome, SchemaIds};
pub(crate) use refresher::SchemaIdRefresher;

/// A schema that records may be written with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// Full name of the record.
    pub name: Cow<'static, str>,
    /// The schema, as it is registered.
    pub text: Cow<'static, str>,
    pub(crate) fingerprint: Fingerprint,
    /// The version that its records have.
    pub version: i32,
    /// True if its profile is not the configured one: a spool may have such records from before the
    /// configuration changed.
    pub(crate) is_of_other_profile: bool,
}

impl Schema {
    /// Returns all versions of the record of a transaction, of the other profile and then of this
    /// one, each oldest first.
    ///
    /// # Errors
    /// When one does not parse, which is a defect of this program.
    pub fn of_transactions(profile: Profile) -> Result<Vec<Self>, encode::Error> {
        let others = Profile::ALL.into_iter().filter(|other| *other != profile);
        let all =
            others.chain([profile]).flat_map(|of| of.versions().iter().map(move |it| (of, it)));
        all.map(|(of, version)| Self::new(of.record_name(), version, of != profile)).collect()
    }

    /// Returns all versions of the ledger's summary, oldest first.
    ///
    /// # Errors
    /// As [`of_transactions`](Self::of_transactions).
    pub fn of_summaries() -> Result<Vec<Self>, encode::Error> {
        SUMMARY_SCHEMA_VERSIONS
            .iter()
            .map(|version| Self::new(SUMMARY_NAME, version, false))
            .collect()
    }

    fn new(
        name: &'static str,
        version: &encode::SchemaVersion,
        is_of_other_profile: bool,
    ) -> Result<Self, encode::Error> {
        Ok(Self {
            name: name.into(),
            text: version.text.into(),
            fingerprint: version.fingerprint()?,
            version: version.number,
            is_of_other_profile,
        })
    }

    /// True if its id should be requested before its first record is sent, since a spool holds
    /// records of these versions. (The versions do not tell the profile.)
    pub(crate) fn is_expected_in(&self, versions: &[u32]) -> bool {
        !self.is_of_other_profile && versions.contains(&self.version.unsigned_abs())
    }

    /// Returns the subject that it is registered under.
    ///
    /// The topic's own subject is that of the configured profile. If the other profile's schema were
    /// registered there first, the registry would refuse this one permanently, as incompatible.
    pub fn subject(&self, strategy: SubjectStrategy, topic: &str) -> String {
        match strategy {
            SubjectStrategy::TopicName if self.is_of_other_profile => {
                format!("{topic}-{}", self.name)
            }
            SubjectStrategy::TopicName => format!("{topic}-value"),
            SubjectStrategy::RecordName => self.name.clone().into_owned(),
            SubjectStrategy::TopicRecordName => format!("{topic}-{}", self.name),
        }
    }
}

/// Returns a schema's id from an earlier run, if it is in the file.
pub fn cached_id(config: &RegistryConfig, schema: &Schema, topic: &str) -> Option<u32> {
    let cache = cache::SchemaIdCache::new(config.ids_file.as_deref()?, &config.urls);
    let ids = cache.ids(&schema.subject(config.subject, topic));
    ids.iter().find(|(fingerprint, _)| *fingerprint == schema.fingerprint).map(|(_, id)| *id)
}
