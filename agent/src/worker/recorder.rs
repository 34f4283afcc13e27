//! From a transaction to the sinks' batches.

use std::{sync::Arc, time::Instant};

use hashbrown::HashMap;
use tap53_attribution::Reader;
use tap53_base::amount::Amount;
use tap53_capture::interfaces::Names;
use tap53_dns::Flow;
use tap53_ledger::{Published, SinkLoss, WorkerCounts, chain::Chain};
use tap53_records::encode::{self, Batch, Clock, Encode, Observer, Portion, Profile, Record};
use tap53_sinks::Named;
use tap53_transactions::{
    filter::FilterReason,
    pair::{Observation, RecordIds, Transaction},
};

use super::{
    Shared,
    held::{Held, Waiting},
    rules::{Rules, RulesInForce},
};
use crate::tail::Feed;

/// Bytes of a sink's batch from which on it is delivered without waiting for the ring's batch to
/// end: a full table that expires at once makes 65,536 records.
const BATCH_BYTES: usize = 1 << 20;

/// Makes records and encodes them for each sink.
pub(super) struct Recorder {
    node: Arc<str>,
    /// Whose records these are.
    ids: RecordIds,
    /// This node at each interface, by ifindex; under each name that it had, the oldest first, with
    /// the time from which on it had it.
    observers: HashMap<u32, Vec<(u64, Observer)>>,
    names: Arc<Names>,
    /// Version of `names` that `observers` was made from.
    named: u64,
    /// This node at an interface whose name is not known.
    elsewhere: Observer,
    /// Names of the replayed files; none elsewhere.
    files: Vec<String>,
    clock: Clock,
    /// Bytes of a record's Avro datum at most.
    max_bytes: usize,
    /// The profile that it has to be within them in: no configuration has sinks of both.
    profile: Profile,
    rules: Rules,
    in_force: Arc<RulesInForce>,
    /// Generation of `in_force` that `rules` is.
    generation: u64,
    outputs: Vec<Output>,
    /// Where this worker's counts are published.
    published: Published<WorkerCounts>,
    /// Recorded since sinks were last handed anything.
    recorded: Amount,
    owners: Reader,
    /// Whether more is known since what is held was looked at.
    news: bool,
    held: Held,
    feed: Feed,
}

/// One sink, as a worker sees it.
struct Output {
    sink: Named,
    encoder: Box<dyn Encode>,
    batch: Batch,
    /// Records that could not be encoded, since the batch was last delivered.
    failed: Amount,
    /// Digests of the records, where the sink's summaries carry them.
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
            ids,
            observers: HashMap::new(),
            names: shared.interfaces.clone(),
            named: 0,
            elsewhere: Observer::new(&shared.node, "", ids),
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
            news: false,
            held: Held::default(),
            feed: Feed::new(shared.tails.clone())?,
        };
        recorder.learn_names();
        Ok(recorder)
    }

    /// Before each batch: how capture times become UTC, who has which address by now, and the rules
    /// in force.
    pub(super) fn begin_batch(&mut self, clock: Clock) {
        self.clock = clock;
        self.news |= self.owners.refresh();
        self.feed.refresh();
        let generation = self.in_force.generation();
        if generation != self.generation {
            // The generation first: rules that come in between are read again.
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

    /// Has memory fetched that the record of a query along `flow` will be written from.
    #[inline]
    pub(super) fn fetch(&mut self, flow: &Flow) {
        self.owners.fetch(flow.client.ip());
        self.owners.fetch(flow.server.ip());
    }

    /// Records a transaction, unless the filter leaves it out; later, where a name may come.
    pub(super) fn record(&mut self, transaction: &Transaction<'_>, counts: &mut WorkerCounts) {
        self.record_or_hold(transaction, true, counts);
    }

    /// Records what was held and can be named now, or has waited long enough at `now_ns`.
    pub(super) fn release(&mut self, now_ns: u64, counts: &mut WorkerCounts) {
        if !std::mem::take(&mut self.news) && !self.held.any_due(now_ns) {
            return;
        }
        let (owners, clock) = (&self.owners, self.clock);
        let waits = |waiting: &Waiting| {
            let began = waiting.transaction().map(|it| it.first().at_ns);
            let began_us = clock.utc_us(began.unwrap_or_default());
            [waiting.flow.client, waiting.flow.server]
                .into_iter()
                .any(|end| owners.awaits(owners.owner(end.ip(), began_us), end.ip()))
        };
        for waiting in self.held.due(now_ns, waits) {
            if let Some(transaction) = waiting.transaction() {
                self.record_or_hold(&transaction, false, counts);
            }
        }
    }

    /// Transactions that are held.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Messages of the transactions that are held.
    pub(super) const fn held_messages(&self) -> u64 {
        self.held.messages()
    }

    fn record_or_hold(
        &mut self,
        transaction: &Transaction<'_>,
        may_hold: bool,
        counts: &mut WorkerCounts,
    ) {
        // First: who is left out need not be named.
        if let Some(reason) = self.left_out(transaction) {
            counts.records_created += 1;
            let amount = Amount::record(u64::from(transaction.messages()));
            counts.filtered[reason as usize] += amount;
            return;
        }
        if self.named != self.names.version() {
            self.learn_names();
        }
        let flow = &transaction.flow;
        let began_ns = transaction.first().at_ns;
        let began_us = self.clock.utc_us(began_ns);
        let client = self.owners.owner(flow.client.ip(), began_us);
        let server = self.owners.owner(flow.server.ip(), began_us);
        if may_hold
            && (self.owners.awaits(client, flow.client.ip())
                || self.owners.awaits(server, flow.server.ip()))
            && self.held.hold(transaction, began_ns.saturating_add(self.owners.hold_ns()))
        {
            return;
        }
        counts.records_created += 1;
        counts.messages_in_records += u64::from(transaction.messages());
        counts.records_numbered += 1;
        for anomaly in transaction.anomalies.iter() {
            counts.anomalies[anomaly as usize] += 1;
        }
        let first = transaction.first();
        let observer = observer_of(&self.observers, &self.elsewhere, first);
        let response_observer = match transaction.response() {
            Some(response) if response.point.ifindex != first.point.ifindex => {
                observer_of(&self.observers, &self.elsewhere, response)
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
            client,
            server,
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
        let changed = self.names.since(self.named);
        self.named = changed.version;
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

    fn left_out(&self, transaction: &Transaction<'_>) -> Option<FilterReason> {
        if self.rules.filter.keeps_everything() {
            return None;
        }
        let flow = &transaction.flow;
        // A response repeats the question, so it can stand in for a query that was not seen.
        let asked = &transaction.first().message;
        let questions = asked.question().into_iter().chain(asked.more_questions());
        self.rules.filter.decide(flow.client.ip(), flow.server.ip(), questions)
    }

    /// Publishes the counts of a whole batch, and hands it to the sinks, and its lines to who
    /// follows.
    pub(super) fn deliver(&mut self, counts: WorkerCounts) {
        self.hand_over(counts.records_numbered, |published, _| *published = counts);
        self.feed.deliver();
    }

    /// In the middle of a batch, whose counts do not add up yet.
    fn deliver_early(&mut self, last_number: u64) {
        self.hand_over(last_number, |published, recorded| published.ahead += recorded);
    }

    /// Changes what is published, together with what is on its way to each sink, and hands it to
    /// them. In this order, since a sink may wait: for its disk, or for room. The chains come first, so
    /// that a summary has the links of all numbers that are published.
    fn hand_over(&mut self, last_number: u64, publish: impl FnOnce(&mut WorkerCounts, Amount)) {
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

/// This node at the interface that saw a message.
#[inline]
fn observer_of<'a>(
    observers: &'a HashMap<u32, Vec<(u64, Observer)>>,
    elsewhere: &'a Observer,
    seen: &Observation,
) -> &'a Observer {
    let names = observers.get(&seen.point.ifindex);
    let named =
        names.and_then(|names| names.iter().rev().find(|(from_ns, _)| *from_ns <= seen.at_ns));
    named.map_or(elsewhere, |(_, observer)| observer)
}

/// The chain that a worker of these records adds to, if the sink has any.
fn chain(sink: &Named, ids: RecordIds) -> Option<Arc<Chain>> {
    let evidence = sink.sink.summaries()?.evidence()?;
    let run_id = data_encoding::HEXLOWER.encode(&ids.run());
    Some(evidence.chains.begin(&run_id, ids.worker()))
}

impl Output {
    /// Adds the batch, whose first record has this number, to the chain. Where a record could not be
    /// encoded it is not known which numbers the batch has, and they stay without a link.
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
            tracing::debug!(%error, sink = self.sink.name, "record lost");
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
