//! The producer, and its replacement after a fatal error or for new TLS files.

mod reports;
pub(super) mod settings;
mod statistics;

use std::{
    cell::RefCell,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};
use rdkafka::{
    error::RDKafkaErrorCode,
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _, PurgeConfig},
};
use tap53_base::files::read_secret_text;
use tap53_librdkafka as librdkafka;

use super::{auth::TokenSource, context::SinkContext, origin::Origin};
use crate::{
    OpenError,
    config::{Credentials, KafkaConfig},
    registry::{FrameOutcome, SchemaIds},
};

pub(super) use reports::is_purged;
use reports::{Callbacks, is_permanent};
use settings::{Digest, client_config, hash_of_tls_files};
pub use statistics::{Broker, Spread, Statistics};

pub(super) type PolledProducer = librdkafka::PolledProducer<Callbacks>;

/// The interval of librdkafka's statistics, and of their quantiles: below Prometheus' usual interval,
/// and not too short, since librdkafka writes everything as JSON, partitions included.
const STATISTICS_INTERVAL: Duration = Duration::from_secs(10);

const NODE_HEADER: &str = "tap53-node";
const SCHEMA_VERSION_HEADER: &str = "tap53-schema-version";

/// Returns the most bytes that the headers of a message take, each with two varints of up to five
/// bytes.
pub(super) const fn headers_size(node: &str) -> usize {
    const VERSION_DIGITS: usize = 10;
    NODE_HEADER.len() + node.len() + SCHEMA_VERSION_HEADER.len() + VERSION_DIGITS + 2 * 2 * 5
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) timestamp_ms: i64,
    /// Empty without a key.
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

/// The time for a replaced producer to deliver its messages if there is a spool; the rest is requeued.
/// Without a spool, they time out.
const OLD_FLUSH: Duration = Duration::from_secs(30);

/// The time within which purged messages are reported.
const PURGE_TIMEOUT: Duration = Duration::from_secs(2);

thread_local! {
    /// The buffer for framed values, which librdkafka copies.
    static FRAMED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    QueueFull,
    /// It can never be sent.
    Never,
    /// The producer accepts no message at the moment.
    NotNow,
    /// Its schema id is not known yet.
    NoId,
}

/// Sends messages to brokers: the producer, or the cluster of the model test.
pub(super) trait Transport: Send + Sync + 'static {
    type Handle;

    fn current(&self) -> Self::Handle;

    /// Hands a message over. If it is accepted, [`SinkContext::report`] gets its delivery report.
    fn send(
        &self,
        producer: &Self::Handle,
        origin: Origin,
        schema_version: u32,
        message: &Message<'_>,
    ) -> Result<(), Refusal>;

    /// Purges everything in flight, and waits until that is reported.
    fn purge(&self);

    /// Replaces a producer with a fatal error, after all its messages are reported; true if there
    /// was one.
    fn rebuild_if_fatal(&self) -> bool;
}

pub(super) struct Producer {
    config: KafkaConfig,
    node: String,
    context: Arc<SinkContext>,
    /// The ids of the summaries' schemas; `None` without a registry.
    summary_schema_ids: Option<Arc<SchemaIds>>,
    current: RwLock<Arc<PolledProducer>>,
    tokens: Option<TokenSource>,
    pub(super) renewal: Mutex<Renewal>,
}

/// State for replacing the producer, locked while one is created.
pub(super) struct Renewal {
    /// The password that librdkafka has; empty without SASL.
    password: String,
    /// The hash of the files for TLS of the producer in use.
    tls_files: Digest,
    /// The hash of files that no producer could be created with, so that this is logged once.
    unusable_tls_files: Option<Digest>,
    /// Replaced producers with messages in flight, and when they were replaced.
    replaced: Vec<(Arc<PolledProducer>, Instant)>,
}

impl Producer {
    pub(super) fn open(
        config: &KafkaConfig,
        node: &str,
        context: &Arc<SinkContext>,
        summary_schema_ids: Option<Arc<SchemaIds>>,
    ) -> Result<Self, OpenError> {
        let (current, password) = create(config, context)?;
        let tokens = TokenSource::open(&config.name, config.sasl.as_ref());
        if let Some(tokens) = &tokens {
            tokens.renew(&current);
        }
        Ok(Self {
            config: config.clone(),
            node: node.to_owned(),
            context: context.clone(),
            summary_schema_ids,
            current: RwLock::new(Arc::new(current)),
            tokens,
            renewal: Mutex::new(Renewal {
                password,
                // If they changed just now, the next tick notices.
                tls_files: hash_of_tls_files(config).unwrap_or_default(),
                unusable_tls_files: None,
                replaced: Vec::new(),
            }),
        })
    }

    fn hand_over(
        &self,
        producer: &PolledProducer,
        topic: &str,
        origin: Origin,
        schema_version: u32,
        message: &Message<'_>,
    ) -> Result<(), Refusal> {
        let mut record = BaseRecord::with_opaque_to(topic, origin.to_opaque())
            .payload(message.value)
            .timestamp(message.timestamp_ms);
        if !message.key.is_empty() {
            record = record.key(message.key);
        }
        if self.config.headers {
            record = record.headers(self.headers(schema_version));
        }
        producer.send::<[u8], [u8]>(record).map_err(|(error, _)| match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull) => Refusal::QueueFull,
            Some(code) if is_permanent(code) => Refusal::Never,
            _ => {
                self.context.log_error(&error, "the producer takes no record");
                Refusal::NotNow
            }
        })
    }

    fn headers(&self, schema_version: u32) -> OwnedHeaders {
        let mut digits = itoa::Buffer::new();
        OwnedHeaders::new_with_capacity(2)
            .insert(Header { key: NODE_HEADER, value: Some(self.node.as_str()) })
            .insert(Header {
                key: SCHEMA_VERSION_HEADER,
                value: Some(digits.format(schema_version)),
            })
    }

    /// Reads the password again, and gives a new one to librdkafka for its next connections.
    pub(super) fn reread_password(&self) {
        let sasl = self.config.sasl.as_ref().map(|sasl| &sasl.credentials);
        let Some(Credentials::Password { username, password_file }) = sasl else { return };
        let sink = &self.context.sink;
        let known = &mut self.renewal.lock().password;
        match read_secret_text(password_file) {
            Ok(password) if *known == password => {}
            Ok(password) => {
                match librdkafka::set_password(self.current().client(), username, &password) {
                    Ok(()) => {
                        *known = password;
                        tracing::info!(event = "password_reloaded", sink, "password reloaded");
                    }
                    Err(why) => tracing::error!(
                        event = "password_unusable",
                        sink,
                        why,
                        "cannot use the new password"
                    ),
                }
            }
            // For instance while it is being replaced.
            Err(error) => tracing::debug!(
                event = "password_unreadable",
                sink,
                %error,
                "cannot read the password, keeping the old one"
            ),
        }
    }

    /// Gives librdkafka the latest token, if tokens authenticate this client.
    pub(super) fn renew_token(&self) {
        if let Some(tokens) = &self.tokens {
            tokens.renew(&self.current());
        }
    }

    /// Replaces the producer if the files for TLS have changed.
    pub(super) fn reread_certificates(&self) {
        let sink = &self.context.sink;
        let mut renewal = self.renewal.lock();
        let found = match hash_of_tls_files(&self.config) {
            Ok(found) if found != renewal.tls_files => found,
            Ok(_) => return,
            // For instance while they are being replaced.
            Err(error) => {
                tracing::debug!(
                    event = "tls_files_unreadable",
                    sink,
                    %error,
                    "cannot read the TLS files, keeping the old ones"
                );
                return;
            }
        };
        match self.renew(&mut renewal) {
            Ok(()) => {
                renewal.tls_files = found;
                renewal.unusable_tls_files = None;
                tracing::info!(event = "tls_files_reloaded", sink, "TLS files reloaded");
            }
            // The next tick tries again.
            Err(error) if renewal.unusable_tls_files == Some(found) => {
                tracing::debug!(
                    event = "tls_files_still_unusable",
                    sink,
                    %error,
                    "still cannot use the new TLS files"
                );
            }
            Err(error) => {
                renewal.unusable_tls_files = Some(found);
                tracing::error!(event = "tls_files_unusable", sink, %error, "cannot use the new TLS files; the old ones stay in use");
            }
        }
    }

    /// Replaces the producer. The old one delivers what it has.
    pub(super) fn renew(&self, renewal: &mut Renewal) -> Result<(), OpenError> {
        let old = self.replace(renewal)?;
        renewal.replaced.push((old, Instant::now()));
        Ok(())
    }

    /// Replaces the producer, and returns the old one.
    fn replace(&self, renewal: &mut Renewal) -> Result<Arc<PolledProducer>, OpenError> {
        let (created, password) = create(&self.config, &self.context)?;
        renewal.password = password;
        let old = std::mem::replace(&mut *self.current.write(), Arc::new(created));
        self.renew_token();
        Ok(old)
    }

    /// Drops replaced producers without messages, and purges those that have not delivered in time.
    pub(super) fn look_after_replaced(&self, now: Instant) {
        let replaced = &mut self.renewal.lock().replaced;
        replaced.retain(|(old, _)| old.in_flight_count() > 0);
        if self.context.requeues {
            let late = replaced
                .iter()
                .filter(|(_, since)| now.saturating_duration_since(*since) > OLD_FLUSH);
            late.for_each(|(old, _)| old.purge(PurgeConfig::default().queue().inflight()));
        }
    }

    /// Waits until everything in flight is reported, also by replaced producers; false if that takes
    /// longer than `deadline`.
    pub(super) fn flush(&self, deadline: Duration) -> bool {
        let until = Instant::now() + deadline;
        let replaced = self.renewal.lock().replaced.clone().into_iter().map(|(old, _)| old);
        replaced
            .chain([self.current()])
            .all(|producer| producer.flush(until.saturating_duration_since(Instant::now())).is_ok())
    }
}

impl Transport for Producer {
    type Handle = Arc<PolledProducer>;

    fn current(&self) -> Arc<PolledProducer> {
        self.current.read().clone()
    }

    fn send(
        &self,
        producer: &Arc<PolledProducer>,
        origin: Origin,
        schema_version: u32,
        message: &Message<'_>,
    ) -> Result<(), Refusal> {
        let (topic, schema_ids) = match (origin, &self.config.summary) {
            (Origin::Summary { .. }, Some(summary)) => (&summary.topic, &self.summary_schema_ids),
            _ => (&self.config.topic, &self.context.schema_ids),
        };
        let Some(schema_ids) = schema_ids else {
            return self.hand_over(producer, topic, origin, schema_version, message);
        };
        FRAMED.with_borrow_mut(|framed| match schema_ids.frame(message.value, framed) {
            FrameOutcome::Framed => {
                let message = Message { value: framed, ..*message };
                self.hand_over(producer, topic, origin, schema_version, &message)
            }
            FrameOutcome::Pending => Err(Refusal::NoId),
            FrameOutcome::Unknown => Err(Refusal::Never),
        })
    }

    fn purge(&self) {
        for (old, _) in self.renewal.lock().replaced.drain(..) {
            purge(&old, &self.context.sink);
        }
        purge(&self.current(), &self.context.sink);
    }

    fn rebuild_if_fatal(&self) -> bool {
        let broken = self.current();
        let Some((code, why)) = broken.client().fatal_error() else { return false };
        let sink = &self.context.sink;
        tracing::error!(event = "producer_failed", sink, %code, why, "fatal producer error, recreating producer");
        let mut renewal = self.renewal.lock();
        // Unless another thread has replaced it meanwhile, for new TLS files.
        let is_current = Arc::ptr_eq(&self.current(), &broken);
        let replaced = if is_current { self.replace(&mut renewal).map(drop) } else { Ok(()) };
        drop(renewal);
        match replaced {
            Ok(()) => {
                purge(&broken, sink);
                tracing::info!(event = "producer_recreated", sink, "producer recreated");
                true
            }
            // The next call tries again.
            Err(error) => {
                tracing::error!(event = "producer_not_recreated", sink, %error, "cannot recreate the producer");
                false
            }
        }
    }
}

/// Purges everything that a producer has, and waits until it is reported.
fn purge(producer: &PolledProducer, sink: &str) {
    producer.purge(PurgeConfig::default().queue().inflight());
    if let Err(error) = producer.flush(PURGE_TIMEOUT) {
        tracing::error!(event = "purge_timeout", sink, %error, "purge not reported in time");
    }
}

/// Creates a producer; returns it with its password.
fn create(
    config: &KafkaConfig,
    context: &Arc<SinkContext>,
) -> Result<(PolledProducer, String), OpenError> {
    let mut client = client_config(config)?;
    let password = client.get("sasl.password").unwrap_or_default().to_owned();
    if context.watches && client.get("statistics.interval.ms").is_none() {
        client.set("statistics.interval.ms", STATISTICS_INTERVAL.as_millis().to_string());
    }
    let generation = context.generation.load(Ordering::Relaxed) + 1;
    let callbacks = Callbacks { context: context.clone(), generation };
    let producer = PolledProducer::new(&client, callbacks).map_err(|error| match error {
        librdkafka::Error::Configuration(cause) => OpenError::Kafka(cause),
        librdkafka::Error::Thread(cause) => OpenError::Thread(cause),
    })?;
    // From now on, it is the one in use.
    context.generation.store(generation, Ordering::Relaxed);
    Ok((producer, password))
}
