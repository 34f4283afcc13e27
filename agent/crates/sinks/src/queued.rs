//! A sink that may block, with a queue and a thread of its own.
//!
//! ```text
//!  worker ─ write ─▶ queue, bounded ─▶ thread ─ write ─▶ standard output, file
//!  run loop ─ tick ─▶ the same thread
//! ```
//!
//! - **A pipe without a reader, or a disk that hangs, blocks no other sink.** A worker copies its batch
//!   into the queue. If there is no room, it waits for at most [`WAIT`](super::wait_budget::WAIT), and
//!   a tenth of the time in total; then the rest is lost and counted (`queue_full`).
//! - **The queue holds [`CHUNKS`] batches of [`CHUNK_BYTES`]**: small batches are joined, so that many
//!   of them take no more memory than a few large ones. Buffers are reused.
//! - **A sink may linger.** After a batch, its thread sleeps for [`Sink::linger`] even if there is more, as
//!   long as that is less than [`ENOUGH_BYTES`]. On a virtual machine a wake-up costs as much as a write
//!   of some hundred records. The first batch after a pause is written at once.
//! - **The counts are exact at every moment.** A record is `in_batches` until the sink has written its
//!   batch, and in the same step the sink's own counts are merged into the published ones.
//! - **At the shutdown** the thread writes the queue until the deadline. A sink that is still blocked is
//!   abandoned: its counts no longer change, and the rest is lost (`unflushed`).

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tap53_base::{amount::Amount, privileges, vitals::SinkTimings};
use tap53_ledger::{Published, SinkCounts, SinkLoss};
use tap53_records::encode::{Batch, Format, Key};
use tokio::sync::Notify;

use super::{Sink, amount, wait_budget::WaitBudget};

/// The most batches that wait for the sink, without the one that it writes.
const CHUNKS: usize = 8;

/// The size up to which batches are joined, which is about the most that a worker's batch has.
const CHUNK_BYTES: usize = 1 << 20;

/// Bytes of records that end a linger: enough that the wake-up does not matter.
const ENOUGH_BYTES: usize = 256 << 10;

/// The most bytes of records that wait for a sink.
pub const QUEUE_BYTES: u64 = (CHUNKS * CHUNK_BYTES) as u64;

/// A sink with a queue, of the kinds without summaries and inner state.
pub(super) struct QueuedSink {
    shared: Arc<Shared>,
}

struct Shared {
    sink: Box<dyn Sink>,
    /// The published counts; the sink has its own.
    counts: Published<SinkCounts>,
    queue: Mutex<Queue>,
    /// Wakes the thread, as there is work.
    work: Condvar,
    wait_budget: WaitBudget,
    /// Wakes workers and `close`, as the thread has made progress.
    progress: Condvar,
}

#[derive(Default)]
struct Queue {
    /// Oldest first.
    chunks: VecDeque<Batch>,
    /// Empty ones.
    spare: Vec<Batch>,
    /// Records from workers that the sink has not counted: those in `chunks`, and in the batch that
    /// the thread writes.
    held: Amount,
    /// The sink's counts that are merged into the published ones.
    known: SinkCounts,
    tick: Option<Instant>,
    /// The end of the linger; `None` if the thread sleeps until there is work.
    lingers_until: Option<Instant>,
    /// The deadline for the sink's delivery, once it is closing.
    close_by: Option<Instant>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Running,
    /// The sink is closing, and accepts nothing more.
    Closing,
    /// The sink is closed, and its counts are final.
    Closed,
    /// The sink was abandoned, and its counts no longer matter.
    Abandoned,
}

impl QueuedSink {
    /// Starts the thread, which is named after the sink.
    /// `stop` is notified if it panics, as for a worker.
    pub(super) fn start(name: &str, sink: Box<dyn Sink>, stop: &Arc<Notify>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            counts: Published::new(sink.counts().read()),
            sink,
            queue: Mutex::default(),
            work: Condvar::new(),
            wait_budget: WaitBudget::default(),
            progress: Condvar::new(),
        });
        let guard = PanicGuard { shared: shared.clone(), stop: stop.clone() };
        thread::Builder::new().name(format!("sink-{name}")).spawn(move || guard.shared.run())?;
        Ok(Self { shared })
    }
}

/// Abandons the sink if its thread panics, which would go unnoticed.
struct PanicGuard {
    shared: Arc<Shared>,
    stop: Arc<Notify>,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if thread::panicking() {
            self.shared.abandon();
            self.shared.progress.notify_all();
            self.stop.notify_one();
        }
    }
}

impl Shared {
    /// The thread.
    fn run(&self) {
        privileges::confine_to_work();
        let mut queue = self.queue.lock();
        loop {
            if let Some(now) = queue.tick.take() {
                // First, since the queue may never be empty, and old files must be finished.
                drop(queue);
                self.sink.tick(now);
                self.take_over(Amount::default());
                queue = self.queue.lock();
            } else if let Some(mut chunk) = queue.next(Instant::now()) {
                drop(queue);
                // There is room for a worker that waits.
                self.progress.notify_all();
                let amount = amount(&chunk);
                self.sink.write(&chunk);
                self.take_over(amount);
                chunk.clear();
                queue = self.queue.lock();
                queue.linger(self.sink.linger());
                // A buffer that grew for one large batch is freed.
                if chunk.capacity() <= 2 * CHUNK_BYTES {
                    queue.spare.push(chunk);
                }
            } else if let Some(close_by) = queue.close_by {
                queue.stage.advance(Stage::Closing);
                drop(queue);
                self.sink.close(close_by.saturating_duration_since(Instant::now()));
                self.take_over(Amount::default());
                self.queue.lock().stage.advance(Stage::Closed);
                self.progress.notify_all();
                return;
            } else if let Some(end) = queue.lingers_until {
                self.work.wait_until(&mut queue, end);
            } else {
                self.work.wait(&mut queue);
            }
        }
    }

    /// Merges the sink's new counts into the published ones, after it has written this amount.
    fn take_over(&self, taken: Amount) {
        self.counts.update(|counts| {
            let mut queue = self.queue.lock();
            if queue.stage == Stage::Abandoned {
                return;
            }
            queue.held -= taken;
            let now = self.sink.counts().read();
            let before = std::mem::replace(&mut queue.known, now);
            drop(queue);
            counts.in_batches -= taken;
            counts.in_flight = now.in_flight;
            let grow = |sum: &mut Amount, now: Amount, before: Amount| {
                *sum += now;
                *sum -= before;
            };
            grow(&mut counts.offered, now.offered, before.offered);
            grow(&mut counts.delivered, now.delivered, before.delivered);
            for (sum, (now, before)) in counts.lost.iter_mut().zip(now.lost.iter().zip(before.lost))
            {
                grow(sum, *now, before);
            }
        });
    }

    /// Puts a batch into the queue; false if there is no room.
    fn push(&self, batch: &Batch, amount: Amount) -> bool {
        let mut queue = self.queue.lock();
        if queue.stage == Stage::Running && !queue.has_room(batch) {
            self.wait_for_room(&mut queue, batch);
        }
        if queue.stage != Stage::Running || !queue.has_room(batch) {
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
        let is_due = queue.lingers_until.is_none() || queue.has_enough();
        drop(queue);
        if is_due {
            self.work.notify_one();
        }
        true
    }

    #[cold]
    fn wait_for_room(&self, queue: &mut MutexGuard<'_, Queue>, batch: &Batch) {
        let began = Instant::now();
        let wait = self.wait_budget.give_up_at(began).saturating_duration_since(began);
        if wait.is_zero() {
            return;
        }
        self.wait_budget.begin(began);
        let is_full = |queue: &mut Queue| queue.stage == Stage::Running && !queue.has_room(batch);
        self.progress.wait_while_for(queue, is_full, wait);
        self.wait_budget.end(began, Instant::now());
    }

    /// Abandons the sink, and counts what it has not delivered as lost.
    fn abandon(&self) {
        self.counts.update(|counts| {
            let mut queue = self.queue.lock();
            if queue.stage == Stage::Closed {
                return;
            }
            queue.stage.advance(Stage::Abandoned);
            let held = std::mem::take(&mut queue.held);
            queue.chunks.clear();
            drop(queue);
            let in_flight = std::mem::take(&mut counts.in_flight);
            counts.lose(SinkLoss::Unflushed, in_flight);
            counts.offer(held);
            counts.lose(SinkLoss::Unflushed, held);
            let records = held.records + in_flight.records;
            tracing::error!(
                event = "sink_abandoned",
                records,
                "a sink is held up and left behind; its records are lost and counted"
            );
        });
    }
}

impl Stage {
    /// Enters a later stage, unless the sink was abandoned.
    fn advance(&mut self, to: Self) {
        if *self != Self::Abandoned {
            *self = to;
        }
    }
}

impl Queue {
    /// Removes the oldest batch, unless the thread lingers for more. A linger without a batch ends in sleep.
    fn next(&mut self, now: Instant) -> Option<Batch> {
        let lingers = self.lingers_until.is_some_and(|end| now < end);
        if lingers && !self.has_enough() && self.close_by.is_none() {
            return None;
        }
        self.lingers_until = None;
        self.chunks.pop_front()
    }

    fn linger(&mut self, linger: Duration) {
        self.lingers_until = (!linger.is_zero()).then(|| Instant::now() + linger);
    }

    fn has_enough(&self) -> bool {
        self.chunks.len() > 1
            || self.chunks.front().is_some_and(|chunk| chunk.bytes().len() >= ENOUGH_BYTES)
    }

    fn has_room(&self, batch: &Batch) -> bool {
        self.chunks.len() < CHUNKS || self.chunks.back().is_some_and(|last| fits(last, batch))
    }
}

fn fits(last: &Batch, batch: &Batch) -> bool {
    last.bytes().len() + batch.bytes().len() <= CHUNK_BYTES
}

impl Sink for QueuedSink {
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

    fn write(&self, batch: &Batch) {
        let amount = amount(batch);
        if self.shared.push(batch, amount) {
            return;
        }
        self.shared.counts.update(|counts| {
            let ended = self.shared.queue.lock().stage != Stage::Running;
            counts.offer(amount);
            counts.lose(if ended { SinkLoss::Unflushed } else { SinkLoss::QueueFull }, amount);
        });
    }

    fn tick(&self, now: Instant) {
        self.shared.queue.lock().tick = Some(now);
        self.shared.work.notify_one();
    }

    fn close(&self, deadline: Duration) {
        let mut queue = self.shared.queue.lock();
        queue.close_by = Some(Instant::now() + deadline);
        self.shared.work.notify_one();
        let runs = |queue: &mut Queue| queue.stage != Stage::Closed;
        self.shared.progress.wait_while_for(&mut queue, runs, deadline);
        drop(queue);
        self.shared.abandon();
    }
}

impl Drop for QueuedSink {
    fn drop(&mut self) {
        // The thread ends once it has written the queue, or with the process if it is blocked.
        self.shared.queue.lock().close_by.get_or_insert_with(Instant::now);
        self.shared.work.notify_one();
    }
}
