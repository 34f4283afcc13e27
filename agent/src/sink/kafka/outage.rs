//! What the log says of an outage: a line at its beginning, and one at its end. A broker that is slow
//! lets some records through while others time out; that is one outage, not one a second.

use std::time::{Duration, Instant};

use super::sender::LONGEST_PAUSE;

/// A message timeout is minutes, unless it is set: nobody wants to wait that long for the news.
const LONGEST_CALM: Duration = Duration::from_secs(10);

/// Since when nothing has failed, and what was said.
pub(super) struct Outage {
    /// So long without a failure, and it is over.
    calm: Duration,
    last_failure: Option<Instant>,
}

impl Outage {
    /// What is sent after the longest pause fails within the message timeout, if it does.
    pub(super) fn new(message_timeout: Duration) -> Self {
        let calm = message_timeout.saturating_add(LONGEST_PAUSE + Duration::from_secs(1));
        Self { calm: calm.min(LONGEST_CALM), last_failure: None }
    }

    /// Something has failed; true if that is news.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        self.last_failure.replace(now).is_none()
    }

    /// To be asked now and then while nothing has failed since records last arrived; true once, when
    /// it is over.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
        let failed = self.last_failure;
        let is_over = failed.is_some_and(|at| now.saturating_duration_since(at) >= self.calm);
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
    fn an_outage_is_told_once_however_often_something_fails_and_something_arrives() {
        let start = Instant::now();
        let mut outage = Outage::new(Duration::from_secs(1));
        assert!(!outage.is_over(start), "there was none");
        let mut told = 0;
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            told += u32::from(outage.failed(now));
            assert!(!outage.is_over(now + Duration::from_millis(900)));
        }
        assert_eq!(told, 1);
        assert!(outage.is_over(start + Duration::from_secs(66)));
        assert!(!outage.is_over(start + Duration::from_secs(67)), "that was said");
        assert!(outage.failed(start + Duration::from_secs(70)), "the next one");
    }

    #[test]
    fn the_end_is_told_within_ten_seconds_however_long_records_may_take() {
        let start = Instant::now();
        let mut outage = Outage::new(Duration::from_secs(300));
        assert!(outage.failed(start));
        assert!(outage.is_over(start + Duration::from_secs(10)));
    }
}
