//! Pauses between attempts.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::Duration,
};

/// A pause after each failure, twice as long as the one before, up to a limit.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts with `min` after the first failure.
    #[must_use]
    pub const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    /// Returns the pause after one more failure.
    pub fn fail(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.max);
        pause
    }

    /// Returns the pause after one more failure, of which half is random, so that clients that failed together
    /// do not return together. Before the random part, it is at least `at_least`, such as a server's
    /// Retry-After.
    pub fn fail_with_jitter(&mut self, at_least: Duration) -> Duration {
        let half = self.fail() / 2;
        let random = RandomState::new().build_hasher().finish() >> 32;
        half.max(at_least) + half.mul_f64(random as f64 / f64::from(u32::MAX))
    }

    /// Starts again with the shortest pause.
    pub const fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_start_again_after_a_success() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(seconds(1), seconds(5));
        assert_eq!([(); 4].map(|()| backoff.fail()), [1, 2, 4, 5].map(seconds));
        backoff.reset();
        assert_eq!([(); 2].map(|()| backoff.fail()), [1, 2].map(seconds));
    }

    #[test]
    fn half_of_a_pause_is_random_and_a_requested_pause_precedes_it() {
        let seconds = Duration::from_secs;
        let pauses = [(); 32]
            .map(|()| Backoff::new(seconds(4), seconds(4)).fail_with_jitter(Duration::ZERO));
        assert!(pauses.iter().all(|pause| (seconds(2)..=seconds(4)).contains(pause)), "{pauses:?}");
        assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{pauses:?}");
        let requested = Backoff::new(seconds(4), seconds(4)).fail_with_jitter(seconds(40));
        assert!((seconds(40)..=seconds(42)).contains(&requested), "{requested:?}");
    }
}
