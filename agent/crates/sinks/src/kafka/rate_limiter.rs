//! The rate at which the spool is drained: that of new records, plus `replay_records_per_s`.

use std::time::{Duration, Instant};

/// A token bucket. Each new record adds a token, so that new traffic is never delayed; time adds the
/// configured rate, for those that wait.
pub(super) struct RateLimiter {
    /// `None`: no limit.
    records_per_s: Option<f64>,
    records: f64,
    at: Instant,
}

impl RateLimiter {
    /// The longest pause that adds tokens, so that no burst follows.
    const LONGEST_PAUSE: Duration = Duration::from_millis(200);

    pub(super) fn new(records_per_s: Option<u32>, now: Instant) -> Self {
        Self { records_per_s: records_per_s.map(f64::from), records: 0.0, at: now }
    }

    /// Adds tokens for new records and for the time until `now`; at most as many as records wait.
    pub(super) fn add(&mut self, came_in: usize, waiting: u64, now: Instant) {
        let Some(records_per_s) = self.records_per_s else { return };
        let passed = now.saturating_duration_since(self.at).min(Self::LONGEST_PAUSE);
        self.at = now;
        self.records += came_in as f64 + passed.as_secs_f64() * records_per_s;
        self.records = self.records.min(waiting as f64);
    }

    /// Returns the number of records that may be sent now.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    pub(super) fn allowed(&self) -> usize {
        if self.records_per_s.is_none() { usize::MAX } else { self.records as usize }
    }

    /// Removes the tokens of records that were sent.
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
