//! The ids of schemas, which records are framed with.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tap53_base::threads::Requests;
use tap53_records::encode::{
    Fingerprint, frame, read_single_object, single_object_header, unframe,
};

/// Ids have 32 bits, so none has this value.
const UNKNOWN: u64 = u64::MAX;

/// The ids of a topic's schemas. Read for each record, without a lock.
pub(crate) struct SchemaIds {
    /// The fingerprint of the schema of new records.
    newest: Fingerprint,
    known: Vec<KnownSchema>,
    /// Wakes the refresher for an id that was not requested yet.
    pub(super) requests: Requests,
    /// The first fingerprint without a schema.
    unknown: OnceLock<Fingerprint>,
}

struct KnownSchema {
    fingerprint: Fingerprint,
    id: AtomicU64,
    is_wanted: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameOutcome {
    Framed,
    /// The id of its schema is not known yet.
    Pending,
    /// Its schema is unknown, or it is no single object.
    Unknown,
}

impl SchemaIds {
    /// Takes the fingerprints of all schemas, with the ids that are known already.
    pub(crate) fn new(
        newest: Fingerprint,
        schemas: impl Iterator<Item = (Fingerprint, Option<u32>)>,
    ) -> Self {
        let known = |(fingerprint, id): (_, Option<u32>)| KnownSchema {
            fingerprint,
            id: AtomicU64::new(id.map_or(UNKNOWN, u64::from)),
            is_wanted: AtomicBool::new(false),
        };
        Self {
            newest,
            known: schemas.map(known).collect(),
            requests: Requests::default(),
            unknown: OnceLock::new(),
        }
    }

    fn find(&self, fingerprint: Fingerprint) -> Option<&KnownSchema> {
        self.known.iter().find(|known| known.fingerprint == fingerprint)
    }

    /// Writes a single object into `out`, with its schema id in place of the fingerprint.
    pub(crate) fn frame(&self, value: &[u8], out: &mut Vec<u8>) -> FrameOutcome {
        let Some((fingerprint, datum)) = read_single_object(value) else {
            return FrameOutcome::Unknown;
        };
        let Some(known) = self.find(fingerprint) else {
            if self.unknown.set(fingerprint).is_ok() {
                tracing::error!(
                    event = "schema_unknown",
                    ?fingerprint,
                    "the spool holds records of a schema that this version does not know, nor an id of it: they are lost"
                );
            }
            return FrameOutcome::Unknown;
        };
        match u32::try_from(known.id.load(Ordering::Acquire)) {
            Ok(id) => {
                frame(id, datum, out);
                FrameOutcome::Framed
            }
            Err(_) => {
                self.want(fingerprint);
                FrameOutcome::Pending
            }
        }
    }

    /// Returns the single object of a framed record of the newest schema.
    pub(crate) fn unframed(&self, framed: &[u8]) -> Option<Vec<u8>> {
        let datum = unframe(framed)?;
        Some([&single_object_header(self.newest)[..], datum].concat())
    }

    /// True if new records can be framed.
    pub(crate) fn is_ready(&self) -> bool {
        self.get(self.newest).is_some()
    }

    /// Requests an id from the registry.
    pub(crate) fn want(&self, fingerprint: Fingerprint) {
        if let Some(known) = self.find(fingerprint)
            && !known.is_wanted.swap(true, Ordering::AcqRel)
        {
            self.requests.request();
        }
    }

    pub(super) fn is_wanted(&self, fingerprint: Fingerprint) -> bool {
        self.find(fingerprint).is_some_and(|known| known.is_wanted.load(Ordering::Acquire))
    }

    /// Returns the numbers of ids that were requested, and of those of them that are known.
    pub(super) fn wanted_and_known(&self) -> (u64, u64) {
        let is_wanted = |known: &&KnownSchema| known.is_wanted.load(Ordering::Acquire);
        let is_known = |known: &&KnownSchema| known.id.load(Ordering::Acquire) != UNKNOWN;
        let wanted = self.known.iter().filter(is_wanted);
        (wanted.clone().count() as u64, wanted.filter(is_known).count() as u64)
    }

    pub(crate) fn get(&self, fingerprint: Fingerprint) -> Option<u32> {
        u32::try_from(self.find(fingerprint)?.id.load(Ordering::Acquire)).ok()
    }

    pub(crate) fn set(&self, fingerprint: Fingerprint, id: u32) {
        if let Some(known) = self.find(fingerprint) {
            known.id.store(u64::from(id), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Fingerprint = [1; 8];
    const NEW: Fingerprint = [2; 8];

    #[test]
    fn each_record_gets_the_id_of_the_schema_that_it_was_written_with() {
        let ids = SchemaIds::new(NEW, [(OLD, Some(7)), (NEW, None)].into_iter());
        let mut out = Vec::new();
        let record = |fingerprint| [&single_object_header(fingerprint)[..], b"datum"].concat();
        assert_eq!(ids.frame(&record(OLD), &mut out), FrameOutcome::Framed);
        assert_eq!(out, b"\0\0\0\0\x07datum");
        assert!(!ids.is_wanted(NEW));
        assert_eq!(ids.frame(&record(NEW), &mut out), FrameOutcome::Pending);
        assert!(ids.is_wanted(NEW) && !ids.is_wanted(OLD) && !ids.is_ready());
        ids.set(NEW, u32::MAX);
        assert_eq!(ids.frame(&record(NEW), &mut out), FrameOutcome::Framed);
        assert_eq!(out, b"\0\xff\xff\xff\xffdatum");
        assert_eq!(ids.unframed(&out), Some(record(NEW)));
        assert_eq!(ids.frame(&record([3; 8]), &mut out), FrameOutcome::Unknown);
        assert_eq!(ids.frame(b"no single object", &mut out), FrameOutcome::Unknown);
    }
}
