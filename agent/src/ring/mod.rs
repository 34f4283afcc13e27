//! Draining a ring in batches.
//!
//! The kernel programs submit without waking anybody, and force one wake-up each time the bytes
//! written to a ring pass a multiple of a threshold (a wake-up for each record costs more than ten
//! times the packet). So a worker looks on its own: often while records come in numbers, seldom while they
//! do not, and at once when the threshold calls.

mod depth;

use std::{os::fd::AsFd, time::Duration};

use aya::maps::{MapData, RingBuf};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

pub use depth::Depth;

/// Records taken at most before what they became is delivered.
pub const BATCH: usize = 1_024;

/// Shortest and longest wait for records. A worker that wakes every millisecond costs about 1 %
/// of a core; 20 ms is what a record may be late on an idle interface.
const WAITS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// Records in a batch from which on the next wait is shortest.
const BUSY: usize = 64;

/// A ring and the pace at which it is looked at.
pub struct Drain {
    ring: RingBuf<MapData>,
    wait: Duration,
}

impl Drain {
    /// Takes a ring over.
    #[must_use]
    pub const fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring, wait: WAITS.0 }
    }

    /// Hands up to [`BATCH`] records to `each`, oldest first, and frees their room.
    pub fn batch(&mut self, mut each: impl FnMut(&[u8])) -> usize {
        let mut taken = 0;
        while taken < BATCH {
            let Some(record) = self.ring.next() else { break };
            each(&record);
            taken += 1;
        }
        self.wait = next_wait(self.wait, taken);
        taken
    }

    /// Waits until the threshold calls or the pace says to look again.
    ///
    /// # Errors
    /// When poll(2) fails other than by a signal.
    pub fn wait(&self) -> Result<(), Errno> {
        let mut fds = [PollFd::new(self.ring.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(self.wait).unwrap_or(PollTimeout::ZERO);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The next wait after a batch of `taken` records.
fn next_wait(wait: Duration, taken: usize) -> Duration {
    if taken >= BUSY { WAITS.0 } else { (wait * 2).min(WAITS.1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_follows_the_load() {
        let mut wait = WAITS.0;
        for _ in 0..10 {
            wait = next_wait(wait, 1);
        }
        assert_eq!(wait, WAITS.1);
        assert_eq!(next_wait(wait, BUSY), WAITS.0);
    }
}
