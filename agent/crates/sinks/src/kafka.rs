//! A Kafka topic, with librdkafka.
//!
//! Each record is one message: in Avro single-object encoding, or in Confluent's framing with a
//! registry; the query's time is its timestamp. It counts as delivered when all in-sync replicas have
//! it (`acks=all`, idempotence). librdkafka calls back for each message, since a future for each
//! record would cost twice as much.
//!
//! Without a spool, records that the broker does not accept in time are lost and counted. With one,
//! no temporary failure loses records: see [`delivery`].
//!
//! ```text
//!                 ┌──────────────── Direct ────────────────┐
//!  workers ─ route┤                                        ├─▶ producer ──▶ broker
//!                 └─ Spool, Buffer ─▶ backlog ─▶ sender ───┘      │
//!                                      ▲           ▲              │
//!                              requeue └───────────┴── events ◀───┘ delivery reports
//! ```
//!
//! `docs/decisions/delivery.md` describes the parts and their invariants.

pub(crate) mod admin;
pub(crate) mod auth;
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

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tap53_base::{
    threads::{Background, JoinedThread},
    vitals::SinkTimings,
};
use tap53_ledger::{Published, SinkCounts, SinkLoss};
use tap53_records::encode::{self, Batch, Format, Key, Profile, WindowSlot};

use super::{
    OpenError, Sink, State, SummarySink, amount,
    registry::{Schema, SchemaIdRefresher},
    wait_budget::WaitBudget,
};
use crate::config::KafkaConfig;
pub use producer::{Broker, Spread, Statistics};
use tap53_spool as spool;

use context::SinkContext;
use delivery::Delivery;
use flight::Flight;
use producer::{Producer, Transport as _};
use sender::Sender;
use summaries::Summaries;

pub(super) struct Kafka {
    key: Key,
    profile: Profile,
    /// The most bytes of a record with its key.
    max_record_bytes: usize,
    context: Arc<SinkContext>,
    producer: Arc<Producer>,
    delivery: Arc<Delivery>,
    /// `None` if records never wait: without a spool and a registry.
    sender: Option<JoinedThread>,
    summaries: Option<Summaries>,
    _refreshers: Vec<Background>,
}

impl Kafka {
    /// Opens the spool and creates the producer, which connects once a broker is reachable. The
    /// `wait_budget` limits the waits of live workers.
    pub(super) fn open(
        config: &KafkaConfig,
        node: &str,
        watches: bool,
        wait_budget: Option<WaitBudget>,
    ) -> Result<Self, OpenError> {
        warn(config);
        let counts = Published::default();
        let schemas = Schema::of_transactions(config.profile).map_err(OpenError::Encode)?;
        let refreshers = refreshers(config, &schemas, &counts).map_err(OpenError::Encode)?;
        let [of_records, of_summaries] = refreshers;
        let ids = |refresher: &Option<SchemaIdRefresher>| Some(refresher.as_ref()?.ids.clone());
        let context = Arc::new(SinkContext::new(config, counts, ids(&of_records), watches));
        let producer = Arc::new(Producer::open(config, node, &context, ids(&of_summaries))?);
        let delivery = Arc::new(Delivery::new(config, &context, &producer, &schemas, wait_budget));
        match delivery.acquire_spool() {
            Ok(()) => {}
            Err(spool::Error::Locked(_)) => delivery.log_lock_wait(),
            Err(cause) => return Err(OpenError::Spool(cause)),
        }
        let replay_records_per_s = config.spool.as_ref().and_then(|s| s.replay_records_per_s);
        let waits = config.spool.is_some() || config.registry.is_some();
        let sender = waits
            .then(|| Sender::new(delivery.clone(), replay_records_per_s, Instant::now()))
            .map(Sender::start)
            .transpose()
            .map_err(OpenError::Thread)?;
        let summaries = Summaries::open(config, &context, &delivery, &producer)?;
        // Last: the schemas of the spool's records are known now.
        let refreshers = [of_records, of_summaries].into_iter().flatten();
        let refreshers = refreshers.map(SchemaIdRefresher::start).collect::<Result<_, _>>();
        Ok(Self {
            key: config.key,
            profile: config.profile,
            max_record_bytes: max_record_bytes(config, node),
            context,
            producer,
            delivery,
            sender,
            summaries,
            _refreshers: refreshers.map_err(OpenError::Thread)?,
        })
    }

    /// Counts records that are too large for the producer as lost, before they take the room of others
    /// in the spool; returns the rest.
    #[cold]
    fn without_too_large(&self, batch: &Batch) -> Batch {
        let rest = batch.up_to(self.max_record_bytes);
        let mut lost = amount(batch);
        lost -= amount(&rest);
        Flight::accept_part(&self.context.accounts, batch.slot(), lost).lost(SinkLoss::TooLarge);
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

    fn summaries(&self) -> Option<&dyn SummarySink> {
        self.summaries.as_ref().map(|summaries| summaries as &dyn SummarySink)
    }

    fn announce(&self, records: u64) -> WindowSlot {
        self.context.accounts.windows.enter(records)
    }

    fn timings(&self) -> Option<&SinkTimings> {
        Some(&self.context.timings)
    }

    fn state(&self) -> State {
        State {
            spool: self.delivery.spool_state(),
            kafka: self.context.statistics.read(),
            outage: self.context.ongoing_outage.read(),
        }
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
        // With a spool, the sender does this.
        if !self.context.requeues {
            self.producer.rebuild_if_fatal();
        }
        if let Some(summaries) = &self.summaries {
            summaries.send();
        }
    }

    fn close(&self, deadline: Duration) {
        let (sink, began) = (&self.context.sink, Instant::now());
        self.delivery.finish(deadline);
        self.sender.iter().for_each(JoinedThread::stop);
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

/// Returns the most bytes of a record with its key, by librdkafka's rule for `message.max.bytes`
/// (`rd_kafka_msg_max_wire_size`). A registry's framing is shorter than the single object's header.
fn max_record_bytes(config: &KafkaConfig, node: &str) -> usize {
    /// `RD_KAFKAP_MESSAGE_V2_MAX_OVERHEAD`: lengths, attributes, times.
    const FRAMING: usize = 36;
    let headers = if config.headers { producer::headers_size(node) } else { 0 };
    config.max_message_bytes().saturating_sub(FRAMING + headers)
}

/// Returns the refreshers of ids for records and for summaries; none without a registry.
fn refreshers(
    config: &KafkaConfig,
    schemas: &[Schema],
    counts: &Published<SinkCounts>,
) -> Result<[Option<SchemaIdRefresher>; 2], encode::Error> {
    let Some(registry) = &config.registry else { return Ok([None, None]) };
    let refresher = |topic: &str, schemas| {
        Some(SchemaIdRefresher::new(registry, &config.name, topic, schemas, counts.clone()))
    };
    let of_summaries = match &config.summary {
        Some(summary) => refresher(&summary.topic, Schema::of_summaries()?),
        None => None,
    };
    Ok([refresher(&config.topic, schemas.to_vec()), of_summaries])
}

/// Logs settings that are allowed and risky.
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
