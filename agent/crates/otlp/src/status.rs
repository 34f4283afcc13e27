//! The state of an export: what it did since the start, and why it fails.

use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Serialize, Serializer};

use crate::{
    client::{Accepted, Error},
    failure::Failure,
};

/// The state of an export. In JSON, times are text as in RFC 3339, to the second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The URL that metrics are posted to.
    pub url: String,
    /// Exports whose requests were all accepted, since the start.
    pub exports: u64,
    /// Attempts that failed since the start, in the order of [`Failure::ALL`].
    #[serde(serialize_with = "by_reason")]
    pub failures: [u64; Failure::ALL.len()],
    /// Points in accepted requests, including the rejected ones.
    pub points_sent: u64,
    /// Points that the collector rejected in accepted requests.
    pub points_rejected: u64,
    /// The collector's last message about an accepted request: why it rejected points, or a warning.
    pub warning: Option<String>,
    /// When the last export succeeded.
    #[serde(serialize_with = "as_text")]
    pub last_export: Option<Timestamp>,
    /// Set if the last attempt failed.
    pub failing: Option<Failing>,
}

/// A failure that lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failing {
    /// When the first attempt failed after the last one that succeeded.
    #[serde(serialize_with = "at_as_text")]
    pub since: Timestamp,
    /// The label of the last failure, see [`Failure::name`].
    pub reason: &'static str,
    /// The message of the last failure.
    pub message: String,
}

fn by_reason<S: Serializer>(
    failures: &[u64; Failure::ALL.len()],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(Failure::ALL.into_iter().map(Failure::name).zip(failures))
}

#[expect(clippy::ref_option, reason = "the type that serde passes")]
fn as_text<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => at_as_text(at, serializer),
        None => serializer.serialize_none(),
    }
}

fn at_as_text<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{at:.0}"))
}

/// The state of an export, which its exporter writes and others read. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct SharedStatus(Arc<Mutex<Status>>);

impl SharedStatus {
    /// Returns the state of an export to `url` that has done nothing yet.
    #[must_use]
    pub fn new(url: String) -> Self {
        Self(Arc::new(Mutex::new(Status { url, ..Status::default() })))
    }

    /// Returns the state as of now.
    #[must_use]
    pub fn read(&self) -> Status {
        self.0.lock().clone()
    }

    /// Counts a request with `points` that the collector accepted.
    pub(crate) fn accepted(&self, points: usize, accepted: &Accepted) {
        let mut status = self.0.lock();
        status.points_sent += points as u64;
        status.points_rejected += accepted.rejected;
        if accepted.is_notable() {
            status.warning = Some(accepted.message.clone());
        }
    }

    pub(crate) fn exported(&self, at: Timestamp) {
        let mut status = self.0.lock();
        status.exports += 1;
        status.last_export = Some(at);
        status.failing = None;
    }

    pub(crate) fn failed(&self, error: &Error, at: Timestamp) {
        let mut status = self.0.lock();
        let failure = error.failure();
        status.failures[failure as usize] += 1;
        let since = status.failing.as_ref().map_or(at, |failing| failing.since);
        status.failing = Some(Failing { since, reason: failure.name(), message: error.clause() });
    }
}
