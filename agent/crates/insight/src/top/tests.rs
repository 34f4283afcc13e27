//! The lists against exact counts.

#![allow(clippy::cast_possible_truncation, reason = "ranks are below 2^24")]

use std::collections::HashMap;

use super::*;

/// A stream of names by Zipf's law with exponent 1: the name of rank r comes about 1/r as often as the
/// first. By inverting the harmonic numbers, with a generator of fixed seed.
struct Zipf {
    names: f64,
    state: u64,
}

impl Zipf {
    fn new(names: u32) -> Self {
        Self { names: names.into(), state: 0x9e37_79b9_7f4a_7c15 }
    }

    fn rank(&mut self) -> u64 {
        // xorshift64* (Vigna 2016).
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let drawn = (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64;
        self.names.powf(drawn / 2f64.powi(53)) as u64
    }
}

/// Number of names that can be drawn.
const NAMES: u32 = 10_000_000;

/// Compares a list of `n` observations with exact counts.
fn compare(n: u64) {
    let mut zipf = Zipf::new(NAMES);
    let mut sketch = SpaceSaving::<u64>::new(CAPACITY);
    let mut exact = vec![0_u64; NAMES as usize + 1];
    for _ in 0..n {
        let rank = zipf.rank();
        sketch.count(&rank);
        exact[rank as usize] += 1;
    }
    let bound = n / CAPACITY as u64;
    let seen = exact.iter().filter(|truth| **truth > 0).count();
    assert!(seen > 100 * CAPACITY, "{seen} names need no list of the most frequent");
    assert!(sketch.threshold() <= bound, "{} > {bound}", sketch.threshold());
    let counters = sketch.counters();
    assert_eq!(counters.iter().map(|it| it.count).sum::<u64>(), n, "each observation counts once");
    for Counter { item, count, error } in counters {
        let truth = exact[*item as usize];
        assert!((truth..=truth + bound).contains(count), "{item}: {count}, truly {truth}");
        assert!(*error <= bound && count - error <= truth, "{item}: {count}, {error}");
    }
    let mut found = 0;
    for (item, truth) in (0..).zip(&exact).filter(|(_, truth)| **truth > bound) {
        found += 1;
        assert!(counters.iter().any(|it| it.item == item), "{item}, {truth} times, is missing");
    }
    assert!(found > 5, "{found} frequent names prove nothing");
}

#[test]
fn counts_are_within_their_error_of_a_million_names_by_zipf() {
    compare(1_000_000);
}

/// `cargo test -p tap53-insight --lib -- --ignored` runs it.
#[test]
#[ignore = "takes half a minute in a debug build"]
fn counts_are_within_their_error_of_ten_million_names_by_zipf() {
    compare(10_000_000);
}

#[test]
fn few_items_are_counted_exactly() {
    let mut sketch = SpaceSaving::<str>::new(3);
    for name in ["a", "b", "a", "c", "a"] {
        sketch.count(name);
    }
    let mut counters = sketch.counters().to_vec();
    counters.sort_by_key(|it| it.item.clone());
    let counter = |item: &str, count| Counter { item: item.to_owned(), count, error: 0 };
    assert_eq!(counters, [counter("a", 3), counter("b", 1), counter("c", 1)]);
}

#[test]
fn a_new_item_takes_the_smallest_counter_and_its_count_as_error() {
    let mut sketch = SpaceSaving::<str>::new(2);
    for name in ["a", "a", "a", "b", "b", "c"] {
        sketch.count(name);
    }
    let counter = |item: &str| sketch.counters().iter().find(|it| it.item == item).cloned();
    assert_eq!(counter("b"), None);
    assert_eq!(counter("c"), Some(Counter { item: "c".to_owned(), count: 3, error: 2 }));
    assert_eq!(counter("a"), Some(Counter { item: "a".to_owned(), count: 3, error: 0 }));
}

#[test]
fn merged_lists_keep_the_bound_of_all_observations() {
    const WORKERS: u64 = 4;
    let n = 400_000;
    let mut zipf = Zipf::new(1_000_000);
    let mut sketches: Vec<_> = (0..WORKERS).map(|_| SpaceSaving::<u64>::new(CAPACITY)).collect();
    let mut exact = HashMap::<u64, u64>::new();
    for number in 0..n {
        let rank = zipf.rank();
        // Workers see different numbers of observations.
        sketches[(number % 7).min(WORKERS - 1) as usize].count(&rank);
        *exact.entry(rank).or_default() += 1;
    }
    let lists: Vec<_> =
        sketches.iter().map(|it| (it.counters().to_vec(), it.threshold())).collect();
    let bound = n / CAPACITY as u64;
    for Counter { item, count, error } in merged(&lists) {
        let truth = exact[&item];
        assert!((truth..=truth + bound).contains(&count), "{item}: {count}, truly {truth}");
        assert!(error <= bound && count - error <= truth, "{item}: {count}, {error}");
    }
}
