//! The rate at which the spool is drained: what comes in, and so many records a second of what waits.

use std::time::{Duration, Instant};

/// A token bucket of records that may be sent. Each record that comes in adds one, so that traffic as such
/// is never held up; time adds the rate, by which what waits is worked off.
pub(super) struct RateLimiter {
    /// `None`: no limit.
    records_per_s: Option<f64>,
    records: f64,
    at: Instant,
}

impl RateLimiter {
    /// The longest pause that adds records, so that it is no burst later.
    const LONGEST_PAUSE: Duration = Duration::from_millis(200);

    pub(super) fn new(records_per_s: Option<u32>, now: Instant) -> Self {
        Self { records_per_s: records_per_s.map(f64::from), records: 0.0, at: now }
    }

    /// Adds records that came in, and the time until `now`.
    pub(super) fn add(&mut self, came_in: usize, waiting: u64, now: Instant) {
        let Some(records_per_s) = self.records_per_s else { return };
        let passed = now.saturating_duration_since(self.at).min(Self::LONGEST_PAUSE);
        self.at = now;
        // Counts are far below 2^52.
        self.records += came_in as f64 + passed.as_secs_f64() * records_per_s;
        // More than waits cannot be sent; and what is saved up beyond it would be a burst later.
        self.records = self.records.min(waiting as f64);
    }

    /// Records that may be sent now.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it saturates: less than none is none, and more than fits is any number"
    )]
    pub(super) fn allowed(&self) -> usize {
        if self.records_per_s.is_none() { usize::MAX } else { self.records as usize }
    }

    /// Takes note of records that were sent.
    pub(super) fn take(&mut self, records: usize) {
        self.records -= records as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_worked_off_at_the_rate_beside_all_that_comes_in() {
        let start = Instant::now();
        let mut limiter = RateLimiter::new(Some(100), start);
        let (mut waiting, mut sent) = (1_000_000_u64, 0);
        // Ten seconds, during which 50 records come in every 10 ms.
        for step in 1..=1_000 {
            waiting += 50;
            limiter.add(50, waiting, start + Duration::from_millis(10 * step));
            let allowed = limiter.allowed();
            limiter.take(allowed);
            (waiting, sent) = (waiting - allowed as u64, sent + allowed);
        }
        assert!((50_999..=51_000).contains(&sent), "{sent}");
    }

    #[test]
    fn a_pause_is_no_burst_later() {
        let start = Instant::now();
        let mut limiter = RateLimiter::new(Some(100), start);
        limiter.add(0, 1_000_000, start + Duration::from_secs(3_600));
        assert_eq!(limiter.allowed(), 20);
        limiter.take(21);
        assert_eq!(limiter.allowed(), 0);
    }

    #[test]
    fn without_a_limit_there_is_none() {
        let limiter = RateLimiter::new(None, Instant::now());
        assert_eq!(limiter.allowed(), usize::MAX);
    }
}
