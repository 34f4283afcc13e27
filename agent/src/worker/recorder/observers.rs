//! The observers of records: an interface of this node under the name that it had.

use std::sync::Arc;

use hashbrown::HashMap;
use tap53_capture::interfaces::Names;
use tap53_records::encode::Observer;
use tap53_transactions::pair::{Observation, RecordIds, Transaction};

/// Observers by interface.
pub(super) struct Observers {
    node: Arc<str>,
    /// Run and worker of the records.
    ids: RecordIds,
    /// By ifindex, one for each name of the interface, the oldest first, with the time from which on it
    /// had the name.
    by_interface: HashMap<u32, Vec<(u64, Observer)>>,
    /// Observer at an interface whose name is not known.
    unknown: Observer,
    names: Arc<Names>,
    /// Version of `names` that `by_interface` was created from.
    version: u64,
}

impl Observers {
    pub(super) fn new(node: &Arc<str>, names: &Arc<Names>, ids: RecordIds) -> Self {
        let mut observers = Self {
            node: node.clone(),
            ids,
            by_interface: HashMap::new(),
            unknown: Observer::new(node, "", ids),
            names: names.clone(),
            version: 0,
        };
        observers.learn_names();
        observers
    }

    /// Gives an interface its only name, for a replay.
    pub(super) fn name(&mut self, ifindex: u32, name: &str) {
        self.by_interface.insert(ifindex, vec![(0, Observer::new(&self.node, name, self.ids))]);
    }

    /// Learns the names of interfaces that have changed.
    #[inline]
    pub(super) fn refresh(&mut self) {
        if self.version != self.names.version() {
            self.learn_names();
        }
    }

    /// Returns the observers of a transaction's first message and of its response.
    #[inline]
    pub(super) fn of(&self, transaction: &Transaction<'_>) -> (&Observer, &Observer) {
        let first = transaction.first();
        let observer = self.at(first);
        let response_observer = match transaction.response() {
            Some(response) if response.point.ifindex != first.point.ifindex => self.at(response),
            _ => observer,
        };
        (observer, response_observer)
    }

    /// Returns the observer of the interface that saw a message.
    #[inline]
    fn at(&self, seen: &Observation) -> &Observer {
        let names = self.by_interface.get(&seen.point.ifindex);
        let named =
            names.and_then(|names| names.iter().rev().find(|(from_ns, _)| *from_ns <= seen.at_ns));
        named.map_or(&self.unknown, |(_, observer)| observer)
    }

    /// Copies the names of interfaces that have changed, which is rare.
    #[cold]
    fn learn_names(&mut self) {
        let changed = self.names.since(self.version);
        self.version = changed.version;
        if changed.is_all {
            self.by_interface.clear();
        }
        for (ifindex, names) in changed.interfaces {
            let Some(names) = names else {
                self.by_interface.remove(&ifindex);
                continue;
            };
            let observer = |name: &str| Observer::new(&self.node, name, self.ids);
            let names = names.iter().map(|since| (since.from_ns, observer(&since.name)));
            self.by_interface.insert(ifindex, names.collect());
        }
    }
}
