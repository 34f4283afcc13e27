//! The producer, and making another one: when it is broken for good, and when TLS has new files.

use std::{
    cell::RefCell,
    ffi::{CStr, CString},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, atomic::Ordering},
    time::{Duration, Instant},
};

use rdkafka::{
    bindings::{rd_kafka_error_destroy, rd_kafka_error_string, rd_kafka_sasl_set_credentials},
    error::RDKafkaErrorCode,
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _, PurgeConfig},
};

use super::{
    link::Link,
    oauth::Bearer,
    origin::Origin,
    polled::{self, PolledProducer},
    purge,
    reports::{Reports, is_for_ever},
    settings::{self, Fingerprint, secret},
    summaries::Summaries,
};
use crate::{
    config::{Credentials, KafkaConfig},
    sink::{Error, registry::Framed},
};

/// How often librdkafka tells of itself: it makes a JSON text of everything, partitions included,
/// and its quantiles are of this long. Shorter than what Prometheus usually waits between two looks.
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

/// How long a producer that is replaced may take to deliver what it has, where there is a spool. Then
/// it gives that back, to be sent by the one in use. Without one, its messages time out by themselves.
const OLD_FLUSH: Duration = Duration::from_secs(30);

thread_local! {
    /// Where a value is framed. librdkafka copies it.
    static FRAMED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Why librdkafka did not take a message.
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

/// A producer that is replaced when librdkafka says that it is broken for good, as the idempotent
/// producer may be.
pub(super) struct Producer {
    config: KafkaConfig,
    node: String,
    link: Arc<Link>,
    current: RwLock<Arc<PolledProducer>>,
    /// The password that was last given to librdkafka; empty without SASL.
    password: Mutex<String>,
    /// Where tokens come from, if those say who this is.
    bearer: Option<Bearer>,
    certificates: Mutex<Certificates>,
    /// Those that were in use before and have something yet, and since when.
    replaced: Mutex<Vec<(Arc<PolledProducer>, Instant)>>,
    /// Held by whoever makes a producer.
    making: Mutex<()>,
}

/// The files that TLS needs.
struct Certificates {
    /// As they were when the producer in use was made.
    used: Fingerprint,
    /// As they were when no producer could be made with them: that is said once.
    refused: Option<Fingerprint>,
}

impl Producer {
    pub(super) fn open(config: &KafkaConfig, node: &str, link: &Arc<Link>) -> Result<Self, Error> {
        let (current, password) = make(config, link)?;
        let bearer = Bearer::open(&config.name, config.sasl.as_ref());
        if let Some(bearer) = &bearer {
            bearer.renew(&current);
        }
        Ok(Self {
            config: config.clone(),
            node: node.to_owned(),
            link: link.clone(),
            current: RwLock::new(Arc::new(current)),
            password: Mutex::new(password),
            bearer,
            // If they changed just now, that is found out in a moment.
            certificates: Mutex::new(Certificates {
                used: settings::certificates(config).unwrap_or([0; 32]),
                refused: None,
            }),
            replaced: Mutex::default(),
            making: Mutex::default(),
        })
    }

    /// The producer to use now; to be asked for again before long.
    pub(super) fn current(&self) -> Arc<PolledProducer> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hands a message to `producer`, framed by the registry's id where there is a registry.
    pub(super) fn send(
        &self,
        producer: &PolledProducer,
        origin: Origin,
        schema_version: u32,
        message: &Message<'_>,
    ) -> Result<(), Refusal> {
        let framing = match origin {
            Origin::Summary { .. } => self.link.summaries.get().and_then(Summaries::framing),
            Origin::Memory { .. } | Origin::Spool { .. } => self.link.framing.as_ref(),
        };
        let Some(framing) = framing else {
            return self.hand_over(producer, origin, schema_version, message);
        };
        FRAMED.with_borrow_mut(|framed| match framing.ids.frame(message.value, framed) {
            Framed::Yes => {
                let message = Message { value: framed, ..*message };
                self.hand_over(producer, origin, schema_version, &message)
            }
            Framed::NotYet => Err(Refusal::NoId),
            Framed::Never => Err(Refusal::Never),
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
            Some(code) if is_for_ever(code) => Refusal::Never,
            _ => {
                self.link.tell(&error, "the producer takes no record");
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
        let sink = &self.link.sink;
        let mut known = lock(&self.password);
        match secret(password_file) {
            Ok(password) if *known == password => {}
            Ok(password) => match set_credentials(&self.current(), username, &password) {
                Ok(()) => {
                    *known = password;
                    tracing::info!(sink, "the password has changed: the new one is used");
                }
                Err(why) => tracing::error!(sink, why, "cannot use the new password"),
            },
            // While it is being replaced, and the old one still does.
            Err(error) => tracing::debug!(sink, %error, "cannot read the password"),
        }
    }

    /// Gives librdkafka the latest token, where tokens say who this is.
    pub(super) fn renew_token(&self) {
        if let Some(bearer) = &self.bearer {
            bearer.renew(&self.current());
        }
    }

    /// Makes a new producer where the files that TLS needs are other ones than before. The old one
    /// delivers what it has.
    pub(super) fn reread_certificates(&self) {
        let sink = &self.link.sink;
        let mut known = lock(&self.certificates);
        let certificates = match settings::certificates(&self.config) {
            Ok(certificates) if certificates != known.used => certificates,
            Ok(_) => return,
            // While they are being replaced.
            Err(error) => {
                tracing::debug!(sink, %error, "cannot read the files of TLS");
                return;
            }
        };
        match self.renew() {
            Ok(()) => {
                *known = Certificates { used: certificates, refused: None };
                tracing::info!(sink, "the files of TLS have changed: the new ones are used");
            }
            // At the next look again.
            Err(error) if known.refused == Some(certificates) => {
                tracing::debug!(sink, %error, "cannot use the new files of TLS");
            }
            Err(error) => {
                known.refused = Some(certificates);
                tracing::error!(sink, %error, "cannot use the new files of TLS: the old ones stay in use");
            }
        }
    }

    /// Makes a new producer, and lets the old one deliver what it has.
    pub(super) fn renew(&self) -> Result<(), Error> {
        if let Some(old) = self.replace(&self.current())? {
            lock(&self.replaced).push((old, Instant::now()));
        }
        Ok(())
    }

    /// Replaces a producer that is broken for good; true if that was so. All that it held has been
    /// reported then.
    pub(super) fn rebuild_if_broken(&self) -> bool {
        let broken = self.current();
        let Some((code, why)) = broken.client().fatal_error() else { return false };
        let sink = &self.link.sink;
        tracing::error!(sink, %code, why, "the producer is broken for good: making a new one");
        match self.replace(&broken) {
            Ok(_) => {
                purge(&broken, sink);
                true
            }
            // At the next look again.
            Err(error) => {
                tracing::error!(sink, %error, "cannot make a new producer");
                false
            }
        }
    }

    /// Puts a new producer in the place of `old`, and returns that; `None` where somebody else has
    /// done so meanwhile.
    fn replace(&self, old: &Arc<PolledProducer>) -> Result<Option<Arc<PolledProducer>>, Error> {
        let _making = lock(&self.making);
        if !Arc::ptr_eq(&self.current(), old) {
            return Ok(None);
        }
        let (made, password) = make(&self.config, &self.link)?;
        *lock(&self.password) = password;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *current, Arc::new(made));
        drop(current);
        self.renew_token();
        Ok(Some(old))
    }

    /// Lets go of producers that were replaced and have nothing any more, and takes back what others
    /// have not delivered in time.
    pub(super) fn look_after_replaced(&self, now: Instant) {
        let mut replaced = lock(&self.replaced);
        replaced.retain(|(old, _)| old.in_flight_count() > 0);
        if self.link.mailbox.is_some() {
            for (old, since) in &*replaced {
                if now.saturating_duration_since(*since) > OLD_FLUSH {
                    // They are reported as failed.
                    old.purge(PurgeConfig::default().queue().inflight());
                }
            }
        }
    }

    /// Takes back all that is on its way, also by producers that were replaced, and waits until that
    /// is reported.
    pub(super) fn purge(&self) {
        for (old, _) in lock(&self.replaced).drain(..) {
            purge(&old, &self.link.sink);
        }
        purge(&self.current(), &self.link.sink);
    }

    /// Waits until all that is on its way has been reported, also by producers that were replaced;
    /// false if that takes longer than `deadline`.
    pub(super) fn flush(&self, deadline: Duration) -> bool {
        let until = Instant::now() + deadline;
        let replaced: Vec<_> = lock(&self.replaced).iter().map(|(old, _)| old.clone()).collect();
        replaced
            .into_iter()
            .chain([self.current()])
            .all(|producer| producer.flush(until.saturating_duration_since(Instant::now())).is_ok())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each is whole after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A producer, and the password that it has.
fn make(config: &KafkaConfig, link: &Arc<Link>) -> Result<(PolledProducer, String), Error> {
    let (mut client, password) = settings::client_config(config)?;
    if link.watches && client.get("statistics.interval.ms").is_none() {
        client.set("statistics.interval.ms", STATISTICS_INTERVAL.as_millis().to_string());
    }
    let generation = link.generation.load(Ordering::Relaxed) + 1;
    let producer = PolledProducer::new(&client, Reports::new(link, generation)).map_err(
        |error| match error {
            polled::Error::Kafka(cause) => Error::Kafka { sink: config.name.clone(), cause },
            polled::Error::Thread(cause) => Error::File {
                sink: config.name.clone(),
                action: "start the thread of",
                path: "delivery reports".to_owned(),
                cause,
            },
        },
    )?;
    // Now it is the one in use. One is made at a time.
    link.generation.store(generation, Ordering::Relaxed);
    Ok((producer, password))
}

fn set_credentials(
    producer: &PolledProducer,
    username: &str,
    password: &str,
) -> Result<(), String> {
    let text = |text| CString::new(text).map_err(|_| "a zero byte in it".to_owned());
    let (username, password) = (text(username)?, text(password)?);
    // SAFETY: the client lives as long as `producer`, and librdkafka copies both strings. The error
    // is null or an object of ours, whose text lives until it is destroyed.
    unsafe {
        let client = producer.client().native_ptr();
        let error = rd_kafka_sasl_set_credentials(client, username.as_ptr(), password.as_ptr());
        if error.is_null() {
            return Ok(());
        }
        let why = CStr::from_ptr(rd_kafka_error_string(error)).to_string_lossy().into_owned();
        rd_kafka_error_destroy(error);
        Err(why)
    }
}
