//! Counts of records over time, in buckets that get wider while the time that they cover grows.

use std::{array, collections::BTreeMap};

use crate::{report::Columns, row::Row};

/// Maximum number of buckets.
const MAX_BUCKETS: usize = 4_096;

/// Outcomes of queries.
pub(super) const CATEGORIES: [&str; 5] =
    ["NOERROR", "NXDOMAIN", "SERVFAIL", "other code", "no response"];

/// Number of rows of the map of latencies: powers of two of nanoseconds.
pub(super) const OCTAVES: usize = 22;

/// The power of two of the lowest row: 8 µs.
pub(super) const FIRST_OCTAVE: u32 = 13;

/// Counts in a bucket.
#[derive(Clone, Debug, Default)]
pub(super) struct Bucket {
    pub(super) categories: [u64; CATEGORIES.len()],
    pub(super) latencies: [u64; OCTAVES],
}

/// Buckets by time.
#[derive(Debug)]
pub(super) struct Timeline {
    width_us: i64,
    buckets: BTreeMap<i64, Bucket>,
    bounds: Option<(i64, i64)>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { width_us: 1_000, buckets: BTreeMap::new(), bounds: None }
    }
}

impl Bucket {
    fn add(&mut self, other: &Self) {
        for (sum, count) in self.categories.iter_mut().zip(other.categories) {
            *sum += count;
        }
        for (sum, count) in self.latencies.iter_mut().zip(other.latencies) {
            *sum += count;
        }
    }
}

impl Timeline {
    pub(super) fn add(&mut self, columns: &Columns, row: &Row<'_, '_>) {
        let Some(time) = columns.time(row) else { return };
        let (first, last) = self.bounds.unwrap_or((time, time));
        self.bounds = Some((first.min(time), last.max(time)));
        let bucket = self.buckets.entry(time.div_euclid(self.width_us)).or_default();
        let category = match columns.rcode(row) {
            "NOERROR" => 0,
            "NXDOMAIN" => 1,
            "SERVFAIL" => 2,
            "(no response)" => 4,
            _ => 3,
        };
        bucket.categories[category] += 1;
        if let Some(latency) = columns.latency_ns(row) {
            let octave = u64::try_from(latency).unwrap_or(0).max(1).ilog2();
            let row = octave.saturating_sub(FIRST_OCTAVE) as usize;
            bucket.latencies[row.min(OCTAVES - 1)] += 1;
        }
        while self.buckets.len() > MAX_BUCKETS {
            self.widen();
        }
    }

    fn widen(&mut self) {
        self.width_us = self.width_us.saturating_mul(2);
        for (number, bucket) in std::mem::take(&mut self.buckets) {
            self.buckets.entry(number.div_euclid(2)).or_default().add(&bucket);
        }
    }

    /// Returns the first and the last time in microseconds since 1970 UTC.
    pub(super) const fn bounds(&self) -> Option<(i64, i64)> {
        self.bounds
    }

    /// Returns `COLUMNS` buckets of equal width from the first to the last time, and the width of one in
    /// microseconds.
    pub(super) fn columns<const COLUMNS: usize>(&self) -> ([Bucket; COLUMNS], i64) {
        let mut columns = array::from_fn(|_| Bucket::default());
        let (Some((first, _)), Some((last, _))) =
            (self.buckets.first_key_value(), self.buckets.last_key_value())
        else {
            return (columns, 0);
        };
        let count = i64::try_from(COLUMNS).unwrap_or(i64::MAX);
        let per_column = last.saturating_sub(*first).saturating_add(count) / count;
        for (number, bucket) in &self.buckets {
            let column = number.saturating_sub(*first) / per_column;
            if let Some(column) = usize::try_from(column).ok().and_then(|it| columns.get_mut(it)) {
                column.add(bucket);
            }
        }
        (columns, per_column.saturating_mul(self.width_us))
    }
}
