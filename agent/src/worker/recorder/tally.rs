//! Counts of what the recorder does with a transaction.

use tap53_attribution::Endpoint;
use tap53_base::amount::Amount;
use tap53_ledger::{EndpointCounts, WorkerCounts};
use tap53_signals::Signals;
use tap53_transactions::{
    filter::FilterReason,
    pair::{Nat, Transaction},
};

/// Counts a transaction that is not recorded.
#[inline]
pub(super) fn count_filtered(
    transaction: &Transaction<'_>,
    reason: FilterReason,
    counts: &mut WorkerCounts,
) {
    counts.records_created += 1;
    counts.filtered[reason as usize] += Amount::record(u64::from(transaction.messages()));
}

/// Counts a transaction that is recorded.
#[inline]
pub(super) fn count_record(transaction: &Transaction<'_>, counts: &mut WorkerCounts) {
    counts.records_created += 1;
    counts.messages_in_records += u64::from(transaction.messages());
    counts.records_numbered += 1;
    count_properties(transaction, counts);
}

/// Counts a transaction that is left out of the records, though not of the metrics.
#[inline]
pub(super) fn leave_out(transaction: &Transaction<'_>, counts: &mut WorkerCounts) {
    count_filtered(transaction, FilterReason::NotKept, counts);
    count_properties(transaction, counts);
}

/// Counts what metrics say about a transaction.
#[inline]
fn count_properties(transaction: &Transaction<'_>, counts: &mut WorkerCounts) {
    for anomaly in transaction.anomalies.iter() {
        counts.anomalies[anomaly as usize] += 1;
    }
    let is_undecided = transaction.sightings.nat == Nat::Undecided;
    counts.translations_undecided += u64::from(is_undecided);
    if let Some(source) = transaction.chain.and_then(|chain| chain.source) {
        counts.answered_from[source.from as usize] += 1;
    }
}

/// Counts the signals of a transaction that no filter excludes.
#[inline]
pub(super) fn count_signals(signals: Option<Signals>, counts: &mut WorkerCounts) {
    for signal in signals.unwrap_or_default().iter() {
        counts.signals[signal as usize] += 1;
    }
}

/// Counts how an endpoint of a record is known.
#[inline]
pub(super) fn count_endpoint(endpoint: &Endpoint<'_>, counts: &mut EndpointCounts) {
    let has_socket = endpoint.provenance.user_id.is_some();
    counts.with_socket += u64::from(has_socket);
    counts.without_socket += u64::from(!has_socket);
    counts.with_unknown_cgroup += u64::from(endpoint.has_unknown_cgroup);
    counts.in_conflict += u64::from(endpoint.provenance.conflict);
}
