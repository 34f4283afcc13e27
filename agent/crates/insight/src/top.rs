//! The most frequent items of a stream in bounded memory: Space-Saving (Metwally, Agrawal, El Abbadi:
//! "Efficient Computation of Frequent and Top-k Elements in Data Streams", ICDT 2005).
//!
//! With `k` counters and `n` observations, a counter exceeds the true number of its item by at most `n / k`,
//! and every item with more than `n / k` observations has a counter.
//!
//! An observation of an item with a counter only increments it: the heap orders the counters by counts that
//! they had earlier, and is corrected when the smallest one is needed. Each correction accounts for at least
//! one observation, so the sum of all work is no larger than that of a heap that is always in order.

use std::{borrow::Borrow, hash::BuildHasher, hash::Hash};

use hashbrown::{DefaultHashBuilder, HashTable};

/// Counters of each list.
pub(crate) const CAPACITY: usize = 256;

/// A counter of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter<T> {
    /// The item.
    pub item: T,
    /// At least the number of its observations.
    pub count: u64,
    /// At most by how much `count` is too large.
    pub error: u64,
}

/// A counter in the heap.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// A count that it had: at most the current one.
    count: u64,
    index: usize,
}

/// Counts the most frequent items.
#[derive(Debug)]
pub struct SpaceSaving<T: ?Sized + ToOwned> {
    capacity: usize,
    /// The count of the counter that was replaced last. Counts of replaced ones do not decrease.
    threshold: u64,
    counters: Vec<Counter<T::Owned>>,
    /// Counters by their item.
    table: HashTable<usize>,
    hasher: DefaultHashBuilder,
    /// Counters as a binary heap, the smallest known count first.
    heap: Vec<Known>,
}

impl<T: ?Sized + ToOwned + Eq + Hash> SpaceSaving<T> {
    /// Creates an empty list with room for `capacity` items, at least one.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            threshold: 0,
            counters: Vec::new(),
            table: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            heap: Vec::new(),
        }
    }

    /// Counts one observation of an item. Returns the index of its counter.
    pub fn count(&mut self, item: &T) -> usize {
        let hash = self.hasher.hash_one(item);
        let Self { counters, table, .. } = self;
        if let Some(&index) = table.find(hash, |index| counters[*index].item.borrow() == item) {
            counters[index].count += 1;
            return index;
        }
        if self.counters.len() < self.capacity {
            self.add(item, hash)
        } else {
            self.replace(item, hash)
        }
    }

    /// Returns the counters, in no order.
    pub fn counters(&self) -> &[Counter<T::Owned>] {
        &self.counters
    }

    /// Returns the most that an item without a counter was observed: `n / k` at most.
    #[must_use]
    pub const fn threshold(&self) -> u64 {
        self.threshold
    }

    fn add(&mut self, item: &T, hash: u64) -> usize {
        let index = self.counters.len();
        self.counters.push(Counter { item: item.to_owned(), count: 1, error: 0 });
        self.insert(index, hash);
        self.heap.push(Known { count: 1, index });
        self.rise(index);
        index
    }

    /// Gives the smallest counter to a new item.
    fn replace(&mut self, item: &T, hash: u64) -> usize {
        let index = self.smallest();
        let old = self.hasher.hash_one(self.counters[index].item.borrow());
        if let Ok(entry) = self.table.find_entry(old, |found| *found == index) {
            entry.remove();
        }
        let counter = &mut self.counters[index];
        item.clone_into(&mut counter.item);
        self.threshold = counter.count;
        counter.error = counter.count;
        counter.count += 1;
        self.insert(index, hash);
        index
    }

    /// Returns the index of a counter with the smallest count, which is the first in the heap then.
    fn smallest(&mut self) -> usize {
        loop {
            let Known { count: known, index } = self.heap[0];
            let count = self.counters[index].count;
            if count == known {
                return index;
            }
            self.heap[0].count = count;
            self.sink(0);
        }
    }

    fn insert(&mut self, index: usize, hash: u64) {
        let Self { counters, table, hasher, .. } = self;
        table.insert_unique(hash, index, |index| hasher.hash_one(counters[*index].item.borrow()));
    }

    /// Moves the counter at `place` towards the smaller ones.
    fn rise(&mut self, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.heap[parent].count <= self.heap[place].count {
                break;
            }
            self.heap.swap(parent, place);
            place = parent;
        }
    }

    /// Moves the counter at `place` towards the larger ones.
    fn sink(&mut self, mut place: usize) {
        loop {
            let children = (2 * place + 1)..(2 * place + 3).min(self.heap.len());
            let Some(smallest) = children.min_by_key(|child| self.heap[*child].count) else {
                break;
            };
            if self.heap[place].count <= self.heap[smallest].count {
                break;
            }
            self.heap.swap(place, smallest);
            place = smallest;
        }
    }
}

/// Merges lists of several workers. The counter of a list that lacks an item is at most its threshold, so
/// that the error of the sum is at most the sum of `n / k`.
pub(crate) fn merged<T: Clone + Eq + Hash>(lists: &[(Vec<Counter<T>>, u64)]) -> Vec<Counter<T>> {
    let all: u64 = lists.iter().map(|(_, threshold)| threshold).sum();
    let mut sums: hashbrown::HashMap<&T, Counter<T>> = hashbrown::HashMap::new();
    for (counters, threshold) in lists {
        for Counter { item, count, error } in counters {
            // As if it lacked in all lists, corrected for each that has it.
            let sum = sums.entry(item).or_insert_with(|| Counter {
                item: item.clone(),
                count: all,
                error: all,
            });
            sum.count = sum.count + count - threshold;
            sum.error = sum.error + error - threshold;
        }
    }
    sums.into_values().collect()
}

#[cfg(test)]
mod tests;
