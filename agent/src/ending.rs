//! How long the end of a thread that works is waited for.
//!
//! A thread that is slow is not lost: it is waited for beyond the flush deadline for as long as it
//! makes progress, up to [`LONGEST`]. Only one that stands still past the deadline, because a pipe
//! that nobody reads or a disk that hangs blocks it, is abandoned. The ledger then counts what it
//! holds as lost, with the reason `abandoned`.

use std::time::{Duration, Instant};

/// How often an ending thread is looked at: a thread cannot be joined with a deadline.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// A thread that makes no progress for so long, past its deadline, is stuck. Work on one packet is
/// bounded far below this; together with what sinks get afterwards it fits into the thirty seconds
/// that the chart adds to the flush timeout, after which Kubernetes kills the process.
const STALL_TIMEOUT: Duration = Duration::from_secs(2);

/// How long threads that waited for a stuck one get to begin with their own end without it. Once they
/// have made progress, [`STALL_TIMEOUT`] holds for them as before.
const RELEASE_TIMEOUT: Duration = Duration::from_millis(500);

/// The longest wait past the deadline, whatever progress there is. Where something else ends the
/// process, such as Kubernetes after `terminationGracePeriodSeconds`, that comes first.
pub(crate) const LONGEST: Duration = Duration::from_secs(600);

/// What to do about threads that have not ended yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Wait and look again.
    Wait,
    /// The same; the deadline has just passed, which is worth a line in the log.
    PastDeadline,
    /// Nothing moves: let those go on that only wait for the others, then look again.
    Release,
    /// Leave them behind.
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

    /// Judges by what is visible of the threads' progress at `now`.
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
            (false, _) => (STALL_TIMEOUT, LONGEST),
            (true, false) => (RELEASE_TIMEOUT, LONGEST + RELEASE_TIMEOUT),
            (true, true) => (STALL_TIMEOUT, LONGEST + RELEASE_TIMEOUT),
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
    fn a_thread_that_stands_still_is_abandoned_at_the_deadline() {
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
    fn threads_that_go_on_once_released_are_waited_for_too() {
        // Two that wait for a third.
        let after_release = |ms: u64| ms.saturating_sub(10_000).min(3_000) / 100;
        let expected = [(Verdict::Release, 10_000), (Verdict::Abandon, 15_000)];
        assert_eq!(verdicts(after_release), expected);
    }

    #[test]
    fn a_thread_that_goes_on_once_released_may_take_as_long_over_a_step_as_before() {
        // The first step soon after the release, then one every 1.5 seconds.
        let in_steps = |ms: u64| ms.saturating_sub(8_900).min(60_000) / 1_500;
        let expected = [(Verdict::Release, 10_000), (Verdict::Abandon, 70_900)];
        assert_eq!(verdicts(in_steps), expected);
    }

    #[test]
    fn even_a_released_thread_that_makes_progress_has_a_longest_wait() {
        let end_ms = 10_500 + u64::try_from(LONGEST.as_millis()).unwrap();
        let expected = [(Verdict::Release, 10_000), (Verdict::Abandon, end_ms)];
        assert_eq!(verdicts(|ms| ms.saturating_sub(10_000)), expected);
    }

    #[test]
    fn even_a_thread_that_makes_progress_has_a_longest_wait() {
        let longest_ms = 10_000 + u64::try_from(LONGEST.as_millis()).unwrap();
        let expected = [
            (Verdict::PastDeadline, 10_000),
            (Verdict::Release, longest_ms),
            (Verdict::Abandon, longest_ms + 500),
        ];
        assert_eq!(verdicts(|ms| ms), expected);
    }
}
