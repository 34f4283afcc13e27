//! Outages of the broker, which the log reports at their begin and end. With a slow broker, some records
//! time out and others arrive: that is one outage.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::sender::MAX_BACKOFF;

/// The message timeout may be minutes, which is too long for an operator to wait.
const MAX_QUIET_PERIOD: Duration = Duration::from_secs(10);

pub(super) struct Outage {
    /// The outage is over after this long without a failure.
    quiet_period: Duration,
    /// `None` if there is no outage.
    last_failure: Option<Instant>,
}

impl Outage {
    /// A record that is sent after the longest pause fails within `message_timeout`, if it fails.
    pub(super) fn new(message_timeout: Duration) -> Self {
        let quiet_period = message_timeout.saturating_add(MAX_BACKOFF + Duration::from_secs(1));
        Self { quiet_period: quiet_period.min(MAX_QUIET_PERIOD), last_failure: None }
    }

    /// Notes a failure; true if an outage begins with it.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        self.last_failure.replace(now).is_none()
    }

    /// True once, when the outage is over. To be called regularly while nothing fails.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
        let is_old = |at: &mut Instant| now.saturating_duration_since(*at) >= self.quiet_period;
        self.last_failure.take_if(is_old).is_some()
    }
}

/// The reason of an outage while it lasts. The data path only reads an atomic.
#[derive(Default)]
pub(super) struct OngoingOutage {
    is_ongoing: AtomicBool,
    /// The reason, and when it began.
    first: Mutex<(String, Option<Instant>)>,
}

impl OngoingOutage {
    /// Keeps the reason, unless there is one.
    pub(super) fn begin(&self, reason: impl FnOnce() -> String) {
        if self.is_ongoing.load(Ordering::Relaxed) {
            return;
        }
        *self.first.lock() = (reason(), Some(Instant::now()));
        self.is_ongoing.store(true, Ordering::Release);
    }

    pub(super) fn end(&self) {
        if self.is_ongoing.load(Ordering::Relaxed) {
            self.is_ongoing.store(false, Ordering::Relaxed);
        }
    }

    pub(super) fn read(&self) -> Option<String> {
        self.is_ongoing.load(Ordering::Acquire).then(|| self.first.lock().0.clone())
    }

    /// Returns when it began.
    pub(super) fn began(&self) -> Option<Instant> {
        let is_ongoing = self.is_ongoing.load(Ordering::Acquire);
        self.first.lock().1.filter(|_| is_ongoing)
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
    fn an_ongoing_outage_keeps_its_first_reason_until_it_ends() {
        let outage = OngoingOutage::default();
        assert_eq!(outage.read(), None);
        outage.begin(|| "refused".to_owned());
        outage.begin(|| unreachable!("it has a reason"));
        assert_eq!(outage.read().as_deref(), Some("refused"));
        assert!(outage.began().is_some());
        outage.end();
        outage.end();
        assert_eq!((outage.read(), outage.began()), (None, None));
        outage.begin(|| "timed out".to_owned());
        assert_eq!(outage.read().as_deref(), Some("timed out"));
    }

    #[test]
    fn the_end_is_logged_within_ten_seconds_however_long_records_may_take() {
        let start = Instant::now();
        let mut outage = Outage::new(Duration::from_secs(300));
        assert!(outage.failed(start));
        assert!(outage.is_over(start + Duration::from_secs(10)));
    }
}
