//! Pauses between attempts.

use std::time::Duration;

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
}
