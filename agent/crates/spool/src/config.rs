//! The configuration of a queue.

use std::{path::PathBuf, time::Duration};

/// When what was appended is synced to the disk (fdatasync).
///
/// A process that is killed loses nothing that was appended, whatever this says: the kernel has it.
/// This is about the node losing its power, or its kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before an append is complete. At most what was being appended is lost.
    Batch,
    /// This often. At most what was appended since the last time, and while that ran, is lost.
    Interval(Duration),
    /// Never. What the kernel has not written back yet is lost: with Linux's defaults, what was
    /// appended in the last half minute or so.
    Never,
}

/// Where a queue is and how much it may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Its directory; made if missing.
    pub directory: PathBuf,
    /// Bytes of its segments at most.
    pub max_bytes: u64,
    /// How old a record may get, if there is a limit. Whole segments go, so a record may get an
    /// eighth older.
    pub max_age: Option<Duration>,
    /// When what was appended is synced to the disk.
    pub fsync: Fsync,
    /// Version of the records' schema, for each segment's header.
    pub schema_version: u32,
}

impl Config {
    /// The least that a queue can work with.
    pub const MIN_BYTES: u64 = 4 << 20;

    /// Size at which a segment is closed: a sixteenth of the whole, because the oldest segment is
    /// what is dropped for room; and no more than what is read quickly at a start.
    pub(super) const fn segment_bytes(&self) -> u64 {
        const LARGEST: u64 = 32 << 20;
        let part = self.max_bytes / 16;
        if part > LARGEST { LARGEST } else { part }
    }

    /// Age at which a segment is closed.
    pub(super) fn segment_age_ms(&self) -> Option<i64> {
        let max_age = self.max_age?;
        Some(milliseconds(max_age / 8).max(1))
    }

    pub(super) fn max_age_ms(&self) -> Option<i64> {
        self.max_age.map(milliseconds)
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
