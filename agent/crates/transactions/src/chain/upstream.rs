//! The upstream exchanges of one resolver, for as long as a client's exchange may refer to them.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::{Names, Related, names::question};
use crate::pair::{RecordId, Served};

/// Time that a closed exchange is kept, in nanoseconds: for answers whose CNAME records come from the
/// cache, which name what was queried only at the end.
const RECENT_NS: u64 = 1_000_000_000;

/// Maximum number of clients' exchanges that one upstream exchange refers to.
pub(super) const MAX_CLIENTS: usize = 1_024;

/// An exchange of the resolver with an upstream server.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) opened_ns: u64,
    /// Time of its response, or of the end of the wait for it.
    pub(super) closed_ns: Option<u64>,
    pub(super) names: Names,
    /// Clients' exchanges that it serves, or may serve: the first that waited comes first.
    pub(super) clients: Vec<RecordId>,
    /// True if only some of these may be served, and it is not known which.
    pub(super) ambiguous: bool,
    /// Number of clients' exchanges beyond the maximum.
    pub(super) more: u32,
}

impl Upstream {
    pub(super) fn served(&self) -> Served {
        let count = u32::try_from(self.clients.len()).unwrap_or(u32::MAX);
        Served {
            record: self.clients.first().copied().filter(|_| !self.ambiguous),
            count: count.saturating_add(self.more),
        }
    }

    /// Returns the relation to a client's question.
    pub(super) fn relation_to(&self, names: &Names) -> Related {
        if self.names.name != names.name {
            Related::Ancestor
        } else if self.names.kind == names.kind {
            Related::Question
        } else {
            Related::Name
        }
    }
}

/// Open and recently closed upstream exchanges.
#[derive(Debug, Default)]
pub(super) struct Upstreams {
    exchanges: HashMap<RecordId, Upstream>,
    by_name: HashMap<u64, Vec<RecordId>>,
    order: VecDeque<RecordId>,
}

impl Upstreams {
    /// Adds an exchange that was opened just now; returns false if an open one was dropped for it.
    pub(super) fn insert(&mut self, record: RecordId, upstream: Upstream, capacity: usize) -> bool {
        let is_whole = self.prune(upstream.opened_ns, capacity);
        self.by_name.entry(upstream.names.name).or_default().push(record);
        self.order.push_back(record);
        self.exchanges.insert(record, upstream);
        is_whole
    }

    pub(super) fn get(&self, record: &RecordId) -> Option<&Upstream> {
        self.exchanges.get(record)
    }

    pub(super) fn get_mut(&mut self, record: &RecordId) -> Option<&mut Upstream> {
        self.exchanges.get_mut(record)
    }

    /// Returns the exchanges with a name, in the order of their queries.
    pub(super) fn named(&self, name: u64) -> &[RecordId] {
        self.by_name.get(&name).map_or(&[], Vec::as_slice)
    }

    /// Returns the open exchanges with a question.
    pub(super) fn open_with(&self, names: &Names) -> Vec<RecordId> {
        let asked = question(names.name, names.kind);
        let is_open = |record: &&RecordId| {
            self.exchanges.get(*record).is_some_and(|upstream| {
                upstream.closed_ns.is_none()
                    && question(upstream.names.name, upstream.names.kind) == asked
            })
        };
        self.named(names.name).iter().filter(is_open).copied().collect()
    }

    /// Removes what is not needed any more at `now_ns`; returns false if an open exchange had to be
    /// removed.
    fn prune(&mut self, now_ns: u64, capacity: usize) -> bool {
        let mut is_whole = true;
        while let Some(record) = self.order.front() {
            let closed_ns = self.exchanges.get(record).map(|upstream| upstream.closed_ns);
            let is_old = match closed_ns {
                Some(Some(closed_ns)) => closed_ns.saturating_add(RECENT_NS) < now_ns,
                Some(None) => false,
                None => true,
            };
            if !is_old && self.order.len() < capacity {
                break;
            }
            is_whole &= closed_ns != Some(None);
            self.remove_oldest();
        }
        is_whole
    }

    fn remove_oldest(&mut self) {
        let Some(record) = self.order.pop_front() else { return };
        let Some(upstream) = self.exchanges.remove(&record) else { return };
        if let Some(same) = self.by_name.get_mut(&upstream.names.name) {
            same.retain(|other| *other != record);
            if same.is_empty() {
                self.by_name.remove(&upstream.names.name);
            }
        }
    }
}
