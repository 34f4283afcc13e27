//! Where batches wait for the id of their schema, when there is no spool.
//!
//! As much as the producer's queue holds, and as long as a message may take: what waits longer is
//! lost and counted, as it would be while the broker is away. Once the id is known nothing waits
//! here any more.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::encode::Batch;

/// Batches that wait, oldest first.
pub(super) struct Held {
    max_bytes: usize,
    max_age: Duration,
    /// Whether the next batch has to look at the queue. Set to false with it locked.
    is_in_use: AtomicBool,
    queue: Mutex<Queue>,
}

#[derive(Default)]
pub(super) struct Queue {
    batches: VecDeque<(Instant, Batch)>,
    bytes: usize,
}

impl Held {
    pub(super) fn new(max_bytes: u64, max_age: Duration) -> Self {
        Self {
            max_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX),
            max_age,
            is_in_use: AtomicBool::new(true),
            queue: Mutex::default(),
        }
    }

    /// The queue, as long as batches may have to wait there.
    pub(super) fn queue(&self) -> Option<MutexGuard<'_, Queue>> {
        let lock = || self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_in_use.load(Ordering::Acquire) {
            return None;
        }
        let queue = lock();
        // It may have been given up meanwhile.
        self.is_in_use.load(Ordering::Acquire).then_some(queue)
    }

    /// What is sent from now on need not look at the queue, which is empty.
    pub(super) fn give_up(&self, _queue: MutexGuard<'_, Queue>) {
        self.is_in_use.store(false, Ordering::Release);
    }

    /// Puts a batch behind the others; false if there is no room.
    pub(super) fn push(&self, queue: &mut Queue, batch: &Batch, now: Instant) -> bool {
        let bytes = queue.bytes + batch.bytes().len();
        if bytes > self.max_bytes {
            return false;
        }
        queue.bytes = bytes;
        queue.batches.push_back((now, batch.clone()));
        true
    }

    /// Takes a batch out that has waited too long, if there is one.
    pub(super) fn pop_old(&self, queue: &mut Queue, now: Instant) -> Option<Batch> {
        let (since, _) = queue.batches.front()?;
        if now.saturating_duration_since(*since) < self.max_age {
            return None;
        }
        queue.pop()
    }
}

impl Queue {
    pub(super) fn pop(&mut self) -> Option<Batch> {
        let (_, batch) = self.batches.pop_front()?;
        self.bytes -= batch.bytes().len();
        Some(batch)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }
}
