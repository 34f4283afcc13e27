//! The state machine that delivers each record to the broker, or counts why not.
//!
//! Workers call [`Delivery::write`]; the [sender](super::sender) sends the backlog and applies
//! delivery reports.
//!
//! - **durable**: every record is in the spool before [`Delivery::write`] returns. Killing the agent
//!   loses none; what a power failure loses depends on [`Fsync`](tap53_spool::Fsync).
//! - **fast**: records go to the producer directly, until its queue is full, a record fails, or
//!   nothing is acknowledged for [`STALL`](super::sender). Then records in memory are requeued to
//!   the spool, and new ones follow them, until the spool is drained. Killing the agent loses what
//!   is in memory: at most `queue_bytes`, and with the broker unreachable nothing that is much
//!   older than [`STALL`](super::sender).
//!
//! A record leaves the spool when it is acknowledged, or when it can never be delivered
//! (`rejected`). After any other report, a timeout included, it is sent again: it may then arrive
//! twice, with the same `record_id`.
//!
//! Each worker's order is kept: records that wait go before new ones. (A record that failed in
//! memory is requeued after those that were spooled meanwhile.) Records that cannot be written to
//! the disk are sent directly; if that fails too, they are lost and counted.
//!
//! **While another agent has locked the spool**, for instance the previous one until it ends:
//! - Records go to the producer directly, in either mode. Those that the broker does not accept
//!   wait in memory, at most `queue_bytes`; more are lost (`spool_failed`). Killing the agent loses
//!   those in memory, in mode durable too.
//! - The lock is tried until the agent ends. The kernel holds it until the other process is gone, so
//!   there is never a second writer. Then the records in memory go into the spool, after those that
//!   the other agent left there.
//! - At the shutdown it is tried once more; records that are neither delivered nor spooled by the
//!   deadline are lost (`unflushed`).

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};
use tap53_base::{
    amount::Amount,
    clock::{monotonic_ns, utc_offset_ns},
    vitals::Reached,
};
use tap53_ledger::SinkLoss;
use tap53_records::encode::{Batch, SCHEMA_VERSION};
use tap53_spool::{self as spool, Record};

use super::{
    backlog::{Backlog, Buffer, QueuedMessage, move_piece},
    context::SinkContext,
    flight::{Accounts, Flight},
    origin::Origin,
    producer::{Message, Producer, Refusal, Transport},
    route::{BufferReason, Event, Route, Router, State},
};
use crate::{
    SpoolState,
    config::{KafkaConfig, SpoolConfig},
    registry::Schema,
    wait_budget::{self, WaitBudget},
};

/// The time for the shutdown if the broker or the registry is unreachable and the records are in a spool,
/// or wait for a schema id: enough to find it if it is just back.
pub(super) const DEGRADED_FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// The same if the records are in a spool and the outage has lasted for [`DEGRADED_FLUSH_TIMEOUT`] before:
/// enough for reports that are on their way. The next agent delivers the rest, and until it starts nothing
/// captures.
pub(super) const SPOOLED_FLUSH_TIMEOUT: Duration = Duration::from_millis(250);

/// The longest wait of a summary for the backlog's lock.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(1);

const SHUTDOWN_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The machine. `P` is the producer, or a test's cluster.
pub(super) struct Delivery<P = Producer> {
    pub(super) context: Arc<SinkContext>,
    pub(super) producer: Arc<P>,
    pub(super) router: Router,
    pub(super) health: Health,
    utc_offset_ns: i64,
    pub(super) spool_config: Option<spool::Config>,
    /// The longest wait of a record for its schema id.
    pub(super) schema_timeout: Duration,
    /// The schemas that records in the spool may have.
    pub(super) schemas: Vec<Schema>,
    backlog: Mutex<Backlog<Flight>>,
    /// Limits the waits of all workers for room; `None` if each batch may wait.
    wait_budget: Option<WaitBudget>,
}

/// The health of the broker, the registry and the disk, for the log and the shutdown.
#[derive(Default)]
pub(super) struct Health {
    /// True after a failure, or if nothing was acknowledged for [`STALL`](super::sender).
    pub(super) is_failing: AtomicBool,
    /// True if the oldest waiting record lacks its schema id.
    pub(super) awaits_id: AtomicBool,
    /// True after a failure of the disk, so that each outage is logged once.
    pub(super) disk_fails: AtomicBool,
}

/// The decision on a record that the producer refuses.
enum Verdict {
    Retry,
    Lost(SinkLoss),
    /// Send neither it nor those after it.
    Stop,
}

pub(super) type Guard<'a> = MutexGuard<'a, Backlog<Flight>>;

impl<P: Transport> Delivery<P> {
    /// Creates the machine without its spool: see [`acquire_spool`](Self::acquire_spool).
    pub(super) fn new(
        config: &KafkaConfig,
        context: &Arc<SinkContext>,
        producer: &Arc<P>,
        schemas: &[Schema],
        wait_budget: Option<WaitBudget>,
    ) -> Self {
        let mode = config.spool.as_ref().map(|spool| spool.mode);
        let max_bytes = usize::try_from(config.queue_bytes).unwrap_or(usize::MAX);
        Self {
            context: context.clone(),
            producer: producer.clone(),
            router: Router::new(State::initial(mode, context.schema_ids.is_some())),
            health: Health::default(),
            utc_offset_ns: utc_offset_ns(),
            spool_config: config.spool.as_ref().map(SpoolConfig::of_records),
            schema_timeout: config.message_timeout,
            schemas: schemas.to_vec(),
            backlog: Mutex::new(Backlog::Memory(Buffer::new(max_bytes, usize::MAX))),
            wait_budget,
        }
    }

    /// Returns the clock for the age of records in the spool: the wall clock at the start, plus the
    /// monotonic time since then. Setting the wall clock does not change a record's age.
    pub(super) fn now_ms(&self) -> i64 {
        monotonic_ns().cast_signed().saturating_add(self.utc_offset_ns) / 1_000_000
    }

    pub(super) fn lock(&self) -> Guard<'_> {
        self.backlog.lock()
    }

    /// Accounts for each record of a batch.
    pub(super) fn write(&self, batch: &Batch) {
        let flight = Flight::accept(&self.context.accounts, batch);
        if self.router.route() != Route::Direct {
            let backlog = self.lock();
            // It may have changed before the lock was acquired.
            if self.router.route() != Route::Direct {
                return self.store(backlog, batch, 0, flight);
            }
        }
        self.write_directly(batch, flight);
    }

    fn write_directly(&self, batch: &Batch, mut flight: Flight<&Accounts>) {
        flight.launch();
        if !self.context.requeues {
            return self.send_waiting_for_room(batch, flight);
        }
        let sent = self.send(batch, 0, &mut flight, |_| Verdict::Stop);
        if sent < batch.entries() {
            let mut backlog = self.lock();
            self.router.apply(Event::Blocked, &mut backlog);
            self.store(backlog, batch, sent, flight);
        }
    }

    /// Hands records to the producer, from index `from` on, until `on_refusal` returns
    /// [`Verdict::Stop`]; returns the index of that record.
    fn send(
        &self,
        batch: &Batch,
        from: usize,
        flight: &mut Flight<&Accounts>,
        mut on_refusal: impl FnMut(Refusal) -> Verdict,
    ) -> usize {
        let producer = self.producer.current();
        let version = SCHEMA_VERSION.unsigned_abs();
        'records: for (index, (key, value, entry)) in batch.iter_keyed().enumerate().skip(from) {
            let origin = Origin::memory(&entry, batch.slot());
            let message = Message { timestamp_ms: entry.timestamp_ms, key, value };
            while let Err(refusal) = self.producer.send(&producer, origin, version, &message) {
                let verdict = match refusal {
                    Refusal::Never => Verdict::Lost(SinkLoss::Rejected),
                    refusal => on_refusal(refusal),
                };
                match verdict {
                    Verdict::Retry => {}
                    Verdict::Lost(reason) => {
                        flight.split(Amount::record(u64::from(entry.messages))).lost(reason);
                        continue 'records;
                    }
                    Verdict::Stop => return index,
                }
            }
            flight.hand_over(entry.messages);
        }
        batch.entries()
    }

    /// Sends without a spool, and waits for room within the workers' budget.
    fn send_waiting_for_room(&self, batch: &Batch, mut flight: Flight<&Accounts>) {
        let began = Instant::now();
        let budget = self.wait_budget.as_ref();
        let give_up_at =
            budget.map_or(began + wait_budget::WAIT, |budget| budget.give_up_at(began));
        let mut has_waited = false;
        self.send(batch, 0, &mut flight, |refusal| match refusal {
            Refusal::QueueFull if Instant::now() < give_up_at => {
                if let Some(budget) = budget.filter(|_| !has_waited) {
                    budget.begin(Instant::now());
                }
                has_waited = true;
                // A delivery report makes room, on another thread.
                thread::park_timeout(Duration::from_millis(1));
                Verdict::Retry
            }
            Refusal::QueueFull => Verdict::Lost(SinkLoss::QueueFull),
            Refusal::NoId => Verdict::Lost(SinkLoss::NoSchemaId),
            Refusal::Never | Refusal::NotNow => Verdict::Lost(SinkLoss::Rejected),
        });
        if let Some(budget) = budget.filter(|_| has_waited) {
            budget.end(began, Instant::now());
        }
    }

    /// Puts the records of a batch from index `from` on into the backlog; those that it has no room
    /// for are sent directly, or lost.
    fn store(
        &self,
        mut backlog: Guard<'_>,
        batch: &Batch,
        from: usize,
        mut flight: Flight<&Accounts>,
    ) {
        let (next, reason) = match &mut *backlog {
            Backlog::Disk(spool) => match spool.append(records(batch, from), self.now_ms()) {
                Ok(_) => {
                    self.context.accounts.requeue([flight], spool);
                    self.appended(backlog, batch.entries() - from);
                    if from == 0 {
                        let timings = &self.context.timings;
                        timings.all_reached(
                            Reached::Spooled,
                            batch.answered_at_ns(),
                            monotonic_ns(),
                        );
                    }
                    return;
                }
                Err(error) => {
                    drop(backlog);
                    self.disk_failed(&error);
                    (from, SinkLoss::SpoolFailed)
                }
            },
            Backlog::Memory(buffer) => {
                flight.launch();
                let next = self.buffer(buffer, batch, from, &mut flight);
                self.appended(backlog, next - from);
                (next, self.buffer_loss())
            }
        };
        flight.launch();
        if reason == SinkLoss::SpoolFailed {
            self.send(batch, next, &mut flight, |_| Verdict::Stop);
        }
        flight.lost(reason);
    }

    /// Copies records into memory; returns the index of the first that has no room.
    fn buffer(
        &self,
        buffer: &mut Buffer<Flight>,
        batch: &Batch,
        from: usize,
        flight: &mut Flight<&Accounts>,
    ) -> usize {
        let now = Instant::now();
        for (index, (key, value, entry)) in batch.iter_keyed().enumerate().skip(from) {
            let message = Message { timestamp_ms: entry.timestamp_ms, key, value };
            if !buffer.has_room(&message) {
                return index;
            }
            let amount = Amount::record(u64::from(entry.messages));
            let owner = flight.split(amount).keep(&self.context.accounts);
            buffer.push(QueuedMessage::new(owner, &message), now);
        }
        batch.entries()
    }

    /// Returns the loss reason of records that the buffer has no room for.
    fn buffer_loss(&self) -> SinkLoss {
        match self.router.route() {
            Route::Buffer(BufferReason::SchemaPending) => SinkLoss::NoSchemaId,
            _ => SinkLoss::SpoolFailed,
        }
    }

    /// Puts failed records into the backlog. Those that it has no room for are lost.
    pub(super) fn requeue<'a>(
        &'a self,
        mut backlog: Guard<'a>,
        failed: Vec<QueuedMessage<Flight>>,
    ) {
        let mut records = VecDeque::from(failed);
        while !records.is_empty() {
            let error = match &mut *backlog {
                Backlog::Memory(buffer) => {
                    let now = Instant::now();
                    while records.front().is_some_and(|r| buffer.has_room(&r.message()))
                        && let Some(record) = records.pop_front()
                    {
                        buffer.push(record, now);
                    }
                    let is_full = !records.is_empty();
                    is_full.then(|| "another agent has locked it, and memory is full".to_owned())
                }
                Backlog::Disk(spool) => {
                    let accounts = &self.context.accounts;
                    let moved = move_piece(&mut records, spool, accounts, self.now_ms());
                    moved.err().map(|error| error.to_string())
                }
            };
            if let Some(error) = error {
                drop(backlog);
                self.disk_failed(&error);
                records.into_iter().for_each(|record| record.owner.lost(SinkLoss::SpoolFailed));
                return;
            }
            self.appended(backlog, 0);
            // Unlocked in between for the workers.
            backlog = self.lock();
        }
    }

    pub(super) fn reconcile(&self, backlog: &mut Backlog<Flight>) {
        if let Backlog::Disk(spool) = backlog {
            self.context.accounts.reconcile(spool, |_| {});
        }
    }

    /// Returns the number of records in the producer that are in memory alone.
    pub(super) fn in_producer(&self, backlog: &Backlog<Flight>) -> u64 {
        let in_flight = self.context.counts().read().in_flight.records;
        match backlog {
            Backlog::Memory(buffer) => in_flight.saturating_sub(buffer.len() as u64),
            Backlog::Disk(_) => in_flight,
        }
    }

    /// Returns the id below which everything in the spool is acknowledged, and how many inherited
    /// records have been lost. `None` while another agent has locked the spool, and while the disk
    /// hangs: the run loop calls this, and does not wait for it.
    pub(super) fn progress(&self) -> Option<(u64, u64)> {
        if !self.context.requeues {
            return Some((0, 0));
        }
        match &*self.backlog.try_lock_for(PROGRESS_TIMEOUT)? {
            Backlog::Disk(spool) => Some((spool.acknowledged_id(), spool.inherited_lost())),
            Backlog::Memory(_) => None,
        }
    }

    /// Returns the spool's state for metrics; `None` without a spool.
    pub(super) fn spool_state(&self) -> Option<SpoolState> {
        Some(SpoolState {
            limit_bytes: self.spool_config.as_ref()?.max_bytes,
            oldest_at_ms: self.context.accounts.oldest_at_ms.read(),
            reports_waiting: self.context.events.depth(),
        })
    }

    /// Waits until everything is delivered that can be, within `deadline`.
    pub(super) fn finish(&self, deadline: Duration) {
        let began = Instant::now();
        // A start during a failover, or a connection that was just lost, is worth waiting for.
        let is_lasting = self
            .context
            .ongoing_outage
            .began()
            .is_some_and(|at| began.saturating_duration_since(at) >= DEGRADED_FLUSH_TIMEOUT);
        loop {
            let health = &self.health;
            let is_degraded = health.is_failing.load(Ordering::Relaxed)
                || health.awaits_id.load(Ordering::Relaxed);
            let limit = match (is_degraded, self.router.has_spool(), self.context.requeues) {
                (true, true, _) if is_lasting => deadline.min(SPOOLED_FLUSH_TIMEOUT),
                (true, true, _) | (true, false, false) => deadline.min(DEGRADED_FLUSH_TIMEOUT),
                _ => deadline,
            };
            if self.is_finished() || began.elapsed() >= limit {
                return;
            }
            thread::park_timeout(SHUTDOWN_POLL_INTERVAL);
        }
    }

    fn is_finished(&self) -> bool {
        if self.context.requeues {
            let counts = self.context.counts().read();
            return counts.spooled.records + counts.in_flight.records == 0;
        }
        // The rest is in the producer, which is flushed later.
        self.router.route() == Route::Direct || self.lock().is_drained()
    }
}

fn records(batch: &Batch, from: usize) -> impl Iterator<Item = Record<'_>> + Clone {
    batch.iter_keyed().skip(from).map(|(key, value, entry)| Record {
        timestamp_ms: entry.timestamp_ms,
        messages: entry.messages,
        key,
        value,
    })
}
