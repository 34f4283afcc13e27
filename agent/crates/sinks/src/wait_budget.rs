//! Limits how long workers wait for a sink that has no room.
//!
//! While a worker waits for one sink, it reads nothing from its ring for the others. So workers wait
//! one at a time, for at most [`WAIT`], and at most a tenth of the time.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The longest wait of a worker for room.
pub(super) const WAIT: Duration = Duration::from_millis(200);

/// The pause after a wait, as a multiple of its duration.
const PAUSE: u32 = 9;

/// The budget that all workers share for one sink.
#[derive(Debug, Default)]
pub(super) struct WaitBudget(Mutex<Option<Instant>>);

impl WaitBudget {
    /// Returns the time until when a worker may wait for room from `now` on; `now` if it may not.
    pub(super) fn give_up_at(&self, now: Instant) -> Instant {
        match *self.0.lock() {
            Some(no_wait_until) if now < no_wait_until => now,
            _ => now + WAIT,
        }
    }

    /// Notes that a worker waits from `now` on: others do not wait meanwhile.
    pub(super) fn begin(&self, now: Instant) {
        *self.0.lock() = Some(now + WAIT);
    }

    /// Notes the end of a worker's wait.
    pub(super) fn end(&self, began: Instant, ended: Instant) {
        *self.0.lock() = Some(ended + ended.saturating_duration_since(began) * PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_wait_a_tenth_of_the_time_and_one_at_a_time() {
        let (budget, start) = (WaitBudget::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(budget.give_up_at(at(0)), at(200));
        budget.begin(at(0));
        assert_eq!(budget.give_up_at(at(1)), at(1), "another one waits");
        budget.end(at(0), at(100));
        assert_eq!(budget.give_up_at(at(999)), at(999));
        assert_eq!(budget.give_up_at(at(1_000)), at(1_200));
    }
}
