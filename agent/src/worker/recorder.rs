//! Creates records from transactions, and appends them to the sinks' batches.

mod attribution;
mod observers;
mod output;
mod signals;
mod tally;
mod writer;

use tap53_dns::Flow;
use tap53_ledger::{MessageLoss, Published, WorkerCounts};
use tap53_records::encode::{self, Clock};
use tap53_sinks::Named;
use tap53_transactions::{
    chain::{ChainReporter, Settled},
    filter::FilterReason,
    pair::{RecordIds, Transaction},
};

use super::{
    Shared,
    pending::{Deadlines, PendingTransactions},
    rules::RulesReader,
};
use attribution::Attribution;
use tally::{count_filtered, leave_out};
use writer::Writer;

/// Decides about each transaction: excluded, recorded now, or recorded when more is known about it.
pub(super) struct Recorder {
    rules: RulesReader,
    attribution: Attribution,
    pending: PendingTransactions,
    chains: Option<ChainReporter>,
    /// Verdicts on chains that were taken just now; empty in between.
    settled: Vec<Settled>,
    writer: Writer,
    /// True if the client of a transaction matters though it becomes no record.
    needs_all_clients: bool,
}

impl Recorder {
    pub(super) fn new(
        sinks: &[Named],
        shared: &Shared,
        ids: RecordIds,
        clock: Clock,
        published: Published<WorkerCounts>,
    ) -> Result<Self, encode::Error> {
        // Single messages belong to no exchange.
        let chains = shared.chains.as_ref().filter(|_| !shared.each_message);
        Ok(Self {
            rules: RulesReader::new(shared.rules.clone()),
            attribution: Attribution::new(shared),
            pending: PendingTransactions::new(chains.map_or(0, |it| it.config().capacity)),
            chains: chains.map(|chains| chains.reporter(ids.worker().into())),
            settled: Vec::new(),
            writer: Writer::new(sinks, shared, ids, clock, published)?,
            needs_all_clients: shared.dns_metrics.is_some()
                || shared.selection.is_some()
                || shared.client_node_only
                || shared.signals.is_some()
                || chains.is_some(),
        })
    }

    /// Begins a batch: sets the clock that converts capture times to UTC, and refreshes owners,
    /// followers and rules.
    pub(super) fn begin_batch(&mut self, clock: Clock) {
        self.writer.clock = clock;
        self.writer.feed.refresh();
        self.attribution.refresh();
        self.rules.refresh();
    }

    pub(super) fn name_interface(&mut self, ifindex: u32, name: &str) {
        self.writer.observers.name(ifindex, name);
    }

    pub(super) fn name_file(&mut self, name: &str) {
        self.writer.name_file(name);
    }

    /// Prefetches the memory that the record of a query along `flow` will be written from.
    #[inline]
    pub(super) fn fetch(&mut self, flow: &Flow) {
        self.attribution.fetch(flow);
    }

    /// Returns the reporter of chains, if they are enabled.
    #[inline]
    pub(super) const fn chains(&mut self) -> Option<&mut ChainReporter> {
        self.chains.as_mut()
    }

    /// Records a transaction, unless the filter excludes it. If an owner may become known shortly, or the
    /// chain behind its answer, the transaction is recorded later.
    pub(super) fn record(&mut self, transaction: &Transaction<'_>, counts: &mut WorkerCounts) {
        let copies = transaction.sightings.messages;
        counts.messages_lost[MessageLoss::Copy as usize] += u64::from(copies);
        let chain = self.chains.as_mut().and_then(|chains| {
            let until_ns = chains.read_up_to_ns().saturating_add(chains.hold_ns());
            Some((chains.closed(transaction)?, until_ns))
        });
        match chain {
            None => self.record_or_defer(transaction, true, 0, counts),
            Some((chain, until_ns)) => {
                let transaction = Transaction { chain: Some(&chain), ..*transaction };
                self.record_or_defer(&transaction, true, until_ns, counts);
            }
        }
    }

    /// Submits what was reported to the chains, and takes the verdicts on this worker's exchanges. Calls
    /// `wake` with each worker that others wait for.
    pub(super) fn settle(&mut self, read_up_to_ns: u64, wake: impl FnMut(usize)) {
        if let Some(chains) = &mut self.chains {
            chains.submit(read_up_to_ns, &mut self.settled, wake);
            self.pending.settle(&mut self.settled);
        }
    }

    /// Records pending transactions whose owners are known now, or that have waited long enough at
    /// `now_ns`.
    pub(super) fn release(&mut self, now_ns: u64, counts: &mut WorkerCounts) {
        if !self.attribution.take_change() && !self.pending.any_due(now_ns) {
            return;
        }
        let (attribution, clock) = (&self.attribution, self.writer.clock);
        for pending in self.pending.take_due(now_ns, |it| attribution.awaits(it, clock)) {
            counts.chains_without_verdict += u64::from(pending.lacks_verdict());
            if let Some(transaction) = pending.transaction() {
                self.record_or_defer(&transaction, false, 0, counts);
            }
        }
    }

    /// Returns the number of transactions that wait for attribution or chains.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Returns the number of messages of the transactions that wait for attribution or chains.
    pub(super) const fn pending_messages(&self) -> u64 {
        self.pending.messages()
    }

    fn record_or_defer(
        &mut self,
        transaction: &Transaction<'_>,
        may_defer: bool,
        chain_until_ns: u64,
        counts: &mut WorkerCounts,
    ) {
        // First: an excluded transaction needs no attribution.
        if let Some(reason) = self.rules.excludes(transaction) {
            return count_filtered(transaction, reason, counts);
        }
        let needs_client = self.needs_all_clients || self.writer.feed.is_counting();
        if !needs_client && self.rules.leaves_out(transaction) {
            return leave_out(transaction, counts);
        }
        let signal_key = self.writer.signal_key(transaction);
        let ends = self.attribution.ends(transaction, self.writer.clock);
        if may_defer {
            let wanted = Deadlines {
                owners_ns: self.attribution.hold_until_ns(transaction, &ends),
                chain_ns: chain_until_ns,
            };
            if wanted.any() && defer(&mut self.pending, transaction, wanted, counts) {
                return;
            }
        }
        if self.attribution.leaves_to_other_node(&ends) {
            return count_filtered(transaction, FilterReason::OtherNode, counts);
        }
        if let Some(reason) = self.rules.excludes_client(ends.client.owner) {
            return count_filtered(transaction, reason, counts);
        }
        self.writer.write(transaction, signal_key, &ends, &self.attribution, &self.rules, counts);
    }

    /// Publishes the counts of a whole batch, and passes it to the sinks and its lines to the followers.
    pub(super) fn deliver(&mut self, counts: WorkerCounts) {
        self.writer.deliver(counts);
    }
}

/// Keeps a transaction until its deadlines; returns false if there is no room for it.
#[cold]
fn defer(
    pending: &mut PendingTransactions,
    transaction: &Transaction<'_>,
    wanted: Deadlines,
    counts: &mut WorkerCounts,
) -> bool {
    let granted = pending.admit(transaction, wanted);
    counts.chains_without_verdict += u64::from(granted.chain_ns != wanted.chain_ns);
    if granted.any() {
        pending.push(transaction, granted);
    }
    granted.any()
}
