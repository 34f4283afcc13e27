//! From a transaction to the sinks' batches.

use std::sync::Arc;

use hashbrown::HashMap;

use super::Shared;
use crate::{
    encode::{self, Batch, Clock, Encode, Observer, Owner, Record},
    filter::{Filter, FilterReason},
    ledger::{Amount, SinkLoss, WorkerCounts},
    pair::Transaction,
    privacy::Policy,
    sink::Named,
};

/// Bytes of a sink's batch from which on it is delivered without waiting for the ring's batch to
/// end: a full table that expires at once makes 65,536 records.
const BATCH_BYTES: usize = 1 << 20;

/// Makes records and encodes them for each sink.
pub(super) struct Recorder {
    node: Arc<str>,
    /// This node at each interface, by ifindex.
    observers: HashMap<u32, Observer>,
    /// This node at an interface whose name is not known.
    elsewhere: Observer,
    /// Name of the replayed file; empty elsewhere.
    file: String,
    clock: Clock,
    filter: Arc<Filter>,
    policy: Arc<Policy>,
    outputs: Vec<Output>,
    /// Nobody is named until a source of names is there.
    nobody: Owner,
}

/// One sink, as a worker sees it.
struct Output {
    sink: Named,
    encoder: Box<dyn Encode>,
    batch: Batch,
}

impl Recorder {
    pub(super) fn new(
        sinks: &[Named],
        shared: &Shared,
        clock: Clock,
    ) -> Result<Self, encode::Error> {
        let outputs = sinks
            .iter()
            .map(|sink| {
                let encoder = sink.sink.format().build()?;
                let batch = Batch::keyed(sink.sink.key());
                Ok(Output { sink: sink.clone(), encoder, batch })
            })
            .collect::<Result<_, encode::Error>>()?;
        Ok(Self {
            node: shared.node.clone(),
            observers: shared
                .interfaces
                .iter()
                .map(|(ifindex, name)| (*ifindex, Observer::new(&shared.node, name)))
                .collect(),
            elsewhere: Observer::new(&shared.node, ""),
            file: String::new(),
            clock,
            filter: shared.filter.clone(),
            policy: shared.privacy.clone(),
            outputs,
            nobody: Owner::default(),
        })
    }

    pub(super) const fn set_clock(&mut self, clock: Clock) {
        self.clock = clock;
    }

    pub(super) fn name_interface(&mut self, ifindex: u32, name: &str) {
        self.observers.insert(ifindex, Observer::new(&self.node, name));
    }

    pub(super) fn name_file(&mut self, name: &str) {
        name.clone_into(&mut self.file);
    }

    /// Records a transaction, unless the filter leaves it out.
    pub(super) fn record(&mut self, transaction: &Transaction<'_>, counts: &mut WorkerCounts) {
        counts.records_created += 1;
        if let Some(reason) = self.left_out(transaction) {
            let amount = Amount::record(u64::from(transaction.messages()));
            counts.filtered[reason as usize] += amount;
            return;
        }
        counts.messages_in_records += u64::from(transaction.messages());
        let observer = self.observers.get(&transaction.first().point.ifindex);
        let record = Record {
            observer: observer.unwrap_or(&self.elsewhere),
            file: &self.file,
            policy: &self.policy,
            clock: self.clock,
            transaction,
            client: &self.nobody,
            server: &self.nobody,
        };
        for output in &mut self.outputs {
            output.push(&record);
        }
    }

    fn left_out(&self, transaction: &Transaction<'_>) -> Option<FilterReason> {
        let flow = &transaction.flow;
        // A response repeats the question, so it can stand in for a query that was not seen.
        let asked = &transaction.first().message;
        let questions = asked.question().into_iter().chain(asked.more_questions());
        self.filter.decide(flow.client.ip(), flow.server.ip(), questions)
    }

    /// Hands the batches to their sinks.
    pub(super) fn deliver(&mut self) {
        for output in &mut self.outputs {
            output.deliver();
        }
    }
}

impl Output {
    fn push(&mut self, record: &Record<'_>) {
        if let Err(error) = self.batch.push(self.encoder.as_mut(), record) {
            let amount = Amount::record(u64::from(record.transaction.messages()));
            self.sink.sink.counts().update(|counts| {
                counts.offered += amount;
                counts.lose(SinkLoss::EncodeFailed, amount);
            });
            tracing::debug!(%error, sink = self.sink.name, "record lost");
        }
        if self.batch.bytes().len() >= BATCH_BYTES {
            self.deliver();
        }
    }

    fn deliver(&mut self) {
        if !self.batch.is_empty() {
            self.sink.sink.write(&self.batch);
            self.batch.clear();
        }
    }
}
