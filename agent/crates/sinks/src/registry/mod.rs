//! Ids of schemas, from a registry with Confluent's API.
//!
//! ```text
//!  workers, sender ── frame ──▶ SchemaIds ◀── refresher (a thread) ──▶ client ──▶ registry
//!                                   ▲             │
//!                         next start└─── cache ◀──┘  a file
//! ```
//!
//! - **No worker waits for the registry.** A thread of its own queries the registry; framing reads an
//!   atomic number, and keeps the record where there is none yet.
//! - **An id that was known once is used at once**, from the file of an earlier run, while the
//!   registry is unreachable as well.
//! - **The registry that answers now is right.** It is queried again every
//!   ten minutes: one that was wiped has the schema registered again, and where
//!   it then gives another id, that one is used from then on. Consumers query this registry and no
//!   other; keeping to the old id would make unreadable, or worse be read by another schema, what is
//!   yet to come as well.
//! - **Nothing is registered that need not be.** A schema is looked up first, which takes no right to
//!   write, and then held against the latest version of its subject.
//! - Several schemas, by fingerprint: a spool may hold records of earlier versions. They are
//!   requested only when there are such records, oldest first, so that the newest is the subject's latest.
//!   What a spool holds that another agent has locked is not known, though, until its lock is
//!   acquired: an earlier version that was never registered comes after the newest then.
//! - Of a later version only the id is known, from the file, where that version has left it. Without
//!   it such a record is rejected.
//! - No answer of a registry is followed elsewhere: a redirect would take the credentials along.
//!
//! Own code, on the HTTP client that the watch of Kubernetes has brought: `docs/decisions/delivery.md`
//! says why.

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
    /// The fingerprint of its canonical form.
    pub(crate) fingerprint: Fingerprint,
    /// The version that its records carry; for the log.
    pub version: i32,
    /// True where its records are of the profile that is not written now: they only wait in a spool
    /// from before the configuration changed.
    pub(crate) is_of_other_profile: bool,
}

impl Schema {
    /// All versions of the record of a transaction: of the other profile, then of this one, each
    /// oldest first.
    ///
    /// # Errors
    /// When one does not parse, which is a defect of this program.
    pub fn of_transactions(profile: Profile) -> Result<Vec<Self>, encode::Error> {
        let others = Profile::ALL.into_iter().filter(|other| *other != profile);
        let all =
            others.chain([profile]).flat_map(|of| of.versions().iter().map(move |it| (of, it)));
        all.map(|(of, version)| Self::new(of.record_name(), version, of != profile)).collect()
    }

    /// All versions of the ledger's summary, oldest first.
    ///
    /// # Errors
    /// When one does not parse, which is a defect of this program.
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

    /// True where its id is requested before its first record is sent, since a spool holds records
    /// of these versions. Versions alone do not say of which profile they are.
    pub(crate) fn is_expected_in(&self, versions: &[u32]) -> bool {
        !self.is_of_other_profile && versions.contains(&self.version.unsigned_abs())
    }

    /// The subject that it is registered under.
    ///
    /// The topic's own subject is that of the profile that is written now. If the other profile's
    /// schema went there first, the registry would refuse this one for ever, as not compatible.
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

/// The id of a schema that an earlier run left, if it did.
pub fn cached_id(config: &RegistryConfig, schema: &Schema, topic: &str) -> Option<u32> {
    let cache = cache::SchemaIdCache::new(config.ids_file.as_deref()?, &config.urls);
    let ids = cache.ids(&schema.subject(config.subject, topic));
    ids.iter().find(|(fingerprint, _)| *fingerprint == schema.fingerprint).map(|(_, id)| *id)
}
