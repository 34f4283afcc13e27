//! Transactions that wait for attribution.
//!
//! A pod sends queries as soon as its containers run. Its address is in the API a second or so later,
//! after the kubelet has written the pod's status. A transaction of that time therefore waits until the
//! owner is known, or for a few seconds of capture time. It is copied, since transactions are in buffers
//! that are reused. Only transactions with an address from which a pod is expected wait, see
//! [`Reader::awaits`](tap53_attribution::Reader::awaits); all others are recorded at once.
//!
//! The memory is bounded: at most [`MAX_PENDING`] transactions of at most [`MAX_MESSAGE_BYTES`] bytes of
//! messages each, which take some 20 KB when decoded: 20 MB a worker in a flood of the largest, 3 MB of
//! usual ones. When the queue is full, transactions are recorded without waiting, so that a flood of
//! invented addresses costs nothing more.

use std::{collections::VecDeque, net::IpAddr};

use tap53_dns::Flow;
use tap53_ebpf::record::Sender;
use tap53_transactions::pair::{
    Anomalies, Exchange, Observation, RecordId, Related, Sightings, Transaction,
};

/// Maximum number of pending transactions.
const MAX_PENDING: usize = 1_024;

/// Maximum size of the messages of a pending transaction, in bytes.
const MAX_MESSAGE_BYTES: u32 = 4_096;

/// Queue of transactions that wait for attribution, the oldest first.
pub(super) struct PendingAttribution {
    waiting: VecDeque<Pending>,
    messages: u64,
    /// Earliest deadline of the transactions.
    earliest_ns: u64,
}

impl Default for PendingAttribution {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), messages: 0, earliest_ns: u64::MAX }
    }
}

/// An owned copy of a transaction.
pub(super) struct Pending {
    id: RecordId,
    flow: Flow,
    query: Option<Observation>,
    response: Option<Observation>,
    query_count: u32,
    latest_query_ns: u64,
    copy_count: u32,
    capture_gap: bool,
    related: Option<Related>,
    anomalies: Anomalies,
    sightings: Sightings,
    /// Deadline, by CLOCK_MONOTONIC as the messages' times.
    until_ns: u64,
}

impl PendingAttribution {
    /// Returns the number of transactions.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Returns the number of messages of the transactions.
    pub(super) const fn messages(&self) -> u64 {
        self.messages
    }

    /// Adds a transaction, which waits until `until_ns`; returns false if there is no room for it.
    pub(super) fn push(&mut self, transaction: &Transaction<'_>, until_ns: u64) -> bool {
        let (query, response) = (transaction.query(), transaction.response());
        let sizes = [query, response].into_iter().flatten().map(|seen| seen.message.size);
        if self.waiting.len() >= MAX_PENDING
            || sizes.fold(0, u32::saturating_add) > MAX_MESSAGE_BYTES
        {
            return false;
        }
        self.messages += u64::from(transaction.messages());
        self.earliest_ns = self.earliest_ns.min(until_ns);
        self.waiting.push_back(Pending {
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
            sightings: transaction.sightings,
            until_ns,
        });
        true
    }

    /// Takes the transactions whose deadline has passed at `now_ns`, or whose owners are known.
    pub(super) fn take_due(
        &mut self,
        now_ns: u64,
        waits: impl Fn(&Pending) -> bool,
    ) -> VecDeque<Pending> {
        let all = std::mem::take(&mut self.waiting);
        let (left, due): (VecDeque<_>, VecDeque<_>) =
            all.into_iter().partition(|it| it.until_ns > now_ns && waits(it));
        let messages =
            |pending: &Pending| pending.transaction().map_or(0, |it| u64::from(it.messages()));
        self.messages -= due.iter().map(messages).sum::<u64>();
        self.earliest_ns = left.iter().map(|it| it.until_ns).min().unwrap_or(u64::MAX);
        self.waiting = left;
        due
    }

    /// Returns true if a deadline has passed.
    pub(super) const fn any_due(&self, now_ns: u64) -> bool {
        self.earliest_ns <= now_ns
    }
}

impl Pending {
    /// Returns the addresses of client and server, and the socket of each.
    pub(super) fn ends(&self) -> [(IpAddr, Sender); 2] {
        let sender = |seen: &Option<Observation>| seen.as_ref().map(|seen| seen.sender);
        [(self.flow.client, sender(&self.query)), (self.flow.server, sender(&self.response))]
            .map(|(end, sender)| (end.ip(), sender.unwrap_or(Sender::UNKNOWN)))
    }

    /// Returns the transaction; never `None`, since a transaction has a message.
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
            sightings: self.sightings,
        })
    }
}
