//! State of the watches, for `tap53 status` and metrics.

use serde::{Serialize, Serializer};

use crate::{config::Scope, containers::ContainersStatus};

/// Number of known objects, and of claims that were evicted or refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) pods: usize,
    pub(super) server_pods: usize,
    pub(super) services: usize,
    pub(super) nodes: usize,
    pub(super) claims: usize,
    /// Claims evicted because their address had too many.
    pub(super) history_evicted: u64,
    /// Ended claims that were evicted early.
    pub(super) ended_evicted: u64,
    /// Claims refused because the limit was reached.
    pub(super) refused: u64,
}

/// State of the Kubernetes watches and of the objects known through them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// True if Kubernetes is configured; otherwise all else is empty.
    pub enabled: bool,
    /// Name of this node.
    pub node: String,
    /// The pods that are watched.
    pub scope: Scope,
    /// True if every watch has listed its objects and follows them now.
    pub connected: bool,
    /// Reason of the first watch that is not connected.
    pub reason: Option<String>,
    /// Time since when the known state may be stale, while not connected.
    pub stale_since: Option<Moment>,
    /// Time of the last event of any watch.
    pub last_event: Option<Moment>,
    /// Number of known live pods in the scope.
    pub pods: usize,
    /// Number of known live pods of DNS servers on other nodes, beyond the scope.
    pub server_pods: usize,
    /// Number of known services with an address.
    pub services: usize,
    /// Number of known nodes.
    pub nodes: usize,
    /// Number of stored claims: addresses of live objects, and for a while of ended ones.
    pub claims: usize,
    /// Number of full lists of all watches; the first of each is the start.
    pub lists: u64,
    /// Number of failed requests and broken streams.
    pub errors: u64,
    /// Claims evicted because their address had too many.
    pub history_evicted: u64,
    /// Ended claims that were evicted early.
    pub ended_evicted: u64,
    /// Claims refused because the limit was reached.
    pub refused: u64,
    /// Failed Job queries: their pods are attributed to the Job, not to its CronJob.
    pub jobs_failed: u64,
    /// Reason of the last failed Job query.
    pub jobs_reason: Option<String>,
    /// State of each watch.
    pub watches: Vec<WatchStatus>,
    /// Containers of this machine.
    pub containers: ContainersStatus,
}

/// State of one watch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WatchStatus {
    /// The watched objects: `pods`, `server_pods`, `services`, `nodes`.
    pub resource: &'static str,
    /// True if the watch has listed its objects and follows them now.
    pub connected: bool,
    /// Reason why it is not connected.
    pub reason: Option<String>,
    /// Time since when the known state may be stale; `None` while connected, or before the first
    /// list.
    pub stale_since: Option<Moment>,
    /// Time of the last event.
    pub last_event: Option<Moment>,
    /// Number of full lists; the first is the start.
    pub lists: u64,
    /// Number of applied events.
    pub events: u64,
    /// Number of failed requests and broken streams.
    pub errors: u64,
}

/// A time in UTC; serialized as in RFC 3339.
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
    /// Returns the state of one watch, and adds it if it is new.
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

    /// Copies the counts of known objects.
    pub(super) const fn set_counts(&mut self, counts: Counts) {
        self.pods = counts.pods;
        self.server_pods = counts.server_pods;
        self.services = counts.services;
        self.nodes = counts.nodes;
        self.claims = counts.claims;
        self.history_evicted = counts.history_evicted;
        self.ended_evicted = counts.ended_evicted;
        self.refused = counts.refused;
    }

    /// Computes the totals from the watches.
    pub(super) fn summarize(&mut self) {
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
