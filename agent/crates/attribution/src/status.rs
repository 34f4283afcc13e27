//! How the directory is fed, for `tap53 status` and metrics.

use serde::{Serialize, Serializer};

use crate::config::Scope;

/// Number of known objects, and of claims that were evicted or refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) pods: usize,
    pub(super) services: usize,
    pub(super) nodes: usize,
    pub(super) claims: usize,
    /// Claims of addresses with more of them than are kept.
    pub(super) history_evicted: u64,
    /// Claims that had ended and were forgotten early, to make room.
    pub(super) ended_evicted: u64,
    /// Claims that were not taken in for want of room.
    pub(super) refused: u64,
}

/// State of the Kubernetes watches and of what is known through them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Whether the configuration asks for Kubernetes; all else is empty without.
    pub enabled: bool,
    /// Name of this node.
    pub node: String,
    /// Whose pods are watched.
    pub scope: Scope,
    /// Whether every watch has listed its objects and follows them now.
    pub connected: bool,
    /// Why not; of the first watch that does not.
    pub reason: Option<String>,
    /// Since when what is known may be old, while not connected.
    pub stale_since: Option<Moment>,
    /// When the last event came, of any watch.
    pub last_event: Option<Moment>,
    /// Live pods known.
    pub pods: usize,
    /// Services with an address known.
    pub services: usize,
    /// Nodes known.
    pub nodes: usize,
    /// Claims held: addresses of live objects, and for a while of those that ended.
    pub claims: usize,
    /// Lists of everything that were taken, of all watches; one each is the start.
    pub lists: u64,
    /// Requests that failed, and streams that broke.
    pub errors: u64,
    /// Claims of addresses with more of them than are kept, given up.
    pub history_evicted: u64,
    /// Claims that had ended and were forgotten early, to make room.
    pub ended_evicted: u64,
    /// Claims not taken in for want of room.
    pub refused: u64,
    /// Jobs that could not be asked for: their pods are named by the Job, not by its CronJob.
    pub jobs_failed: u64,
    /// Why, the last time.
    pub jobs_reason: Option<String>,
    /// Each watch.
    pub watches: Vec<WatchStatus>,
}

/// State of one watch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WatchStatus {
    /// What is watched: `pods`, `services`, `nodes`.
    pub resource: &'static str,
    /// Whether it has listed its objects and follows them now.
    pub connected: bool,
    /// Why not.
    pub reason: Option<String>,
    /// Since when what is known may be old; `None` while connected, or before the first list.
    pub stale_since: Option<Moment>,
    /// When the last event came.
    pub last_event: Option<Moment>,
    /// Lists of everything that were taken; one is the start.
    pub lists: u64,
    /// Events taken in.
    pub events: u64,
    /// Requests that failed, and streams that broke.
    pub errors: u64,
}

/// A time, UTC; RFC 3339 when serialised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Microseconds since 1970.
    pub us: i64,
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match jiff::Timestamp::from_microsecond(self.us) {
            Ok(timestamp) => serializer.collect_str(&format_args!("{timestamp:.6}")),
            Err(error) => Err(serde::ser::Error::custom(error)),
        }
    }
}

impl Status {
    /// State of one watch, which is there from the start.
    pub(super) fn watch(&mut self, resource: &'static str) -> &mut WatchStatus {
        let index = self.watches.iter().position(|watch| watch.resource == resource);
        let index = index.unwrap_or_else(|| {
            self.watches.push(WatchStatus {
                resource,
                reason: Some("not connected yet".to_owned()),
                ..Default::default()
            });
            self.watches.len() - 1
        });
        &mut self.watches[index]
    }

    /// Takes over what is known.
    pub(super) const fn set_counts(&mut self, counts: Counts) {
        self.pods = counts.pods;
        self.services = counts.services;
        self.nodes = counts.nodes;
        self.claims = counts.claims;
        self.history_evicted = counts.history_evicted;
        self.ended_evicted = counts.ended_evicted;
        self.refused = counts.refused;
    }

    /// Draws up the whole from its watches.
    pub(super) fn sum_up(&mut self) {
        let watches = &self.watches;
        let down = watches.iter().find(|watch| !watch.connected);
        self.connected = !watches.is_empty() && down.is_none();
        let because = |watch: &WatchStatus| {
            let reason = watch.reason.as_deref().unwrap_or("not connected");
            format!("{}: {reason}", watch.resource)
        };
        self.reason = down.map(because);
        self.stale_since = watches.iter().filter_map(|watch| watch.stale_since).min();
        self.last_event = watches.iter().filter_map(|watch| watch.last_event).max();
        self.lists = watches.iter().map(|watch| watch.lists).sum();
        self.errors = watches.iter().map(|watch| watch.errors).sum();
    }
}
