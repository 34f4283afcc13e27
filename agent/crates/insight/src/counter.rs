//! The side of a worker: counts records, and publishes the counts.

use std::{borrow::Borrow, hash::BuildHasher, hash::Hash, net::IpAddr, sync::Arc};

use hashbrown::{DefaultHashBuilder, HashTable};
use parking_lot::Mutex;
use tap53_records::encode::Record;

use crate::{
    cell::{SeriesCell, TopCell, TopList, set},
    dirty::Dirty,
    key::{Codes, Ends, SeriesKey},
    pair::PairCounts,
    registry::Registry,
    top::{CAPACITY, SpaceSaving},
};

/// Maximum length of a stored name in bytes; longer ones are cut. Only names with escaped bytes exceed it.
const MAX_NAME: usize = 255;

/// Response code of a name that does not exist (RFC 1035 §4.1.1).
const NXDOMAIN: u16 = 3;

/// Counts the records of one worker.
pub struct DnsCounter {
    registry: Arc<Registry>,
    table: HashTable<usize>,
    hasher: DefaultHashBuilder,
    series: Vec<Series>,
    pairs: Vec<(Ends, PairCounts)>,
    dirty_series: Dirty,
    dirty_pairs: Dirty,
    /// `None` unless names are counted.
    names: Option<[List<str>; 2]>,
    /// `None` unless addresses of clients are counted.
    clients: Option<List<IpAddr>>,
    cell: Arc<Mutex<SeriesCell>>,
    top_cell: Arc<Mutex<TopCell>>,
}

/// A series, and the pair that it belongs to.
#[derive(Clone, Copy, Debug)]
struct Series {
    key: SeriesKey,
    count: u64,
    pair: usize,
}

/// Index of the series and of the pair that are `~other`.
const OTHER_INDEX: usize = 0;

impl DnsCounter {
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        let list = || List::new(CAPACITY);
        let mut counter = Self {
            names: registry.config.names.then(|| [list(), list()]),
            clients: registry.config.clients.then(|| List::new(CAPACITY)),
            registry,
            table: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            series: Vec::new(),
            pairs: Vec::new(),
            dirty_series: Dirty::default(),
            dirty_pairs: Dirty::default(),
            cell: Arc::default(),
            top_cell: Arc::default(),
        };
        counter.push(SeriesKey::OTHER);
        counter.publish();
        counter
    }

    pub(crate) fn cells(&self) -> (Arc<Mutex<SeriesCell>>, Arc<Mutex<TopCell>>) {
        (self.cell.clone(), self.top_cell.clone())
    }

    /// Counts a record.
    #[inline]
    pub fn count(&mut self, record: &Record<'_>) {
        let ends = self.registry.ends(record);
        let key = SeriesKey { ends, codes: Codes::of(record.transaction) };
        let index = match self.find(&key) {
            Some(index) => index,
            None => self.find_or_admit(key, record),
        };
        let series = &mut self.series[index];
        series.count += 1;
        self.dirty_series.mark(index);
        self.pairs[series.pair].1.count(record);
        self.dirty_pairs.mark(series.pair);
        if self.names.is_some() || self.clients.is_some() {
            self.count_top(record);
        }
    }

    /// Publishes the counts. Call it while the published counts of the worker are locked.
    #[inline]
    pub fn publish(&mut self) {
        if self.dirty_series.is_empty() {
            return;
        }
        let Self { series, pairs, .. } = self;
        let mut cell = self.cell.lock();
        self.dirty_series.drain(|index| {
            let Series { key, count, .. } = series[index];
            set(&mut cell.series, index, (key, count));
        });
        self.dirty_pairs.drain(|index| set(&mut cell.pairs, index, pairs[index]));
        drop(cell);
        if self.names.is_some() || self.clients.is_some() {
            self.publish_top();
        }
    }

    #[inline]
    fn find(&self, key: &SeriesKey) -> Option<usize> {
        let hash = self.hasher.hash_one(key);
        self.table.find(hash, |index| self.series[*index].key == *key).copied()
    }

    /// Returns the index of the series of a record that is not counted under its own key, or not yet.
    #[cold]
    fn find_or_admit(&mut self, key: SeriesKey, record: &Record<'_>) -> usize {
        let key = self.registry.admit(key, record);
        self.find(&key).unwrap_or_else(|| self.push(key))
    }

    fn push(&mut self, key: SeriesKey) -> usize {
        let ends = self.registry.admit_pair(key.ends);
        let pair = self.pairs.iter().position(|pair| pair.0 == ends).unwrap_or_else(|| {
            self.pairs.push((ends, PairCounts::default()));
            self.pairs.len() - 1
        });
        let index = self.series.len();
        self.series.push(Series { key, count: 0, pair });
        // Marked, so that both are published in the order of their creation.
        self.dirty_series.mark(index);
        self.dirty_pairs.mark(pair);
        let Self { series, table, hasher, .. } = self;
        table.insert_unique(hasher.hash_one(key), index, |index| {
            hasher.hash_one(series[*index].key)
        });
        debug_assert!(index > OTHER_INDEX || key == SeriesKey::OTHER);
        index
    }

    fn count_top(&mut self, record: &Record<'_>) {
        let transaction = record.transaction;
        if let Some(clients) = &mut self.clients {
            clients.count(&transaction.flow.client.ip());
        }
        let Some([names, nxdomain_names]) = &mut self.names else { return };
        let Some(question) = transaction.first().message.question() else { return };
        let name = cut(question.name);
        names.count(name);
        if transaction.response().is_some_and(|it| it.message.rcode == NXDOMAIN) {
            nxdomain_names.count(name);
        }
    }

    fn publish_top(&mut self) {
        let mut cell = self.top_cell.lock();
        if let Some([names, nxdomain_names]) = &mut self.names {
            names.publish(&mut cell.names);
            nxdomain_names.publish(&mut cell.nxdomain_names);
        }
        if let Some(clients) = &mut self.clients {
            clients.publish(&mut cell.clients);
        }
    }
}

/// Cuts a name to the maximum length.
fn cut(name: &str) -> &str {
    let end = (0..=MAX_NAME.min(name.len())).rev().find(|end| name.is_char_boundary(*end));
    name.get(..end.unwrap_or(0)).unwrap_or_default()
}

/// A list of the most frequent items, with the counters that have changed.
struct List<T: ?Sized + ToOwned> {
    sketch: SpaceSaving<T>,
    dirty: Dirty,
}

impl<T: ?Sized + ToOwned + Eq + Hash> List<T>
where
    T::Owned: Clone,
{
    fn new(capacity: usize) -> Self {
        Self { sketch: SpaceSaving::new(capacity), dirty: Dirty::default() }
    }

    fn count(&mut self, item: &T) {
        self.dirty.mark(self.sketch.count(item));
    }

    fn publish(&mut self, list: &mut TopList<T::Owned>) {
        let Self { sketch, dirty } = self;
        dirty.drain(|index| {
            let counter = &sketch.counters()[index];
            match list.counters.get_mut(index) {
                Some(published) => {
                    // Reuses the memory of a name.
                    counter.item.borrow().clone_into(&mut published.item);
                    (published.count, published.error) = (counter.count, counter.error);
                }
                None => list.counters.push(counter.clone()),
            }
        });
        list.threshold = sketch.threshold();
    }
}
