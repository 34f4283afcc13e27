//! The thread that sends the backlog, and applies delivery reports.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tap53_base::{amount::Amount, backoff::Backoff, threads::JoinedThread};
use tap53_ledger::SinkLoss;
use tap53_spool::{self as spool, Fsync, Spool};

use super::{
    backlog::Backlog,
    batch_limit::BatchLimit,
    delivery::{Delivery, Guard},
    events::{Events, Outcome},
    flight::Flight,
    outage::Outage,
    producer::{Refusal, Transport},
    rate_limiter::RateLimiter,
    route::{Event, Route},
};

/// A broker is unreachable if nothing is acknowledged for this long, with records in flight.
const STALL: Duration = Duration::from_secs(5);

/// The interval of the sender's periodic work, and that while nothing waits or is in flight. New
/// records that go to the producer directly do not end the latter: a stall counts from the round that
/// sees it first.
const PERIOD: Duration = Duration::from_millis(100);
const IDLE_PERIOD: Duration = Duration::from_millis(500);

/// The interval of the spool's checkpoints. After a crash, records acknowledged since the last one are
/// sent again.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// The interval at which a lock of another agent on the spool is tried, and that of the log about it.
const LOCK_INTERVAL: Duration = Duration::from_millis(200);
const REMINDER_INTERVAL: Duration = Duration::from_secs(60);

/// The most records that are sent before the backlog is unlocked for the workers.
const ROUND: usize = 512;

/// The interval at which a rate limit that was reached is checked.
const RATE_INTERVAL: Duration = Duration::from_millis(5);

/// The pauses after failures, also of a broker that refuses at once.
const MIN_BACKOFF: Duration = Duration::from_millis(100);
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(5);

pub(super) struct Sender<P> {
    delivery: Arc<Delivery<P>>,
    limiter: RateLimiter,
    /// Nothing is sent before.
    not_before: Instant,
    backoff: Backoff,
    outage: Outage,
    batch_limit: BatchLimit,
    /// Records answered at the last check, whether any were in flight then, and the time of the last
    /// progress.
    answered: u64,
    was_waiting: bool,
    no_progress_since: Instant,
    next_period: Instant,
    next_checkpoint: Instant,
    next_sync: Instant,
    next_lock: Instant,
    next_reminder: Instant,
}

impl<P: Transport> Sender<P> {
    pub(super) fn new(
        delivery: Arc<Delivery<P>>,
        replay_records_per_s: Option<u32>,
        now: Instant,
    ) -> Self {
        Self {
            limiter: RateLimiter::new(replay_records_per_s, now),
            not_before: now,
            backoff: Backoff::new(MIN_BACKOFF, MAX_BACKOFF),
            outage: Outage::new(delivery.schema_timeout),
            batch_limit: BatchLimit::default(),
            answered: 0,
            was_waiting: false,
            no_progress_since: now,
            next_period: now,
            next_checkpoint: now,
            next_sync: now,
            next_lock: now,
            next_reminder: now + REMINDER_INTERVAL,
            delivery,
        }
    }

    /// Starts the thread. When it is stopped, it stores the records that are only in memory.
    pub(super) fn start(self) -> io::Result<JoinedThread> {
        let context = self.delivery.context.clone();
        let stop = move || context.events.put(|events| events.stop = true);
        JoinedThread::start("kafka-sender", move || self.run(), stop)
    }

    fn run(mut self) {
        let context = self.delivery.context.clone();
        let mut timeout = Some(Duration::ZERO);
        while let Some(wait) = timeout {
            timeout = self.step(context.events.take(wait), Instant::now());
        }
    }

    /// Applies events, sends, and does the periodic work. Returns when to do so again without events,
    /// and `None` at the end.
    pub(super) fn step(&mut self, events: Events, now: Instant) -> Option<Duration> {
        let (stop, appended) = (events.stop, events.appended);
        self.apply(events, now);
        if stop {
            self.end(now);
            return None;
        }
        let context = self.delivery.context.clone();
        let waiting = context.counts().read().spooled.records;
        self.limiter.add(appended, waiting, now);
        let next = self.send(now);
        if now >= self.next_period {
            self.next_period = now + PERIOD;
            self.look_after(now);
        }
        if !context.requeues && self.delivery.router.route() == Route::Direct {
            // The schema id is known, and no record waits any more.
            return None;
        }
        Some(if self.is_idle() { IDLE_PERIOD } else { next.min(PERIOD) })
    }

    /// Applies delivery reports, and requeues failed records.
    fn apply(&mut self, events: Events, now: Instant) {
        let Events { reports, failed, .. } = events;
        if reports.is_empty() && failed.is_empty() {
            return;
        }
        let delivery = self.delivery.clone();
        let mut backlog = delivery.lock();
        let outcomes = reports.iter().map(|(_, outcome)| outcome);
        let mut outcomes = outcomes.chain(failed.iter().map(|failed| &failed.outcome));
        let has_failed = outcomes.any(|outcome| *outcome == Outcome::Failed);
        let is_alone = self.batch_limit.is_alone();
        let (mut delivered, mut too_large) = (Amount::default(), 0);
        if let Backlog::Disk(spool) = &mut *backlog {
            (delivered, too_large) = apply_reports(spool, reports, is_alone);
        }
        let from_memory = failed.iter().filter(|f| f.outcome == Outcome::TooLarge).count();
        self.divide(&backlog, too_large, from_memory);
        if too_large > 0 || !failed.is_empty() {
            // Also with divided batches: new records queue after them.
            delivery.router.apply(Event::Blocked, &mut backlog);
        }
        if let Backlog::Disk(spool) = &mut *backlog {
            let accounts = &delivery.context.accounts;
            accounts.reconcile(spool, |counts| counts.delivered += delivered);
        }
        // Divided batches come from the backlog: records that go back to a spool were not alone.
        let is_refused = is_alone && matches!(&*backlog, Backlog::Memory(_));
        let (refused, failed): (Vec<_>, Vec<_>) = failed
            .into_iter()
            .partition(|failed| is_refused && failed.outcome == Outcome::TooLarge);
        refused.into_iter().for_each(|refused| refused.record.owner.lost(SinkLoss::Rejected));
        delivery.requeue(backlog, failed.into_iter().map(|failed| failed.record).collect());
        if has_failed {
            self.failed(now);
        } else if delivered.records > 0 {
            self.backoff.reset();
        }
    }

    /// Makes batches smaller after the broker refused some as too large.
    fn divide(&mut self, backlog: &Backlog<Flight>, from_backlog: usize, from_memory: usize) {
        let records = from_backlog + from_memory;
        if records == 0 {
            return;
        }
        // Failed records are in flight until they are requeued.
        let in_producer = usize::try_from(self.delivery.in_producer(backlog)).unwrap_or(usize::MAX);
        let most = in_producer.saturating_add(from_backlog + backlog.sent());
        if self.batch_limit.divide(most) {
            let sink = &self.delivery.context.sink;
            tracing::warn!(
                event = "batch_too_large",
                sink,
                records,
                "broker refuses a batch as too large, sending its records in smaller ones; set batch_bytes to at most the topic's max.message.bytes"
            );
        }
    }

    fn failed(&mut self, now: Instant) {
        self.note_failing(now);
        if now >= self.not_before {
            self.not_before = now + self.backoff.fail();
        }
    }

    fn note_failing(&mut self, now: Instant) {
        let context = &self.delivery.context;
        self.delivery.health.is_failing.store(true, Ordering::Relaxed);
        if !self.outage.failed(now) {
            return;
        }
        let sink = &context.sink;
        let error = match context.take_connection_error() {
            error if error.is_empty() => "no answer".to_owned(),
            error => error,
        };
        let has_spool = self.delivery.router.has_spool();
        context.ongoing_outage.begin(|| {
            let place = if has_spool { "spool" } else { "memory" };
            format!("broker unreachable, buffering to {place}: {error}")
        });
        if has_spool {
            tracing::error!(
                event = "buffering_to_spool",
                sink,
                error,
                "broker unreachable, buffering to spool"
            );
        } else {
            tracing::error!(
                event = "buffering_to_memory",
                sink,
                error,
                "broker unreachable, buffering to memory"
            );
        }
    }

    /// Sends up to [`ROUND`] records; returns when to do so again without events.
    fn send(&mut self, now: Instant) -> Duration {
        if now < self.not_before {
            return self.not_before - now;
        }
        let delivery = self.delivery.clone();
        let producer = delivery.producer.current();
        let mut backlog = delivery.lock();
        if !self.batch_limit.is_unlimited() && backlog.peek().is_none() {
            // Otherwise the limit would count this as a batch that arrived.
            delivery.reconcile(&mut backlog);
            return PERIOD;
        }
        let is_under_way = delivery.in_producer(&backlog) > 0 || backlog.sent() > 0;
        let round = self.batch_limit.next(is_under_way).min(ROUND);
        if round == 0 {
            return PERIOD;
        }
        // The rate limit is for the spool: memory is freed as soon as possible.
        let allowed = match &*backlog {
            Backlog::Disk(_) => self.limiter.allowed(),
            Backlog::Memory(_) => usize::MAX,
        };
        let drained = backlog.drain(round.min(allowed), |origin, version, message| {
            delivery.producer.send(&producer, origin, version, message)
        });
        self.limiter.take(drained.taken);
        let awaits_id = drained.refusal == Some(Refusal::NoId);
        delivery.health.awaits_id.store(awaits_id, Ordering::Relaxed);
        if drained.refusal == Some(Refusal::NotNow) {
            self.failed(now);
        }
        if self.has_drained(&backlog) {
            delivery.router.apply(Event::Drained, &mut backlog);
        }
        let is_rate_used_up = drained.refusal.is_none() && drained.taken == allowed;
        let next = if is_rate_used_up && backlog.peek().is_some() {
            RATE_INTERVAL
        } else if drained.taken == ROUND && self.batch_limit.is_unlimited() {
            Duration::ZERO
        } else {
            // Delivery reports make room in the producer's queue, and they are events.
            PERIOD
        };
        // Entries that were unreadable or rejected.
        delivery.reconcile(&mut backlog);
        next
    }

    /// True if new records may go to the producer directly again.
    fn has_drained(&self, backlog: &Backlog<Flight>) -> bool {
        let delivery = &self.delivery;
        let is_ready = match backlog {
            Backlog::Disk(_) => !delivery.health.is_failing.load(Ordering::Relaxed),
            Backlog::Memory(_) if delivery.context.requeues => true,
            Backlog::Memory(_) => delivery.context.is_schema_known(),
        };
        is_ready && self.batch_limit.is_unlimited() && backlog.is_drained()
    }

    fn look_after(&mut self, now: Instant) {
        let delivery = self.delivery.clone();
        if delivery.context.requeues {
            if delivery.producer.rebuild_if_fatal() {
                self.apply_early(now);
                if let Backlog::Disk(spool) = &mut *delivery.lock() {
                    spool.fail_all();
                }
            }
            self.watch_progress(now);
            self.try_lock(now);
        }
        let mut backlog = delivery.lock();
        match &mut *backlog {
            Backlog::Disk(spool) => {
                spool.drop_old(delivery.now_ms());
                self.maintain(backlog, now);
            }
            Backlog::Memory(buffer) if !delivery.context.requeues => {
                while let Some(old) = buffer.pop_older(delivery.schema_timeout, now) {
                    old.owner.lost(SinkLoss::NoSchemaId);
                }
            }
            Backlog::Memory(_) => {}
        }
    }

    /// Writes checkpoints, and syncs the spool in intervals.
    fn maintain(&mut self, mut backlog: Guard<'_>, now: Instant) {
        let delivery = self.delivery.clone();
        delivery.reconcile(&mut backlog);
        let Backlog::Disk(spool) = &mut *backlog else { return };
        if now >= self.next_checkpoint {
            self.next_checkpoint = now + CHECKPOINT_INTERVAL;
            if let Err(error) = spool.checkpoint(false) {
                delivery.disk_failed(&error);
            }
        }
        if let Some(Fsync::Interval(interval)) = delivery.spool_config.as_ref().map(|c| c.fsync)
            && now >= self.next_sync
        {
            self.next_sync = now + interval;
            let unsynced = spool.take_unsynced();
            drop(backlog);
            delivery.sync(&unsynced);
        }
    }

    /// Acquires the spool's lock once the other agent has ended.
    fn try_lock(&mut self, now: Instant) {
        let delivery = &self.delivery;
        if delivery.router.has_spool() || now < self.next_lock {
            return;
        }
        self.next_lock = now + LOCK_INTERVAL;
        match delivery.acquire_spool() {
            Ok(()) => {
                let (sink, directory) = (&delivery.context.sink, delivery.directory());
                tracing::info!(
                    event = "spool_lock_acquired",
                    sink,
                    directory,
                    "acquired spool lock"
                );
            }
            Err(spool::Error::Locked(_)) if now >= self.next_reminder => {
                self.next_reminder = now + REMINDER_INTERVAL;
                delivery.log_lock_wait();
            }
            Err(spool::Error::Locked(_)) => {}
            Err(error) => delivery.disk_failed(&error),
        }
    }

    /// True if nothing waits or is in flight, and nothing fails.
    fn is_idle(&self) -> bool {
        let delivery = &self.delivery;
        let counts = delivery.context.counts().read();
        delivery.router.has_spool()
            && !delivery.health.is_failing.load(Ordering::Relaxed)
            && counts.in_flight.records == 0
            && counts.spooled.records == 0
    }

    /// Applies the events so far, and leaves the rest of them for the next step.
    fn apply_early(&mut self, now: Instant) {
        let events = self.delivery.context.events.take(Duration::ZERO);
        let (stop, appended) = (events.stop, events.appended);
        self.apply(events, now);
        self.delivery.context.events.put(|events| {
            events.stop |= stop;
            events.appended += appended;
        });
    }

    /// Detects that nothing is acknowledged although something is in flight.
    fn watch_progress(&mut self, now: Instant) {
        let delivery = self.delivery.clone();
        let health = &delivery.health;
        let answered = delivery.context.answered.load(Ordering::Relaxed);
        let mut backlog = delivery.lock();
        let in_memory = delivery.in_producer(&backlog);
        let is_waiting = in_memory > 0 || backlog.sent() > 0;
        if answered != self.answered {
            self.answered = answered;
            self.no_progress_since = now;
            health.is_failing.store(false, Ordering::Relaxed);
        } else if !is_waiting || !self.was_waiting {
            self.no_progress_since = now;
        }
        self.was_waiting = is_waiting;
        if !health.is_failing.load(Ordering::Relaxed) && self.outage.is_over(now) {
            delivery.context.take_connection_error();
            delivery.context.ongoing_outage.end();
            let sink = &delivery.context.sink;
            tracing::info!(event = "delivery_resumed", sink, "delivery resumed");
        }
        if now.saturating_duration_since(self.no_progress_since) < STALL {
            return;
        }
        self.no_progress_since = now;
        self.note_failing(now);
        if in_memory > 0 && delivery.router.has_spool() {
            delivery.router.apply(Event::Blocked, &mut backlog);
            drop(backlog);
            // Their reports requeue them.
            delivery.producer.purge();
        }
    }

    /// Moves the records in memory to the spool, and closes it.
    fn end(&mut self, now: Instant) {
        let delivery = self.delivery.clone();
        let sink = &delivery.context.sink;
        if delivery.context.requeues {
            delivery.router.apply(Event::Blocked, &mut delivery.lock());
            delivery.producer.purge();
            self.apply(delivery.context.events.take(Duration::ZERO), now);
            if !delivery.router.has_spool()
                && let Err(error) = delivery.acquire_spool()
            {
                // Records in memory are in flight, and count as `unflushed`.
                tracing::error!(event = "spool_lock_not_acquired", sink, %error, "cannot keep what is not delivered");
            }
        }
        let mut backlog = delivery.lock();
        let Backlog::Disk(spool) = &mut *backlog else {
            let requeues = delivery.context.requeues;
            let reason = if requeues { SinkLoss::Unflushed } else { SinkLoss::NoSchemaId };
            if let Backlog::Memory(buffer) = &mut *backlog {
                buffer.take_all().into_iter().for_each(|queued| queued.owner.lost(reason));
            }
            return;
        };
        // Entries without a report are sent again by the next run.
        spool.fail_all();
        delivery.context.accounts.reconcile(spool, |_| {});
        if let Err(error) = spool.close() {
            tracing::error!(event = "spool_close_failed", sink, %error, "cannot close the spool in good order");
        }
    }
}

/// Applies reports to the spool; returns what was delivered, and how many records were in batches that
/// are too large.
fn apply_reports(
    spool: &mut Spool,
    reports: Vec<(u64, Outcome)>,
    is_alone: bool,
) -> (Amount, usize) {
    let (mut delivered, mut too_large) = (Amount::default(), 0);
    for (id, outcome) in reports {
        match outcome {
            Outcome::Delivered => {
                if let Some(amount) = spool.acknowledge(id) {
                    delivered += amount;
                }
            }
            Outcome::Rejected => spool.reject(id),
            Outcome::TooLarge if is_alone => spool.reject(id),
            Outcome::TooLarge => {
                spool.fail(id);
                too_large += 1;
            }
            Outcome::Failed | Outcome::Innocent => spool.fail(id),
        }
    }
    (delivered, too_large)
}
