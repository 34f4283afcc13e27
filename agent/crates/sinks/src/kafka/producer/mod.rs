//! The producer, and its replacement: after a fatal error, and when TLS has new files.

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
    Error,
    config::{Credentials, KafkaConfig},
    registry::{FrameOutcome, SchemaIds},
};

pub(super) use reports::is_purged;
use reports::{Callbacks, is_permanent};
use settings::{Digest, certificates, client_config};
pub use statistics::{Broker, Spread, Statistics};

pub(super) type PolledProducer = librdkafka::PolledProducer<Callbacks>;

/// The interval of librdkafka's statistics: it makes a JSON text of everything, partitions
/// included, and its quantiles are of this long. Shorter than Prometheus' usual interval.
const STATISTICS_INTERVAL: Duration = Duration::from_secs(10);

const NODE_HEADER: &str = "tap53-node";
const SCHEMA_VERSION_HEADER: &str = "tap53-schema-version";

/// Bytes that the headers of a message take at most, each with two varints of five bytes at most.
pub(super) const fn headers_size(node: &str) -> usize {
    /// Digits of a version.
    const VERSION: usize = 10;
    NODE_HEADER.len() + node.len() + SCHEMA_VERSION_HEADER.len() + VERSION + 2 * 2 * 5
}

/// A message to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) timestamp_ms: i64,
    /// Empty for none.
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

/// The time that a replaced producer has to deliver its messages, where there is a spool. Then they
/// are purged and requeued. Without a spool, they time out by themselves.
const OLD_FLUSH: Duration = Duration::from_secs(30);

/// The time within which purged messages are reported.
const PURGE_TIMEOUT: Duration = Duration::from_secs(2);

thread_local! {
    /// The buffer that values are framed in. librdkafka copies it.
    static FRAMED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Reasons why librdkafka did not take a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its queue is full.
    QueueFull,
    /// It never will take this one.
    Never,
    /// For now it takes none.
    NotNow,
    /// The id of its schema is not known yet.
    NoId,
}

/// Takes messages to brokers: the producer, or the model test's cluster.
pub(super) trait Transport: Send + Sync + 'static {
    /// A producer to be used for a while.
    type Handle;

    /// The producer to use now.
    fn current(&self) -> Self::Handle;

    /// Hands a message over, which is reported on by [`SinkContext::report`].
    ///
    /// # Errors
    /// The reason why it was not taken; then it is not reported on.
    fn send(
        &self,
        producer: &Self::Handle,
        origin: Origin,
        schema_version: u32,
        message: &Message<'_>,
    ) -> Result<(), Refusal>;

    /// Takes back all that is in flight, and waits until that is reported.
    fn purge(&self);

    /// Replaces a producer that had a fatal error; true if so. All that it had has been reported
    /// then.
    fn rebuild_if_fatal(&self) -> bool;
}

/// A producer that is replaced after a fatal error, as the idempotent producer may have one.
pub(super) struct Producer {
    config: KafkaConfig,
    node: String,
    context: Arc<SinkContext>,
    /// Ids of the schemas of summaries, where a registry gives them.
    summary_schema_ids: Option<Arc<SchemaIds>>,
    current: RwLock<Arc<PolledProducer>>,
    /// The password that was last given to librdkafka; empty without SASL.
    password: Mutex<String>,
    /// The source of tokens, if those authenticate this client.
    tokens: Option<TokenSource>,
    certificates: Mutex<Certificates>,
    /// Those that were in use before and have something yet, and since when.
    replaced: Mutex<Vec<(Arc<PolledProducer>, Instant)>>,
    /// Held while a producer is created.
    creating: Mutex<()>,
}

/// The files that TLS needs.
struct Certificates {
    /// As they were when the producer in use was made.
    used: Digest,
    /// As they were when no producer could be made with them: that is said once.
    refused: Option<Digest>,
}

impl Producer {
    pub(super) fn open(
        config: &KafkaConfig,
        node: &str,
        context: &Arc<SinkContext>,
        summary_schema_ids: Option<Arc<SchemaIds>>,
    ) -> Result<Self, Error> {
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
            password: Mutex::new(password),
            tokens,
            // If they changed just now, that is found out in a moment.
            certificates: Mutex::new(Certificates {
                used: certificates(config).unwrap_or([0; 32]),
                refused: None,
            }),
            replaced: Mutex::default(),
            creating: Mutex::default(),
        })
    }

    fn hand_over(
        &self,
        producer: &PolledProducer,
        origin: Origin,
        schema_version: u32,
        message: &Message<'_>,
    ) -> Result<(), Refusal> {
        let topic = match (origin, &self.config.summary) {
            (Origin::Summary { .. }, Some(summary)) => &summary.topic,
            _ => &self.config.topic,
        };
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

    /// Gives librdkafka the password that is in its file now, where that is another one: from the
    /// next connection on it is used.
    pub(super) fn reread_password(&self) {
        let sasl = self.config.sasl.as_ref().map(|sasl| &sasl.credentials);
        let Some(Credentials::Password { username, password_file }) = sasl else { return };
        let sink = &self.context.sink;
        let mut known = self.password.lock();
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
            // While it is being replaced, and the old one still does.
            Err(error) => tracing::debug!(
                event = "password_unreadable",
                sink,
                %error,
                "cannot read the password, keeping the old one"
            ),
        }
    }

    /// Gives librdkafka the latest token, where tokens authenticate this client.
    pub(super) fn renew_token(&self) {
        if let Some(tokens) = &self.tokens {
            tokens.renew(&self.current());
        }
    }

    /// Makes a new producer where the files that TLS needs are other ones than before. The old one
    /// delivers what it has.
    pub(super) fn reread_certificates(&self) {
        let sink = &self.context.sink;
        let mut known = self.certificates.lock();
        let found = match certificates(&self.config) {
            Ok(found) if found != known.used => found,
            Ok(_) => return,
            // While they are being replaced.
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
        match self.renew() {
            Ok(()) => {
                *known = Certificates { used: found, refused: None };
                tracing::info!(event = "tls_files_reloaded", sink, "TLS files reloaded");
            }
            // At the next look again.
            Err(error) if known.refused == Some(found) => {
                tracing::debug!(
                    event = "tls_files_still_unusable",
                    sink,
                    %error,
                    "still cannot use the new TLS files"
                );
            }
            Err(error) => {
                known.refused = Some(found);
                tracing::error!(event = "tls_files_unusable", sink, %error, "cannot use the new TLS files; the old ones stay in use");
            }
        }
    }

    /// Makes a new producer, and lets the old one deliver what it has.
    pub(super) fn renew(&self) -> Result<(), Error> {
        if let Some(old) = self.replace(&self.current())? {
            self.replaced.lock().push((old, Instant::now()));
        }
        Ok(())
    }

    /// Puts a new producer in the place of `old`, and returns that; `None` where somebody else has
    /// done so meanwhile.
    fn replace(&self, old: &Arc<PolledProducer>) -> Result<Option<Arc<PolledProducer>>, Error> {
        let _creating = self.creating.lock();
        if !Arc::ptr_eq(&self.current(), old) {
            return Ok(None);
        }
        let (created, password) = create(&self.config, &self.context)?;
        *self.password.lock() = password;
        let mut current = self.current.write();
        let old = std::mem::replace(&mut *current, Arc::new(created));
        drop(current);
        self.renew_token();
        Ok(Some(old))
    }

    /// Lets go of producers that were replaced and have nothing any more, and takes back what others
    /// have not delivered in time.
    pub(super) fn look_after_replaced(&self, now: Instant) {
        let mut replaced = self.replaced.lock();
        replaced.retain(|(old, _)| old.in_flight_count() > 0);
        if self.context.requeues {
            for (old, since) in &*replaced {
                if now.saturating_duration_since(*since) > OLD_FLUSH {
                    // They are reported as failed.
                    old.purge(PurgeConfig::default().queue().inflight());
                }
            }
        }
    }

    /// Waits until all that is in flight has been reported, also by producers that were replaced;
    /// false if that takes longer than `deadline`.
    pub(super) fn flush(&self, deadline: Duration) -> bool {
        let until = Instant::now() + deadline;
        let replaced: Vec<_> = self.replaced.lock().iter().map(|(old, _)| old.clone()).collect();
        replaced
            .into_iter()
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
        let schema_ids = match origin {
            Origin::Summary { .. } => &self.summary_schema_ids,
            Origin::Memory { .. } | Origin::Spool { .. } => &self.context.schema_ids,
        };
        let Some(schema_ids) = schema_ids else {
            return self.hand_over(producer, origin, schema_version, message);
        };
        FRAMED.with_borrow_mut(|framed| match schema_ids.frame(message.value, framed) {
            FrameOutcome::Yes => {
                let message = Message { value: framed, ..*message };
                self.hand_over(producer, origin, schema_version, &message)
            }
            FrameOutcome::NotYet => Err(Refusal::NoId),
            FrameOutcome::Never => Err(Refusal::Never),
        })
    }

    fn purge(&self) {
        for (old, _) in self.replaced.lock().drain(..) {
            purge(&old, &self.context.sink);
        }
        purge(&self.current(), &self.context.sink);
    }

    fn rebuild_if_fatal(&self) -> bool {
        let broken = self.current();
        let Some((code, why)) = broken.client().fatal_error() else { return false };
        let sink = &self.context.sink;
        tracing::error!(event = "producer_failed", sink, %code, why, "fatal producer error, recreating producer");
        match self.replace(&broken) {
            Ok(_) => {
                purge(&broken, sink);
                tracing::info!(event = "producer_recreated", sink, "producer recreated");
                true
            }
            // At the next look again.
            Err(error) => {
                tracing::error!(event = "producer_not_recreated", sink, %error, "cannot recreate the producer");
                false
            }
        }
    }
}

/// Takes back all that a producer has, and waits until that is reported: purged messages are reported
/// like any other.
fn purge(producer: &PolledProducer, sink: &str) {
    producer.purge(PurgeConfig::default().queue().inflight());
    if let Err(error) = producer.flush(PURGE_TIMEOUT) {
        tracing::error!(event = "purge_timeout", sink, %error, "purge not reported in time");
    }
}

/// A producer, and the password that it has.
fn create(
    config: &KafkaConfig,
    context: &Arc<SinkContext>,
) -> Result<(PolledProducer, String), Error> {
    let mut client = client_config(config)?;
    let password = client.get("sasl.password").unwrap_or_default().to_owned();
    if context.watches && client.get("statistics.interval.ms").is_none() {
        client.set("statistics.interval.ms", STATISTICS_INTERVAL.as_millis().to_string());
    }
    let generation = context.generation.load(Ordering::Relaxed) + 1;
    let callbacks = Callbacks::new(context, generation);
    let sink = || config.name.clone();
    let producer = PolledProducer::new(&client, callbacks).map_err(|error| match error {
        librdkafka::Error::Configuration(cause) => Error::Kafka { sink: sink(), cause },
        librdkafka::Error::Thread(cause) => Error::Thread { sink: sink(), cause },
    })?;
    // Now it is the one in use. One is made at a time.
    context.generation.store(generation, Ordering::Relaxed);
    Ok((producer, password))
}
