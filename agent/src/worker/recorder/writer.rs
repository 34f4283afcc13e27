//! Creates records, encodes them for each sink, and delivers the batches.

use std::sync::Arc;

use tap53_base::amount::Amount;
use tap53_insight::{DnsCounter, DnsMetrics};
use tap53_ledger::{Published, WorkerCounts};
use tap53_records::encode::{self, Clock, Portion, Process, Profile, Provenance, Record, Row};
use tap53_signals::{Detector, Key, SharedSignals};
use tap53_sinks::Named;
use tap53_transactions::{
    filter::FilterReason,
    pair::{RecordIds, Transaction},
};

use super::{
    super::{Shared, rules::RulesReader},
    attribution::{Attribution, Ends},
    observers::Observers,
    output::Output,
    signals::{key_of, signals_of},
    tally::{count_endpoint, count_filtered, count_record, count_signals, leave_out},
};
use crate::tail::{Feed, RecordFilter};

/// Size of a sink's batch, in bytes, from which on it is delivered before the ring's batch ends: a full
/// table that expires at once creates 65,536 records.
const BATCH_BYTES: usize = 1 << 20;

/// Writes records to the sinks' batches, to the followers and to the metrics of the DNS.
pub(super) struct Writer {
    pub(super) observers: Observers,
    /// Names of the replayed files; empty for live capture.
    files: Vec<String>,
    /// Converts capture times to UTC.
    pub(super) clock: Clock,
    /// Maximum size of a record's Avro datum, in bytes.
    max_bytes: usize,
    /// Profile for which that maximum holds: all sinks of a configuration have one.
    profile: Profile,
    /// The transactions that are recorded; `None` for all.
    selection: Option<Arc<RecordFilter>>,
    outputs: Vec<Output>,
    pub(super) feed: Feed,
    /// Counts for the metrics of the DNS, if they are enabled.
    dns: Option<DnsCounter>,
    /// Looks for signals, if that is enabled.
    signals: Option<Detector>,
    /// The counts that this worker publishes.
    published: Published<WorkerCounts>,
    /// Records since the last delivery to the sinks.
    recorded: Amount,
}

impl Writer {
    pub(super) fn new(
        sinks: &[Named],
        shared: &Shared,
        ids: RecordIds,
        clock: Clock,
        published: Published<WorkerCounts>,
    ) -> Result<Self, encode::Error> {
        let profiles = sinks.iter().map(|sink| sink.sink.format().profile());
        Ok(Self {
            observers: Observers::new(&shared.node, &shared.interfaces, ids),
            files: Vec::new(),
            clock,
            max_bytes: shared.max_record_bytes,
            profile: profiles.max().unwrap_or_default(),
            selection: shared.selection.clone(),
            outputs: sinks.iter().map(|sink| Output::new(sink, ids)).collect::<Result<_, _>>()?,
            feed: Feed::new(shared.tails.clone())?,
            dns: shared.dns_metrics.as_ref().map(DnsMetrics::counter),
            signals: shared.signals.as_ref().map(SharedSignals::detector),
            published,
            recorded: Amount::default(),
        })
    }

    pub(super) fn name_file(&mut self, name: &str) {
        self.files.push(name.to_owned());
    }

    /// Returns the key of a transaction's signals, and prefetches what [`write`](Self::write) reads by it.
    #[inline]
    pub(super) fn signal_key(&self, transaction: &Transaction<'_>) -> Option<Key> {
        self.signals.as_ref().and_then(|detector| key_of(detector, transaction))
    }

    /// Creates the record of a transaction, counts it in the metrics, and appends it to the batches, unless it
    /// is left out; does nothing of this if it is not selected.
    pub(super) fn write(
        &mut self,
        transaction: &Transaction<'_>,
        key: Option<Key>,
        ends: &Ends<'_>,
        attribution: &Attribution,
        rules: &RulesReader,
        counts: &mut WorkerCounts,
    ) {
        self.observers.refresh();
        let (observer, response_observer) = self.observers.of(transaction);
        let signals = self
            .signals
            .as_mut()
            .map(|detector| signals_of(detector, key, transaction, ends.client.owner, self.clock));
        let decision = rules.decide(transaction, ends.client.owner, signals);
        // It takes a system call.
        let process = match decision.is_kept() {
            true => attribution.process_of(ends.query),
            false => None,
        };
        let command = process.as_ref().map(|it| String::from_utf8_lossy(it.command()));
        let process = process.as_ref().zip(command.as_deref());
        let mut portion = None;
        let mut record = Record {
            observer,
            response_observer,
            number: counts.records_numbered + 1,
            files: &self.files,
            policy: rules.privacy(),
            clock: self.clock,
            transaction,
            client: ends.client.owner,
            server: ends.server.owner,
            client_provenance: Provenance {
                process: process.map(|(process, command)| Process { pid: process.pid, command }),
                ..ends.client.provenance
            },
            server_provenance: ends.server.provenance,
            node_role: attribution.node_role(transaction, ends),
            signals,
            kept_per_million: decision.kept_per_million(),
            portion: &Portion::ALL,
        };
        record.limit(self.profile, self.max_bytes, &mut portion);
        if let Some(selection) = &self.selection
            && !selection.matches(&Row::of(&record))
        {
            return count_filtered(transaction, FilterReason::NotSelected, counts);
        }
        if let Some(dns) = &mut self.dns {
            dns.count(&record);
        }
        self.feed.count(&record);
        count_signals(signals, counts);
        if !decision.is_kept() {
            return leave_out(transaction, counts);
        }
        count_endpoint(&ends.client, &mut counts.endpoints);
        count_endpoint(&ends.server, &mut counts.endpoints);
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
