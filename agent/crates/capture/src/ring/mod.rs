//! Drains a ring in batches.
//!
//! The kernel programs submit without a wake-up, and force one each time the bytes written to a
//! ring pass a multiple of a threshold (a wake-up per item costs more than ten times the packet).
//! So a worker polls by itself, as seldom as a batch of [`TARGET_ITEMS`] and the longest interval allow,
//! and at once when the threshold wakes it. What a poll costs apart from its items is the same for one
//! item and for hundreds.
//!
//! A worker that has found its ring empty for a whole interval, and has nothing pending, sleeps. It
//! arms the [`Doorbell`] first, so that the kernel wakes it with the next item. [`Waker`] wakes it
//! for everything else.

mod depth;
mod doorbell;
mod waker;
mod wakeups;

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
use wakeups::Wakeups;

/// Maximum number of items in a batch, whose records are delivered before the next one.
pub const BATCH: usize = 1_024;

/// Shortest and longest poll interval in milliseconds. A worker that wakes every millisecond costs about
/// 1 % of a core; the longest interval is the maximum delay of an item.
const POLL_INTERVALS_MS: (u16, u16) = (1, 50);

/// Maximum sleep of a worker that the kernel will wake. A quarter of the shortest heartbeat timeout
/// that can be configured.
pub const SLEEP: Duration = Duration::from_millis(250);

/// Number of items that the poll interval aims at. They are some 160 KB, which the caches hold.
const TARGET_ITEMS: u32 = 512;

/// A ring and its poll interval.
pub struct Drain {
    ring: RingBuf<MapData>,
    doorbell: Doorbell,
    waker: Waker,
    /// `None` if the kernel refuses epoll: items then end every wait.
    wakeups: Option<Wakeups>,
    pace: Pace,
}

/// Computes the poll interval of a ring.
#[derive(Debug)]
struct Pace {
    /// The latest interval.
    wait_ms: u16,
    /// Number of items since the end of that interval.
    taken: u32,
    /// Number of consecutive polls that found nothing.
    empty_polls: u32,
}

impl Drain {
    /// Creates a drain from a ring and the objects that wake its worker.
    #[must_use]
    pub fn new(ring: RingBuf<MapData>, doorbell: Doorbell, waker: Waker) -> Self {
        let wakeups = Wakeups::of(&ring, &waker);
        Self { ring, doorbell, waker, wakeups, pace: Pace::new() }
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

    /// Waits until the threshold or the [`Waker`] wakes the worker, or the poll interval is over. Items
    /// that came since the last [`batch`](Self::batch) do not end the wait. A worker that `is_quiet` has no
    /// timers and only waits for new items.
    ///
    /// # Errors
    /// Fails if the system call fails other than by a signal.
    pub fn wait(&mut self, is_quiet: bool) -> Result<(), Errno> {
        let wait_ms = self.pace.next_wait_ms();
        let sleeps =
            is_quiet && self.pace.allows_sleep() && self.waker.works() && self.doorbell.arm();
        let waited = match &self.wakeups {
            Some(wakeups) if !sleeps => wakeups.wait(wait_ms),
            _ if sleeps => {
                // A program reserves space, then checks whether the doorbell is armed; the worker arms
                // it, then poll(2) checks for reserved space. At least one of them sees the other.
                fence(Ordering::SeqCst);
                self.poll(PollTimeout::try_from(SLEEP).unwrap_or(PollTimeout::ZERO))
            }
            _ => self.poll(PollTimeout::from(wait_ms)),
        };
        self.waker.clear();
        match waited {
            Ok(()) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Waits for an item, or for the waker.
    fn poll(&self, timeout: PollTimeout) -> Result<(), Errno> {
        let ring = PollFd::new(self.ring.as_fd(), PollFlags::POLLIN);
        match self.waker.descriptor() {
            Some(waker) => poll(&mut [ring, PollFd::new(waker, PollFlags::POLLIN)], timeout),
            None => poll(&mut [ring], timeout),
        }
        .map(drop)
    }
}

impl Pace {
    const fn new() -> Self {
        Self { wait_ms: POLL_INTERVALS_MS.0, taken: 0, empty_polls: 0 }
    }

    /// Records a batch of `taken` items.
    fn note(&mut self, taken: usize) {
        self.taken = self.taken.saturating_add(u32::try_from(taken).unwrap_or(u32::MAX));
        self.empty_polls = if taken == 0 { self.empty_polls.saturating_add(1) } else { 0 };
    }

    /// Begins the next interval and returns its length: that in which [`TARGET_ITEMS`] would have arrived
    /// at the rate of the previous one, or twice the previous one if that is shorter.
    fn next_wait_ms(&mut self) -> u16 {
        let taken = std::mem::take(&mut self.taken).max(1);
        let (shortest, longest) = POLL_INTERVALS_MS;
        let to_target = u32::from(self.wait_ms) * TARGET_ITEMS / taken;
        let to_target = u16::try_from(to_target).unwrap_or(u16::MAX);
        self.wait_ms = to_target.min(self.wait_ms * 2).clamp(shortest, longest);
        self.wait_ms
    }

    /// Returns true if nothing arrived during the longest interval. If items arrive more often,
    /// polling costs less than a wake-up for each.
    const fn allows_sleep(&self) -> bool {
        self.wait_ms == POLL_INTERVALS_MS.1 && self.empty_polls >= 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The intervals of a worker whose ring gets so many items a millisecond.
    fn waits_at(rate: usize, pace: &mut Pace) -> Vec<u16> {
        let mut next = || {
            pace.note(usize::from(pace.wait_ms) * rate);
            pace.next_wait_ms()
        };
        (0..10).map(|_| next()).collect()
    }

    #[test]
    fn the_interval_fits_the_rate() {
        let mut pace = Pace::new();
        assert_eq!(waits_at(1, &mut pace)[..7], [2, 4, 8, 16, 32, 50, 50]);
        // 50 arrive in a millisecond: 2,500 in 50, and 512 in ten.
        assert_eq!(waits_at(50, &mut pace), [10; 10]);
        assert_eq!(waits_at(1_000, &mut pace), [1; 10]);
        assert_eq!(waits_at(200, &mut pace), [2; 10]);
        assert_eq!(waits_at(0, &mut pace)[..6], [4, 8, 16, 32, 50, 50]);
        pace.note(usize::MAX);
        pace.note(usize::MAX);
        assert_eq!(pace.next_wait_ms(), 1);
    }

    #[test]
    fn a_worker_sleeps_after_a_longest_wait_in_vain() {
        let mut pace = Pace::new();
        let mut waited_ms = 0;
        while !pace.allows_sleep() {
            waited_ms = pace.wait_ms;
            pace.note(0);
            pace.next_wait_ms();
        }
        assert!(waited_ms * 2 >= POLL_INTERVALS_MS.1, "{waited_ms}");
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
