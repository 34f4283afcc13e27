//! The queue of lines for one follower.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::{Notify, watch};

use super::{FollowerOwner, LineFormat, QUEUE_BYTES, recent::Snapshot, selection::RecordFilter};

/// A bounded queue that never blocks its writers: lines that do not fit are counted. After the first
/// one, no line is added until the follower has emptied the queue, so that all lost lines are in one
/// place, after the queued ones.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) owner: FollowerOwner,
    /// True once a newer follower has taken this one's place.
    pub(super) displaced: watch::Sender<bool>,
    pub(super) format: LineFormat,
    pub(super) filter: RecordFilter,
    pub(super) filled: Notify,
    /// Set while `Lines::lost` is not zero; read without the lock, so that lines that would be lost are
    /// not even encoded.
    full: AtomicBool,
    queued: Mutex<Lines>,
    /// Set if the follower begins in the past.
    pub(super) wants_past: bool,
    /// The workers' recent records, each from when it first saw the follower.
    snapshots: Mutex<Vec<Snapshot>>,
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<u8>,
    lost: u64,
}

impl Queue {
    pub(super) fn new(
        owner: FollowerOwner,
        format: LineFormat,
        filter: RecordFilter,
        wants_past: bool,
    ) -> Self {
        Self {
            owner,
            displaced: watch::Sender::new(false),
            wants_past,
            snapshots: Mutex::default(),
            format,
            filter,
            filled: Notify::new(),
            full: AtomicBool::new(false),
            queued: Mutex::default(),
        }
    }

    /// Returns true while no line is added. It may change at any moment.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Adds `count` lines if they fit, or counts them as lost; counts `lost` more that were not encoded.
    pub(super) fn push(&self, lines: &[u8], count: u64, lost: u64) {
        let mut queued = self.lock();
        if queued.lost == 0 && queued.lines.len() + lines.len() <= QUEUE_BYTES {
            queued.lines.extend_from_slice(lines);
            queued.lost += lost;
        } else {
            queued.lost += count + lost;
        }
        self.full.store(queued.lost > 0, Ordering::Relaxed);
        drop(queued);
        // The permit stays if the follower is not waiting, so no line is overlooked.
        self.filled.notify_one();
    }

    /// Adds the recent records of a worker, whose next ones come as lines.
    pub(super) fn add_snapshot(&self, snapshot: Snapshot) {
        self.snapshots().push(snapshot);
        self.filled.notify_one();
    }

    /// Returns the number of workers that have added their recent records.
    pub(super) fn snapshot_count(&self) -> usize {
        self.snapshots().len()
    }

    /// Takes the workers' recent records.
    pub(super) fn take_snapshots(&self) -> Vec<Snapshot> {
        std::mem::take(&mut *self.snapshots())
    }

    fn snapshots(&self) -> MutexGuard<'_, Vec<Snapshot>> {
        // A panic cannot leave half a copy: they are added at once.
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the lines to the empty `lines`; returns how many were lost after them.
    pub(super) fn take(&self, lines: &mut Vec<u8>) -> u64 {
        let mut queued = self.lock();
        std::mem::swap(&mut queued.lines, lines);
        self.full.store(false, Ordering::Relaxed);
        std::mem::take(&mut queued.lost)
    }

    /// Returns the size of the queued lines in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.lock().lines.len()
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        // A panic cannot leave half a line: lines are appended at once.
        self.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
