//! Counts durations in buckets, as a Prometheus histogram does.
//!
//! An observation costs one or two stores per batch, not per record: durations per record go into a
//! [`Tally`] that a thread owns, and its buckets are added to the histogram at the end of the
//! batch.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Bounds for durations within the agent: from a batch of a few packets (10 µs) to a disk or a
/// reader that blocks a worker (10 s, where the liveness probe is about to fail). Steps of 1, 2.5
/// and 5 give a quantile to a factor of 2.5 at worst, like the default buckets of Prometheus'
/// clients.
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

/// Bounds for durations to the broker and back: from a replica in the same room (1 ms, below the
/// resolution of some of the sources) to librdkafka's default timeout of a message (300 s).
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

/// Maximum number of buckets of a histogram, including the one without an upper bound.
const BUCKETS: usize = 20;
const _: () = assert!(WITHIN.len() < BUCKETS && ABROAD.len() < BUCKETS);

/// Counts durations by size; threads share it.
#[derive(Debug)]
pub struct Histogram {
    /// Upper bounds in nanoseconds, smallest first.
    bounds_ns: &'static [u64],
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl Histogram {
    /// Creates an empty histogram with the upper bounds [`WITHIN`] or [`ABROAD`].
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

    /// Adds the observations of one thread, and empties its tally.
    pub fn take(&self, tally: &mut Tally) {
        for (bucket, count) in tally.buckets.iter_mut().enumerate() {
            if *count > 0 {
                self.add(bucket, std::mem::take(count), 0);
            }
        }
        self.add(0, 0, std::mem::take(&mut tally.sum_ns));
    }

    fn add(&self, bucket: usize, count: u64, ns: u64) {
        // Relaxed: a reader may see a duration's bucket before its share of the sum, which the next
        // reading includes.
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(count, Ordering::Relaxed);
        }
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// Returns the current state.
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

/// Collects durations that one thread observes, to be added to a histogram with the same bounds.
#[derive(Debug)]
pub struct Tally {
    bounds_ns: &'static [u64],
    buckets: [u64; BUCKETS],
    sum_ns: u64,
    /// Bucket of the latest observation. The next one of a batch usually belongs to it too.
    latest: usize,
}

impl Tally {
    /// Creates an empty tally with upper bounds.
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

/// The state of a histogram at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Upper bounds of the buckets in nanoseconds.
    pub bounds_ns: &'static [u64],
    /// Observations per bound, and last those above the largest bound.
    pub counts: Vec<u64>,
    /// Sum of the observations in nanoseconds.
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
