//! Creates records from transactions, and appends them to the sinks' batches.

use std::{sync::Arc, time::Instant};

use hashbrown::HashMap;
use tap53_attribution::{Endpoint, Reader};
use tap53_base::amount::Amount;
use tap53_capture::interfaces::Names;
use tap53_dns::Flow;
use tap53_ebpf::record::Sender;
use tap53_ledger::{EndpointCounts, MessageLoss, Published, SinkLoss, WorkerCounts, chain::Chain};
use tap53_records::encode::{
    self, Batch, Clock, Encode, NodeRole, NodeTag, Observer, Portion, Profile, Record,
};
use tap53_sinks::Named;
use tap53_transactions::{
    filter::FilterReason,
    pair::{Observation, RecordIds, Transaction},
};

use super::{
    Shared,
    pending::{Pending, PendingAttribution},
    rules::{Rules, RulesInForce},
};
use crate::tail::Feed;

/// Size of a sink's batch, in bytes, from which on it is delivered before the ring's batch ends: a full
/// table that expires at once creates 65,536 records.
const BATCH_BYTES: usize = 1 << 20;

/// Creates records and encodes them for each sink.
pub(super) struct Recorder {
    node: Arc<str>,
    node_tag: NodeTag,
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
    /// Set if the owners have changed since the pending transactions were last checked.
    owners_changed: bool,
    pending: PendingAttribution,
    feed: Feed,
}

/// One sink, as a worker sees it.
struct Output {
    sink: Named,
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
                let encoder = sink.sink.format().build()?;
                let batch = Batch::keyed(sink.sink.key());
                Ok(Output {
                    sink: sink.clone(),
                    encoder,
                    batch,
                    failed: Amount::default(),
                    chain: chain(sink, ids),
                })
            })
            .collect::<Result<_, encode::Error>>()?;
        let mut recorder = Self {
            node: shared.node.clone(),
            node_tag: NodeTag::of(&shared.node),
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
            owners_changed: false,
            pending: PendingAttribution::default(),
            feed: Feed::new(shared.tails.clone())?,
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

    /// Records a transaction, unless the filter excludes it. If an owner may become known shortly, the
    /// transaction is recorded later.
    pub(super) fn record(&mut self, transaction: &Transaction<'_>, counts: &mut WorkerCounts) {
        let copies = transaction.sightings.messages;
        counts.messages_lost[MessageLoss::Copy as usize] += u64::from(copies);
        self.record_or_defer(transaction, true, counts);
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
            if let Some(transaction) = pending.transaction() {
                self.record_or_defer(&transaction, false, counts);
            }
        }
    }

    /// Returns the number of transactions that wait for attribution.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Returns the number of messages of the transactions that wait for attribution.
    pub(super) const fn pending_messages(&self) -> u64 {
        self.pending.messages()
    }

    fn record_or_defer(
        &mut self,
        transaction: &Transaction<'_>,
        may_defer: bool,
        counts: &mut WorkerCounts,
    ) {
        // First: an excluded transaction needs no attribution.
        if let Some(reason) = self.excluded(transaction) {
            counts.records_created += 1;
            let amount = Amount::record(u64::from(transaction.messages()));
            counts.filtered[reason as usize] += amount;
            return;
        }
        if self.names_version != self.names.version() {
            self.learn_names();
        }
        let flow = &transaction.flow;
        let began_ns = transaction.first().at_ns;
        let began_us = self.clock.utc_us(began_ns);
        let sender = |seen: Option<&Observation>| seen.map_or(Sender::UNKNOWN, |seen| seen.sender);
        let [query, response] = [sender(transaction.query()), sender(transaction.response())];
        let sightings = &transaction.sightings;
        let response = if response.is_known() { response } else { sightings.responder };
        let client = self.owners.endpoint(flow.client.ip(), began_us, query);
        let server = server(&self.owners, transaction, began_us, response);
        if may_defer
            && (self.owners.awaits(client.owner, flow.client.ip())
                || self.owners.awaits(server.owner, flow.server.ip()))
            && self.pending.push(transaction, began_ns.saturating_add(self.owners.hold_ns()))
        {
            return;
        }
        let node_role = NodeRole::of(
            if query.is_known() { Some(true) } else { client.owner.is_on(self.node_tag) },
            if response.is_known() { Some(true) } else { server.owner.is_on(self.node_tag) },
        );
        counts.records_created += 1;
        counts.messages_in_records += u64::from(transaction.messages());
        counts.records_numbered += 1;
        count_endpoint(&client, &mut counts.endpoints);
        count_endpoint(&server, &mut counts.endpoints);
        for anomaly in transaction.anomalies.iter() {
            counts.anomalies[anomaly as usize] += 1;
        }
        let first = transaction.first();
        let observer = observer_of(&self.observers, &self.unknown_observer, first);
        let response_observer = match transaction.response() {
            Some(response) if response.point.ifindex != first.point.ifindex => {
                observer_of(&self.observers, &self.unknown_observer, response)
            }
            _ => observer,
        };
        let mut portion = Portion::ALL;
        let record = Record {
            observer,
            response_observer,
            number: counts.records_numbered,
            files: &self.files,
            policy: &self.rules.privacy,
            clock: self.clock,
            transaction,
            client: client.owner,
            server: server.owner,
            client_provenance: client.provenance,
            server_provenance: server.provenance,
            node_role,
            portion: &Portion::ALL,
        }
        .within_as(self.profile, self.max_bytes, &mut portion);
        for output in &mut self.outputs {
            output.push(&record);
        }
        self.feed.push(&record);
        self.recorded += Amount::record(u64::from(transaction.messages()));
        if self.outputs.iter().any(|output| output.batch.bytes().len() >= BATCH_BYTES) {
            self.deliver_early(counts.records_numbered);
        }
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

    /// Publishes the counts of a whole batch, and passes it to the sinks and its lines to the followers.
    pub(super) fn deliver(&mut self, counts: WorkerCounts) {
        self.publish_and_write(counts.records_numbered, |published, _| *published = counts);
        self.feed.deliver();
    }

    /// Delivers in the middle of a batch, whose counts are not complete yet.
    fn deliver_early(&mut self, last_number: u64) {
        self.publish_and_write(last_number, |published, recorded| published.ahead += recorded);
    }

    /// Publishes the counts together with the records in each sink's batch, and then passes the batches
    /// to the sinks. In this order, since a sink may block on its disk or on a full queue. The chains
    /// come first, so that a summary has the links of all numbers that are published.
    fn publish_and_write(
        &mut self,
        last_number: u64,
        publish: impl FnOnce(&mut WorkerCounts, Amount),
    ) {
        let recorded = std::mem::take(&mut self.recorded);
        let outputs = &mut self.outputs;
        outputs.iter().for_each(|output| output.chain(last_number + 1 - recorded.records));
        self.published.update(|published| {
            publish(published, recorded);
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
fn server<'a>(
    owners: &'a Reader,
    transaction: &Transaction<'_>,
    began_us: i64,
    responder: Sender,
) -> Endpoint<'a> {
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
