//! The signals of a transaction.

use tap53_records::encode::{Clock, Owner};
use tap53_signals::{Detector, Exchange, Key, Signal, Signals};
use tap53_transactions::pair::{Anomaly, Observation, Transaction};

/// Returns the key of a transaction; `None` if it has no question.
#[inline]
pub(super) fn key_of(detector: &Detector, transaction: &Transaction<'_>) -> Option<Key> {
    let question = transaction.first().message.question()?;
    let rcode = transaction.response().map(|seen| seen.message.rcode);
    Some(detector.key(transaction.flow.client.ip(), question.name, question.qtype, rcode))
}

/// Returns the signals of a transaction of this client, whose [`key_of`] was computed before.
#[inline]
pub(super) fn signals_of(
    detector: &mut Detector,
    key: Option<Key>,
    transaction: &Transaction<'_>,
    client: &Owner,
    clock: Clock,
) -> Signals {
    let first = transaction.first();
    let signals = from_anomalies(transaction);
    let (Some(key), Some(question)) = (key, first.message.question()) else { return signals };
    let (query, response) = (transaction.query(), transaction.response());
    let size = |seen: Option<&Observation>| seen.map_or(0, |seen| seen.message.size);
    let known = client.identity();
    let exchange = Exchange {
        at_us: clock.utc_us(first.at_ns),
        client: transaction.flow.client.ip(),
        workload: known.pod_namespace.as_deref().zip(known.workload_name.as_deref()),
        name: question.name,
        qtype: question.qtype,
        rcode: response.map(|seen| seen.message.rcode),
        query_bytes: size(query),
        response_bytes: size(response),
        has_private_address: response.is_some_and(|seen| seen.message.has_private_address()),
    };
    detector.observe_with(&exchange, key).union(signals)
}

/// Returns the signals that pairing found.
#[inline]
fn from_anomalies(transaction: &Transaction<'_>) -> Signals {
    let anomalies = transaction.anomalies;
    if anomalies.is_empty() {
        return Signals::NONE;
    }
    let has = |wanted: Anomaly| anomalies.iter().any(|it| it == wanted);
    Signals::NONE
        .with(Signal::ConflictingResponse, has(Anomaly::ConflictingResponse))
        .with(Signal::CaseMismatch, has(Anomaly::CaseMismatch))
}
