//! Drains a ring in batches.
//!
//! The kernel programs submit without a wake-up, and force one each time the bytes written to a
//! ring pass a multiple of a threshold (a wake-up per item costs more than ten times the packet).
//! So a worker polls by itself: often under load, seldom when idle, and at once when the threshold
//! wakes it.
//!
//! A worker that has found its ring empty for a whole interval, and has nothing pending, sleeps. It
//! arms the [`Doorbell`] first, so that the kernel wakes it with the next item. [`Waker`] wakes it
//! for everything else.

mod depth;
mod doorbell;
mod waker;

use std::{
    os::fd::AsFd,
    sync::atomic::{Ordering, fence},
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

pub use depth::Depth;
pub use doorbell::{Doorbell, Doorbells};
pub use waker::Waker;

/// Maximum number of items in a batch, whose records are delivered before the next one.
pub const BATCH: usize = 1_024;

/// Shortest and longest poll interval. A worker that wakes every millisecond costs about 1 % of a
/// core; 20 ms is the maximum delay of an item on an idle interface.
const POLL_INTERVALS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// Maximum sleep of a worker that the kernel will wake. A quarter of the shortest heartbeat timeout
/// that can be configured.
pub const SLEEP: Duration = Duration::from_millis(250);

/// Minimum number of items in a batch that sets the poll interval to the shortest.
const BUSY_ITEMS: usize = 64;

/// A ring and its poll interval.
pub struct Drain {
    ring: RingBuf<MapData>,
    doorbell: Doorbell,
    waker: Waker,
    pace: Pace,
}

/// Computes the poll interval of a ring.
#[derive(Debug)]
struct Pace {
    wait: Duration,
    /// Number of consecutive polls that found nothing.
    empty_polls: u32,
}

impl Drain {
    /// Creates a drain from a ring and the objects that wake its worker.
    #[must_use]
    pub const fn new(ring: RingBuf<MapData>, doorbell: Doorbell, waker: Waker) -> Self {
        Self { ring, doorbell, waker, pace: Pace { wait: POLL_INTERVALS.0, empty_polls: 0 } }
    }

    /// Returns the waker of its worker.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Passes up to [`BATCH`] items to `each`, oldest first, and frees their space.
    pub fn batch(&mut self, mut each: impl FnMut(&[u8])) -> usize {
        let mut taken = 0;
        while taken < BATCH {
            let Some(record) = self.ring.next() else { break };
            each(&record);
            taken += 1;
        }
        self.pace.note(taken);
        taken
    }

    /// Waits until the threshold or the [`Waker`] wakes the worker, or the poll interval is over. A
    /// worker that `is_quiet` has no timers and only waits for new items.
    ///
    /// # Errors
    /// Fails if poll(2) fails other than by a signal.
    pub fn wait(&mut self, is_quiet: bool) -> Result<(), Errno> {
        let sleeps =
            is_quiet && self.pace.allows_sleep() && self.waker.works() && self.doorbell.arm();
        let timeout = if sleeps { SLEEP } else { self.pace.wait };
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::ZERO);
        // A program reserves space, then checks whether the doorbell is armed; the worker arms it,
        // then poll(2) checks for reserved space. At least one of them sees the other.
        fence(Ordering::SeqCst);
        let ring = PollFd::new(self.ring.as_fd(), PollFlags::POLLIN);
        let polled = match self.waker.descriptor() {
            Some(waker) => poll(&mut [ring, PollFd::new(waker, PollFlags::POLLIN)], timeout),
            None => poll(&mut [ring], timeout),
        };
        self.waker.clear();
        match polled {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Pace {
    /// Records a poll that found `taken` items.
    fn note(&mut self, taken: usize) {
        self.wait = if taken >= BUSY_ITEMS {
            POLL_INTERVALS.0
        } else {
            (self.wait * 2).min(POLL_INTERVALS.1)
        };
        self.empty_polls = if taken == 0 { self.empty_polls.saturating_add(1) } else { 0 };
    }

    /// Returns true if nothing arrived during the longest interval. If items arrive more often,
    /// polling costs less than a wake-up for each.
    fn allows_sleep(&self) -> bool {
        self.wait == POLL_INTERVALS.1 && self.empty_polls >= 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_follows_the_load() {
        let mut pace = Pace { wait: POLL_INTERVALS.0, empty_polls: 0 };
        for _ in 0..10 {
            pace.note(1);
        }
        assert_eq!(pace.wait, POLL_INTERVALS.1);
        pace.note(BUSY_ITEMS);
        assert_eq!(pace.wait, POLL_INTERVALS.0);
    }

    #[test]
    fn a_worker_sleeps_after_a_longest_wait_in_vain() {
        let mut pace = Pace { wait: POLL_INTERVALS.0, empty_polls: 0 };
        let mut waited = Duration::ZERO;
        while !pace.allows_sleep() {
            waited = pace.wait;
            pace.note(0);
        }
        assert!(waited * 2 >= POLL_INTERVALS.1, "{waited:?}");
        // One item within two longest intervals prevents sleep during the next one.
        for _ in 0..10 {
            pace.note(1);
            assert!(!pace.allows_sleep());
            pace.note(0);
            assert!(!pace.allows_sleep());
        }
        pace.note(0);
        assert!(pace.allows_sleep());
    }
}
