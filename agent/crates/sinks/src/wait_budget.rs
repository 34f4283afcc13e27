//! Limits how long workers wait for a sink that has no room.
//!
//! A worker that waits for one sink takes nothing out of its ring for the others meanwhile. So workers
//! wait a tenth of the time at most, one at a time, and [`WAIT`] at a stretch.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The longest wait of a worker for room.
pub(super) const WAIT: Duration = Duration::from_millis(200);

/// Times a wait that pass before the next one.
const PAUSE: u32 = 9;

/// The budget that all workers share for one sink.
#[derive(Debug, Default)]
pub(super) struct WaitBudget(Mutex<Option<Instant>>);

impl WaitBudget {
    /// Until when a worker that comes at `now` may wait for room; `now` where it may not.
    pub(super) fn give_up_at(&self, now: Instant) -> Instant {
        match *self.0.lock() {
            Some(no_wait_until) if now < no_wait_until => now,
            _ => now + WAIT,
        }
    }

    /// Takes note of a worker that waits from `now` on: others do not wait beside it.
    pub(super) fn begin(&self, now: Instant) {
        *self.0.lock() = Some(now + WAIT);
    }

    /// Takes note that a worker has waited.
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
