//! Records that wait a moment for a name.
//!
//! A pod asks as soon as its containers run; that it has its address shows in the API a second or
//! so later, when the kubelet has looked and written the pod's status. A record of that time is
//! therefore held until the address is known, or for a few seconds of capture time: as a copy, since
//! transactions lie in buffers that are used again. Only addresses from which a pod is expected are
//! worth that, see [`Reader::awaits`](tap53_attribution::Reader::awaits); all else is recorded at once.
//!
//! Bounded: at most [`HELD`] records of at most [`LARGEST`] bytes of messages each, which read and
//! copied take some 20 KB; 20 MB a worker in a flood of such, 3 MB of usual ones. Where it is full,
//! records go out without waiting, so that a flood of invented addresses costs nothing more.

use std::collections::VecDeque;

use tap53_dns::Flow;
use tap53_transactions::pair::{Anomalies, Exchange, Observation, RecordId, Related, Transaction};

/// Records that are held at most.
const HELD: usize = 1_024;

/// Bytes of the messages of a record that is held.
const LARGEST: u32 = 4_096;

/// Waiting records, the oldest first.
pub(super) struct Held {
    waiting: VecDeque<Waiting>,
    messages: u64,
    /// When the time of the first of them comes.
    earliest_ns: u64,
}

impl Default for Held {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), messages: 0, earliest_ns: u64::MAX }
    }
}

/// A transaction of its own.
pub(super) struct Waiting {
    id: RecordId,
    pub(super) flow: Flow,
    query: Option<Observation>,
    response: Option<Observation>,
    query_count: u32,
    latest_query_ns: u64,
    copy_count: u32,
    capture_gap: bool,
    related: Option<Related>,
    anomalies: Anomalies,
    /// CLOCK_MONOTONIC, as the messages have it.
    until_ns: u64,
}

impl Held {
    /// Transactions that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Messages of the transactions that wait.
    pub(super) const fn messages(&self) -> u64 {
        self.messages
    }

    /// Takes in a transaction until that time; false where there is no room for it.
    pub(super) fn hold(&mut self, transaction: &Transaction<'_>, until_ns: u64) -> bool {
        let (query, response) = (transaction.query(), transaction.response());
        let sizes = [query, response].into_iter().flatten().map(|seen| seen.message.size);
        if self.waiting.len() >= HELD || sizes.fold(0, u32::saturating_add) > LARGEST {
            return false;
        }
        self.messages += u64::from(transaction.messages());
        self.earliest_ns = self.earliest_ns.min(until_ns);
        self.waiting.push_back(Waiting {
            id: transaction.id,
            flow: transaction.flow,
            query: query.cloned(),
            response: response.cloned(),
            query_count: transaction.query_count,
            latest_query_ns: transaction.latest_query_ns,
            copy_count: transaction.copy_count,
            capture_gap: transaction.capture_gap,
            related: transaction.related,
            anomalies: transaction.anomalies,
            until_ns,
        });
        true
    }

    /// Those whose time has come at `now_ns`, and those that do not wait for anything any more.
    pub(super) fn due(
        &mut self,
        now_ns: u64,
        waits: impl Fn(&Waiting) -> bool,
    ) -> VecDeque<Waiting> {
        let all = std::mem::take(&mut self.waiting);
        let (left, due): (VecDeque<_>, VecDeque<_>) =
            all.into_iter().partition(|it| it.until_ns > now_ns && waits(it));
        let messages =
            |waiting: &Waiting| waiting.transaction().map_or(0, |it| u64::from(it.messages()));
        self.messages -= due.iter().map(messages).sum::<u64>();
        self.earliest_ns = left.iter().map(|it| it.until_ns).min().unwrap_or(u64::MAX);
        self.waiting = left;
        due
    }

    /// Whether the time of one has come.
    pub(super) const fn any_due(&self, now_ns: u64) -> bool {
        self.earliest_ns <= now_ns
    }
}

impl Waiting {
    /// `None` never: a transaction has a message.
    pub(super) fn transaction(&self) -> Option<Transaction<'_>> {
        let exchange = match (&self.query, &self.response) {
            (Some(query), Some(response)) => Exchange::Matched(query, response),
            (Some(query), None) => Exchange::Query(query),
            (None, Some(response)) => Exchange::Response(response),
            (None, None) => return None,
        };
        Some(Transaction {
            id: self.id,
            flow: self.flow,
            exchange,
            query_count: self.query_count,
            latest_query_ns: self.latest_query_ns,
            copy_count: self.copy_count,
            capture_gap: self.capture_gap,
            related: self.related,
            anomalies: self.anomalies,
        })
    }
}
