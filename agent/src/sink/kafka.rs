//! A Kafka topic, by librdkafka.
//!
//! One message for each record: Avro single-object encoding, or with a registry Confluent's framing;
//! a key where one is chosen; the query's time as the message's timestamp. `acks=all` and
//! idempotence: a record counts as delivered when all in-sync replicas have it, once. librdkafka calls
//! back for each message, from a thread of its own; no future is made for a record, which would cost
//! twice as much.
//!
//! ```text
//!                 ┌──────────────── Direct ────────────────┐
//!  workers ─ route┤                                        ├─▶ producer ──▶ broker
//!                 └─ Spool, Buffer ─▶ backlog ─▶ sender ───┘      │
//!                                      ▲           ▲              │
//!                              requeue └───────────┴── events ◀───┘ delivery reports
//! ```
//!
//! | module | what it has |
//! |---|---|
//! | [`route`] | the states and their transitions |
//! | [`flight`] | who answers for records in memory; the account |
//! | [`backlog`] | what waits, in memory or on disk |
//! | [`delivery`] | the machine: writing by a route, storing, requeueing |
//! | [`storage`] | its part that has to do with the disk: the spool's lock, syncing, failures |
//! | [`sender`] | the thread that sends what waits and applies delivery reports |
//! | [`events`] | the channel from librdkafka's callbacks |
//! | [`producer`] | librdkafka's producer, its settings, callbacks and replacement |
//! | [`auth`], [`admin`] | tokens; topics |
//! | [`summaries`] | the ledger's summaries, on a topic of their own |
//! | [`registry`](super::registry) | ids of schemas |
//!
//! Without a spool, what the broker does not take in time is lost, and counted. With one, nothing
//! is lost for a reason that may pass: see [`delivery`].

pub(crate) mod admin;
pub(crate) mod auth;
mod background;
mod backlog;
mod batch_limit;
mod context;
mod delivery;
mod events;
mod flight;
mod origin;
mod outage;
mod producer;
mod rate_limiter;
mod route;
mod sender;
mod storage;
mod summaries;
#[cfg(test)]
mod tests;
mod windows;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Error, Sink, State, TakesSummaries,
    registry::{Registry, Schema},
    wait_budget::WaitBudget,
};
use crate::{
    config::KafkaConfig,
    encode::{Batch, Format, Key, Profile, WindowSlot},
    ledger::{Amount, Evidence, Progress, Published, SinkCounts, SinkLoss, Summary},
    spool,
    telemetry::SinkTimings,
};
pub(crate) use producer::{Broker, Spread, Statistics};

use context::{Framing, SinkContext};
use delivery::Delivery;
use flight::Flight;
use producer::{Producer, Transport as _};
use sender::{Sender, SenderThread};
use summaries::Summaries;

/// A producer, and the spool where there is one.
pub(super) struct Kafka {
    key: Key,
    profile: Profile,
    /// Bytes of a record with its key that the producer takes at most.
    max_record_bytes: usize,
    context: Arc<SinkContext>,
    producer: Arc<Producer>,
    delivery: Arc<Delivery>,
    /// Where records may have to wait for something.
    sender: Option<SenderThread>,
    /// Ends with this.
    _registry: Option<Registry>,
}

impl Kafka {
    /// Opens the spool and creates the producer. It connects on its own, now or when a broker is
    /// there. With a `wait_budget` workers have other sinks beside this one.
    pub(super) fn open(
        config: &KafkaConfig,
        node: &str,
        watches: bool,
        wait_budget: Option<WaitBudget>,
    ) -> Result<Self, Error> {
        warn(config);
        let sink = || config.name.clone();
        let counts = Published::default();
        let schemas = Schema::of_transactions(config.profile)
            .map_err(|cause| Error::Encode { sink: sink(), cause })?;
        let mut registry = config.registry.as_ref().map(|registry| {
            let schemas = schemas.clone();
            Registry::new(registry, &config.name, &config.topic, schemas, counts.clone())
        });
        let framing = registry.as_ref().zip(schemas.last()).map(|(registry, newest)| Framing {
            ids: registry.ids().clone(),
            fingerprint: newest.fingerprint,
        });
        let context = Arc::new(SinkContext::new(config, counts, framing, watches));
        let producer = Arc::new(Producer::open(config, node, &context)?);
        if let Some(summaries) = Summaries::open(config, context.counts())? {
            // The context is new: nobody has set them before.
            let _ = context.summaries.set(summaries);
        }
        let delivery = Delivery::new(config, &context, &producer, &schemas, wait_budget);
        let delivery = Arc::new(delivery);
        match delivery.acquire_spool() {
            Ok(()) => {}
            Err(spool::Error::Locked(_)) => delivery.log_lock_wait(),
            Err(cause) => return Err(Error::Spool { sink: sink(), cause }),
        }
        let replay_records_per_s = config.spool.as_ref().and_then(|s| s.replay_records_per_s);
        let waits = config.spool.is_some() || registry.is_some();
        let sender = waits
            .then(|| Sender::new(delivery.clone(), replay_records_per_s, Instant::now()))
            .map(SenderThread::start)
            .transpose()
            .map_err(|cause| Error::Thread { sink: sink(), cause })?;
        if let Some(registry) = &mut registry {
            registry.start().map_err(|cause| Error::Registry { sink: sink(), cause })?;
        }
        Ok(Self {
            key: config.key,
            profile: config.profile,
            max_record_bytes: max_record_bytes(config, node),
            context,
            producer,
            delivery,
            sender,
            _registry: registry,
        })
    }

    /// Counts the records that the producer would never take as lost, before they are in the spool or
    /// in a queue, where they would take the place of others; the rest of the batch.
    #[cold]
    fn without_too_large(&self, batch: &Batch) -> Batch {
        let rest = batch.up_to(self.max_record_bytes);
        let mut flight = Flight::accept(&self.context.accounts, batch);
        let lost = Amount {
            records: batch.records() - rest.records(),
            messages: batch.messages() - rest.messages(),
        };
        flight.split(lost).lost(SinkLoss::TooLarge);
        flight.forget();
        rest
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
        self.context.counts()
    }

    fn summaries(&self) -> Option<&dyn TakesSummaries> {
        self.context.summaries.get().map(|_| self as &dyn TakesSummaries)
    }

    fn announce(&self, records: u64) -> WindowSlot {
        self.context.accounts.windows.enter(records)
    }

    fn timings(&self) -> Option<&SinkTimings> {
        Some(&self.context.timings)
    }

    fn state(&self) -> State {
        State { spool: self.delivery.spool_state(), kafka: self.context.statistics.read() }
    }

    fn write(&self, batch: &Batch) {
        if batch.longest() <= self.max_record_bytes {
            return self.delivery.write(batch);
        }
        let rest = self.without_too_large(batch);
        if !rest.is_empty() {
            self.delivery.write(&rest);
        }
    }

    fn tick(&self, _now: Instant) {
        self.producer.reread_password();
        self.producer.renew_token();
        self.producer.reread_certificates();
        self.producer.look_after_replaced(Instant::now());
        // Where there is a spool, its sender does.
        if !self.context.requeues {
            self.producer.rebuild_if_fatal();
        }
        if let Some(summaries) = self.context.summaries.get() {
            summaries.send(&self.context.events, &self.producer);
        }
    }

    fn close(&self, deadline: Duration) {
        let (sink, began) = (&self.context.sink, Instant::now());
        self.delivery.finish(deadline);
        self.sender.iter().for_each(SenderThread::stop);
        let counts = self.context.counts();
        let deadline = deadline.saturating_sub(began.elapsed());
        if !self.context.requeues && !self.producer.flush(deadline) {
            let records = counts.read().in_flight.records;
            let seconds = deadline.as_secs_f32();
            tracing::error!(
                event = "records_unflushed",
                sink,
                records,
                "not acknowledged within {seconds} s of the shutdown; records are lost and counted"
            );
            self.producer.purge();
        }
        let records = counts.read().spooled.records;
        if records > 0 {
            let directory = self.delivery.directory();
            tracing::warn!(
                event = "records_left_in_spool",
                sink,
                directory,
                records,
                "not delivered before the shutdown; they stay in the spool for the next start"
            );
        }
        self.context.accounts.write_off();
    }
}

impl TakesSummaries for Kafka {
    fn interval(&self) -> Duration {
        self.context.summaries.get().map_or(Duration::MAX, |summaries| summaries.interval)
    }

    fn topic(&self) -> &str {
        self.context.summaries.get().map_or("", |summaries| &summaries.records_topic)
    }

    fn evidence(&self) -> Option<&Evidence> {
        self.context.summaries.get()?.evidence.as_ref()
    }

    fn begin_window(&self, window: i64) -> Progress {
        let progress = self.delivery.progress();
        let (acknowledged_id, carried_lost) = progress.unwrap_or_default();
        let settled_window = self.context.accounts.windows.begin_window(window, acknowledged_id);
        // What is in a spool that another agent has locked is before all windows of this one.
        Progress { settled_window: settled_window.filter(|_| progress.is_some()), carried_lost }
    }

    fn take(&self, summary: &Summary) {
        if let Some(summaries) = self.context.summaries.get() {
            summaries.take(summary);
            summaries.send(&self.context.events, &self.producer);
        }
    }

    fn end(&self, deadline: Duration) {
        if let Some(summaries) = self.context.summaries.get() {
            summaries.end(&self.context.events, &self.producer, deadline);
        }
    }
}

/// Bytes of a record and its key that librdkafka takes at most: its rule for `message.max.bytes`,
/// `rd_kafka_msg_max_wire_size`. A registry's framing is shorter than the header that records come
/// with.
fn max_record_bytes(config: &KafkaConfig, node: &str) -> usize {
    /// `RD_KAFKAP_MESSAGE_V2_MAX_OVERHEAD`: lengths, attributes, times.
    const FRAMING: usize = 36;
    let headers = if config.headers { producer::headers_size(node) } else { 0 };
    config.max_message_bytes().saturating_sub(FRAMING + headers)
}

/// Logs what the configuration allows and has a cost.
fn warn(config: &KafkaConfig) {
    let sink = &config.name;
    if let Some(sasl) = &config.sasl
        && config.tls.is_none()
        && sasl.mechanism.shows_secret()
    {
        tracing::warn!(
            event = "cleartext_allowed",
            sink,
            "allow_cleartext: who listens on the way to the brokers can learn the secret that is sent there in the clear"
        );
    }
    if config.options.get("enable.idempotence").is_some_and(|value| value != "true") {
        tracing::warn!(
            event = "idempotence_off",
            sink,
            "enable.idempotence is off: records may arrive twice and out of order whenever a request is tried again"
        );
    }
}
