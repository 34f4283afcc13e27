//! A Kafka topic, by librdkafka.
//!
//! One message for each record: Avro single-object encoding, no key, the query's time as the
//! message's timestamp. `acks=all` and idempotence: a record counts as delivered when all in-sync
//! replicas have it, once. librdkafka calls back for each message, from a thread of its own; no
//! future is made for a record, which would cost twice as much.

use std::{
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext, Message,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{
        BaseRecord, DeliveryResult, Producer, ProducerContext, PurgeConfig, ThreadedProducer,
    },
};

use super::{Error, Sink};
use crate::{
    config::{KafkaCompression, KafkaConfig},
    encode::{Batch, Format},
    ledger::{Amount, Published, SinkCounts, SinkLoss},
};

/// How long a batch waits in all for room in the producer's queue. Then the rest of it is counted
/// as lost: a worker that waits longer would only move the loss into its ring.
const ROOM_TIMEOUT: Duration = Duration::from_millis(200);

/// An error that lasts is logged again after this long: with a broker away, librdkafka reports it
/// several times a second.
const REMINDER_INTERVAL: Duration = Duration::from_secs(30);

/// How long purged messages may take to be reported.
const PURGE_TIMEOUT: Duration = Duration::from_secs(2);

/// A producer.
pub(super) struct Kafka {
    config: KafkaConfig,
    producer: ThreadedProducer<Reports>,
    counts: Published<SinkCounts>,
}

/// Counts delivery reports and passes librdkafka's log on.
struct Reports {
    sink: String,
    counts: Published<SinkCounts>,
    /// The error that was logged last, and when.
    last_error: Mutex<Option<(Option<RDKafkaErrorCode>, Instant)>>,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let sink = &self.sink;
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(sink, facility, "{message}");
            }
            // Told again, and less often, by error().
            RDKafkaLogLevel::Error => tracing::debug!(sink, facility, "{message}"),
            RDKafkaLogLevel::Warning => tracing::warn!(sink, facility, "{message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(sink, facility, "{message}");
            }
            RDKafkaLogLevel::Debug => tracing::debug!(sink, facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        let now = Instant::now();
        let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        let told = last.is_some_and(|(told, at)| {
            told == code && now.saturating_duration_since(at) < REMINDER_INTERVAL
        });
        if !told {
            *last = Some((code, now));
            tracing::error!(sink = self.sink, %error, reason, "producer");
        }
    }
}

impl ProducerContext for Reports {
    /// Messages that the record stands for.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, messages: usize) {
        let amount = Amount::record(messages as u64);
        self.counts.update(|counts| {
            counts.in_flight -= amount;
            match result {
                Ok(_) => counts.delivered += amount,
                Err((error, _)) => counts.lose(reason(error), amount),
            }
        });
        if let Err((error, message)) = result {
            let topic = message.topic();
            tracing::debug!(sink = self.sink, %error, topic, "record not delivered");
        }
    }
}

fn reason(error: &KafkaError) -> SinkLoss {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageTimedOut) => SinkLoss::Expired,
        Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight) => SinkLoss::Unflushed,
        _ => SinkLoss::Rejected,
    }
}

impl Kafka {
    /// Makes the producer. It connects on its own, now or when a broker is there.
    pub(super) fn open(config: &KafkaConfig) -> Result<Self, Error> {
        let counts = Published::<SinkCounts>::default();
        let reports = Reports {
            sink: config.name.clone(),
            counts: counts.clone(),
            last_error: Mutex::default(),
        };
        let producer = client_config(config)
            .create_with_context(reports)
            .map_err(|cause| Error::Kafka { sink: config.name.clone(), cause })?;
        Ok(Self { config: config.clone(), producer, counts })
    }

    /// Hands a record to librdkafka, waiting for room until `give_up_at`.
    fn send(&self, bytes: &[u8], timestamp_ms: i64, messages: u32, give_up_at: Instant) {
        let mut record = BaseRecord::with_opaque_to(&self.config.topic, messages as usize)
            .payload(bytes)
            .timestamp(timestamp_ms);
        while let Err((error, refused)) = self.producer.send::<(), [u8]>(record) {
            let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
            if full && Instant::now() < give_up_at {
                record = refused;
                // Room comes with a report, on librdkafka's thread.
                thread::park_timeout(Duration::from_millis(1));
                continue;
            }
            let reason = if full { SinkLoss::QueueFull } else { SinkLoss::Rejected };
            let amount = Amount::record(u64::from(messages));
            self.counts.update(|counts| {
                counts.in_flight -= amount;
                counts.lose(reason, amount);
            });
            return;
        }
    }
}

/// How to reach the brokers, and as whom: for clients of every kind.
pub(crate) fn connection(config: &KafkaConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("client.id", "tap53").set("bootstrap.servers", config.brokers.join(","));
    client
}

fn client_config(config: &KafkaConfig) -> ClientConfig {
    let compression = match config.compression {
        KafkaCompression::None => "none",
        KafkaCompression::Gzip => "gzip",
        KafkaCompression::Lz4 => "lz4",
        KafkaCompression::Snappy => "snappy",
        KafkaCompression::Zstd => "zstd",
    };
    let mut client = connection(config);
    client
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("compression.type", compression)
        .set("linger.ms", config.linger.as_millis().to_string())
        .set("message.timeout.ms", config.message_timeout.as_millis().to_string())
        // Memory is the bound, not a number of messages (0: no such limit).
        .set("queue.buffering.max.kbytes", (config.queue_bytes / 1024).max(1).to_string())
        .set("queue.buffering.max.messages", "0")
        .set_log_level(RDKafkaLogLevel::Info);
    client
}

impl Sink for Kafka {
    fn format(&self) -> Format {
        Format::AvroSingleObject
    }

    fn counts(&self) -> &Published<SinkCounts> {
        &self.counts
    }

    fn write(&self, batch: &Batch) {
        let amount = Amount { records: batch.records(), messages: batch.messages() };
        // Before the first is sent: its report may come before the send returns.
        self.counts.update(|counts| {
            counts.offered += amount;
            counts.in_flight += amount;
        });
        let give_up_at = Instant::now() + ROOM_TIMEOUT;
        for (bytes, entry) in batch.iter() {
            self.send(bytes, entry.timestamp_ms, entry.messages, give_up_at);
        }
    }

    fn tick(&self, _now: Instant) {}

    fn close(&self, deadline: Duration) {
        if self.producer.flush(deadline).is_err() {
            let records = self.counts.read().in_flight.records;
            let seconds = deadline.as_secs_f32();
            tracing::error!(
                sink = self.config.name,
                records,
                "not acknowledged within {seconds} s of the shutdown; records are lost and counted"
            );
            self.producer.purge(PurgeConfig::default().queue().inflight());
            // Purged messages are reported like any other; the flush waits for the reports.
            if let Err(error) = self.producer.flush(PURGE_TIMEOUT) {
                tracing::error!(sink = self.config.name, %error, "purge not reported in time");
            }
        }
        self.counts.update(|counts| {
            let rest = std::mem::take(&mut counts.in_flight);
            counts.lose(SinkLoss::Unflushed, rest);
        });
    }
}
