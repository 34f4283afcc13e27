//! librdkafka's callbacks: delivery reports, log, statistics.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rdkafka::{
    ClientContext, Message as KafkaMessage,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
    producer::{DeliveryResult, ProducerContext},
};
use tap53_base::{clock::monotonic_ns, vitals::Reached};
use tap53_ledger::SinkLoss;

use super::{
    super::{
        context::{Report, SinkContext},
        events::Outcome,
        origin::{Origin, TIME_MS},
    },
    Message,
    statistics::Statistics,
};

pub(in crate::kafka) struct Callbacks {
    pub(super) context: Arc<SinkContext>,
    /// The number of the producer.
    pub(super) generation: u64,
}

impl Callbacks {
    /// Observes the latency and the age of a delivered record.
    fn time(&self, message: &BorrowedMessage<'_>, answered_at_ms: u32) {
        let timings = &self.context.timings;
        if let Some(latency) = tap53_librdkafka::latency(message) {
            timings.acknowledgement.observe(latency);
        }
        if answered_at_ms > 0 {
            let now_ms = monotonic_ns() / 1_000_000;
            let age_ms = now_ms.wrapping_sub(answered_at_ms.into()) & TIME_MS;
            timings.age(Reached::Acknowledged).observe(Duration::from_millis(age_ms));
        }
    }
}

impl ClientContext for Callbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let sink = &self.context.sink;
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(event = "librdkafka_log", sink, facility, "{message}");
            }
            // REQTMOUT: a request timed out, and its records are reported as failed. GETPID: a broker
            // that starts has no producer id yet, and librdkafka requests it again.
            RDKafkaLogLevel::Warning if !matches!(facility, "REQTMOUT" | "GETPID") => {
                tracing::warn!(event = "librdkafka_log", sink, facility, "{message}");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(event = "librdkafka_log", sink, facility, "{message}");
            }
            // `error` logs errors too, and less often.
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning | RDKafkaLogLevel::Debug => {
                tracing::debug!(event = "librdkafka_log", sink, facility, "{message}");
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.log_error(&error, reason);
    }

    fn stats(&self, statistics: rdkafka::Statistics) {
        if self.generation == self.context.generation.load(Ordering::Relaxed) {
            let statistics = Statistics::of(&statistics, &self.context.topic);
            self.context.statistics.publish(Some(Arc::new(statistics)));
        }
    }
}

impl ProducerContext for Callbacks {
    /// See [`Origin::to_opaque`].
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let context = &*self.context;
        let origin = Origin::from_opaque(opaque);
        let (message, error) = match result {
            Ok(message) => (message, None),
            Err((error, message)) => (message, Some(error)),
        };
        let code = error.and_then(KafkaError::rdkafka_error_code);
        let outcome = error.map_or(Outcome::Delivered, |_| outcome(code));
        if error.is_none() {
            match origin {
                Origin::Spool { .. } => self.time(message, 0),
                Origin::Memory { answered_at_ms, .. } => self.time(message, answered_at_ms),
                Origin::Summary { .. } => {}
            }
        }
        context.report(&Report {
            origin,
            outcome,
            error,
            loss: loss(code),
            message: Message {
                timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
                key: message.key().unwrap_or_default(),
                value: message.payload().unwrap_or_default(),
            },
        });
        if let Some(error) = error
            && !matches!(origin, Origin::Summary { .. })
        {
            let sink = &context.sink;
            tracing::debug!(event = "record_not_delivered", sink, %error, "record not delivered");
            let is_expected = matches!(outcome, Outcome::Innocent | Outcome::TooLarge);
            if !is_purged(code) && !is_expected {
                context.log_error(error, "a record was not acknowledged in time, or was refused");
            }
        }
    }
}

fn outcome(code: Option<RDKafkaErrorCode>) -> Outcome {
    match code {
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => Outcome::TooLarge,
        Some(code) if is_permanent(code) => Outcome::Rejected,
        Some(RDKafkaErrorCode::InvalidDifferentRecord) => Outcome::Innocent,
        _ => Outcome::Failed,
    }
}

/// Returns the loss reason of a message that cannot be requeued.
const fn loss(code: Option<RDKafkaErrorCode>) -> SinkLoss {
    match code {
        Some(RDKafkaErrorCode::MessageTimedOut) => SinkLoss::Expired,
        code if is_purged(code) => SinkLoss::Unflushed,
        _ => SinkLoss::Rejected,
    }
}

/// True if this client itself purged the message.
pub(in crate::kafka) const fn is_purged(code: Option<RDKafkaErrorCode>) -> bool {
    matches!(code, Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight))
}

/// True for errors of the message itself.
pub(super) const fn is_permanent(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidTimestamp
            | RDKafkaErrorCode::InvalidRecord
    )
}
