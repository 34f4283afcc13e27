//! A sink that may block, behind a queue and a thread of its own.
//!
//! ```text
//!  worker ─ write ─▶ queue, bounded ─▶ thread ─ write ─▶ standard output, file
//!  run loop ─ tick ─▶ the same thread
//! ```
//!
//! - **A pipe that nobody reads and a disk that hangs hold up nobody else.** A worker copies its batch
//!   into the queue and goes on; where there is no room it waits for [`WAIT`], once, and from then on
//!   not at all until the sink has taken something. What does not fit is lost and counted
//!   (`queue_full`).
//! - **The queue holds [`CHUNKS`] batches of [`CHUNK_BYTES`]**: small batches are joined, so that many
//!   of them take no more memory than a few large ones. Buffers are used again.
//! - **The counts are exact at every moment.** A record is `in_batches` until the sink has taken it;
//!   what the sink says of it is copied to the counts that are seen in the same step.
//! - **At the end** the thread has what it holds written by the deadline. A sink that is held up then
//!   is left behind, its counts stand still, and what it has not delivered is lost (`unflushed`).

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{Sink, State, TakesSummaries};
use crate::{
    encode::{Batch, Format, Key, Ticket},
    ledger::{Amount, Published, SinkCounts, SinkLoss},
    telemetry::SinkTimings,
};

/// Batches that wait for the sink at most, without the one that it writes.
const CHUNKS: usize = 8;

/// Bytes up to which batches are joined. A worker's batch is about as large at most.
const CHUNK_BYTES: usize = 1 << 20;

/// How long a worker waits for room, once for each time that the sink is held up.
const WAIT: Duration = Duration::from_millis(200);

/// A sink behind a queue.
pub(super) struct Queued {
    shared: Arc<Shared>,
}

struct Shared {
    sink: Box<dyn Sink>,
    /// What is seen from outside; the sink has its own.
    counts: Published<SinkCounts>,
    queue: Mutex<Queue>,
    /// For the thread: there is something to do.
    work: Condvar,
    /// For workers, and for who closes: the thread has done something.
    progress: Condvar,
}

#[derive(Default)]
struct Queue {
    /// Oldest first.
    chunks: VecDeque<Batch>,
    /// Empty ones.
    spare: Vec<Batch>,
    /// Records that were taken from workers and are not in the sink's counts: of `chunks`, and of the
    /// batch that the thread writes.
    held: Amount,
    /// Records that were lost here, and are not in the sink's counts.
    lost: Amount,
    /// Whether workers have waited in vain since the sink last took something.
    stalled: bool,
    tick: Option<Instant>,
    /// Until when the sink may deliver what it has, once it is to end.
    close_by: Option<Instant>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Running,
    /// The sink is closed, and its counts are final.
    Closed,
    /// The sink was left behind, and has no more part in the counts.
    Abandoned,
}

impl Queued {
    /// Starts the thread, which is named after the sink.
    pub(super) fn start(name: &str, sink: Box<dyn Sink>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            counts: Published::new(sink.counts().read()),
            sink,
            queue: Mutex::default(),
            work: Condvar::new(),
            progress: Condvar::new(),
        });
        let ours = shared.clone();
        thread::Builder::new().name(format!("sink-{name}")).spawn(move || ours.run())?;
        Ok(Self { shared })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // The queue is changed whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread.
    fn run(&self) {
        let mut queue = self.lock();
        loop {
            if let Some(mut chunk) = queue.chunks.pop_front() {
                drop(queue);
                // A worker that waits for room has it now.
                self.progress.notify_all();
                let amount = amount(&chunk);
                self.sink.write(&chunk);
                self.take_over(amount);
                chunk.clear();
                queue = self.lock();
                queue.stalled = false;
                // One that grew for a single large batch is not kept.
                if chunk.capacity() <= 2 * CHUNK_BYTES {
                    queue.spare.push(chunk);
                }
            } else if let Some(close_by) = queue.close_by {
                drop(queue);
                self.sink.close(close_by.saturating_duration_since(Instant::now()));
                self.take_over(Amount::default());
                self.progress.notify_all();
                let mut queue = self.lock();
                if queue.stage == Stage::Running {
                    queue.stage = Stage::Closed;
                }
                self.progress.notify_all();
                return;
            } else if let Some(now) = queue.tick.take() {
                drop(queue);
                self.sink.tick(now);
                self.take_over(Amount::default());
                queue = self.lock();
            } else {
                queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Copies the sink's counts to those that are seen, once the sink has taken so much.
    fn take_over(&self, taken: Amount) {
        self.counts.update(|counts| {
            let mut queue = self.lock();
            if queue.stage == Stage::Abandoned {
                return;
            }
            queue.held -= taken;
            let lost = queue.lost;
            drop(queue);
            let mut known = self.sink.counts().read();
            known.in_batches = counts.in_batches;
            known.in_batches -= taken;
            known.offered += lost;
            known.lose(SinkLoss::QueueFull, lost);
            *counts = known;
        });
    }

    /// Puts a batch into the queue; false where it has no room for it.
    fn push(&self, batch: &Batch, amount: Amount) -> bool {
        let mut queue = self.lock();
        if !queue.has_room(batch) && !queue.stalled {
            let no_room = |queue: &mut Queue| !queue.has_room(batch) && !queue.stalled;
            let waited = self.progress.wait_timeout_while(queue, WAIT, no_room);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if queue.stage != Stage::Running || !queue.has_room(batch) {
            queue.stalled = true;
            return false;
        }
        match queue.chunks.back_mut() {
            Some(last) if fits(last, batch) => last.append(batch),
            _ => {
                let mut chunk = queue.spare.pop().unwrap_or_else(|| Batch::keyed(self.sink.key()));
                chunk.append(batch);
                queue.chunks.push_back(chunk);
            }
        }
        queue.held += amount;
        drop(queue);
        self.work.notify_one();
        true
    }

    /// Leaves the sink behind: what it has not delivered is lost.
    fn abandon(&self) {
        self.counts.update(|counts| {
            let mut queue = self.lock();
            if queue.stage != Stage::Running {
                return;
            }
            queue.stage = Stage::Abandoned;
            let held = std::mem::take(&mut queue.held);
            queue.chunks.clear();
            drop(queue);
            let in_flight = std::mem::take(&mut counts.in_flight);
            counts.lose(SinkLoss::Unflushed, in_flight);
            counts.offer(held);
            counts.lose(SinkLoss::Unflushed, held);
            let mut records = held.records;
            records += in_flight.records;
            tracing::error!(records, "a sink is held up and left behind; its records are lost and counted");
        });
    }
}

impl Queue {
    fn has_room(&self, batch: &Batch) -> bool {
        self.chunks.len() < CHUNKS || self.chunks.back().is_some_and(|last| fits(last, batch))
    }
}

fn fits(last: &Batch, batch: &Batch) -> bool {
    last.bytes().len() + batch.bytes().len() <= CHUNK_BYTES
}

fn amount(batch: &Batch) -> Amount {
    Amount { records: batch.records(), messages: batch.messages() }
}

impl Sink for Queued {
    fn format(&self) -> Format {
        self.shared.sink.format()
    }

    fn key(&self) -> Key {
        self.shared.sink.key()
    }

    fn counts(&self) -> &Published<SinkCounts> {
        &self.shared.counts
    }

    fn timings(&self) -> Option<&SinkTimings> {
        self.shared.sink.timings()
    }

    fn state(&self) -> State {
        self.shared.sink.state()
    }

    fn summaries(&self) -> Option<&dyn TakesSummaries> {
        self.shared.sink.summaries()
    }

    fn announce(&self, records: u64) -> Ticket {
        self.shared.sink.announce(records)
    }

    fn write(&self, batch: &Batch) {
        let amount = amount(batch);
        if self.shared.push(batch, amount) {
            return;
        }
        self.shared.counts.update(|counts| {
            let mut queue = self.shared.lock();
            queue.lost += amount;
            let ended = queue.stage != Stage::Running;
            drop(queue);
            counts.offer(amount);
            counts.lose(if ended { SinkLoss::Unflushed } else { SinkLoss::QueueFull }, amount);
        });
    }

    fn tick(&self, now: Instant) {
        self.shared.lock().tick = Some(now);
        self.shared.work.notify_one();
    }

    fn close(&self, deadline: Duration) {
        let mut queue = self.shared.lock();
        queue.close_by = Some(Instant::now() + deadline);
        self.shared.work.notify_one();
        let runs = |queue: &mut Queue| queue.stage == Stage::Running;
        let waited = self.shared.progress.wait_timeout_while(queue, deadline, runs);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        self.shared.abandon();
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        // The thread ends with what it has; one that is held up ends with the process.
        self.shared.lock().close_by.get_or_insert_with(Instant::now);
        self.shared.work.notify_one();
    }
}

#[cfg(test)]
#[path = "queued_tests.rs"]
mod tests;
