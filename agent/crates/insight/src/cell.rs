//! The cells in which a worker publishes.

use std::net::IpAddr;

use crate::{
    key::{Ends, SeriesKey},
    pair::PairCounts,
    top::Counter,
};

/// Series and pairs of a worker.
#[derive(Clone, Debug, Default)]
pub(crate) struct SeriesCell {
    pub(crate) series: Vec<(SeriesKey, u64)>,
    pub(crate) pairs: Vec<(Ends, PairCounts)>,
}

/// Most frequent items of a worker.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopCell {
    pub(crate) names: TopList<String>,
    pub(crate) nxdomain_names: TopList<String>,
    pub(crate) clients: TopList<IpAddr>,
}

/// A published list: its counters, and the most that an item without a counter was observed.
#[derive(Clone, Debug)]
pub(crate) struct TopList<T> {
    pub(crate) counters: Vec<Counter<T>>,
    pub(crate) threshold: u64,
}

impl<T> Default for TopList<T> {
    fn default() -> Self {
        Self { counters: Vec::new(), threshold: 0 }
    }
}

/// Sets the element at `index`, which is at most the next new one.
pub(crate) fn set<T>(list: &mut Vec<T>, index: usize, value: T) {
    match list.get_mut(index) {
        Some(element) => *element = value,
        None => list.push(value),
    }
}
