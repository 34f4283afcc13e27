//! The thread that sends from the spool.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    allowance::Allowance,
    groups::Groups,
    mailbox::{Mail, Mailbox, Outcome},
    origin::Origin,
    outage::Outage,
    producer::{Message, Refusal},
    spooling::Inner,
};
use crate::{
    config::SpoolMode,
    ledger::Amount,
    spool::{self, Fsync},
};

/// So long without any delivery, with records on their way, is a broker that is away.
const STALL: Duration = Duration::from_secs(5);

/// How often the sender looks after what is due with time alone, and how often while nothing is in
/// the spool or on its way. Then only what went to the producer directly since the last look can be
/// due, and no report comes of it: a stall counts from the look that sees it first.
const PERIOD: Duration = Duration::from_millis(100);
const IDLE_PERIOD: Duration = Duration::from_millis(500);

/// How often what is done with is written down. What arrived since is sent again after a crash.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// How often it is looked whether the other agent has ended that has the spool, and how often it is
/// said that it has not.
const ASKING_INTERVAL: Duration = Duration::from_millis(200);
const REMINDER_INTERVAL: Duration = Duration::from_secs(60);

/// Records sent before others get at the spool.
const ROUND: usize = 512;

/// How often the allowance is looked at, where it is used up.
const ALLOWANCE_INTERVAL: Duration = Duration::from_millis(5);

/// Pause after a failure, doubled with each one that follows, so that a broker that refuses at once
/// is not asked without end.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The thread that sends what is in the spool, and takes in what became of it.
pub(super) struct Sender {
    inner: Arc<Inner>,
    allowance: Allowance,
    /// Nothing is sent before.
    not_before: Instant,
    pause: Duration,
    outage: Outage,
    groups: Groups,
    /// Records answered at the last look, whether any were on their way then, and since when there
    /// have been no more.
    answered: u64,
    was_waiting: bool,
    no_progress_since: Instant,
    next_period: Instant,
    next_checkpoint: Instant,
    next_sync: Instant,
    /// While another agent has the spool.
    next_asking: Instant,
    next_reminder: Instant,
}

impl Sender {
    pub(super) fn new(
        inner: Arc<Inner>,
        replay_records_per_s: Option<u32>,
        outage: Outage,
    ) -> Self {
        let now = Instant::now();
        Self {
            inner,
            allowance: Allowance::new(replay_records_per_s, now),
            not_before: now,
            pause: SHORTEST_PAUSE,
            outage,
            groups: Groups::default(),
            answered: 0,
            was_waiting: false,
            no_progress_since: now,
            next_period: now,
            next_checkpoint: now,
            next_sync: now,
            next_asking: now,
            next_reminder: now + REMINDER_INTERVAL,
        }
    }

    pub(super) fn run(mut self) {
        let link = self.inner.link.clone();
        let Some(mailbox) = &link.mailbox else { return };
        let mut timeout = Duration::ZERO;
        loop {
            let mail = mailbox.take(timeout);
            let stop = mail.stop;
            let appended = mail.appended;
            self.take_in(mail);
            if stop {
                self.end(mailbox);
                return;
            }
            let now = Instant::now();
            let waiting = link.counts.read().spooled.records;
            self.allowance.add(appended, waiting, now);
            let next = self.send(now);
            if now >= self.next_period {
                self.next_period = now + PERIOD;
                self.look_after(now);
            }
            timeout = if self.is_idle() { IDLE_PERIOD } else { next.min(PERIOD) };
        }
    }

    /// Applies reports, and puts what came back into the spool.
    fn take_in(&mut self, mail: Mail) {
        if mail.reports.is_empty() && mail.returned.is_empty() {
            return;
        }
        let inner = self.inner.clone();
        let Some(mut spool) = inner.lock() else {
            // Reports on records of the spool there are none.
            if !mail.returned.is_empty() {
                inner.hold(mail.returned);
                self.failed(Instant::now());
            }
            return;
        };
        let mut delivered = Amount::default();
        let mut has_failed = false;
        let mut too_large = 0;
        for (id, outcome) in mail.reports {
            match outcome {
                Outcome::Arrived => {
                    if let Some(amount) = spool.acknowledge(id) {
                        delivered += amount;
                    }
                }
                Outcome::Failed => {
                    spool.fail(id);
                    has_failed = true;
                }
                Outcome::Again => spool.fail(id),
                Outcome::TooLarge if self.groups.is_alone() => spool.reject(id),
                Outcome::TooLarge => {
                    spool.fail(id);
                    too_large += 1;
                }
                Outcome::Rejected => spool.reject(id),
            }
        }
        let returned = mail.returned.iter().filter(|returned| returned.is_too_large).count();
        // What came back to memory is in flight until it is in the spool.
        let direct = || inner.link.counts.read().in_flight.records;
        let most = || usize::try_from(direct()).unwrap_or(usize::MAX) + too_large + spool.sent();
        if too_large + returned > 0 && self.groups.divide(most()) {
            let sink = &inner.link.sink;
            tracing::warn!(
                sink,
                records = too_large + returned,
                "the broker refuses a batch as too long: its records are sent in smaller ones; set batch_bytes to at most the topic's max.message.bytes"
            );
        }
        if too_large > 0 {
            // Otherwise new records would go directly, keep groups from being sent, and overtake them.
            inner.is_direct.store(false, Ordering::Release);
        }
        inner.account(&mut spool, |counts| counts.delivered += delivered);
        if !mail.returned.is_empty() {
            has_failed |= mail.returned.iter().any(|returned| !returned.is_again);
            inner.is_direct.store(false, Ordering::Release);
            inner.take_back(spool, &mail.returned);
        }
        if has_failed {
            self.failed(Instant::now());
        } else if delivered.records > 0 {
            self.pause = SHORTEST_PAUSE;
        }
    }

    fn failed(&mut self, now: Instant) {
        self.note_failing(now);
        if now >= self.not_before {
            self.not_before = now + self.pause;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn note_failing(&mut self, now: Instant) {
        let link = &self.inner.link;
        self.inner.is_failing.store(true, Ordering::Relaxed);
        if self.outage.failed(now) {
            let why = match link.take_trouble() {
                why if why.is_empty() => "no answer".to_owned(),
                why => why,
            };
            let place = if self.inner.has_spool() { "the spool" } else { "memory" };
            tracing::error!(
                sink = link.sink,
                why,
                "records do not arrive: they are kept in {place} until they do"
            );
        }
    }

    /// Sends a round of records; when to do so again, unless mail comes.
    fn send(&mut self, now: Instant) -> Duration {
        if now < self.not_before {
            return self.not_before - now;
        }
        let inner = self.inner.clone();
        if inner.send_held().is_err() {
            self.failed(now);
            return PERIOD;
        }
        let producer = inner.producer.current();
        let Some(mut spool) = inner.lock() else { return PERIOD };
        // Reports make room in the producer's queue, and what is appended is mail as well.
        let mut next = PERIOD;
        let mut awaits_id = false;
        if !self.groups.is_whole() && spool.peek().is_none() {
            // Nothing to send is no group that arrives.
            inner.account(&mut spool, |_| {});
            return PERIOD;
        }
        let under_way = inner.link.counts.read().in_flight.records > 0 || spool.sent() > 0;
        let round = self.groups.next(under_way).min(ROUND);
        if round == 0 {
            return PERIOD;
        }
        for sent in 1..=round {
            let Some(entry) = spool.peek() else { break };
            if !self.allowance.allows_one() {
                next = ALLOWANCE_INTERVAL;
                break;
            }
            let (id, record) = (entry.id, entry.record);
            let message =
                Message { timestamp_ms: record.timestamp_ms, key: record.key, value: record.value };
            let origin = Origin::Spool { id };
            match inner.producer.send(&producer, origin, entry.schema_version, &message) {
                Ok(()) => spool.mark_sent(),
                Err(Refusal::Never) => {
                    spool.mark_sent();
                    spool.reject(id);
                }
                Err(Refusal::QueueFull) => break,
                Err(Refusal::NoId) => {
                    awaits_id = true;
                    break;
                }
                Err(Refusal::NotNow) => {
                    self.failed(now);
                    break;
                }
            }
            self.allowance.take_one();
            if sent == ROUND && self.groups.is_whole() {
                next = Duration::ZERO;
            }
        }
        inner.awaits_id.store(awaits_id, Ordering::Relaxed);
        let is_worked_off =
            spool.is_read() && self.groups.is_whole() && !inner.is_failing.load(Ordering::Relaxed);
        if inner.mode == SpoolMode::Fast && is_worked_off {
            inner.is_direct.store(true, Ordering::Release);
        }
        // What could not be read, or never be delivered.
        inner.account(&mut spool, |_| {});
        next
    }

    /// What is due with time alone.
    fn look_after(&mut self, now: Instant) {
        let inner = self.inner.clone();
        if inner.producer.rebuild_if_broken() {
            let mail = inner.link.mailbox.as_ref().map(|mailbox| mailbox.take(Duration::ZERO));
            self.put_back(mail);
            inner.lock().iter_mut().for_each(|spool| spool.fail_all());
        }
        self.watch_progress(now);
        self.ask_for_the_spool(now);
        let Some(mut spool) = inner.lock() else { return };
        spool.drop_old(inner.clock.now_ms());
        inner.account(&mut spool, |_| {});
        if now >= self.next_checkpoint {
            self.next_checkpoint = now + CHECKPOINT_INTERVAL;
            if let Err(error) = spool.checkpoint(false) {
                inner.disk_failed(&error);
            }
        }
        if let Fsync::Interval(interval) = inner.fsync
            && now >= self.next_sync
        {
            self.next_sync = now + interval;
            let unsynced = spool.take_unsynced();
            drop(spool);
            inner.force_to_disk(&unsynced);
        }
    }

    /// Takes the spool over once the other agent has ended.
    fn ask_for_the_spool(&mut self, now: Instant) {
        let inner = &self.inner;
        if inner.has_spool() || now < self.next_asking {
            return;
        }
        self.next_asking = now + ASKING_INTERVAL;
        match inner.take_over() {
            Ok(()) => {
                let (sink, directory) = (&inner.link.sink, &inner.node_directory);
                tracing::info!(sink, directory, "the spool is this agent's now");
            }
            Err(spool::Error::Locked(_)) if now >= self.next_reminder => {
                self.next_reminder = now + REMINDER_INTERVAL;
                inner.say_that_it_waits();
            }
            Err(spool::Error::Locked(_)) => {}
            Err(error) => inner.disk_failed(&error),
        }
    }

    /// Whether nothing is in the spool or on its way, and nothing is amiss.
    fn is_idle(&self) -> bool {
        let inner = &self.inner;
        let counts = inner.link.counts.read();
        inner.has_spool()
            && !inner.is_failing.load(Ordering::Relaxed)
            && counts.in_flight.records == 0
            && counts.spooled.records == 0
    }

    /// Takes in mail that was taken out of turn, except for the call to stop.
    fn put_back(&mut self, mail: Option<Mail>) {
        let Some(mail) = mail else { return };
        let (stop, appended) = (mail.stop, mail.appended);
        self.take_in(mail);
        self.inner.mailbox(|mailbox| {
            mailbox.put(|mail| {
                mail.stop |= stop;
                mail.appended += appended;
            });
        });
    }

    /// Notices that nothing arrives any more, though something is on its way.
    fn watch_progress(&mut self, now: Instant) {
        let inner = &self.inner;
        let answered = inner.link.answered.load(Ordering::Relaxed);
        let in_memory = inner.link.counts.read().in_flight.records;
        let sent = inner.lock().map_or(0, |spool| spool.sent());
        let is_waiting = in_memory > 0 || sent > 0;
        if answered != self.answered {
            self.answered = answered;
            self.no_progress_since = now;
            inner.is_failing.store(false, Ordering::Relaxed);
        } else if !is_waiting || !self.was_waiting {
            self.no_progress_since = now;
        }
        self.was_waiting = is_waiting;
        if !inner.is_failing.load(Ordering::Relaxed) && self.outage.is_over(now) {
            inner.link.take_trouble();
            tracing::info!(sink = inner.link.sink, "records arrive again");
        }
        if now.saturating_duration_since(self.no_progress_since) < STALL {
            return;
        }
        self.no_progress_since = now;
        self.note_failing(now);
        let inner = &self.inner;
        if in_memory > 0 && inner.has_spool() {
            inner.is_direct.store(false, Ordering::Release);
            // They come back as reports.
            inner.producer.purge();
        }
    }

    /// Puts all that is only in memory into the spool, and closes it.
    fn end(&mut self, mailbox: &Mailbox) {
        let inner = self.inner.clone();
        if inner.has_spool() {
            inner.is_direct.store(false, Ordering::Release);
        }
        inner.producer.purge();
        self.take_in(mailbox.take(Duration::ZERO));
        if !inner.has_spool()
            && let Err(error) = inner.take_over()
        {
            // What is held is in flight, and counted as not flushed.
            let sink = &inner.link.sink;
            tracing::error!(sink, %error, "what is not delivered cannot be kept");
        }
        let Some(mut spool) = inner.lock() else { return };
        inner.spool_held(&mut spool);
        // Reports that did not come. These are on disk, and will be sent again.
        spool.fail_all();
        self.inner.account(&mut spool, |_| {});
        if let Err(error) = spool.close() {
            let sink = &self.inner.link.sink;
            tracing::error!(sink, %error, "cannot close the spool in good order");
        }
    }
}
