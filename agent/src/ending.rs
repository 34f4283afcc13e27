//! Decides how long to wait for a worker thread to end.
//!
//! A slow thread is waited for beyond the flush deadline for as long as it makes progress, up to
//! [`MAX_WAIT`]. Only a thread that makes no progress after the deadline, because a pipe that nobody
//! reads or a hanging disk blocks it, is abandoned. The ledger then counts its records as lost, with
//! the reason `abandoned`.

use std::time::{Duration, Instant};

/// Interval at which an ending thread is checked: a thread cannot be joined with a deadline.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Time without progress after which a thread past its deadline is stuck. Work on one packet takes far
/// less. Together with the sinks' minimum flush timeout it fits into the thirty seconds that the chart
/// adds to the flush timeout, after which Kubernetes kills the process.
const STALL_TIMEOUT: Duration = Duration::from_secs(2);

/// Time for threads that waited for a stuck one to make progress without it. After that,
/// [`STALL_TIMEOUT`] holds for them as before.
const RELEASE_TIMEOUT: Duration = Duration::from_millis(500);

/// Maximum wait after the deadline, whatever progress there is. Kubernetes ends the process earlier,
/// after `terminationGracePeriodSeconds`.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(600);

/// The action for threads that have not ended yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Wait and check again.
    Wait,
    /// Wait and check again; the deadline has just passed, which the caller logs.
    PastDeadline,
    /// No thread makes progress: release those that only wait for others, and check again.
    Release,
    /// Give the threads up.
    Abandon,
}

/// The wait for threads whose progress is visible as a `P` that changes.
pub(crate) struct EndWait<P> {
    deadline: Instant,
    progress: Option<P>,
    progressed_at: Instant,
    is_past_deadline: bool,
    is_released: bool,
    /// True once there was progress after the release.
    has_resumed: bool,
}

impl<P: PartialEq> EndWait<P> {
    pub(crate) const fn new(now: Instant, deadline: Instant) -> Self {
        Self {
            deadline,
            progress: None,
            progressed_at: now,
            is_past_deadline: false,
            is_released: false,
            has_resumed: false,
        }
    }

    /// Returns the action at `now`, given the threads' progress.
    pub(crate) fn look(&mut self, now: Instant, progress: P) -> Verdict {
        if self.progress.as_ref() != Some(&progress) {
            self.progress = Some(progress);
            self.progressed_at = now;
            self.has_resumed = self.is_released;
        }
        if now < self.deadline {
            return Verdict::Wait;
        }
        let (timeout, longest) = match (self.is_released, self.has_resumed) {
            (false, _) => (STALL_TIMEOUT, MAX_WAIT),
            (true, false) => (RELEASE_TIMEOUT, MAX_WAIT + RELEASE_TIMEOUT),
            (true, true) => (STALL_TIMEOUT, MAX_WAIT + RELEASE_TIMEOUT),
        };
        let is_stuck = now.saturating_duration_since(self.progressed_at) >= timeout
            || now.saturating_duration_since(self.deadline) >= longest;
        if is_stuck && self.is_released {
            return Verdict::Abandon;
        }
        if is_stuck {
            (self.is_released, self.is_past_deadline) = (true, true);
            self.progressed_at = now;
            return Verdict::Release;
        }
        if !std::mem::replace(&mut self.is_past_deadline, true) {
            return Verdict::PastDeadline;
        }
        Verdict::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    /// The verdicts other than `Wait`, with the second that each came in, of threads whose progress
    /// at each millisecond is given.
    fn verdicts(progress: impl Fn(u64) -> u64) -> Vec<(Verdict, u64)> {
        let start = Instant::now();
        let mut wait = EndWait::new(start, start + DEADLINE);
        let mut verdicts = Vec::new();
        for ms in 0..2_000_000 {
            match wait.look(start + Duration::from_millis(ms), progress(ms)) {
                Verdict::Wait => {}
                verdict => verdicts.push((verdict, ms)),
            }
            if verdicts.last().is_some_and(|(verdict, _)| *verdict == Verdict::Abandon) {
                break;
            }
        }
        verdicts
    }

    #[test]
    fn a_stuck_thread_is_abandoned_at_the_deadline() {
        let expected = [(Verdict::Release, 10_000), (Verdict::Abandon, 10_500)];
        assert_eq!(verdicts(|_| 0), expected);
    }

    #[test]
    fn a_thread_that_makes_progress_is_waited_for_beyond_the_deadline() {
        let until_60_s = |ms: u64| ms.min(60_000) / 1_500;
        let expected = [
            (Verdict::PastDeadline, 10_000),
            (Verdict::Release, 62_000),
            (Verdict::Abandon, 62_500),
        ];
        assert_eq!(verdicts(until_60_s), expected);
    }

    #[test]
    fn threads_that_resume_once_released_are_waited_for_too() {
        // Two that wait for a third.
        let after_release = |ms: u64| ms.saturating_sub(10_000).min(3_000) / 100;
        let expected = [(Verdict::Release, 10_000), (Verdict::Abandon, 15_000)];
        assert_eq!(verdicts(after_release), expected);
    }

    #[test]
    fn a_thread_that_resumes_once_released_has_the_same_stall_timeout_as_before() {
        // The first step soon after the release, then one every 1.5 seconds.
        let in_steps = |ms: u64| ms.saturating_sub(8_900).min(60_000) / 1_500;
        let expected = [(Verdict::Release, 10_000), (Verdict::Abandon, 70_900)];
        assert_eq!(verdicts(in_steps), expected);
    }

    #[test]
    fn even_a_released_thread_that_makes_progress_has_a_maximum_wait() {
        let end_ms = 10_500 + u64::try_from(MAX_WAIT.as_millis()).unwrap();
        let expected = [(Verdict::Release, 10_000), (Verdict::Abandon, end_ms)];
        assert_eq!(verdicts(|ms| ms.saturating_sub(10_000)), expected);
    }

    #[test]
    fn even_a_thread_that_makes_progress_has_a_maximum_wait() {
        let longest_ms = 10_000 + u64::try_from(MAX_WAIT.as_millis()).unwrap();
        let expected = [
            (Verdict::PastDeadline, 10_000),
            (Verdict::Release, longest_ms),
            (Verdict::Abandon, longest_ms + 500),
        ];
        assert_eq!(verdicts(|ms| ms), expected);
    }
}
