//! Counts of one client and server.

use tap53_records::encode::Record;
use tap53_transactions::pair::{Anomaly, Outcome};

use crate::latency::Latencies;

/// Counts of the transactions of one client workload, or namespace, with one server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairCounts {
    /// Time from the first query to the response.
    pub latency: Latencies,
    /// Time that the resolver itself took, if the chain of the answer is known.
    pub resolver: Latencies,
    /// Queries without a response.
    pub timeouts: u64,
    /// Queries that were repeated while they waited for a response.
    pub retries: u64,
    /// Truncated responses.
    pub truncated: u64,
    /// Responses that contradict an earlier one to the same query.
    pub conflicting: u64,
    /// Queries of a search list whose name was not the one that the lookup ended with.
    pub search_waste: u64,
}

impl PairCounts {
    /// Counts a record.
    #[inline]
    pub(crate) fn count(&mut self, record: &Record<'_>) {
        let transaction = record.transaction;
        if let Some(ns) = record.latency_ns().and_then(|ns| u64::try_from(ns).ok()) {
            self.latency.observe(ns);
        }
        self.timeouts += u64::from(transaction.outcome() == Outcome::Unanswered);
        self.retries += u64::from(transaction.query_count.saturating_sub(1));
        if let Some(response) = transaction.response() {
            self.truncated += u64::from(response.message.flags.truncated);
        }
        if !transaction.anomalies.is_empty() {
            let is_conflict = |anomaly| anomaly == Anomaly::ConflictingResponse;
            self.conflicting += u64::from(transaction.anomalies.iter().any(is_conflict));
        }
        if let Some(chain) = transaction.chain {
            self.search_waste += u64::from(chain.search.is_some_and(|search| !search.is_winner));
            if let Some(source) = chain.source.filter(|source| source.from.is_decided()) {
                self.resolver.observe(source.resolver_ns);
            }
        }
    }
}
