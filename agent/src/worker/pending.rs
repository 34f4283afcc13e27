//! Transactions that wait for attribution, or for the chain behind their answer.
//!
//! A pod sends queries as soon as its containers run. Its address is in the API a second or so later,
//! after the kubelet has written the pod's status. A transaction of that time therefore waits until the
//! owner is known, or for a few seconds of capture time. Only transactions with an address from which a
//! pod is expected wait, see [`Reader::awaits`](tap53_attribution::Reader::awaits).
//!
//! An exchange of a resolver waits until every worker has read past its response, see
//! [`tap53_transactions::chain`]: usually for the rest of a batch. All others are recorded at once.
//!
//! Transactions are copied, since they are in buffers that are reused. The memory is bounded: for
//! attribution at most [`MAX_PENDING`] transactions of at most [`MAX_MESSAGE_BYTES`] bytes of messages
//! each, which take some 20 KB when decoded: 20 MB a worker in a flood of the largest, 3 MB of usual
//! ones. For chains at most `chains.capacity` transactions with as many KiB of messages in all. When there
//! is no room, transactions are recorded without waiting, so that a flood of invented addresses costs
//! nothing more.

use std::{collections::VecDeque, net::IpAddr};

use hashbrown::HashMap;
use tap53_dns::Flow;
use tap53_ebpf::record::Sender;
use tap53_transactions::{
    chain::Settled,
    pair::{Anomalies, Chain, Exchange, Observation, RecordId, Related, Sightings, Transaction},
};

/// Maximum number of transactions that wait for attribution.
const MAX_PENDING: usize = 1_024;

/// Maximum size of the messages of a transaction that waits for attribution, in bytes.
const MAX_MESSAGE_BYTES: u64 = 4_096;

/// Maximum average size of the messages of transactions that wait for chains, in bytes.
const CHAIN_MESSAGE_BYTES: u64 = 1_024;

/// Transactions that wait, the oldest first.
pub(super) struct PendingTransactions {
    waiting: VecDeque<Box<Pending>>,
    messages: u64,
    /// Earliest deadline for attribution.
    earliest_ns: u64,
    /// Maximum number of transactions that wait for chains.
    chain_capacity: usize,
    /// Number of transactions that wait for attribution.
    for_owners: usize,
    /// Number and size of the transactions that wait for chains.
    for_chains: usize,
    chain_bytes: u64,
    /// Verdicts have arrived since transactions were last taken.
    is_settled: bool,
}

/// Deadlines of a transaction, by CLOCK_MONOTONIC as the messages' times; 0 if it does not wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Deadlines {
    pub(super) owners_ns: u64,
    pub(super) chain_ns: u64,
}

impl Deadlines {
    /// Returns true if the transaction waits for anything.
    pub(super) const fn any(self) -> bool {
        self.owners_ns > 0 || self.chain_ns > 0
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
    /// The chain without a verdict, then the verdict.
    chain: Option<Chain>,
    deadlines: Deadlines,
}

impl PendingTransactions {
    pub(super) fn new(chain_capacity: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            messages: 0,
            earliest_ns: u64::MAX,
            chain_capacity,
            for_owners: 0,
            for_chains: 0,
            chain_bytes: 0,
            is_settled: false,
        }
    }

    /// Returns the number of transactions.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Returns the number of messages of the transactions.
    pub(super) const fn messages(&self) -> u64 {
        self.messages
    }

    /// Returns the deadlines for which there is room.
    pub(super) fn admit(&self, transaction: &Transaction<'_>, wanted: Deadlines) -> Deadlines {
        let bytes = message_bytes(transaction);
        let has_owner_room = self.for_owners < MAX_PENDING && bytes <= MAX_MESSAGE_BYTES;
        let chain_bytes = self.chain_bytes.saturating_add(bytes);
        let has_chain_room = self.for_chains < self.chain_capacity
            && chain_bytes <= (self.chain_capacity as u64).saturating_mul(CHAIN_MESSAGE_BYTES);
        Deadlines {
            owners_ns: if has_owner_room { wanted.owners_ns } else { 0 },
            chain_ns: if has_chain_room { wanted.chain_ns } else { 0 },
        }
    }

    /// Adds a transaction with deadlines that [`admit`](Self::admit) returned.
    pub(super) fn push(&mut self, transaction: &Transaction<'_>, deadlines: Deadlines) {
        let (query, response) = (transaction.query(), transaction.response());
        self.messages += u64::from(transaction.messages());
        if deadlines.owners_ns > 0 {
            self.for_owners += 1;
            self.earliest_ns = self.earliest_ns.min(deadlines.owners_ns);
        }
        if deadlines.chain_ns > 0 {
            self.for_chains += 1;
            self.chain_bytes += message_bytes(transaction);
            self.earliest_ns = self.earliest_ns.min(deadlines.chain_ns);
        }
        self.waiting.push_back(Box::new(Pending {
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
            chain: transaction.chain.copied(),
            deadlines,
        }));
    }

    /// Notes the verdicts on chains. A verdict on a transaction that has left already is ignored.
    pub(super) fn settle(&mut self, settled: &mut Vec<Settled>) {
        if settled.is_empty() || self.for_chains == 0 {
            settled.clear();
            return;
        }
        let verdicts: HashMap<RecordId, Chain> =
            settled.drain(..).map(|settled| (settled.record, settled.chain)).collect();
        for pending in self.waiting.iter_mut().filter(|it| it.deadlines.chain_ns > 0) {
            if let Some(chain) = verdicts.get(&pending.id) {
                pending.chain = (*chain != Chain::default()).then_some(*chain);
                pending.deadlines.chain_ns = 0;
                self.for_chains -= 1;
                self.chain_bytes -= pending.message_bytes();
                self.is_settled = true;
            }
        }
    }

    /// Takes the transactions that wait for nothing any more at `now_ns`: their deadline has passed, or
    /// they have their verdict, and their owners are known.
    pub(super) fn take_due(
        &mut self,
        now_ns: u64,
        waits: impl Fn(&Pending) -> bool,
    ) -> VecDeque<Box<Pending>> {
        let all = std::mem::take(&mut self.waiting);
        let (left, due): (VecDeque<_>, VecDeque<_>) = all.into_iter().partition(|it| {
            it.deadlines.chain_ns > now_ns || it.deadlines.owners_ns > now_ns && waits(it)
        });
        for pending in &due {
            self.messages -=
                pending.transaction().map_or(0, |transaction| u64::from(transaction.messages()));
            self.for_owners -= usize::from(pending.deadlines.owners_ns > 0);
            if pending.deadlines.chain_ns > 0 {
                self.for_chains -= 1;
                self.chain_bytes -= pending.message_bytes();
            }
        }
        let deadlines = left.iter().flat_map(|it| [it.deadlines.owners_ns, it.deadlines.chain_ns]);
        self.earliest_ns = deadlines.filter(|it| *it > 0).min().unwrap_or(u64::MAX);
        self.is_settled = false;
        self.waiting = left;
        due
    }

    /// Returns true if a deadline has passed, or verdicts have arrived.
    pub(super) const fn any_due(&self, now_ns: u64) -> bool {
        self.is_settled || self.earliest_ns <= now_ns
    }
}

impl Pending {
    /// Returns the addresses of client and server, and the socket of each.
    pub(super) fn ends(&self) -> [(IpAddr, Sender); 2] {
        let sender = |seen: &Option<Observation>| seen.as_ref().map(|seen| seen.sender);
        [(self.flow.client, sender(&self.query)), (self.flow.server, sender(&self.response))]
            .map(|(end, sender)| (end.ip(), sender.unwrap_or(Sender::UNKNOWN)))
    }

    /// Returns true if its verdict has not arrived.
    pub(super) const fn lacks_verdict(&self) -> bool {
        self.deadlines.chain_ns > 0
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
            chain: self.chain.as_ref(),
        })
    }

    fn message_bytes(&self) -> u64 {
        self.transaction().as_ref().map_or(0, message_bytes)
    }
}

/// Returns the size of the messages of a transaction, in bytes.
fn message_bytes(transaction: &Transaction<'_>) -> u64 {
    let seen = [transaction.query(), transaction.response()];
    seen.into_iter().flatten().map(|seen| u64::from(seen.message.size)).sum()
}
