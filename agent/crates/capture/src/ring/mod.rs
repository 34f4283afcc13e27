//! Draining a ring in batches.
//!
//! The kernel programs submit without waking anybody, and force one wake-up each time the bytes
//! written to a ring pass a multiple of a threshold (a wake-up for each record costs more than ten
//! times the packet). So a worker looks on its own: often while records come in numbers, seldom while they
//! do not, and at once when the threshold calls.
//!
//! A worker that has found its ring empty for a whole interval, and has nothing pending, sleeps. It
//! arms the [`Doorbell`] first, so that the kernel wakes it with the next record, which is taken at
//! once. [`Waker`] wakes it for everything else.

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

/// Records taken at most before what they became is delivered.
pub const BATCH: usize = 1_024;

/// Shortest and longest wait for records. A worker that wakes every millisecond costs about 1 %
/// of a core; 20 ms is what a record may be late on an idle interface.
const WAITS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// How long a worker sleeps that the kernel will wake. A quarter of the shortest heartbeat timeout
/// that can be configured.
pub const SLEEP: Duration = Duration::from_millis(250);

/// Records in a batch from which on the next wait is shortest.
const BUSY: usize = 64;

/// A ring and the pace at which it is looked at.
pub struct Drain {
    ring: RingBuf<MapData>,
    doorbell: Doorbell,
    waker: Waker,
    pace: Pace,
}

/// When the ring is to be looked at next.
#[derive(Debug)]
struct Pace {
    wait: Duration,
    /// Looks in a row that found nothing.
    empty_looks: u32,
}

impl Drain {
    /// Takes a ring over, with what wakes its worker.
    #[must_use]
    pub const fn new(ring: RingBuf<MapData>, doorbell: Doorbell, waker: Waker) -> Self {
        Self { ring, doorbell, waker, pace: Pace { wait: WAITS.0, empty_looks: 0 } }
    }

    /// What wakes its worker.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Hands up to [`BATCH`] records to `each`, oldest first, and frees their room.
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

    /// Waits until the threshold calls, the [`Waker`] does, or the pace says to look again. A worker
    /// that `is_quiet` has nothing to do at any time but what comes.
    ///
    /// # Errors
    /// When poll(2) fails other than by a signal.
    pub fn wait(&mut self, is_quiet: bool) -> Result<(), Errno> {
        let sleeps =
            is_quiet && self.pace.allows_sleep() && self.waker.works() && self.doorbell.arm();
        let timeout = if sleeps { SLEEP } else { self.pace.wait };
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::ZERO);
        // A program reserves room, then sees whether the doorbell is armed; here it is armed, then
        // poll(2) looks whether room is reserved. One of the two sees the other.
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
    /// Takes note of a look that found `taken` records.
    fn note(&mut self, taken: usize) {
        self.wait = if taken >= BUSY { WAITS.0 } else { (self.wait * 2).min(WAITS.1) };
        self.empty_looks = if taken == 0 { self.empty_looks.saturating_add(1) } else { 0 };
    }

    /// Whether nothing came during the longest wait. Where records come more often than that, looking
    /// for them costs less than being woken by each.
    fn allows_sleep(&self) -> bool {
        self.wait == WAITS.1 && self.empty_looks >= 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_follows_the_load() {
        let mut pace = Pace { wait: WAITS.0, empty_looks: 0 };
        for _ in 0..10 {
            pace.note(1);
        }
        assert_eq!(pace.wait, WAITS.1);
        pace.note(BUSY);
        assert_eq!(pace.wait, WAITS.0);
    }

    #[test]
    fn a_worker_sleeps_after_a_longest_wait_in_vain() {
        let mut pace = Pace { wait: WAITS.0, empty_looks: 0 };
        let mut waited = Duration::ZERO;
        while !pace.allows_sleep() {
            waited = pace.wait;
            pace.note(0);
        }
        assert!(waited * 2 >= WAITS.1, "{waited:?}");
        // One record between two longest waits: the next longest wait is not slept through.
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
