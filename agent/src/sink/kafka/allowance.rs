//! How many records the sender may send: what comes in, and so many a second of what waits.

use std::time::{Duration, Instant};

/// A bucket of records that may be sent. Each record that comes in adds one, so that traffic as such
/// is never held up; time adds the rate, by which what waits is worked off.
pub(super) struct Allowance {
    /// `None`: no limit.
    records_per_s: Option<f64>,
    records: f64,
    at: Instant,
}

impl Allowance {
    /// What time adds while nothing is sent is no more than this, so that a pause is no burst later.
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

    pub(super) fn allows_one(&self) -> bool {
        self.records_per_s.is_none() || self.records >= 1.0
    }

    pub(super) fn take_one(&mut self) {
        self.records -= 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_worked_off_at_the_rate_beside_all_that_comes_in() {
        let start = Instant::now();
        let mut allowance = Allowance::new(Some(100), start);
        let (mut waiting, mut sent) = (1_000_000_u64, 0);
        // Ten seconds, during which 50 records come in every 10 ms.
        for step in 1..=1_000 {
            waiting += 50;
            allowance.add(50, waiting, start + Duration::from_millis(10 * step));
            while allowance.allows_one() {
                allowance.take_one();
                (waiting, sent) = (waiting - 1, sent + 1);
            }
        }
        assert!((50_999..=51_000).contains(&sent), "{sent}");
    }

    #[test]
    fn a_pause_is_no_burst_later() {
        let start = Instant::now();
        let mut allowance = Allowance::new(Some(100), start);
        allowance.add(0, 1_000_000, start + Duration::from_secs(3_600));
        let sent = (0..).take_while(|_| {
            let allows = allowance.allows_one();
            allowance.take_one();
            allows
        });
        assert_eq!(sent.count(), 20);
    }

    #[test]
    fn without_a_limit_there_is_none() {
        let allowance = Allowance::new(None, Instant::now());
        assert!(allowance.allows_one());
    }
}
