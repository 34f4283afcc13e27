//! An outage of the broker, as the log has it: a line at its beginning and one at its end. A slow broker
//! lets some records through while others time out; that is one outage, not one a second.

use std::time::{Duration, Instant};

use super::sender::MAX_BACKOFF;

/// A message timeout is minutes, unless it is set: too long for an operator to wait for the news.
const MAX_QUIET_PERIOD: Duration = Duration::from_secs(10);

/// When something last failed, while there is an outage.
pub(super) struct Outage {
    /// So long without a failure, and it is over.
    quiet_period: Duration,
    last_failure: Option<Instant>,
}

impl Outage {
    /// A record that is sent after the longest pause fails within the message timeout, if it does.
    pub(super) fn new(message_timeout: Duration) -> Self {
        let quiet_period = message_timeout.saturating_add(MAX_BACKOFF + Duration::from_secs(1));
        Self { quiet_period: quiet_period.min(MAX_QUIET_PERIOD), last_failure: None }
    }

    /// Notes a failure; true if an outage begins with it.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        self.last_failure.replace(now).is_none()
    }

    /// To be called now and then while nothing has failed since records last arrived; true once, when
    /// the outage is over.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
        let failed = self.last_failure;
        let is_over =
            failed.is_some_and(|at| now.saturating_duration_since(at) >= self.quiet_period);
        if is_over {
            self.last_failure = None;
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_logged_once_however_often_something_fails_and_something_arrives() {
        let start = Instant::now();
        let mut outage = Outage::new(Duration::from_secs(1));
        assert!(!outage.is_over(start), "there was none");
        let mut logged = 0;
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            logged += u32::from(outage.failed(now));
            assert!(!outage.is_over(now + Duration::from_millis(900)));
        }
        assert_eq!(logged, 1);
        assert!(outage.is_over(start + Duration::from_secs(66)));
        assert!(!outage.is_over(start + Duration::from_secs(67)), "that was said");
        assert!(outage.failed(start + Duration::from_secs(70)), "the next one");
    }

    #[test]
    fn the_end_is_logged_within_ten_seconds_however_long_records_may_take() {
        let start = Instant::now();
        let mut outage = Outage::new(Duration::from_secs(300));
        assert!(outage.failed(start));
        assert!(outage.is_over(start + Duration::from_secs(10)));
    }
}
