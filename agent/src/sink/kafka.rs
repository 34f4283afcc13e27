//! A Kafka topic, by librdkafka.
//!
//! One message for each record: Avro single-object encoding, or with a registry Confluent's framing,
//! a key where one is chosen, the query's
//! time as the message's timestamp. `acks=all` and idempotence: a record counts as delivered when all in-sync
//! replicas have it, once. librdkafka calls back for each message, from a thread of its own; no
//! future is made for a record, which would cost twice as much.
//!
//! ```text
//!             ┌───────── fast, while all goes well ─────────┐
//!  workers ───┤                                             ├──▶ producer ──▶ broker
//!             └─▶ spool ──▶ sender (a thread, at its rate) ─┘       │
//!                  ▲          ▲                                     │
//!                  └──────────┴──── mailbox ◀──── delivery reports ─┘
//! ```
//!
//! Without a spool, what the broker does not take in time is lost, and counted. With one, nothing
//! is lost for a reason that may pass: see [`spooling`].

mod allowance;
pub(crate) mod errand;
mod groups;
mod held;
mod link;
mod mailbox;
pub(crate) mod oauth;
mod origin;
mod outage;
mod polled;
mod producer;
mod reports;
mod returned;
mod sender;
mod settings;
mod settling;
mod spooling;
mod statistics;
mod summaries;
mod takeover;
#[cfg(test)]
mod tests;
mod topic;
mod waits;

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    error::RDKafkaErrorCode,
    producer::{Producer as _, PurgeConfig},
};

use super::{
    Error, Sink, State, TakesSummaries,
    registry::{Registry, Schema},
    wait_budget::{self, WaitBudget},
};
use crate::{
    config::KafkaConfig,
    encode::{Batch, Entry, Format, Key, Profile, SCHEMA_VERSION, Ticket},
    ledger::{Amount, Evidence, Progress, Published, SinkCounts, SinkLoss, Summary},
    telemetry::SinkTimings,
};
pub(crate) use settings::secret;
pub(crate) use statistics::{Broker, Spread, Statistics};

use held::Held;
use link::{Framing, Link};
use origin::Origin;
use polled::PolledProducer;
use producer::{Message, Producer, Refusal};
use spooling::{HOPELESS_FLUSH, Spooling};
use summaries::Summaries;

/// How long a batch waits in all for room in the producer's queue, where there is no spool. Then
/// the rest of it is counted as lost: a worker that waits longer would only move the loss into its
/// ring.
const ROOM_TIMEOUT: Duration = wait_budget::WAIT;

/// How long purged messages may take to be reported.
const PURGE_TIMEOUT: Duration = Duration::from_secs(2);

/// A producer, and the spool where there is one.
pub(super) struct Kafka {
    key: Key,
    profile: Profile,
    /// Bytes of a record with its key that the producer takes at most.
    longest: usize,
    link: Arc<Link>,
    /// What all workers may wait for room; without one, each batch may wait.
    wait_budget: Option<WaitBudget>,
    producer: Arc<Producer>,
    spooling: Option<Spooling>,
    /// Where there is a registry, and no spool.
    held: Option<Held>,
    /// Ends with this.
    _registry: Option<Registry>,
}

impl Kafka {
    /// Opens the spool and makes the producer. It connects on its own, now or when a broker is
    /// there.
    pub(super) fn open(config: &KafkaConfig, node: &str, watches: bool) -> Result<Self, Error> {
        warn(config);
        let counts = Published::default();
        let encode = |cause| Error::Encode { sink: config.name.clone(), cause };
        let schemas = Schema::of_transactions(config.profile).map_err(encode)?;
        let mut registry = config.registry.as_ref().map(|registry| {
            let schemas = schemas.clone();
            Registry::new(registry, &config.name, &config.topic, schemas, counts.clone())
        });
        let framing = registry.as_ref().zip(schemas.last()).map(|(registry, newest)| Framing {
            ids: registry.ids().clone(),
            fingerprint: newest.fingerprint,
        });
        let link = Arc::new(Link::new(config, counts, framing, watches));
        let producer = Producer::open(config, node, &link)?;
        let producer = Arc::new(producer);
        if let Some(summaries) = Summaries::open(config, &link.counts)? {
            // The link is new: nobody has set them before.
            let _ = link.summaries.set(summaries);
        }
        let spooling = config
            .spool
            .as_ref()
            .map(|spool| Spooling::open(config, spool, &link, &producer, &schemas))
            .transpose()?;
        let held = (registry.is_some() && spooling.is_none())
            .then(|| Held::new(config.queue_bytes, config.message_timeout));
        if let Some(registry) = &mut registry {
            registry
                .start()
                .map_err(|cause| Error::Registry { sink: config.name.clone(), cause })?;
        }
        let longest = longest_record(config, node);
        Ok(Self {
            key: config.key,
            profile: config.profile,
            longest,
            link,
            wait_budget: None,
            producer,
            spooling,
            held,
            _registry: registry,
        })
    }

    /// The same for workers that have other sinks beside this one.
    pub(super) fn within_wait_budget(mut self) -> Self {
        self.wait_budget = Some(WaitBudget::default());
        self
    }

    /// Hands a record to librdkafka, waiting for room until `give_up_at`; true if it waited.
    fn send(
        &self,
        producer: &PolledProducer,
        message: &Message<'_>,
        entry: &Entry,
        ticket: Ticket,
        give_up_at: Instant,
    ) -> bool {
        let mut has_waited = false;
        let messages = entry.messages;
        let origin = Origin::memory(entry, ticket);
        let version = SCHEMA_VERSION.unsigned_abs();
        while let Err(refusal) = self.producer.send(producer, origin, version, message) {
            let is_full = refusal == Refusal::QueueFull;
            if is_full && Instant::now() < give_up_at {
                if let Some(budget) = self.wait_budget.as_ref().filter(|_| !has_waited) {
                    budget.begin(Instant::now());
                }
                has_waited = true;
                // Room comes with a report, on librdkafka's thread.
                thread::park_timeout(Duration::from_millis(1));
                continue;
            }
            let reason = match refusal {
                Refusal::QueueFull => SinkLoss::QueueFull,
                Refusal::NoId => SinkLoss::NoSchemaId,
                Refusal::Never | Refusal::NotNow => SinkLoss::Rejected,
            };
            self.lose(reason, Amount::record(u64::from(messages)), ticket);
            return has_waited;
        }
        has_waited
    }

    /// Counts what was in flight as lost.
    fn lose(&self, reason: SinkLoss, amount: Amount, ticket: Ticket) {
        self.link.counts.update(|counts| {
            counts.in_flight -= amount;
            counts.lose(reason, amount);
        });
        self.link.settling.leave(ticket, amount.records);
    }

    /// Counts the records that the producer would never take as lost, before they are in the spool or
    /// in a queue, where they would take the place of others; the rest of the batch.
    #[cold]
    fn without_too_large(&self, batch: &Batch) -> Batch {
        let rest = batch.up_to(self.longest);
        let lost = Amount {
            records: batch.records() - rest.records(),
            messages: batch.messages() - rest.messages(),
        };
        self.link.counts.update(|counts| {
            counts.offer(lost);
            counts.lose(SinkLoss::TooLarge, lost);
        });
        self.link.settling.leave(batch.ticket(), lost.records);
        rest
    }

    /// Counts a whole batch that was in flight as lost.
    fn lose_batch(&self, reason: SinkLoss, batch: &Batch) {
        let amount = Amount { records: batch.records(), messages: batch.messages() };
        self.lose(reason, amount, batch.ticket());
    }

    /// Hands a batch to librdkafka; true if it waited for room.
    fn send_all(&self, batch: &Batch, give_up_at: Instant) -> bool {
        let mut has_waited = false;
        let producer = self.producer.current();
        for (key, value, entry) in batch.iter_keyed() {
            let message = Message { timestamp_ms: entry.timestamp_ms, key, value };
            has_waited |= self.send(&producer, &message, &entry, batch.ticket(), give_up_at);
        }
        has_waited
    }

    /// The same, within what workers may wait.
    fn send_in_time(&self, batch: &Batch) {
        let began = Instant::now();
        let Some(budget) = &self.wait_budget else {
            self.send_all(batch, began + ROOM_TIMEOUT);
            return;
        };
        if self.send_all(batch, budget.give_up_at(began)) {
            budget.end(began, Instant::now());
        }
    }

    /// Whether new records can be framed, or need not be.
    fn is_ready(&self) -> bool {
        self.link.framing.as_ref().is_none_or(Framing::is_ready)
    }

    /// Takes a batch for the time that the id of its schema is not known; true if it did. Once it is
    /// known, sends what waited, in its order.
    fn hold(&self, batch: Option<&Batch>) -> bool {
        let Some(held) = &self.held else { return false };
        let Some(mut queue) = held.queue() else { return false };
        let now = Instant::now();
        if self.is_ready() {
            let give_up_at = now + ROOM_TIMEOUT;
            while let Some(waited) = queue.pop() {
                self.send_all(&waited, give_up_at);
            }
            held.give_up(queue);
            return false;
        }
        while let Some(old) = held.pop_old(&mut queue, now) {
            self.lose_batch(SinkLoss::NoSchemaId, &old);
        }
        if let Some(batch) = batch
            && !held.push(&mut queue, batch, now)
        {
            self.lose_batch(SinkLoss::NoSchemaId, batch);
        }
        true
    }

    /// At the shutdown: gives the registry a moment, and counts as lost what waits for it still.
    fn release(&self, deadline: Duration) {
        let give_up_at = Instant::now() + deadline.min(HOPELESS_FLUSH);
        let waits = || {
            let queue = self.held.as_ref().and_then(Held::queue);
            queue.is_some_and(|queue| !queue.is_empty())
        };
        while !self.is_ready() && waits() && Instant::now() < give_up_at {
            thread::park_timeout(Duration::from_millis(5));
        }
        self.hold(None);
        let Some(mut queue) = self.held.as_ref().and_then(Held::queue) else { return };
        while let Some(batch) = queue.pop() {
            self.lose_batch(SinkLoss::NoSchemaId, &batch);
        }
    }
}

impl Sink for Kafka {
    fn format(&self) -> Format {
        self.profile.single_object()
    }

    fn key(&self) -> Key {
        self.key
    }

    fn counts(&self) -> &Published<SinkCounts> {
        &self.link.counts
    }

    fn summaries(&self) -> Option<&dyn TakesSummaries> {
        self.link.summaries.get().map(|_| self as &dyn TakesSummaries)
    }

    fn announce(&self, records: u64) -> Ticket {
        self.link.settling.enter(records)
    }

    fn timings(&self) -> Option<&SinkTimings> {
        Some(&self.link.timings)
    }

    fn state(&self) -> State {
        State {
            spool: self.spooling.as_ref().map(Spooling::state),
            kafka: self.link.statistics.read(),
        }
    }

    fn write(&self, batch: &Batch) {
        if batch.longest() > self.longest {
            let rest = self.without_too_large(batch);
            if !rest.is_empty() {
                self.write(&rest);
            }
            return;
        }
        if let Some(spooling) = &self.spooling {
            spooling.write(batch);
            return;
        }
        let amount = Amount { records: batch.records(), messages: batch.messages() };
        // Before the first is sent: its report may come before the send returns.
        self.link.counts.update(|counts| {
            counts.offer(amount);
            counts.in_flight += amount;
        });
        if !self.hold(Some(batch)) {
            self.send_in_time(batch);
        }
    }

    fn tick(&self, _now: Instant) {
        self.producer.reread_password();
        self.producer.renew_token();
        self.producer.reread_certificates();
        self.producer.look_after_replaced(Instant::now());
        // Where there is a spool, its sender looks after the producer.
        if self.spooling.is_none() {
            self.producer.rebuild_if_broken();
            self.hold(None);
        }
        if let Some(summaries) = self.link.summaries.get() {
            summaries.send(&self.producer);
        }
    }

    fn close(&self, deadline: Duration) {
        if let Some(spooling) = &self.spooling {
            spooling.close(deadline);
        } else {
            let began = Instant::now();
            self.release(deadline);
            let deadline = deadline.saturating_sub(began.elapsed());
            if !self.producer.flush(deadline) {
                let records = self.link.counts.read().in_flight.records;
                let seconds = deadline.as_secs_f32();
                tracing::error!(
                    sink = self.link.sink,
                    records,
                    "not acknowledged within {seconds} s of the shutdown; records are lost and counted"
                );
                self.producer.purge();
            }
        }
        self.link.counts.update(|counts| {
            let rest = std::mem::take(&mut counts.in_flight);
            counts.lose(SinkLoss::Unflushed, rest);
        });
        self.link.settling.give_up_memory();
    }
}

impl TakesSummaries for Kafka {
    fn interval(&self) -> Duration {
        self.link.summaries.get().map_or(Duration::MAX, |summaries| summaries.interval)
    }

    fn topic(&self) -> &str {
        self.link.summaries.get().map_or("", |summaries| &summaries.records_topic)
    }

    fn evidence(&self) -> Option<&Evidence> {
        self.link.summaries.get()?.evidence.as_ref()
    }

    fn begin_window(&self, window: i64) -> Progress {
        let spool = match &self.spooling {
            None => Some((0, 0)),
            Some(spooling) => spooling.progress(),
        };
        let (done_id, carried_lost) = spool.unwrap_or_default();
        let settled_window = self.link.settling.begin_window(window, done_id);
        // What an agent has in the spool that still has it is before all windows of this one.
        Progress { settled_window: settled_window.filter(|_| spool.is_some()), carried_lost }
    }

    fn take(&self, summary: &Summary) {
        if let Some(summaries) = self.link.summaries.get() {
            summaries.take(summary);
            summaries.send(&self.producer);
        }
    }

    fn end(&self, deadline: Duration) {
        if let Some(summaries) = self.link.summaries.get() {
            summaries.end(&self.producer, deadline);
        }
    }
}

/// Bytes of a record and its key that librdkafka takes at most: its rule for `message.max.bytes`,
/// `rd_kafka_msg_max_wire_size`. A registry's framing is shorter than the header that records come
/// with.
fn longest_record(config: &KafkaConfig, node: &str) -> usize {
    /// `RD_KAFKAP_MESSAGE_V2_MAX_OVERHEAD`: lengths, attributes, times.
    const FRAMING: usize = 36;
    let headers = if config.headers { producer::headers_size(node) } else { 0 };
    config.max_message_bytes().saturating_sub(FRAMING + headers)
}

/// Says what was allowed that costs something.
fn warn(config: &KafkaConfig) {
    let sink = &config.name;
    if let Some(sasl) = &config.sasl
        && config.tls.is_none()
        && sasl.mechanism.shows_secret()
    {
        tracing::warn!(
            sink,
            "allow_cleartext: who listens on the way to the brokers can learn the secret that is sent there in the clear"
        );
    }
    if config.options.get("enable.idempotence").is_some_and(|value| value != "true") {
        tracing::warn!(
            sink,
            "enable.idempotence is off: records may arrive twice and out of order whenever a request is tried again"
        );
    }
}

/// Takes back all that a producer holds, and waits until that is reported: purged messages are
/// reported like any other.
fn purge(producer: &PolledProducer, sink: &str) {
    producer.purge(PurgeConfig::default().queue().inflight());
    if let Err(error) = producer.flush(PURGE_TIMEOUT) {
        tracing::error!(sink, %error, "purge not reported in time");
    }
}

/// Why a message was lost, where there is no spool.
fn reason(code: Option<RDKafkaErrorCode>) -> SinkLoss {
    match code {
        Some(RDKafkaErrorCode::MessageTimedOut) => SinkLoss::Expired,
        Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight) => SinkLoss::Unflushed,
        _ => SinkLoss::Rejected,
    }
}
