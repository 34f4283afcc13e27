//! Counts of the exports since the start.

use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;

/// Why an export failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no connection to the collector.
    Unreachable,
    /// Its certificate does not verify.
    Untrusted,
    /// It did not answer in time.
    Timeout,
    /// It answered that it cannot accept metrics now: 429, 502, 503 or 504.
    Busy,
    /// It refused the request with another status.
    Refused,
    /// Its answer cannot be read.
    Unreadable,
    /// A file of the configuration cannot be read.
    File,
}

impl Failure {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Unreachable,
        Self::Untrusted,
        Self::Timeout,
        Self::Busy,
        Self::Refused,
        Self::Unreadable,
        Self::File,
    ];

    /// Returns its label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Untrusted => "untrusted",
            Self::Timeout => "timeout",
            Self::Busy => "busy",
            Self::Refused => "refused",
            Self::Unreadable => "unreadable",
            Self::File => "file",
        }
    }
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Exports whose requests were all accepted.
    pub exports: u64,
    /// Attempts that failed, in the order of [`Failure::ALL`].
    pub failures: [u64; Failure::ALL.len()],
    /// Points in accepted requests, including the rejected ones.
    pub points: u64,
    /// Points that the collector rejected in accepted requests.
    pub rejected_points: u64,
    /// When the last export succeeded.
    pub last_export: Option<Timestamp>,
}

/// The counts of an exporter, which its reader shares. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ExportCounts(Arc<Mutex<Counts>>);

impl ExportCounts {
    /// Returns a copy of the counts.
    #[must_use]
    pub fn read(&self) -> Counts {
        *self.0.lock()
    }

    pub(crate) fn accepted(&self, points: usize, rejected: u64) {
        let mut counts = self.0.lock();
        counts.points += points as u64;
        counts.rejected_points += rejected;
    }

    pub(crate) fn exported(&self, at: Timestamp) {
        let mut counts = self.0.lock();
        counts.exports += 1;
        counts.last_export = Some(at);
    }

    pub(crate) fn failed(&self, failure: Failure) {
        self.0.lock().failures[failure as usize] += 1;
    }
}
