//! How long things take, counted in buckets: a histogram as Prometheus has it.
//!
//! Observing is a store or two for each batch, not for each record: what is measured of each record
//! goes into a [`Tally`] of the thread's own, whose buckets are added to the histogram at the end of
//! the batch.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Within the agent: from a batch of a few packets (10 µs) to a disk or a reader that holds a
/// worker up (10 s, where the liveness probe is about to end it). Steps of 1, 2.5 and 5, so that a
/// quantile is known to a factor of 2.5 at worst, as with the buckets of Prometheus' own clients.
pub const WITHIN: &[u64] = &[
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// To the broker and back: from a replica in the same room (1 ms, below the resolution of some of
/// what is measured) to what librdkafka waits for a message at most by default (300 s).
pub const ABROAD: &[u64] = &[
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
    120_000_000_000,
    300_000_000_000,
];

/// Buckets of the histogram with the most of them, the one without a bound included.
const BUCKETS: usize = 20;
const _: () = assert!(WITHIN.len() < BUCKETS && ABROAD.len() < BUCKETS);

/// Durations by size, shared by threads.
#[derive(Debug)]
pub struct Histogram {
    /// Upper bounds, nanoseconds, smallest first.
    bounds_ns: &'static [u64],
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl Histogram {
    /// An empty one with such upper bounds: [`WITHIN`] or [`ABROAD`].
    #[must_use]
    pub fn new(bounds_ns: &'static [u64]) -> Self {
        Self { bounds_ns, buckets: Default::default(), sum_ns: AtomicU64::new(0) }
    }

    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = self.bounds_ns.partition_point(|bound| *bound < ns);
        self.add(bucket, 1, ns);
    }

    /// Counts what a thread has observed on its own, and empties its tally.
    pub fn take(&self, tally: &mut Tally) {
        for (bucket, count) in tally.buckets.iter_mut().enumerate() {
            if *count > 0 {
                self.add(bucket, std::mem::take(count), 0);
            }
        }
        self.add(0, 0, std::mem::take(&mut tally.sum_ns));
    }

    fn add(&self, bucket: usize, count: u64, ns: u64) {
        // Relaxed: lone numbers. A reading may have a duration's bucket and not yet its share of
        // the sum, which the next one has.
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(count, Ordering::Relaxed);
        }
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// As of now.
    pub fn read(&self) -> Snapshot {
        let bounds = self.bounds_ns.len();
        let counts = self.buckets[..=bounds].iter().map(|bucket| bucket.load(Ordering::Relaxed));
        Snapshot {
            bounds_ns: self.bounds_ns,
            counts: counts.collect(),
            sum_ns: self.sum_ns.load(Ordering::Relaxed),
        }
    }
}

/// Durations that one thread has observed, on their way to a histogram with the same bounds.
#[derive(Debug)]
pub struct Tally {
    bounds_ns: &'static [u64],
    buckets: [u64; BUCKETS],
    sum_ns: u64,
    /// Where the latest one went. What follows in a batch is much like it.
    latest: usize,
}

impl Tally {
    /// An empty one with such upper bounds.
    #[must_use]
    pub const fn new(bounds_ns: &'static [u64]) -> Self {
        Self { bounds_ns, buckets: [0; BUCKETS], sum_ns: 0, latest: 0 }
    }

    /// Counts one duration.
    #[inline]
    pub fn observe(&mut self, ns: u64) {
        let above = |bucket: usize| self.bounds_ns.get(bucket).is_none_or(|bound| ns <= *bound);
        let below = |bucket: usize| bucket == 0 || ns > self.bounds_ns[bucket - 1];
        if !(above(self.latest) && below(self.latest)) {
            self.latest = self.bounds_ns.partition_point(|bound| *bound < ns);
        }
        if let Some(bucket) = self.buckets.get_mut(self.latest) {
            *bucket += 1;
        }
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }
}

/// A histogram at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Upper bounds of the buckets, nanoseconds.
    pub bounds_ns: &'static [u64],
    /// One for each bound, and one for what is above the last.
    pub counts: Vec<u64>,
    /// Sum of what was observed, nanoseconds.
    pub sum_ns: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_bucket_of_the_first_bound_that_is_not_smaller() {
        for bounds in [WITHIN, ABROAD] {
            let (one, other) = (Histogram::new(bounds), Histogram::new(bounds));
            let mut tally = Tally::new(bounds);
            let mut durations = vec![0, 1, u64::from(u32::MAX), 1 << 40];
            for bound in bounds {
                durations.extend([bound - 1, *bound, bound + 1]);
            }
            durations.extend(durations.clone().into_iter().rev());
            for ns in &durations {
                one.observe(Duration::from_nanos(*ns));
                tally.observe(*ns);
            }
            other.take(&mut tally);
            let read = one.read();
            assert_eq!(read, other.read(), "both ways of counting agree");
            for (bucket, count) in read.counts.iter().enumerate() {
                let upper = bounds.get(bucket).copied().unwrap_or(u64::MAX);
                let lower = bucket.checked_sub(1).map(|before| bounds[before]);
                let is_in = |ns: &&u64| **ns <= upper && lower.is_none_or(|lower| **ns > lower);
                assert_eq!(*count, durations.iter().filter(is_in).count() as u64, "{bucket}");
            }
            assert_eq!(read.sum_ns, durations.iter().sum::<u64>());
            other.take(&mut tally);
            assert_eq!(read, other.read(), "what was taken is not taken again");
        }
    }
}
