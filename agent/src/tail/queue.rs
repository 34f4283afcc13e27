//! Lines on their way to one follower.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::Notify;

use super::{LineFormat, QUEUE_BYTES, selection::Chosen};

/// Bounded, and never waited for: what does not fit is counted. Once something did not fit, nothing
/// is taken in until the follower has emptied the queue, so that what is missing is missing in one
/// place, behind what is held.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) format: LineFormat,
    pub(super) chosen: Chosen,
    pub(super) filled: Notify,
    /// Follows `Held::lost`: a look without the lock, so that lines in vain are not even encoded.
    full: AtomicBool,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    lines: Vec<u8>,
    lost: u64,
}

impl Queue {
    pub(super) fn new(format: LineFormat, chosen: Chosen) -> Self {
        Self {
            format,
            chosen,
            filled: Notify::new(),
            full: AtomicBool::new(false),
            held: Mutex::default(),
        }
    }

    /// True while nothing is taken in. It may change at any moment.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Takes in `count` lines, or loses them, and counts `lost` more that were not even written.
    pub(super) fn push(&self, lines: &[u8], count: u64, lost: u64) {
        let mut held = self.held();
        if held.lost == 0 && held.lines.len() + lines.len() <= QUEUE_BYTES {
            held.lines.extend_from_slice(lines);
            held.lost += lost;
        } else {
            held.lost += count + lost;
        }
        self.full.store(held.lost > 0, Ordering::Relaxed);
        drop(held);
        // A permit is kept where nobody waits, so no filling goes unseen.
        self.filled.notify_one();
    }

    /// Moves the lines to the empty `lines`; returns how many are missing behind them.
    pub(super) fn take(&self, lines: &mut Vec<u8>) -> u64 {
        let mut held = self.held();
        std::mem::swap(&mut held.lines, lines);
        self.full.store(false, Ordering::Relaxed);
        std::mem::take(&mut held.lost)
    }

    /// Bytes of the lines that wait.
    pub(super) fn bytes(&self) -> usize {
        self.held().lines.len()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Lines are appended whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
