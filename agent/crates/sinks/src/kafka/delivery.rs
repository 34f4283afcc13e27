//! The machine that takes each record to the broker, or counts why not.
//!
//! Workers call [`Delivery::write`]; the [sender](super::sender) sends what waits and applies what
//! came of it. The [route](super::route) says where new records go, [flights](super::flight) answer
//! for what is in memory, the [backlog](super::backlog) is what waits.
//!
//! - **durable**: every record is in the spool before [`Delivery::write`] returns, which is when it
//!   counts as accepted. Killing the agent loses none. What cutting the power loses,
//!   [`Fsync`](tap53_spool::Fsync) says.
//! - **fast**: records go to the producer directly, as long as it takes them and they arrive. When
//!   its queue is full, when a record fails, or when none has arrived for
//!   [`STALL`](super::sender), what is in memory is requeued to the spool, and what follows goes
//!   there, until the spool has been drained. Killing the agent loses what is in memory: at most
//!   `queue_bytes` of records, and with the broker unreachable none that is older than
//!   [`STALL`](super::sender) and a moment.
//!
//! A record leaves the spool when its delivery report says that it arrived, and is sent again when
//! it says anything else, [`MessageTimedOut`](rdkafka::error::RDKafkaErrorCode) included: arriving
//! twice is possible then, and `record_id` identifies the copies. The only exceptions are records that can never be
//! delivered, such as those larger than the broker takes; they are counted as rejected.
//!
//! Order is kept for each worker: what waits goes before what is new. (A record that failed in
//! memory is requeued after those that were spooled meanwhile.) The spool is drained at
//! `replay_records_per_s` beside the live traffic.
//!
//! Records that cannot be written to the disk, not even after dropping the oldest, are sent
//! directly; where that fails as well they are lost, and counted.
//!
//! **A spool that another agent has locked**, as the one before this one until it has ended:
//! - Capture runs, and records go to the producer directly, in either mode. What the broker does
//!   not take waits in memory and is sent again.
//! - What waits is at most `queue_bytes`, beside what the producer holds; more is lost, and counted
//!   as `spool_failed`. Killing the agent loses both, in mode durable too.
//! - The lock is tried for as long as the agent runs, however long the other one takes to end. The
//!   kernel gives it to one, and keeps it until that process is gone: there is never a second
//!   writer. What waits then goes into the spool, after what the other agent has left there.
//! - At the shutdown it is tried once more. What is neither delivered within the deadline nor can
//!   be kept is counted as `unflushed`.

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
use tap53_base::{amount::Amount, clock::monotonic_ns, vitals::Reached};
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
    storage::{Clock, spool_config},
};
use crate::{
    SpoolState,
    config::KafkaConfig,
    registry::Schema,
    wait_budget::{self, WaitBudget},
};

/// At the shutdown, how long a broker gets that is known to be unreachable, or a registry: enough to
/// find it if it has just come back. What is not delivered then is on disk; waiting longer would
/// only put off the agent that comes after this one.
pub(super) const DEGRADED_FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest wait of a batch for room in the producer's queue, where there is no spool. Then the
/// rest of it is lost: a worker that waits longer would only move the loss into its ring.
const ROOM_TIMEOUT: Duration = wait_budget::WAIT;

/// The longest wait of a summary of the ledger for the backlog's lock.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(1);

/// The interval at which the shutdown checks whether all is delivered.
const SHUTDOWN_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The machine. `P` is the producer, or what a test has in its place.
pub(super) struct Delivery<P = Producer> {
    pub(super) context: Arc<SinkContext>,
    pub(super) producer: Arc<P>,
    pub(super) router: Router,
    pub(super) health: Health,
    pub(super) clock: Clock,
    /// The spool that there is to be.
    pub(super) spool_config: Option<spool::Config>,
    /// The longest wait of a record for its schema's id.
    pub(super) schema_timeout: Duration,
    /// The schemas that records in the spool may have.
    pub(super) schemas: Vec<Schema>,
    backlog: Mutex<Backlog<Flight>>,
    /// Limits the waits of all workers for room; `None` where each batch may wait.
    wait_budget: Option<WaitBudget>,
}

/// The health of the broker, the registry and the disk, for the log and the shutdown.
#[derive(Default)]
pub(super) struct Health {
    /// True after a failure, or where nothing was acknowledged for too long.
    pub(super) is_failing: AtomicBool,
    /// True where the oldest waiting record lacks the id of its schema, which may be an earlier
    /// one.
    pub(super) awaits_id: AtomicBool,
    /// The disk fails: each outage is logged once.
    pub(super) disk_fails: AtomicBool,
}

/// Decides on a record that the producer refuses.
enum Verdict {
    Retry,
    Lost(SinkLoss),
    /// Leave it, and all after it.
    Stop,
}

pub(super) type Guard<'a> = MutexGuard<'a, Backlog<Flight>>;

impl<P: Transport> Delivery<P> {
    /// In its initial state: see [`acquire_spool`](Self::acquire_spool).
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
            clock: Clock::new(),
            spool_config: config.spool.as_ref().map(spool_config),
            schema_timeout: config.message_timeout,
            schemas: schemas.to_vec(),
            backlog: Mutex::new(Backlog::Memory(Buffer::new(max_bytes, usize::MAX))),
            wait_budget,
        }
    }

    pub(super) fn lock(&self) -> Guard<'_> {
        self.backlog.lock()
    }

    /// Accounts for each record of a batch.
    pub(super) fn write(&self, batch: &Batch) {
        let flight = Flight::accept(&self.context.accounts, batch);
        if self.router.route() != Route::Direct {
            let backlog = self.lock();
            // It may have been drained meanwhile.
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

    /// Hands records to the producer, from the one with index `from` on, until `on_refusal` says to
    /// stop; the index of that one.
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

    /// Sends without a spool: waits for room, within what workers may wait.
    fn send_waiting_for_room(&self, batch: &Batch, mut flight: Flight<&Accounts>) {
        let began = Instant::now();
        let budget = self.wait_budget.as_ref();
        let give_up_at = budget.map_or(began + ROOM_TIMEOUT, |budget| budget.give_up_at(began));
        let mut has_waited = false;
        self.send(batch, 0, &mut flight, |refusal| match refusal {
            Refusal::QueueFull if Instant::now() < give_up_at => {
                if let Some(budget) = budget.filter(|_| !has_waited) {
                    budget.begin(Instant::now());
                }
                has_waited = true;
                // Room comes with a report, on librdkafka's thread.
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

    /// Puts the records of a batch from the one with index `from` on into the backlog; those that it
    /// does not take are sent directly, or lost.
    fn store(
        &self,
        mut backlog: Guard<'_>,
        batch: &Batch,
        from: usize,
        mut flight: Flight<&Accounts>,
    ) {
        let (next, reason) = match &mut *backlog {
            Backlog::Disk(spool) => match spool.append(records(batch, from), self.clock.now_ms()) {
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

    /// Copies records into memory; the index of the first that has no room.
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
            let amount = Amount::record(u64::from(entry.messages));
            let owner = flight.split(amount).keep(&self.context.accounts);
            if let Err(refused) = buffer.push(QueuedMessage::new(owner, &message), now) {
                flight.join(refused.owner);
                return index;
            }
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

    /// Puts records that came back into the backlog. Those that it does not take are lost.
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
                    while let Some(record) = records.pop_front() {
                        if let Err(refused) = buffer.push(record, now) {
                            records.push_front(refused);
                            break;
                        }
                    }
                    let is_full = !records.is_empty();
                    is_full.then(|| "another agent has locked it, and memory is full".to_owned())
                }
                Backlog::Disk(spool) => {
                    let accounts = &self.context.accounts;
                    let moved = move_piece(&mut records, spool, accounts, self.clock.now_ms());
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
            // Others get at it in between.
            backlog = self.lock();
        }
    }

    /// Publishes what the spool holds and has lost.
    pub(super) fn reconcile(&self, backlog: &mut Backlog<Flight>) {
        if let Backlog::Disk(spool) = backlog {
            self.context.accounts.reconcile(spool, |_| {});
        }
    }

    /// Returns the loss reason of records that wait in memory at the shutdown.
    pub(super) fn loss_at_shutdown(&self) -> SinkLoss {
        match self.context.requeues {
            true => SinkLoss::Unflushed,
            false => SinkLoss::NoSchemaId,
        }
    }

    /// Records that the producer has from memory, those of `backlog` left out.
    pub(super) fn in_producer(&self, backlog: &Backlog<Flight>) -> u64 {
        let in_flight = self.context.counts().read().in_flight.records;
        match backlog {
            Backlog::Memory(buffer) => in_flight.saturating_sub(buffer.len() as u64),
            Backlog::Disk(_) => in_flight,
        }
    }

    /// Id in the spool below which all is acknowledged, and how much of what it inherited has been
    /// lost. `None` while another agent has it locked, and while a disk that hangs holds it up: the
    /// run loop calls this, and goes on without it.
    pub(super) fn progress(&self) -> Option<(u64, u64)> {
        if !self.context.requeues {
            return Some((0, 0));
        }
        match &*self.backlog.try_lock_for(PROGRESS_TIMEOUT)? {
            Backlog::Disk(spool) => Some((spool.acknowledged_id(), spool.inherited_lost())),
            Backlog::Memory(_) => None,
        }
    }

    /// The spool, for who watches; `None` where there is to be none.
    pub(super) fn spool_state(&self) -> Option<SpoolState> {
        Some(SpoolState {
            limit_bytes: self.spool_config.as_ref()?.max_bytes,
            oldest_at_ms: self.context.accounts.oldest_at_ms.read(),
            reports_waiting: self.context.events.depth(),
        })
    }

    /// Waits until all is delivered that can be, within `deadline`.
    pub(super) fn finish(&self, deadline: Duration) {
        let began = Instant::now();
        loop {
            let health = &self.health;
            let is_degraded = health.is_failing.load(Ordering::Relaxed)
                || health.awaits_id.load(Ordering::Relaxed);
            // What is not delivered is on disk, unless there is no spool, or it waits for a registry.
            let is_kept = self.router.has_spool() || !self.context.requeues;
            let limit = match is_degraded && is_kept {
                true => deadline.min(DEGRADED_FLUSH_TIMEOUT),
                false => deadline,
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
        // The rest is in the producer, which is flushed.
        self.router.route() == Route::Direct || self.lock().is_drained()
    }
}

/// The records of a batch, from the one with index `from` on.
fn records(batch: &Batch, from: usize) -> impl Iterator<Item = Record<'_>> + Clone {
    batch.iter_keyed().skip(from).map(|(key, value, entry)| Record {
        timestamp_ms: entry.timestamp_ms,
        messages: entry.messages,
        key,
        value,
    })
}
