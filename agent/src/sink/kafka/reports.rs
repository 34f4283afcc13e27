//! What librdkafka calls back with: delivery reports, its log, what it says of itself.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rdkafka::{
    ClientContext, Message as _,
    bindings::rd_kafka_message_latency,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
    producer::{DeliveryResult, ProducerContext},
};

use super::{
    link::{Framing, Link},
    mailbox::{Outcome, Returned},
    origin::{Origin, TIME_MS},
    reason,
    statistics::Statistics,
};
use crate::{
    encode::Ticket, ledger::Amount, sink::registry::Ids, telemetry::Reached, worker::monotonic_ns,
};

/// Passes delivery reports and librdkafka's log on.
pub(super) struct Reports {
    link: Arc<Link>,
    generation: u64,
}

impl Reports {
    /// For the producer with this number.
    pub(super) fn new(link: &Arc<Link>, generation: u64) -> Self {
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
            Err((error, _)) if is_too_large(error) => Outcome::TooLarge,
            Err((error, _)) if is_never(error) => Outcome::Rejected,
            Err((error, _)) if is_again(error) => Outcome::Again,
            Err(_) => Outcome::Failed,
        };
        let origin = Origin::from_opaque(opaque);
        if let Origin::Summary { id } = origin {
            // One a minute: whatever it was refused with, nothing is divided for it.
            let outcome = if outcome == Outcome::TooLarge { Outcome::Rejected } else { outcome };
            if let Some(summaries) = link.summaries.get() {
                let error = result.as_ref().err().map(|(error, _)| error);
                summaries.report(id, outcome, error);
            }
            return;
        }
        if matches!(outcome, Outcome::Arrived | Outcome::TooLarge | Outcome::Rejected) {
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
            if !is_ours && !is_again(error) && !is_too_large(error) {
                link.tell(error, "a record was not acknowledged in time, or was refused");
            }
        }
    }
}

impl Reports {
    fn delivery_from_memory(&self, result: &DeliveryResult<'_>, messages: u32, ticket: Ticket) {
        let amount = Amount::record(u64::from(messages));
        match (result, &self.link.mailbox) {
            // It stays in flight until the sender has put it into the spool.
            (Err((error, message)), Some(mailbox)) if is_too_large(error) || !is_never(error) => {
                let framing = self.link.framing.as_ref();
                let mut returned = returned(message, messages, ticket, framing);
                returned.is_too_large = is_too_large(error);
                returned.is_again = returned.is_too_large || is_again(error);
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
        is_too_large: false,
    }
}

/// True for errors that the message itself is to blame for.
pub(super) const fn is_for_ever(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidTimestamp
            | RDKafkaErrorCode::InvalidRecord
    )
}

/// True where the broker refused a batch as too long.
fn is_too_large(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge)
}

fn is_never(error: &KafkaError) -> bool {
    error.rdkafka_error_code().is_some_and(is_for_ever)
}

/// True where the broker refused another record of the batch.
fn is_again(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::InvalidDifferentRecord)
}
