//! The spool between the workers and the producer.
//!
//! - **durable**: every record is in the spool before [`Spooling::write`] returns, which is when it
//!   counts as accepted. Killing the agent loses none. What cutting the power loses, [`Fsync`] says.
//! - **fast**: records go to the producer directly, as long as it takes them and they arrive. When
//!   its queue is full, when a record fails, or when none has arrived for [`STALL`](super::sender), what is in
//!   memory is taken back and goes to the spool, and so does what follows, until the spool has been
//!   worked off. Killing the agent loses what is in memory: at most `queue_bytes` of records, and
//!   with the broker away none that is older than [`STALL`](super::sender) and a moment.
//!
//! A record leaves the spool when its delivery report says that it arrived, and is sent again when
//! it says anything else, [`MessageTimedOut`](rdkafka::error::RDKafkaErrorCode) included: arriving
//! twice is possible then, and `record_id` tells. The only exceptions are records that can never be
//! delivered, such as those longer than the broker takes; they are counted as rejected.
//!
//! Order is kept for each worker: what waits in the spool goes before what is new. (A record that
//! failed in memory goes behind those that were spooled meanwhile.) What waits is worked off at
//! `replay_records_per_s` beside the live traffic.
//!
//! What cannot be written to the disk, not even after dropping what is oldest, is sent directly,
//! and lost, and counted, if that fails as well.
//!
//! Where another agent has the spool, as the one before this one until it has ended, [`takeover`](super::takeover)
//! says what happens until then.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    link::Link,
    mailbox::Mailbox,
    origin::Origin,
    outage::Outage,
    producer::{Message, Producer, Refusal},
    sender::Sender,
    takeover::Memory,
};
use crate::{
    config::{KafkaConfig, SpoolConfig, SpoolMode},
    encode::{Batch, SCHEMA_VERSION},
    ledger::{Amount, Published, SinkCounts, SinkLoss},
    sink::{Error, SpoolState, registry::Schema},
    spool::{self, Fsync, Loss, Losses, Record, Spool},
    telemetry::Reached,
    worker::monotonic_ns,
};

/// At the shutdown, how long a broker gets that is known to be away, or a registry: enough to find it
/// if it has just come back. What is not delivered then is on disk; waiting longer would only put
/// off the agent that comes after this one.
pub(super) const HOPELESS_FLUSH: Duration = Duration::from_secs(3);

/// How long a summary of the ledger waits for what the spool knows.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a spool that somebody else has is tried for.
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// How often the ending is looked at.
const ENDING_LOOK: Duration = Duration::from_millis(5);

/// A spool, and the thread that sends from it.
pub(super) struct Spooling {
    inner: Arc<Inner>,
    sender: Mutex<Option<JoinHandle<()>>>,
}

pub(super) struct Inner {
    pub(super) mode: SpoolMode,
    pub(super) fsync: Fsync,
    pub(super) link: Arc<Link>,
    pub(super) producer: Arc<Producer>,
    pub(super) spool_config: spool::Config,
    /// What records in the spool may be of.
    pub(super) schemas: Vec<Schema>,
    /// Empty until it is this agent's.
    pub(super) spool: OnceLock<Mutex<Spool>>,
    /// Records that wait for the spool.
    pub(super) memory: Mutex<Memory>,
    /// In fast mode: whether records go to the producer directly. Set with the spool locked.
    pub(super) is_direct: AtomicBool,
    /// Whether the last that was heard of the broker is a failure, or nothing.
    pub(super) is_failing: AtomicBool,
    /// Whether the oldest in the spool waits for the id of its schema, which may be an earlier one.
    pub(super) awaits_id: AtomicBool,
    /// Whether the disk fails: each outage is logged once.
    pub(super) disk_fails: AtomicBool,
    pub(super) node_directory: String,
    pub(super) clock: Clock,
    limit_bytes: u64,
    /// Since when the oldest record waits, milliseconds since 1970 UTC. Beside the spool, which is
    /// locked while the disk is written to.
    pub(super) oldest_at_ms: Published<Option<i64>>,
}

impl Spooling {
    pub(super) fn open(
        config: &KafkaConfig,
        spool_config: &SpoolConfig,
        link: &Arc<Link>,
        producer: &Arc<Producer>,
        schemas: &[Schema],
    ) -> Result<Self, Error> {
        let inner = Arc::new(Inner {
            mode: spool_config.mode,
            fsync: spool_config.fsync(),
            link: link.clone(),
            producer: producer.clone(),
            // As long as there is no spool.
            is_direct: AtomicBool::new(true),
            spool_config: spool::Config {
                directory: spool_config.directory.clone(),
                max_bytes: spool_config.max_bytes,
                max_age: spool_config.max_age,
                fsync: spool_config.fsync(),
                schema_version: SCHEMA_VERSION.unsigned_abs(),
            },
            schemas: schemas.to_vec(),
            spool: OnceLock::new(),
            memory: Mutex::new(Memory::new(config.queue_bytes)),
            limit_bytes: spool_config.max_bytes,
            oldest_at_ms: Published::new(None),
            is_failing: AtomicBool::new(false),
            awaits_id: AtomicBool::new(false),
            disk_fails: AtomicBool::new(false),
            node_directory: spool_config.directory.display().to_string(),
            clock: Clock::new(),
        });
        match inner.take_over() {
            Ok(()) => {}
            Err(spool::Error::Locked(_)) => inner.say_that_it_waits(),
            Err(cause) => return Err(Error::Spool { sink: config.name.clone(), cause }),
        }
        let outage = Outage::new(config.message_timeout);
        let sender = Sender::new(inner.clone(), spool_config.replay_records_per_s, outage);
        let sender = thread::Builder::new()
            .name("kafka-spool".to_owned())
            .spawn(move || sender.run())
            .map_err(|cause| Error::File {
                sink: config.name.clone(),
                action: "start the thread of spool",
                path: spool_config.directory.display().to_string(),
                cause,
            })?;
        Ok(Self { inner, sender: Mutex::new(Some(sender)) })
    }

    pub(super) fn write(&self, batch: &Batch) {
        self.inner.write(batch);
    }

    #[cfg(test)]
    pub(super) fn has_spool(&self) -> bool {
        self.inner.has_spool()
    }

    /// As it is now.
    pub(super) fn state(&self) -> SpoolState {
        let inner = &self.inner;
        SpoolState {
            limit_bytes: inner.limit_bytes,
            oldest_at_ms: inner.oldest_at_ms.read(),
            reports_waiting: inner.link.mailbox.as_ref().map_or(0, Mailbox::depth),
        }
    }

    /// True if the last that was heard of the broker is a failure, or nothing for too long.
    pub(super) fn is_failing(&self) -> bool {
        self.inner.is_failing.load(Ordering::Relaxed)
    }

    /// Id in the spool below which all is done with, and how much of what it held at the start has
    /// been lost; `None` while another agent has it, and while a disk that hangs holds it up: the run
    /// loop asks, and goes on without it.
    pub(super) fn progress(&self) -> Option<(u64, u64)> {
        let spool = self.inner.lock_within(PROGRESS_TIMEOUT)?;
        Some((spool.done_id(), spool.carried_lost()))
    }

    /// True while new records go to the producer directly.
    #[cfg(test)]
    pub(super) fn is_direct(&self) -> bool {
        self.inner.is_direct.load(Ordering::Acquire)
    }

    /// Delivers what can be delivered within `deadline`, and leaves the rest in the spool.
    pub(super) fn close(&self, deadline: Duration) {
        let inner = &self.inner;
        let began = Instant::now();
        loop {
            let counts = inner.link.counts.read();
            let waiting = counts.spooled.records + counts.in_flight.records;
            // What is not delivered is on disk, unless there is no spool.
            let awaits_id = inner.awaits_id.load(Ordering::Relaxed);
            let is_hopeless = (self.is_failing() || awaits_id) && inner.has_spool();
            let limit = if is_hopeless { deadline.min(HOPELESS_FLUSH) } else { deadline };
            if waiting == 0 || began.elapsed() >= limit {
                break;
            }
            thread::park_timeout(ENDING_LOOK);
        }
        self.stop();
        let records = inner.link.counts.read().spooled.records;
        if records > 0 {
            let (sink, directory) = (&inner.link.sink, &inner.node_directory);
            tracing::warn!(
                sink,
                directory,
                records,
                "not delivered before the shutdown: they stay in the spool for the next start"
            );
        }
    }

    fn stop(&self) {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(sender) = sender else { return };
        self.inner.mailbox(|mailbox| mailbox.put(|mail| mail.stop = true));
        if sender.join().is_err() {
            tracing::error!(sink = self.inner.link.sink, "the spool's thread panicked");
        }
    }
}

impl Drop for Spooling {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Inner {
    /// The spool; `None` while another agent has it.
    /// As [`lock`](Self::lock); `None` also where somebody has it for longer than `timeout`.
    fn lock_within(&self, timeout: Duration) -> Option<MutexGuard<'_, Spool>> {
        let spool = self.spool.get()?;
        let give_up_at = Instant::now() + timeout;
        loop {
            match spool.try_lock() {
                Ok(guard) => return Some(guard),
                Err(TryLockError::Poisoned(error)) => return Some(error.into_inner()),
                Err(TryLockError::WouldBlock) if Instant::now() >= give_up_at => return None,
                // std's mutex has no wait with a deadline.
                Err(TryLockError::WouldBlock) => thread::park_timeout(LOCK_POLL_INTERVAL),
            }
        }
    }

    pub(super) fn lock(&self) -> Option<MutexGuard<'_, Spool>> {
        // Its parts change together, within calls that do not panic.
        Some(self.spool.get()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn has_spool(&self) -> bool {
        self.spool.get().is_some()
    }

    pub(super) fn mailbox(&self, act: impl FnOnce(&Mailbox)) {
        // There is one wherever there is a spool.
        if let Some(mailbox) = &self.link.mailbox {
            act(mailbox);
        }
    }

    /// Changes the counts together with what the spool holds and has lost, so that they add up at
    /// every moment.
    pub(super) fn account(&self, spool: &mut Spool, change: impl FnOnce(&mut SinkCounts)) {
        let (losses, held, bytes) = (spool.take_losses(), spool.held(), spool.bytes());
        let totals = spool.totals();
        self.oldest_at_ms.publish(spool.oldest_at_ms());
        self.link.counts.update(|counts| {
            change(counts);
            counts.spooled = held;
            counts.spool_bytes = bytes;
            counts.spool_totals = Some(totals);
            add_losses(counts, &losses);
        });
    }

    fn write(&self, batch: &Batch) {
        let amount = Amount { records: batch.records(), messages: batch.messages() };
        if self.is_direct.load(Ordering::Acquire) {
            self.link.counts.update(|counts| {
                counts.offer(amount);
                counts.in_flight += amount;
            });
            let sent = self.send_directly(batch);
            if sent < batch.entries() {
                self.spool_rest(batch, sent);
            }
            return;
        }
        // There is one: while there is none, records go directly.
        let Some(mut spool) = self.lock() else { return };
        if self.is_direct.load(Ordering::Acquire) {
            // The spool has been worked off meanwhile.
            drop(spool);
            self.write(batch);
            return;
        }
        match spool.append(records(batch, 0), self.clock.now_ms()) {
            Ok(_) => {
                self.link.settling.spool(batch.ticket(), spool.next_id());
                self.link.settling.leave(batch.ticket(), amount.records);
                self.account(&mut spool, |counts| counts.offer(amount));
                self.appended(spool, batch.entries());
                self.link.timings.all_reached(Reached::Spooled, batch, monotonic_ns());
            }
            Err(error) => {
                self.account(&mut spool, |counts| {
                    counts.offer(amount);
                    counts.in_flight += amount;
                });
                drop(spool);
                self.disk_failed(&error);
                let sent = self.send_directly(batch);
                self.lose(batch, sent, SinkLoss::SpoolFailed);
            }
        }
    }

    /// Hands records to the producer until it refuses one; the index of that one. They are counted
    /// as in flight already.
    fn send_directly(&self, batch: &Batch) -> usize {
        let producer = self.producer.current();
        let version = SCHEMA_VERSION.unsigned_abs();
        for (index, (key, value, entry)) in batch.iter_keyed().enumerate() {
            let origin = Origin::memory(&entry, batch.ticket());
            let message = Message { timestamp_ms: entry.timestamp_ms, key, value };
            match self.producer.send(&producer, origin, version, &message) {
                Ok(()) => {}
                Err(Refusal::Never) => {
                    let amount = Amount::record(u64::from(entry.messages));
                    self.link.counts.update(|counts| {
                        counts.in_flight -= amount;
                        counts.lose(SinkLoss::Rejected, amount);
                    });
                    self.link.settling.leave(batch.ticket(), 1);
                }
                Err(Refusal::QueueFull | Refusal::NotNow | Refusal::NoId) => return index,
            }
        }
        batch.entries()
    }

    /// Moves what the producer did not take from memory to the disk.
    pub(super) fn spool_rest(&self, batch: &Batch, from: usize) {
        let Some(mut spool) = self.lock() else {
            self.hold_rest(batch, from);
            return;
        };
        self.is_direct.store(false, Ordering::Release);
        match spool.append(records(batch, from), self.clock.now_ms()) {
            Ok(rest) => {
                // In the spool before they leave memory, so that they are never nowhere.
                self.link.settling.spool(batch.ticket(), spool.next_id());
                self.link.settling.leave(batch.ticket(), rest.records);
                self.account(&mut spool, |counts| counts.in_flight -= rest);
                self.appended(spool, batch.entries() - from);
            }
            Err(error) => {
                drop(spool);
                self.disk_failed(&error);
                self.lose(batch, from, SinkLoss::SpoolFailed);
            }
        }
    }

    /// Wakes the sender, and forces what was appended to the disk where that comes before anything
    /// else.
    pub(super) fn appended(&self, mut spool: MutexGuard<'_, Spool>, records: usize) {
        let unsynced = (self.fsync == Fsync::Batch).then(|| spool.take_unsynced());
        drop(spool);
        if self.disk_fails.swap(false, Ordering::Relaxed) {
            tracing::info!(sink = self.link.sink, "writing to the spool again");
        }
        self.mailbox(|mailbox| mailbox.put(|mail| mail.appended += records));
        if let Some(unsynced) = unsynced {
            self.force_to_disk(&unsynced);
        }
    }

    pub(super) fn force_to_disk(&self, unsynced: &spool::Unsynced) {
        if unsynced.is_empty() {
            return;
        }
        let began = Instant::now();
        let forced = unsynced.force_to_disk();
        self.link.timings.sync.observe(began.elapsed());
        if let Err(error) = forced {
            let directory = &self.node_directory;
            tracing::error!(%error, directory, "cannot force the spool to the disk: records may be lost with the node's power");
            self.lock().iter_mut().for_each(|spool| spool.distrust_active());
        }
    }

    pub(super) fn disk_failed(&self, error: &dyn std::fmt::Display) {
        if !self.disk_fails.swap(true, Ordering::Relaxed) {
            let directory = &self.node_directory;
            tracing::error!(%error, directory, "cannot write to the spool: records are sent without it, and lost and counted where that fails");
        }
    }

    /// Counts records of a batch, from `from` on, that were in flight and are lost.
    pub(super) fn lose(&self, batch: &Batch, from: usize, reason: SinkLoss) {
        let mut lost = Amount::default();
        for (_, entry) in batch.iter().skip(from) {
            lost += Amount::record(u64::from(entry.messages));
        }
        self.link.counts.update(|counts| {
            counts.in_flight -= lost;
            counts.lose(reason, lost);
        });
        self.link.settling.leave(batch.ticket(), lost.records);
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

pub(super) fn add_losses(counts: &mut SinkCounts, losses: &Losses) {
    for (reason, lost) in Loss::ALL.into_iter().zip(losses) {
        let reason = match reason {
            Loss::DroppedOldest => SinkLoss::DroppedOldest,
            Loss::TooOld => SinkLoss::TooOld,
            Loss::Unreadable => SinkLoss::Unreadable,
            Loss::Rejected => SinkLoss::Rejected,
        };
        counts.lose(reason, *lost);
    }
}

/// Tells how old records in the spool are: the wall clock as it was at the start, and the time since
/// then. Where the wall clock is set meanwhile, no record grows old by that.
pub(super) struct Clock {
    started_ms: i64,
    started: Instant,
}

impl Clock {
    fn new() -> Self {
        Self { started_ms: now_ms(), started: Instant::now() }
    }

    pub(super) fn now_ms(&self) -> i64 {
        let passed_ms = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.started_ms.saturating_add(passed_ms)
    }
}

/// By the wall clock.
pub(super) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
