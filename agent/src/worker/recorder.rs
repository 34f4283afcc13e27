//! Creates records from transactions, and appends them to the sinks' batches.

use std::{sync::Arc, time::Instant};

use hashbrown::HashMap;
use tap53_attribution::{Endpoint, Reader};
use tap53_base::amount::Amount;
use tap53_capture::{capture::Processes, interfaces::Names};
use tap53_dns::Flow;
use tap53_ebpf::{process, record::Sender};
use tap53_insight::{DnsCounter, DnsMetrics};
use tap53_ledger::{EndpointCounts, MessageLoss, Published, SinkLoss, WorkerCounts, chain::Chain};
use tap53_records::encode::{
    self, Batch, Clock, Encode, Format, NodeRole, NodeTag, Observer, Portion, Process, Profile,
    Provenance, Record, Row, read_single_object,
};
use tap53_sinks::Named;
use tap53_transactions::{
    chain::{ChainReporter, Settled},
    filter::FilterReason,
    pair::{Nat, Observation, RecordIds, Transaction},
};

use super::{
    Shared,
    pending::{Deadlines, Pending, PendingTransactions},
    rules::{Rules, RulesInForce},
};
use crate::tail::{Feed, RecordFilter};

/// Size of a sink's batch, in bytes, from which on it is delivered before the ring's batch ends: a full
/// table that expires at once creates 65,536 records.
const BATCH_BYTES: usize = 1 << 20;

/// Creates records and encodes them for each sink.
pub(super) struct Recorder {
    node: Arc<str>,
    node_tag: NodeTag,
    client_node_only: bool,
    /// Run and worker of these records.
    ids: RecordIds,
    /// Observers by ifindex, one for each name of the interface, the oldest first, with the time from
    /// which on it had the name.
    observers: HashMap<u32, Vec<(u64, Observer)>>,
    names: Arc<Names>,
    /// Version of `names` that `observers` was created from.
    names_version: u64,
    /// Observer at an interface whose name is not known.
    unknown_observer: Observer,
    /// Names of the replayed files; empty for live capture.
    files: Vec<String>,
    clock: Clock,
    /// Maximum size of a record's Avro datum, in bytes.
    max_bytes: usize,
    /// Profile for which that maximum holds: all sinks of a configuration have one.
    profile: Profile,
    rules: Rules,
    in_force: Arc<RulesInForce>,
    /// Generation of `in_force` that `rules` has.
    generation: u64,
    outputs: Vec<Output>,
    /// The counts that this worker publishes.
    published: Published<WorkerCounts>,
    /// Records since the last delivery to the sinks.
    recorded: Amount,
    owners: Reader,
    /// Processes that use sockets, if records name them.
    processes: Option<Processes>,
    /// Set if the owners have changed since the pending transactions were last checked.
    owners_changed: bool,
    pending: PendingTransactions,
    chains: Option<ChainReporter>,
    /// Verdicts on chains that were taken just now; empty in between.
    settled: Vec<Settled>,
    feed: Feed,
    /// Counts for the metrics of the DNS, if they are enabled.
    dns: Option<DnsCounter>,
    /// The transactions that are recorded; `None` for all.
    selection: Option<Arc<RecordFilter>>,
}

/// One sink, as a worker sees it.
struct Output {
    sink: Named,
    format: Format,
    encoder: Box<dyn Encode>,
    batch: Batch,
    /// Records that could not be encoded, since the batch was last delivered.
    failed: Amount,
    /// Digests of the records, if the sink's summaries contain them.
    chain: Option<Arc<Chain>>,
}

impl Recorder {
    pub(super) fn new(
        sinks: &[Named],
        shared: &Shared,
        ids: RecordIds,
        clock: Clock,
        published: Published<WorkerCounts>,
    ) -> Result<Self, encode::Error> {
        let outputs = sinks
            .iter()
            .map(|sink| {
                let format = sink.sink.format();
                let encoder = format.build()?;
                let batch = Batch::keyed(sink.sink.key());
                Ok(Output {
                    sink: sink.clone(),
                    format,
                    encoder,
                    batch,
                    failed: Amount::default(),
                    chain: chain(sink, ids),
                })
            })
            .collect::<Result<_, encode::Error>>()?;
        // Single messages belong to no exchange.
        let chains = shared.chains.as_ref().filter(|_| !shared.each_message);
        let mut recorder = Self {
            node: shared.node.clone(),
            node_tag: NodeTag::of(&shared.node),
            client_node_only: shared.client_node_only,
            ids,
            observers: HashMap::new(),
            names: shared.interfaces.clone(),
            names_version: 0,
            unknown_observer: Observer::new(&shared.node, "", ids),
            files: Vec::new(),
            clock,
            max_bytes: shared.max_record_bytes,
            profile: sinks
                .iter()
                .map(|sink| sink.sink.format().profile())
                .max()
                .unwrap_or_default(),
            generation: shared.rules.generation(),
            rules: shared.rules.read(),
            in_force: shared.rules.clone(),
            outputs,
            published,
            recorded: Amount::default(),
            owners: shared.owners.reader(),
            processes: shared.processes.clone(),
            owners_changed: false,
            pending: PendingTransactions::new(chains.as_ref().map_or(0, |it| it.config().capacity)),
            chains: chains.map(|chains| chains.reporter(ids.worker().into())),
            settled: Vec::new(),
            feed: Feed::new(shared.tails.clone())?,
            dns: shared.dns_metrics.as_ref().map(DnsMetrics::counter),
            selection: shared.selection.clone(),
        };
        recorder.learn_names();
        Ok(recorder)
    }

    /// Begins a batch: sets the clock that converts capture times to UTC, and refreshes owners,
    /// followers and rules.
    pub(super) fn begin_batch(&mut self, clock: Clock) {
        self.clock = clock;
        self.owners_changed |= self.owners.refresh();
        self.feed.refresh();
        let generation = self.in_force.generation();
        if generation != self.generation {
            // The generation first: rules that are replaced in between are read again.
            self.generation = generation;
            self.rules = self.in_force.read();
        }
    }

    pub(super) fn name_interface(&mut self, ifindex: u32, name: &str) {
        self.observers.insert(ifindex, vec![(0, Observer::new(&self.node, name, self.ids))]);
    }

    pub(super) fn name_file(&mut self, name: &str) {
        self.files.push(name.to_owned());
    }

    /// Prefetches the memory that the record of a query along `flow` will be written from.
    #[inline]
    pub(super) fn fetch(&mut self, flow: &Flow) {
        self.owners.fetch(flow.client.ip());
        self.owners.fetch(flow.server.ip());
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
        if !std::mem::take(&mut self.owners_changed) && !self.pending.any_due(now_ns) {
            return;
        }
        let (owners, clock) = (&self.owners, self.clock);
        let waits = |pending: &Pending| {
            let began = pending.transaction().map(|it| it.first().at_ns);
            let began_us = clock.utc_us(began.unwrap_or_default());
            pending.ends().into_iter().any(|(address, sender)| {
                owners.awaits(owners.endpoint(address, began_us, sender).owner, address)
            })
        };
        for pending in self.pending.take_due(now_ns, waits) {
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
        if let Some(reason) = self.excluded(transaction) {
            return count_filtered(transaction, reason, counts);
        }
        if self.leaves_out_early(transaction) {
            return leave_out(transaction, counts);
        }
        if self.names_version != self.names.version() {
            self.learn_names();
        }
        let flow = &transaction.flow;
        let began_ns = transaction.first().at_ns;
        let began_us = self.clock.utc_us(began_ns);
        let query = transaction.query().map_or(Sender::UNKNOWN, |query| query.sender);
        let client = self.owners.endpoint(flow.client.ip(), began_us, query);
        let server = server(&self.owners, transaction, began_us);
        if may_defer {
            let awaits_owner = self.owners.awaits(client.owner, flow.client.ip())
                || self.owners.awaits(server.owner, flow.server.ip());
            let owners_ns = began_ns.saturating_add(self.owners.hold_ns());
            let wanted = Deadlines {
                owners_ns: if awaits_owner { owners_ns } else { 0 },
                chain_ns: chain_until_ns,
            };
            if wanted.any() && defer(&mut self.pending, transaction, wanted, counts) {
                return;
            }
        }
        if self.client_node_only
            && !query.is_known()
            && client.owner.is_pod()
            && client.owner.is_on(self.node_tag) == Some(false)
        {
            return count_filtered(transaction, FilterReason::OtherNode, counts);
        }
        if !self.rules.pods.keeps_everything()
            && let Some(reason) = self.rules.pods.decide(client.owner.identity())
        {
            return count_filtered(transaction, reason, counts);
        }
        let decision = self.rules.keep.decide(transaction, client.owner);
        let node_role = NodeRole::of(
            if query.is_known() { Some(true) } else { client.owner.is_on(self.node_tag) },
            match transaction.responder().is_known() {
                true => Some(true),
                false => server.owner.is_on(self.node_tag),
            },
        );
        let first = transaction.first();
        let observer = observer_of(&self.observers, &self.unknown_observer, first);
        let response_observer = match transaction.response() {
            Some(response) if response.point.ifindex != first.point.ifindex => {
                observer_of(&self.observers, &self.unknown_observer, response)
            }
            _ => observer,
        };
        // It takes a system call.
        let process = if decision.is_kept() { self.process_of(query) } else { None };
        let command = process.as_ref().map(|it| String::from_utf8_lossy(it.command()));
        let process = process.as_ref().zip(command.as_deref());
        let mut portion = Portion::ALL;
        let record = Record {
            observer,
            response_observer,
            number: counts.records_numbered + 1,
            files: &self.files,
            policy: &self.rules.privacy,
            clock: self.clock,
            transaction,
            client: client.owner,
            server: server.owner,
            client_provenance: Provenance {
                process: process.map(|(process, command)| Process { pid: process.pid, command }),
                ..client.provenance
            },
            server_provenance: server.provenance,
            node_role,
            kept_per_million: decision.kept_per_million(),
            portion: &Portion::ALL,
        }
        .within_as(self.profile, self.max_bytes, &mut portion);
        if let Some(selection) = &self.selection
            && !selection.matches(&Row::of(&record))
        {
            return count_filtered(transaction, FilterReason::NotSelected, counts);
        }
        if let Some(dns) = &mut self.dns {
            dns.count(&record);
        }
        if !decision.is_kept() {
            return leave_out(transaction, counts);
        }
        count_endpoint(&client, &mut counts.endpoints);
        count_endpoint(&server, &mut counts.endpoints);
        count_record(transaction, counts);
        for output in &mut self.outputs {
            output.push(&record);
        }
        let encoded = self.outputs.iter().find_map(Output::last_datum);
        self.feed.push(&record, encoded);
        self.recorded += Amount::record(u64::from(transaction.messages()));
        if self.outputs.iter().any(|output| output.batch.bytes().len() >= BATCH_BYTES) {
            self.deliver_early(counts.records_numbered);
        }
    }

    /// Returns the process that sent a query, if records name processes and it is known.
    #[inline]
    fn process_of(&self, query: Sender) -> Option<process::Process> {
        self.processes.as_ref().filter(|_| query.is_known())?.of(query.socket)
    }

    /// Copies the names of interfaces that have changed, which is rare.
    #[cold]
    fn learn_names(&mut self) {
        let changed = self.names.since(self.names_version);
        self.names_version = changed.version;
        if changed.is_all {
            self.observers.clear();
        }
        for (ifindex, names) in changed.interfaces {
            let Some(names) = names else {
                self.observers.remove(&ifindex);
                continue;
            };
            let observer = |name: &str| Observer::new(&self.node, name, self.ids);
            let names = names.iter().map(|since| (since.from_ns, observer(&since.name)));
            self.observers.insert(ifindex, names.collect());
        }
    }

    fn excluded(&self, transaction: &Transaction<'_>) -> Option<FilterReason> {
        if self.rules.filter.keeps_everything() {
            return None;
        }
        let flow = &transaction.flow;
        // A response repeats the question, so it replaces a query that was not seen.
        let message = &transaction.first().message;
        let questions = message.question().into_iter().chain(message.more_questions());
        self.rules.filter.decide(flow.client.ip(), flow.server.ip(), questions)
    }

    /// Returns true if a transaction is left out whoever its client is, and nothing else needs to know the
    /// client.
    #[inline]
    fn leaves_out_early(&self, transaction: &Transaction<'_>) -> bool {
        let needs_owners = self.dns.is_some()
            || self.chains.is_some()
            || self.client_node_only
            || self.selection.is_some()
            || !self.rules.pods.keeps_everything();
        !needs_owners && self.rules.keep.leaves_out(transaction)
    }

    /// Publishes the counts of a whole batch, and passes it to the sinks and its lines to the followers.
    pub(super) fn deliver(&mut self, counts: WorkerCounts) {
        self.publish_and_write(counts.records_numbered, |published, _, dns| {
            *published = counts;
            if let Some(dns) = dns {
                dns.publish();
            }
        });
        self.feed.deliver();
    }

    /// Delivers in the middle of a batch, whose counts are not complete yet.
    fn deliver_early(&mut self, last_number: u64) {
        self.publish_and_write(last_number, |published, recorded, _| published.ahead += recorded);
    }

    /// Publishes the counts together with the records in each sink's batch, and then passes the batches
    /// to the sinks. In this order, since a sink may block on its disk or on a full queue. The chains
    /// come first, so that a summary has the links of all numbers that are published.
    fn publish_and_write(
        &mut self,
        last_number: u64,
        publish: impl FnOnce(&mut WorkerCounts, Amount, Option<&mut DnsCounter>),
    ) {
        let recorded = std::mem::take(&mut self.recorded);
        let outputs = &mut self.outputs;
        outputs.iter().for_each(|output| output.chain(last_number + 1 - recorded.records));
        self.published.update(|published| {
            publish(published, recorded, self.dns.as_mut());
            if recorded.records > 0 {
                for output in outputs.iter_mut() {
                    let slot = output.sink.sink.announce(output.batch.records());
                    output.batch.set_slot(slot);
                    output.sink.sink.counts().update(|counts| counts.in_batches += recorded);
                }
            }
        });
        outputs.iter_mut().for_each(Output::deliver);
    }
}

/// Returns the server that a record names: the backend of a service, if this node knows it.
#[inline]
fn server<'a>(owners: &'a Reader, transaction: &Transaction<'_>, began_us: i64) -> Endpoint<'a> {
    let responder = transaction.responder();
    let addressed = transaction.flow.server.ip();
    let answering = transaction.sightings.server.ip();
    if answering != addressed {
        let backend = owners.endpoint(answering, began_us, responder);
        if backend.owner.is_host() {
            return backend;
        }
    }
    owners.endpoint(addressed, began_us, responder)
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

/// Counts a transaction that is not recorded.
#[inline]
fn count_filtered(transaction: &Transaction<'_>, reason: FilterReason, counts: &mut WorkerCounts) {
    counts.records_created += 1;
    counts.filtered[reason as usize] += Amount::record(u64::from(transaction.messages()));
}

/// Counts a transaction that the rules leave out of the records, though not of the metrics.
#[inline]
fn leave_out(transaction: &Transaction<'_>, counts: &mut WorkerCounts) {
    count_filtered(transaction, FilterReason::NotKept, counts);
    count_properties(transaction, counts);
}

/// Counts a transaction that is recorded.
#[inline]
fn count_record(transaction: &Transaction<'_>, counts: &mut WorkerCounts) {
    counts.records_created += 1;
    counts.messages_in_records += u64::from(transaction.messages());
    counts.records_numbered += 1;
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

/// Counts how an endpoint of a record is known.
#[inline]
fn count_endpoint(endpoint: &Endpoint<'_>, counts: &mut EndpointCounts) {
    let has_socket = endpoint.provenance.user_id.is_some();
    counts.with_socket += u64::from(has_socket);
    counts.without_socket += u64::from(!has_socket);
    counts.with_unknown_cgroup += u64::from(endpoint.has_unknown_cgroup);
    counts.in_conflict += u64::from(endpoint.provenance.conflict);
}

/// Returns the observer of the interface that saw a message.
#[inline]
fn observer_of<'a>(
    observers: &'a HashMap<u32, Vec<(u64, Observer)>>,
    unknown: &'a Observer,
    seen: &Observation,
) -> &'a Observer {
    let names = observers.get(&seen.point.ifindex);
    let named =
        names.and_then(|names| names.iter().rev().find(|(from_ns, _)| *from_ns <= seen.at_ns));
    named.map_or(unknown, |(_, observer)| observer)
}

/// Returns the chain that the worker of these records adds to, if the sink has chains.
fn chain(sink: &Named, ids: RecordIds) -> Option<Arc<Chain>> {
    let evidence = sink.sink.summaries()?.evidence()?;
    let run_id = data_encoding::HEXLOWER.encode(&ids.run());
    Some(evidence.chains.begin(&run_id, ids.worker()))
}

impl Output {
    /// Adds the batch, whose first record has the number `first`, to the chain. If a record could not be
    /// encoded, the numbers of the batch are unknown, and stay without a link.
    fn chain(&self, first: u64) {
        if let Some(chain) = &self.chain
            && self.failed.records == 0
            && !self.batch.is_empty()
        {
            chain.add(first, &self.batch);
        }
    }

    /// Returns the Avro datum of the last record, if this sink has encoded it in the full profile.
    #[inline]
    fn last_datum(&self) -> Option<&[u8]> {
        if self.failed.records > 0 {
            return None;
        }
        let last = self.batch.last()?;
        match self.format {
            Format::AvroDatum => Some(last),
            Format::AvroSingleObject => read_single_object(last).map(|(_, datum)| datum),
            _ => None,
        }
    }

    fn push(&mut self, record: &Record<'_>) {
        if let Err(error) = self.batch.push(self.encoder.as_mut(), record) {
            self.failed += Amount::record(u64::from(record.transaction.messages()));
            tracing::debug!(
                event = "record_not_encoded",
                %error,
                sink = self.sink.name,
                "cannot encode a record"
            );
        }
    }

    fn deliver(&mut self) {
        let failed = std::mem::take(&mut self.failed);
        if failed.records > 0 {
            self.sink.sink.counts().update(|counts| {
                counts.offer(failed);
                counts.lose(SinkLoss::EncodeFailed, failed);
            });
        }
        if !self.batch.is_empty() {
            let began = Instant::now();
            self.sink.sink.write(&self.batch);
            if let Some(timings) = self.sink.sink.timings() {
                timings.write.observe(began.elapsed());
            }
            self.batch.clear();
        }
    }
}
