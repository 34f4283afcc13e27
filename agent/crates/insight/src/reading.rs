//! The side of the reader: sums over the workers, with labels.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use tap53_transactions::privacy::{Policy, Side};

use crate::{
    cell::{SeriesCell, TopCell, TopList},
    key::{Ends, OTHER},
    pair::PairCounts,
    registry::{ClientLabels, Registry, Usage, WorkloadKind, labels_of, shown_address},
    top::{Counter, merged},
};

/// All series as of one moment.
#[derive(Clone, Debug)]
pub struct Reading {
    registry: Arc<Registry>,
    workers: Vec<SeriesCell>,
}

/// Labels of a client and a server: namespace, workload, server.
type EndLabels<'a> = [&'a str; 3];

impl Reading {
    pub(crate) const fn new(registry: Arc<Registry>, workers: Vec<SeriesCell>) -> Self {
        Self { registry, workers }
    }

    /// Passes the labels and the transactions of each series to `report`: client namespace, client workload,
    /// server, query type, response code, transport, outcome. The same labels may come several times; their
    /// transactions add up.
    pub fn each_series(&self, policy: &Policy, mut report: impl FnMut([&str; 7], u64)) {
        self.with_labels(policy, |labels| {
            for (key, count) in self.workers.iter().flat_map(|worker| &worker.series) {
                let [namespace, workload, server] = labels.of(key.ends);
                let [qtype, rcode, transport, outcome] = key.codes.labels();
                report([namespace, workload, server, &qtype, &rcode, &transport, &outcome], *count);
            }
        });
    }

    /// Passes the labels and the counts of each pair of client and server to `report`. The same labels may
    /// come several times; their counts add up.
    pub fn each_pair(&self, policy: &Policy, mut report: impl FnMut(EndLabels<'_>, &PairCounts)) {
        self.with_labels(policy, |labels| {
            for (ends, counts) in self.workers.iter().flat_map(|worker| &worker.pairs) {
                let [namespace, workload, server] = labels.of(*ends);
                report([namespace, workload, server], counts);
            }
        });
    }

    /// Returns the kinds of the clients' workloads, by namespace and workload.
    #[must_use]
    pub fn workload_kinds(&self) -> BTreeMap<[String; 2], WorkloadKind> {
        let kind = |labels: &ClientLabels| {
            let ClientLabels { namespace, workload, kind } = labels;
            Some(([namespace, workload].map(|label| label.to_string()), (*kind)?))
        };
        self.registry.clients.with(|clients| clients.values().filter_map(kind).collect())
    }

    /// Returns the sum over all series.
    #[must_use]
    pub fn transactions(&self) -> u64 {
        self.workers.iter().flat_map(|worker| &worker.series).map(|(_, count)| count).sum()
    }

    /// Returns how much of each maximum is used.
    #[must_use]
    pub fn usage(&self) -> [Usage; 3] {
        self.registry.usage()
    }

    fn with_labels(&self, policy: &Policy, look: impl FnOnce(&Labels<'_>)) {
        let shown = |servers: &hashbrown::HashMap<u64, _>| {
            let label =
                |(tag, server): (&u64, &crate::registry::Server)| (*tag, server.label(policy));
            servers.iter().map(label).collect()
        };
        let servers: hashbrown::HashMap<u64, String> = self.registry.servers.with(shown);
        self.registry.clients.with(|clients| look(&Labels { clients, servers: &servers }));
    }
}

/// The labels of clients and servers by their tags.
struct Labels<'a> {
    clients: &'a hashbrown::HashMap<u64, ClientLabels>,
    servers: &'a hashbrown::HashMap<u64, String>,
}

impl Labels<'_> {
    fn of(&self, ends: Ends) -> EndLabels<'_> {
        let [namespace, workload] = labels_of(self.clients, ends.client);
        [namespace, workload, self.servers.get(&ends.server).map_or(OTHER, String::as_str)]
    }
}

/// The most frequent names and clients of all workers.
#[derive(Clone, Debug, Default)]
pub struct TopReading {
    shown: usize,
    names: List<String>,
    nxdomain_names: List<String>,
    clients: List<IpAddr>,
}

/// A list of all workers.
#[derive(Clone, Debug)]
struct List<T> {
    counters: Vec<Counter<T>>,
    /// The most that a counter exceeds the truth by.
    error: u64,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { counters: Vec::new(), error: 0 }
    }
}

impl<T: Clone + Eq + std::hash::Hash> List<T> {
    fn new(lists: impl Iterator<Item = TopList<T>>) -> Self {
        let lists: Vec<_> = lists.map(|list| (list.counters, list.threshold)).collect();
        let error = lists.iter().map(|(_, threshold)| threshold).sum();
        Self { counters: merged(&lists), error }
    }

    /// Returns the most frequent items by their shown form. Items with the same form are one.
    fn shown(&self, most: usize, form: impl Fn(&T) -> String) -> Vec<Counter<String>> {
        let mut sums = BTreeMap::<String, (u64, u64)>::new();
        for Counter { item, count, error } in &self.counters {
            let sum = sums.entry(form(item)).or_default();
            *sum = (sum.0 + count, sum.1 + error);
        }
        let counter = |(item, (count, error))| Counter { item, count, error };
        let mut counters: Vec<_> = sums.into_iter().map(counter).collect();
        counters.sort_by_key(|counter| std::cmp::Reverse(counter.count));
        counters.truncate(most);
        counters
    }
}

impl TopReading {
    pub(crate) fn new(shown: u32, cells: impl Iterator<Item = TopCell>) -> Self {
        let cells: Vec<_> = cells.collect();
        Self {
            shown: usize::try_from(shown).unwrap_or(usize::MAX),
            names: List::new(cells.iter().map(|cell| cell.names.clone())),
            nxdomain_names: List::new(cells.iter().map(|cell| cell.nxdomain_names.clone())),
            clients: List::new(cells.iter().map(|cell| cell.clients.clone())),
        }
    }

    /// Returns the most frequent names, as the privacy rules show them.
    #[must_use]
    pub fn names(&self, policy: &Policy) -> Vec<Counter<String>> {
        self.names.shown(self.shown, |name| policy.name(name).into_owned())
    }

    /// Returns the most frequent names that do not exist, as the privacy rules show them.
    #[must_use]
    pub fn nxdomain_names(&self, policy: &Policy) -> Vec<Counter<String>> {
        self.nxdomain_names.shown(self.shown, |name| policy.name(name).into_owned())
    }

    /// Returns the clients with most transactions, as the privacy rules show them.
    #[must_use]
    pub fn clients(&self, policy: &Policy) -> Vec<Counter<String>> {
        self.clients.shown(self.shown, |client| shown_address(policy, Side::Client, *client))
    }

    /// Returns by how much the counts of each list may be too large: names, names that do not exist, and
    /// clients.
    #[must_use]
    pub const fn errors(&self) -> [(&'static str, u64); 3] {
        [
            ("names", self.names.error),
            ("nxdomain_names", self.nxdomain_names.error),
            ("clients", self.clients.error),
        ]
    }
}
