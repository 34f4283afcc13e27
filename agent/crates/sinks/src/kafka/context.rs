//! State that the sink, its sender and librdkafka's callbacks share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tap53_base::vitals::SinkTimings;
use tap53_ledger::{Published, SinkCounts, SinkLoss};

use super::{
    admin::TopicCreator,
    backlog::QueuedMessage,
    events::{DeliveryEvents, FailedDelivery, Outcome},
    flight::{Accounts, Flight},
    origin::Origin,
    producer::{Message, Statistics},
    summaries::SummaryReport,
};
use crate::{
    config::{Credentials, KafkaConfig},
    registry::SchemaIds,
};

/// An error that lasts is logged again after this long: with a broker unreachable, librdkafka
/// reports it several times a second.
pub(super) const REMINDER_INTERVAL: Duration = Duration::from_secs(30);

/// The shared state; see the [module](self).
pub(super) struct SinkContext {
    pub(super) sink: String,
    pub(super) topic: String,
    /// Names the credentials in errors of authentication.
    credentials: &'static str,
    topic_creator: Option<TopicCreator>,
    pub(super) accounts: Arc<Accounts>,
    /// Ids of the schemas of records, where a registry gives them.
    pub(super) schema_ids: Option<Arc<SchemaIds>>,
    pub(super) events: DeliveryEvents,
    /// Delivery reports of summaries, until they are applied.
    pub(super) summary_reports: Mutex<Vec<SummaryReport>>,
    /// True where failed records are requeued: there is a spool, or another agent has locked it.
    pub(super) requeues: bool,
    /// Records that have arrived, or that the broker has refused for good: whether it is there.
    pub(super) answered: AtomicU64,
    /// The last error of the connection to the broker.
    connection_error: Mutex<String>,
    pub(super) timings: SinkTimings,
    /// The latest statistics of the producer in use, where they are wanted.
    pub(super) statistics: Published<Option<Arc<Statistics>>>,
    pub(super) watches: bool,
    /// Number of the latest producer: one that is replaced still calls back until it has ended.
    pub(super) generation: AtomicU64,
    /// Errors that were logged, and when last.
    logged: Mutex<Vec<(Option<RDKafkaErrorCode>, Instant)>>,
}

/// A delivery report.
pub(super) struct Report<'a> {
    pub(super) origin: Origin,
    pub(super) outcome: Outcome,
    pub(super) error: Option<&'a KafkaError>,
    /// The reason that the record counts as lost for where it cannot be requeued.
    pub(super) loss: SinkLoss,
    /// As it was sent.
    pub(super) message: Message<'a>,
}

impl SinkContext {
    pub(super) fn new(
        config: &KafkaConfig,
        counts: Published<SinkCounts>,
        schema_ids: Option<Arc<SchemaIds>>,
        watches: bool,
    ) -> Self {
        Self {
            sink: config.name.clone(),
            topic: config.topic.clone(),
            credentials: match config.sasl.as_ref().map(|sasl| &sasl.credentials) {
                Some(Credentials::Password { .. }) => "the password",
                // Brokers do not say more to clients.
                Some(_) => "the token: its log says whether issuer, audience, key or time is wrong",
                None => "a client without sasl",
            },
            topic_creator: TopicCreator::start(config),
            accounts: Arc::new(Accounts::new(counts)),
            schema_ids,
            events: DeliveryEvents::default(),
            summary_reports: Mutex::default(),
            requeues: config.spool.is_some(),
            answered: AtomicU64::new(0),
            connection_error: Mutex::default(),
            timings: SinkTimings::default(),
            statistics: Published::default(),
            watches,
            generation: AtomicU64::new(0),
            logged: Mutex::default(),
        }
    }

    pub(super) fn counts(&self) -> &Published<SinkCounts> {
        &self.accounts.counts
    }

    /// True where new records can be framed, or need not be.
    pub(super) fn is_schema_known(&self) -> bool {
        self.schema_ids.as_ref().is_none_or(|ids| ids.is_ready())
    }

    /// Takes in a delivery report, on librdkafka's thread: nothing here waits.
    pub(super) fn report(&self, report: &Report<'_>) {
        let Report { origin, outcome, error, loss, message } = report;
        if !matches!(origin, Origin::Summary { .. })
            && matches!(outcome, Outcome::Delivered | Outcome::TooLarge | Outcome::Rejected)
        {
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
        match *origin {
            Origin::Summary { id } => {
                let report = SummaryReport::new(id, *outcome, *error, message);
                self.summary_reports.lock().push(report);
            }
            Origin::Spool { id } => {
                self.events.put(|events| events.reports.push((id, *outcome)));
            }
            Origin::Memory { messages, slot, .. } => {
                let flight = Flight::landing(&self.accounts, slot, messages);
                match outcome {
                    Outcome::Delivered => flight.delivered(),
                    Outcome::Failed | Outcome::Innocent | Outcome::TooLarge if self.requeues => {
                        self.give_back(flight, message, *outcome);
                    }
                    _ => flight.lost(*loss),
                }
            }
        }
    }

    /// A record stays in flight until the sender has requeued it.
    fn give_back(&self, flight: Flight<&Accounts>, message: &Message<'_>, outcome: Outcome) {
        // In the backlog a record names its schema itself. New ones alone are in memory.
        let unframed = self.schema_ids.as_ref().and_then(|ids| ids.unframed(message.value));
        let value = unframed.as_deref().unwrap_or(message.value);
        let record =
            QueuedMessage::new(flight.keep(&self.accounts), &Message { value, ..*message });
        self.events.put(|events| events.failed.push(FailedDelivery { record, outcome }));
    }

    /// Logs an error of the producer, unless it was logged a moment ago.
    pub(super) fn log_error(&self, error: &KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        if self.requeues && code.is_some_and(is_outage) {
            // The sender logs the outage once, with the last error that names a cause.
            let mut last = self.connection_error.lock();
            if code == Some(RDKafkaErrorCode::BrokerTransportFailure) || last.is_empty() {
                reason.clone_into(&mut last);
            }
            tracing::debug!(
                event = "broker_connection_failed",
                sink = self.sink,
                %error,
                reason,
                "the connection to a broker failed"
            );
            return;
        }
        if self.is_logged(code) {
            return;
        }
        let (sink, topic) = (&self.sink, &self.topic);
        match code {
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                if let Some(creator) = &self.topic_creator {
                    tracing::warn!(
                        event = "topic_missing",
                        sink,
                        topic,
                        "topic does not exist, creating it"
                    );
                    creator.want();
                } else {
                    tracing::error!(
                        event = "topic_missing",
                        sink,
                        topic,
                        "topic does not exist, and tap53 creates none: create it, or set create_topic"
                    );
                }
            }
            Some(
                RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed,
            ) => {
                tracing::error!(event = "topic_forbidden", sink, topic, %error, "broker forbids this user to write: it needs WRITE on the topic");
            }
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
                let credentials = self.credentials;
                tracing::error!(event = "authentication_failed", sink, %error, reason, "broker does not accept {credentials}");
            }
            Some(RDKafkaErrorCode::InvalidTimestamp | RDKafkaErrorCode::InvalidRecord) => {
                tracing::error!(event = "records_rejected", sink, topic, %error, "broker rejects records, which are lost and counted: is this node's clock right? It takes none that are further ahead of its own than message.timestamp.after.max.ms");
            }
            _ => tracing::error!(event = "producer_error", sink, %error, reason, "producer"),
        }
    }

    /// True if an error with this code was logged a moment ago; else it is noted as logged now.
    fn is_logged(&self, code: Option<RDKafkaErrorCode>) -> bool {
        let now = Instant::now();
        let mut logged = self.logged.lock();
        // As many as there are codes, at most.
        logged.retain(|(_, at)| now.saturating_duration_since(*at) < REMINDER_INTERVAL);
        if logged.iter().any(|(other, _)| *other == code) {
            return true;
        }
        logged.push((code, now));
        false
    }

    /// The last error of the connection to the broker, since this was last called.
    pub(super) fn take_connection_error(&self) -> String {
        std::mem::take(&mut *self.connection_error.lock())
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
