//! The producer: its reports, and making a new one when it is broken for good.

use std::{
    cell::RefCell,
    ffi::{CStr, CString},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Message as _,
    bindings::{
        rd_kafka_error_destroy, rd_kafka_error_string, rd_kafka_message_latency,
        rd_kafka_sasl_set_credentials,
    },
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Header, OwnedHeaders},
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer},
};

use super::{
    mailbox::{Mailbox, Outcome, Returned},
    oauth::Bearer,
    purge, reason,
    settings::{self, Fingerprint, secret},
    settling::{self, Settling},
    statistics::Statistics,
    summaries::Summaries,
    topic::Maker,
};
use crate::{
    config::{Credentials, KafkaConfig},
    encode::{self, Entry, Ticket},
    ledger::{Amount, Published, SinkCounts},
    sink::{
        Error,
        registry::{Framed, Ids},
    },
    telemetry::{Reached, SinkTimings},
    worker::monotonic_ns,
};

/// An error that lasts is logged again after this long: with a broker away, librdkafka reports it
/// several times a second.
pub(super) const REMINDER_INTERVAL: Duration = Duration::from_secs(30);

/// How often librdkafka tells of itself: it makes a JSON text of everything, partitions included,
/// and its quantiles are of this long. Shorter than what Prometheus usually waits between two looks.
const STATISTICS_INTERVAL: Duration = Duration::from_secs(10);

const NODE_HEADER: &str = "tap53-node";
const SCHEMA_VERSION_HEADER: &str = "tap53-schema-version";

/// A message to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) timestamp_ms: i64,
    /// Empty for none.
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

/// How long a producer that is replaced may take to deliver what it has. What it has not delivered
/// then is reported as failed.
const OLD_FLUSH: Duration = Duration::from_secs(30);

pub(super) type Threaded = ThreadedProducer<Reports>;

/// What the sink, its sender and the callbacks share.
pub(super) struct Link {
    pub(super) sink: String,
    topic: String,
    /// What proves to brokers who this is.
    proof: &'static str,
    /// Who makes the topic, if anybody does.
    maker: Option<Maker>,
    pub(super) counts: Published<SinkCounts>,
    /// Which windows of the ledger have records on their way.
    pub(super) settling: Settling,
    /// Summaries of the ledger, where they are wanted; set once.
    pub(super) summaries: OnceLock<Summaries>,
    /// Where the ids come from that values are framed with, if they are.
    pub(super) framing: Option<Framing>,
    /// Where reports go, if there is a spool.
    pub(super) mailbox: Option<Mailbox>,
    /// Records that have arrived, or that the broker has refused for good: whether it is there.
    pub(super) answered: AtomicU64,
    /// What was last wrong with the way to the broker.
    trouble: Mutex<String>,
    pub(super) timings: SinkTimings,
    /// What the producer in use said last of itself, where it is asked to.
    pub(super) statistics: Published<Option<Arc<Statistics>>>,
    watches: bool,
    /// Number of the latest producer: one that is replaced tells of itself until it has ended.
    generation: AtomicU64,
    /// Errors that were logged, and when last.
    told: Mutex<Vec<(Option<RDKafkaErrorCode>, Instant)>>,
}

/// Ids from a registry in place of fingerprints.
pub(super) struct Framing {
    pub(super) ids: Arc<Ids>,
    /// Of the schema that new records are written with.
    pub(super) fingerprint: encode::Fingerprint,
}

impl Framing {
    /// Whether new records can be framed.
    pub(super) fn is_ready(&self) -> bool {
        self.ids.get(self.fingerprint).is_some()
    }
}

thread_local! {
    /// Where a value is framed. librdkafka copies it.
    static FRAMED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Link {
    pub(super) fn new(
        config: &KafkaConfig,
        counts: Published<SinkCounts>,
        framing: Option<Framing>,
        watches: bool,
    ) -> Self {
        Self {
            sink: config.name.clone(),
            topic: config.topic.clone(),
            proof: match config.sasl.as_ref().map(|sasl| &sasl.credentials) {
                Some(Credentials::Password { .. }) => "the password",
                // It does not tell clients more than that.
                Some(_) => "the token: its log says whether issuer, audience, key or time is wrong",
                None => "a client without sasl",
            },
            maker: Maker::start(config),
            counts,
            settling: Settling::new(),
            summaries: OnceLock::new(),
            framing,
            mailbox: config.spool.is_some().then(Mailbox::default),
            answered: AtomicU64::new(0),
            trouble: Mutex::default(),
            timings: SinkTimings::default(),
            statistics: Published::default(),
            watches,
            generation: AtomicU64::new(0),
            told: Mutex::default(),
        }
    }

    /// Logs an error, unless it was logged a moment ago.
    fn tell(&self, error: &KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        if self.mailbox.is_some() && code.is_some_and(is_outage) {
            // The sender tells of the outage, once, and with the last that names a cause.
            let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
            if code == Some(RDKafkaErrorCode::BrokerTransportFailure) || trouble.is_empty() {
                reason.clone_into(&mut trouble);
            }
            tracing::debug!(sink = self.sink, %error, reason, "producer");
            return;
        }
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        // As many as there are codes, at most.
        told.retain(|(_, at)| now.saturating_duration_since(*at) < REMINDER_INTERVAL);
        if told.iter().any(|(other, _)| *other == code) {
            return;
        }
        told.push((code, now));
        drop(told);
        let sink = &self.sink;
        match code {
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                let topic = &self.topic;
                if let Some(maker) = &self.maker {
                    tracing::warn!(sink, topic, "the topic does not exist: it will be created");
                    maker.want();
                } else {
                    tracing::error!(
                        sink,
                        topic,
                        "the topic does not exist, and tap53 creates none: create it, or set create_topic"
                    );
                }
            }
            Some(
                RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed,
            ) => {
                let topic = &self.topic;
                tracing::error!(sink, topic, %error, "the broker does not let this user write: it needs WRITE on the topic");
            }
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
                let proof = self.proof;
                tracing::error!(sink, %error, reason, "the broker does not accept {proof}");
            }
            Some(RDKafkaErrorCode::InvalidTimestamp | RDKafkaErrorCode::InvalidRecord) => {
                let topic = &self.topic;
                tracing::error!(sink, topic, %error, "the broker refuses records, which are lost and counted: is this node's clock right? It takes none that are further ahead of its own than message.timestamp.after.max.ms");
            }
            _ => tracing::error!(sink, %error, reason, "producer"),
        }
    }

    /// What was last wrong with the way to the broker, since this was last asked.
    pub(super) fn take_trouble(&self) -> String {
        std::mem::take(&mut self.trouble.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where a message came from, which comes back with its report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It is nowhere else.
    Memory {
        /// Messages that the record stands for.
        messages: u32,
        /// When its response was captured, CLOCK_MONOTONIC milliseconds modulo 2^24 (4.6 hours); 0
        /// without one.
        answered_at_ms: u32,
        /// What the sink gave for its batch.
        ticket: Ticket,
    },
    /// It is in the spool.
    Spool {
        /// Its id there.
        id: u64,
    },
    /// It is a summary of the ledger.
    Summary {
        /// Its id in their queue.
        id: u64,
    },
}

/// The highest bits of what librdkafka carries for us say which of these it is.
const SPOOLED: usize = 1 << 63;
const SUMMARY: usize = 1 << 62;
const _: () = assert!(usize::BITS == 64);

/// Of a time in milliseconds, what there is room for.
const TIME_MS: u64 = (1 << 24) - 1;

/// Above those, what the sink gave for the batch: 6 bits.
const TICKET_BIT: u32 = 56;
const _: () = assert!(settling::PLACES <= 1 << 6);

impl Origin {
    pub(super) fn memory(entry: &Entry, ticket: Ticket) -> Self {
        let at_ms = match entry.answered_at_ns {
            0 => 0,
            // Not 0, which says that there is none.
            at_ns => ((at_ns / 1_000_000) & TIME_MS).max(1),
        };
        // Below 2^24.
        let answered_at_ms = u32::try_from(at_ms).unwrap_or(0);
        Self::Memory { messages: entry.messages, answered_at_ms, ticket }
    }

    fn to_opaque(self) -> usize {
        match self {
            Self::Memory { messages, answered_at_ms, ticket } => {
                usize::from(ticket.0) << TICKET_BIT
                    | (answered_at_ms as usize) << 32
                    | messages as usize
            }
            Self::Spool { id } => SPOOLED | usize::try_from(id).unwrap_or(usize::MAX),
            Self::Summary { id } => SUMMARY | usize::try_from(id).unwrap_or(0),
        }
    }

    fn from_opaque(opaque: usize) -> Self {
        if opaque & SPOOLED != 0 {
            Self::Spool { id: (opaque & !SPOOLED) as u64 }
        } else if opaque & SUMMARY != 0 {
            Self::Summary { id: (opaque & !SUMMARY) as u64 }
        } else {
            // Of 32, 24 and 6 bits.
            let time = (opaque as u64 >> 32) & TIME_MS;
            Self::Memory {
                messages: u32::try_from(opaque & 0xffff_ffff).unwrap_or(u32::MAX),
                answered_at_ms: u32::try_from(time).unwrap_or(0),
                ticket: Ticket(u8::try_from(opaque >> TICKET_BIT).unwrap_or(0)),
            }
        }
    }
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

/// True for errors that say no more than that a broker does not answer.
const fn is_outage(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::MessageTimedOut
            | RDKafkaErrorCode::OperationTimedOut
    )
}

/// True for errors that the message itself is to blame for.
const fn is_for_ever(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidTimestamp
            | RDKafkaErrorCode::InvalidRecord
    )
}

/// Passes delivery reports and librdkafka's log on.
pub(super) struct Reports {
    link: Arc<Link>,
    generation: u64,
}

impl Reports {
    /// For the producer that is used from now on.
    fn new(link: &Arc<Link>) -> Self {
        let generation = link.generation.fetch_add(1, Ordering::Relaxed) + 1;
        Self { link: link.clone(), generation }
    }

    /// Notes how long a record took that has arrived.
    fn time(&self, message: &BorrowedMessage<'_>, answered_at_ms: u32) {
        // SAFETY: the message is librdkafka's for as long as it is borrowed.
        let took_us = unsafe { rd_kafka_message_latency(message.ptr()) };
        let timings = &self.link.timings;
        // Negative where it is not known.
        if let Ok(took_us) = u64::try_from(took_us) {
            timings.acknowledgement.observe(Duration::from_micros(took_us));
        }
        if answered_at_ms > 0 {
            let now_ms = monotonic_ns() / 1_000_000;
            let age_ms = now_ms.wrapping_sub(answered_at_ms.into()) & TIME_MS;
            timings.age(Reached::Acknowledged).observe(Duration::from_millis(age_ms));
        }
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let sink = &self.link.sink;
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(sink, facility, "{message}");
            }
            // Told again, and less often, by error().
            RDKafkaLogLevel::Error => tracing::debug!(sink, facility, "{message}"),
            // A request that timed out, again with each one: its records are reported as failed. And
            // an identity not yet given by a broker that starts: it is asked for again.
            RDKafkaLogLevel::Warning if matches!(facility, "REQTMOUT" | "GETPID") => {
                tracing::debug!(sink, facility, "{message}");
            }
            RDKafkaLogLevel::Warning => tracing::warn!(sink, facility, "{message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(sink, facility, "{message}");
            }
            RDKafkaLogLevel::Debug => tracing::debug!(sink, facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.link.tell(&error, reason);
    }

    fn stats(&self, statistics: rdkafka::Statistics) {
        if self.generation == self.link.generation.load(Ordering::Relaxed) {
            let told = Statistics::of(&statistics, &self.link.topic);
            self.link.statistics.publish(Some(Arc::new(told)));
        }
    }
}

impl ProducerContext for Reports {
    /// See [`Origin::to_opaque`].
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let link = &*self.link;
        let outcome = match result {
            Ok(_) => Outcome::Arrived,
            Err((error, _)) if is_never(error) => Outcome::Rejected,
            Err((error, _)) if is_again(error) => Outcome::Again,
            Err(_) => Outcome::Failed,
        };
        let origin = Origin::from_opaque(opaque);
        if let Origin::Summary { id } = origin {
            if let Some(summaries) = link.summaries.get() {
                let error = result.as_ref().err().map(|(error, _)| error);
                summaries.report(id, outcome, error);
            }
            return;
        }
        if matches!(outcome, Outcome::Arrived | Outcome::Rejected) {
            link.answered.fetch_add(1, Ordering::Relaxed);
        }
        match origin {
            // Dealt with above.
            Origin::Summary { .. } => {}
            Origin::Spool { id } => {
                if let Ok(message) = result {
                    self.time(message, 0);
                }
                if let Some(mailbox) = &link.mailbox {
                    mailbox.put(|mail| mail.reports.push((id, outcome)));
                }
            }
            Origin::Memory { messages, answered_at_ms, ticket } => {
                if let Ok(message) = result {
                    self.time(message, answered_at_ms);
                }
                self.delivery_from_memory(result, messages, ticket);
            }
        }
        if let Err((error, message)) = result {
            let topic = message.topic();
            tracing::debug!(sink = link.sink, %error, topic, "record not delivered");
            let is_ours = matches!(
                error.rdkafka_error_code(),
                Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight)
            );
            if !is_ours && !is_again(error) {
                link.tell(error, "a record was not acknowledged in time, or was refused");
            }
        }
    }
}

fn is_never(error: &KafkaError) -> bool {
    error.rdkafka_error_code().is_some_and(is_for_ever)
}

/// True where the broker refused another record of the batch.
fn is_again(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::InvalidDifferentRecord)
}

impl Reports {
    fn delivery_from_memory(&self, result: &DeliveryResult<'_>, messages: u32, ticket: Ticket) {
        let amount = Amount::record(u64::from(messages));
        match (result, &self.link.mailbox) {
            // It stays in flight until the sender has put it into the spool.
            (Err((error, message)), Some(mailbox)) if !is_never(error) => {
                let framing = self.link.framing.as_ref();
                let mut returned = returned(message, messages, ticket, framing);
                returned.is_again = is_again(error);
                mailbox.put(|mail| mail.returned.push(returned));
            }
            _ => {
                self.link.counts.update(|counts| {
                    counts.in_flight -= amount;
                    match result {
                        Ok(_) => counts.delivered += amount,
                        Err((error, _)) => counts.lose(reason(error.rdkafka_error_code()), amount),
                    }
                });
                self.link.settling.leave(ticket, 1);
            }
        }
    }
}

fn returned(
    message: &BorrowedMessage<'_>,
    messages: u32,
    ticket: Ticket,
    framing: Option<&Framing>,
) -> Returned {
    let value = message.payload().unwrap_or_default();
    // In the spool a record says itself what it is. Out of memory come new ones alone.
    let unframed = framing.and_then(|framing| Ids::unframed(framing.fingerprint, value));
    Returned {
        ticket,
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        messages,
        key: message.key().unwrap_or_default().to_vec(),
        value: unframed.unwrap_or_else(|| value.to_vec()),
        is_again: false,
    }
}

/// A producer that is replaced when librdkafka says that it is broken for good, as the idempotent
/// producer may be.
pub(super) struct Producer {
    config: KafkaConfig,
    node: String,
    link: Arc<Link>,
    current: RwLock<Arc<Threaded>>,
    /// The password that was last given to librdkafka; empty without SASL.
    password: Mutex<String>,
    /// Where tokens come from, if those say who this is.
    bearer: Option<Bearer>,
    /// Of the files that TLS needs, as they were when the producer was made.
    certificates: Mutex<Fingerprint>,
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
            certificates: Mutex::new(settings::certificates(config).unwrap_or([0; 32])),
        })
    }

    /// The producer to use now; to be asked for again before long.
    pub(super) fn current(&self) -> Arc<Threaded> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hands a message to `producer`, framed by the registry's id where there is a registry.
    pub(super) fn send(
        &self,
        producer: &Threaded,
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
        producer: &Threaded,
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
        let mut known = self.password.lock().unwrap_or_else(PoisonError::into_inner);
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
        let mut known = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        let certificates = match settings::certificates(&self.config) {
            Ok(certificates) if certificates != *known => certificates,
            Ok(_) => return,
            // While they are being replaced.
            Err(error) => {
                tracing::debug!(sink, %error, "cannot read the files of TLS");
                return;
            }
        };
        *known = certificates;
        match make(&self.config, &self.link) {
            Ok((made, password)) => {
                *self.password.lock().unwrap_or_else(PoisonError::into_inner) = password;
                let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
                let old = std::mem::replace(&mut *current, Arc::new(made));
                drop(current);
                self.renew_token();
                tracing::info!(sink, "the files of TLS have changed: the new ones are used");
                let sink = sink.clone();
                let flush =
                    thread::Builder::new().name("kafka-flush".to_owned()).spawn(move || {
                        if old.flush(OLD_FLUSH).is_err() {
                            purge(&old, &sink);
                        }
                    });
                if let Err(error) = flush {
                    tracing::error!(%error, "cannot start a thread: what the old producer holds is taken back");
                }
            }
            Err(error) => {
                tracing::error!(sink, %error, "cannot use the new files of TLS: the old ones stay in use");
            }
        }
    }

    /// Replaces a producer that is broken for good; true if that was so. All that it held has been
    /// reported then.
    pub(super) fn rebuild_if_broken(&self) -> bool {
        let broken = self.current();
        let Some((code, why)) = broken.client().fatal_error() else { return false };
        let sink = &self.link.sink;
        tracing::error!(sink, %code, why, "the producer is broken for good: making a new one");
        match make(&self.config, &self.link) {
            Ok((made, password)) => {
                *self.password.lock().unwrap_or_else(PoisonError::into_inner) = password;
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(made);
                self.renew_token();
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
}

/// A producer, and the password that it has.
fn make(config: &KafkaConfig, link: &Arc<Link>) -> Result<(Threaded, String), Error> {
    let (mut client, password) = settings::client_config(config)?;
    if link.watches && client.get("statistics.interval.ms").is_none() {
        client.set("statistics.interval.ms", STATISTICS_INTERVAL.as_millis().to_string());
    }
    let producer = client
        .create_with_context(Reports::new(link))
        .map_err(|cause| Error::Kafka { sink: config.name.clone(), cause })?;
    Ok((producer, password))
}

fn set_credentials(producer: &Threaded, username: &str, password: &str) -> Result<(), String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_survive_the_way_through_librdkafka() {
        for origin in [
            Origin::Memory { messages: 0, answered_at_ms: 0, ticket: Ticket(63) },
            Origin::Memory { messages: u32::MAX, answered_at_ms: 1, ticket: Ticket(0) },
            Origin::Memory { messages: 2, answered_at_ms: (1 << 24) - 1, ticket: Ticket(1) },
            Origin::Spool { id: 0 },
            Origin::Spool { id: u64::MAX >> 1 },
            Origin::Summary { id: 0 },
            Origin::Summary { id: u64::MAX >> 2 },
        ] {
            assert_eq!(Origin::from_opaque(origin.to_opaque()), origin);
        }
    }
}
