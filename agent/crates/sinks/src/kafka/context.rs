//! The state shared by the sink, its sender and librdkafka's callbacks.

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
    outage::OngoingOutage,
    producer::{Message, Statistics},
    summaries::{SummaryReport, WaitingSummary},
};
use crate::{
    config::{Credentials, KafkaConfig},
    registry::SchemaIds,
};

/// The interval at which a lasting error is logged: librdkafka reports an unreachable broker several
/// times a second.
pub(super) const REMINDER_INTERVAL: Duration = Duration::from_secs(30);

pub(super) struct SinkContext {
    pub(super) sink: String,
    pub(super) topic: String,
    /// The credentials, as errors of authentication name them.
    credentials: &'static str,
    topic_creator: Option<TopicCreator>,
    pub(super) accounts: Arc<Accounts>,
    /// The ids of the records' schemas; `None` without a registry.
    pub(super) schema_ids: Option<Arc<SchemaIds>>,
    pub(super) events: DeliveryEvents,
    /// Delivery reports of summaries that are not yet applied.
    pub(super) summary_reports: Mutex<Vec<SummaryReport>>,
    /// True if failed records are requeued: a spool is configured, perhaps locked by another agent.
    pub(super) requeues: bool,
    /// The number of records that the broker has acknowledged or refused: it is reachable.
    pub(super) answered: AtomicU64,
    connection_error: Mutex<String>,
    /// The reason why records do not arrive now, for the status.
    pub(super) ongoing_outage: OngoingOutage,
    pub(super) timings: SinkTimings,
    /// The latest statistics of the producer in use, if `watches`.
    pub(super) statistics: Published<Option<Arc<Statistics>>>,
    pub(super) watches: bool,
    /// The number of the latest producer: one that was replaced still calls back until it ends.
    pub(super) generation: AtomicU64,
    /// The errors that were logged within [`REMINDER_INTERVAL`], and when.
    logged: Mutex<Vec<(Option<RDKafkaErrorCode>, Instant)>>,
}

pub(super) struct Report<'a> {
    pub(super) origin: Origin,
    pub(super) outcome: Outcome,
    pub(super) error: Option<&'a KafkaError>,
    /// The loss reason of a record that cannot be requeued.
    pub(super) loss: SinkLoss,
    /// The message as it was sent.
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
            ongoing_outage: OngoingOutage::default(),
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

    /// Applies a delivery report, on librdkafka's thread, without waiting.
    pub(super) fn report(&self, report: &Report<'_>) {
        let Report { origin, outcome, error, loss, message } = report;
        if !matches!(origin, Origin::Summary { .. })
            && matches!(outcome, Outcome::Delivered | Outcome::TooLarge | Outcome::Rejected)
        {
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
        self.note_outcome(*outcome, *error);
        match *origin {
            Origin::Summary { id } => {
                let (outcome, error) = (*outcome, error.cloned());
                let summary = QueuedMessage::new(WaitingSummary, message);
                let report = SummaryReport { id, outcome, error, summary };
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

    /// Notes whether records arrive. With a spool, the sender does this.
    fn note_outcome(&self, outcome: Outcome, error: Option<&KafkaError>) {
        match outcome {
            _ if self.requeues => {}
            Outcome::Delivered => self.ongoing_outage.end(),
            Outcome::Failed => self.ongoing_outage.begin(|| {
                let error = error.map_or_else(|| "no answer".to_owned(), ToString::to_string);
                format!("records are not delivered: {error}")
            }),
            Outcome::Innocent | Outcome::TooLarge | Outcome::Rejected => {}
        }
    }

    /// Gives a record to the sender to requeue. It stays in flight until then.
    fn give_back(&self, flight: Flight<&Accounts>, message: &Message<'_>, outcome: Outcome) {
        // In the backlog, a record is a single object again. Only the newest schema's are in memory.
        let unframed = self.schema_ids.as_ref().and_then(|ids| ids.unframed(message.value));
        let value = unframed.as_deref().unwrap_or(message.value);
        let record =
            QueuedMessage::new(flight.keep(&self.accounts), &Message { value, ..*message });
        self.events.put(|events| events.failed.push(FailedDelivery { record, outcome }));
    }

    /// Logs an error of the producer, unless it was logged within [`REMINDER_INTERVAL`].
    pub(super) fn log_error(&self, error: &KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        if self.requeues && code.is_some_and(is_outage) {
            // The sender logs the outage, with the last error that names a cause.
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
        if code == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.ongoing_outage.begin(|| format!("broker unreachable: {reason}"));
        }
        if self.is_logged(code) {
            return;
        }
        let (sink, topic) = (&self.sink, &self.topic);
        match code {
            Some(code) if is_topic_missing(code) => self.log_missing_topic(),
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

    /// Logs that the topic does not exist, and has it created if that is configured.
    fn log_missing_topic(&self) {
        let (sink, topic) = (&self.sink, &self.topic);
        let Some(creator) = &self.topic_creator else {
            return tracing::error!(
                event = "topic_missing",
                sink,
                topic,
                "topic does not exist, and tap53 creates none: create it, or set create_topic"
            );
        };
        tracing::warn!(event = "topic_missing", sink, topic, "topic does not exist, creating it");
        creator.want();
    }

    /// True if this code was logged within [`REMINDER_INTERVAL`]; else notes that it is logged now.
    fn is_logged(&self, code: Option<RDKafkaErrorCode>) -> bool {
        let now = Instant::now();
        let mut logged = self.logged.lock();
        logged.retain(|(_, at)| now.saturating_duration_since(*at) < REMINDER_INTERVAL);
        if logged.iter().any(|(other, _)| *other == code) {
            return true;
        }
        logged.push((code, now));
        false
    }

    pub(super) fn take_connection_error(&self) -> String {
        std::mem::take(&mut *self.connection_error.lock())
    }
}

pub(super) const fn is_topic_missing(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)
}

/// True for errors that only mean that a broker does not answer.
const fn is_outage(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::MessageTimedOut
            | RDKafkaErrorCode::OperationTimedOut
    )
}
