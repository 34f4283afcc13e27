//! Histograms of latencies with fixed buckets.

/// Upper bounds of the buckets in nanoseconds: from a cache on the same node, over servers of the cluster
/// and of the Internet, to the retries of usual clients, after 5 s.
pub const BOUNDS_NS: &[u64; 12] = &[
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
    5_000_000_000,
];

/// Latencies by size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// Observations for each bound, and last those above the largest bound.
    pub buckets: [u64; BOUNDS_NS.len() + 1],
    /// Sum of the observations in nanoseconds.
    pub sum_ns: u64,
}

impl Latencies {
    /// Counts one latency.
    #[inline]
    pub(crate) fn observe(&mut self, ns: u64) {
        let bucket = BOUNDS_NS.iter().filter(|bound| **bound < ns).count();
        self.buckets[bucket] += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    /// Returns the number of observations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}
