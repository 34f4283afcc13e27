//! The configuration of a queue.

use std::{path::PathBuf, time::Duration};

/// Selects when appended records are synced to the disk (fdatasync).
///
/// A process that is killed loses no appended record in any mode: the kernel has them. The mode
/// matters if the node loses its power, or its kernel panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before an append completes. A power loss costs at most the append in progress.
    Batch,
    /// At this interval. A power loss costs at most what was appended since the last sync started.
    Interval(Duration),
    /// Never. A power loss costs what the kernel has not written back yet: with Linux's defaults,
    /// the appends of the last half minute or so.
    Never,
}

/// Configures the directory and the limits of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Directory of the queue; created if missing.
    pub directory: PathBuf,
    /// Maximum size of all segments in bytes.
    pub max_bytes: u64,
    /// Maximum age of a record, if there is one. Whole segments are dropped, so a record may be up
    /// to an eighth older.
    pub max_age: Option<Duration>,
    /// Selects when appended records are synced to the disk.
    pub fsync: Fsync,
    /// Version of the records' schema, written to each segment's header.
    pub schema_version: u32,
}

impl Config {
    /// Minimum of `max_bytes`.
    pub const MIN_BYTES: u64 = 4 << 20;

    /// Returns the size at which a segment is closed: a sixteenth of the limit, because the oldest
    /// segment is dropped to make room; and no more than a start reads quickly.
    pub(super) const fn segment_bytes(&self) -> u64 {
        const LARGEST: u64 = 32 << 20;
        let part = self.max_bytes / 16;
        if part > LARGEST { LARGEST } else { part }
    }

    /// Returns the age at which a segment is closed.
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
