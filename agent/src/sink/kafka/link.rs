//! What the sink, its sender and librdkafka's callbacks share.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError, atomic::AtomicU64},
    time::{Duration, Instant},
};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{
    mailbox::Mailbox, settling::Settling, statistics::Statistics, summaries::Summaries,
    topic::Maker,
};
use crate::{
    config::{Credentials, KafkaConfig},
    encode,
    ledger::{Published, SinkCounts},
    sink::registry::Ids,
    telemetry::SinkTimings,
};

/// An error that lasts is logged again after this long: with a broker away, librdkafka reports it
/// several times a second.
pub(super) const REMINDER_INTERVAL: Duration = Duration::from_secs(30);

/// What the sink, its sender and the callbacks share.
pub(super) struct Link {
    pub(super) sink: String,
    pub(super) topic: String,
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
    pub(super) watches: bool,
    /// Number of the latest producer: one that is replaced tells of itself until it has ended.
    pub(super) generation: AtomicU64,
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
    pub(super) fn tell(&self, error: &KafkaError, reason: &str) {
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
