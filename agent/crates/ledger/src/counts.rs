//! The counts of the stages, and the cells in which they publish them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tap53_base::amount::Amount;
use tap53_dns::{PacketLoss, ParseStatus, fragments::FragmentCounts, stream::StreamCounts};
use tap53_reasons::reasons;
use tap53_signals::Signal;
use tap53_spool::Totals;
use tap53_transactions::{
    filter::FilterReason,
    pair::{Anomaly, AnsweredFrom},
};

reasons! {
    /// Why a message is in no record.
    pub enum MessageLoss {
        /// The message was seen before at another interface, or is shown twice by a mirror port.
        Copy = "copy", Ignored;
        /// The message is too short for a DNS header, in a packet that carries several messages.
        ShorterThanHeader = "shorter_than_header", Lost, "look for who sends it; usually hostile";
        /// The message waited for a response, or for a name, in a worker that was stuck at the end.
        Abandoned = "abandoned", Lost, "raise `shutdown.flush_timeout_ms`; find what blocks the worker in the log";
    }
}

reasons! {
    /// Why a sink did not deliver a record.
    pub enum SinkLoss {
        /// The record did not fit the schema.
        EncodeFailed = "encode_failed", Lost, "report it, it is a defect";
        /// The queue stayed full: that of Kafka's producer, or the one before a sink that may block.
        QueueFull = "queue_full", Lost, "configure a `spool`, raise `queue_bytes`; find out why the reader or disk is slow";
        /// Kafka without a spool: it was not acknowledged within `message_timeout_ms`.
        Expired = "expired", Lost, "configure a `spool`; bring the broker back";
        /// Kafka: the broker or the client library refused the record.
        Rejected = "rejected", Lost, "the log names the error: rights, `message.timestamp.after.max.ms`, size";
        /// The file or stream could not be written.
        WriteFailed = "write_failed", Lost, "disk full, permissions; the log names the error";
        /// The reader of standard output went away.
        Closed = "closed", Lost;
        /// It was not delivered by the deadline at the end, and was in memory alone: there is no spool, or
        /// another agent has it, or it could not be written to. Or a replay was interrupted, and the record
        /// is in a file that was left unfinished.
        Unflushed = "unflushed", Lost, "raise `shutdown.flush_timeout_ms`; configure a `spool`";
        /// Kafka: the spool was full, and the record was among the oldest.
        DroppedOldest = "dropped_oldest", Lost, "raise `spool.max_bytes`; bring the broker back";
        /// Kafka: the record was longer in the spool than `max_age_s`.
        TooOld = "too_old", Lost, "raise `max_age_s`; check the clock";
        /// Kafka: its entry in the spool is damaged.
        Unreadable = "unreadable", Lost, "`tap53 spool verify DIRECTORY`; check the disk";
        /// Kafka: neither the spool nor the broker took it.
        SpoolFailed = "spool_failed", Lost, "disk full or failing; the log names the error";
        /// Kafka: the registry gave no id of its schema while there was room to wait for it.
        NoSchemaId = "no_schema_id", Lost, "configure a `spool`; [when the registry is down](kafka.md#when-the-registry-is-down)";
        /// Kafka: the record is larger than the producer accepts.
        TooLarge = "too_large", Lost, "lower `record.max_bytes` or raise `message.max.bytes`";
        /// It was in a batch that the sink had not taken when its worker was abandoned at the end. It may
        /// arrive all the same, if what held the worker up lets go before the process ends.
        Abandoned = "abandoned", Lost, "find what blocks the sink";
    }
}

/// Counts of endpoints by the evidence for their owners; in no line of the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointCounts {
    /// Endpoints whose sending socket was seen.
    pub with_socket: u64,
    /// Endpoints whose socket was not seen.
    pub without_socket: u64,
    /// Endpoints whose socket is of a cgroup that was not known.
    pub with_unknown_cgroup: u64,
    /// Endpoints whose address belongs to another pod than their socket.
    pub in_conflict: u64,
}

impl EndpointCounts {
    const fn add(&mut self, other: &Self) {
        self.with_socket += other.with_socket;
        self.without_socket += other.without_socket;
        self.with_unknown_cgroup += other.with_unknown_cgroup;
        self.in_conflict += other.in_conflict;
    }
}

/// Counts of one worker, or the sum of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerCounts {
    /// Ring items read.
    pub packets_received: u64,
    /// Packets that yielded messages.
    pub packets_decoded: u64,
    /// Packets that yielded none, by [`PacketLoss`].
    pub packets_lost: [u64; PacketLoss::ALL.len()],
    /// Packets that are fragments, and were passed to reassembly.
    pub packets_in_fragments: u64,
    /// Fates of those fragments.
    pub fragments: FragmentCounts,
    /// Datagrams reassembled from fragments that were taken in, as packets are.
    pub datagrams_taken: u64,
    /// Datagrams reassembled from fragments that the worker of their flow could not take in.
    pub datagrams_not_handed_over: u64,
    /// Fates of the bytes of TCP streams.
    pub streams: StreamCounts,
    /// Messages found in packets.
    pub messages_decoded: u64,
    /// Messages of queries that wait for a response.
    pub messages_pending: u64,
    /// Messages that records stand for.
    pub messages_in_records: u64,
    /// Messages in no record, by [`MessageLoss`].
    pub messages_lost: [u64; MessageLoss::ALL.len()],
    /// Messages that could not be read whole, by [`ParseStatus`]. They are among
    /// `messages_decoded` and outside of the sums.
    pub messages_flawed: [u64; ParseStatus::ALL.len()],
    /// Transactions: each became a record or was excluded by a filter.
    pub records_created: u64,
    /// Transactions that became records, which is the number of the last record.
    pub records_numbered: u64,
    /// Transactions that a filter excluded, by [`FilterReason`].
    pub filtered: [Amount; FilterReason::ALL.len()],
    /// Queries that wait for a response. Their messages are among `messages_pending`.
    pub queries_pending: u64,
    /// Transactions that wait for the name of an owner, or for the chain behind their answer. Their messages are among `messages_pending`.
    pub transactions_held: u64,
    /// Queries recorded as unanswered before their time, because the table was full, or one key of it.
    /// Their messages are among `messages_in_records`.
    pub queries_evicted: u64,
    /// Records with each sign of tampering, by [`Anomaly`]; outside of the sums.
    pub anomalies: [u64; Anomaly::ALL.len()],
    /// Transactions with each signal, by [`Signal`], whether or not they became records; outside of the sums.
    pub signals: [u64; Signal::ALL.len()],
    /// Records by where their answer came from, by [`AnsweredFrom`]; outside of the sums.
    pub answered_from: [u64; AnsweredFrom::ALL.len()],
    /// Records of resolvers' exchanges that could not wait for a verdict on their chain.
    pub chains_without_verdict: u64,
    /// Records that may be sightings of an exchange before or after address translation, of which it is
    /// not decided.
    pub translations_undecided: u64,
    /// Endpoints of records by evidence.
    pub endpoints: EndpointCounts,
    /// Records that sinks were handed before the batch that they come from is counted here.
    pub ahead: Amount,
}

impl WorkerCounts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.packets_received += other.packets_received;
        self.packets_decoded += other.packets_decoded;
        self.packets_in_fragments += other.packets_in_fragments;
        self.fragments.add(&other.fragments);
        self.datagrams_taken += other.datagrams_taken;
        self.datagrams_not_handed_over += other.datagrams_not_handed_over;
        self.streams.add(&other.streams);
        self.messages_decoded += other.messages_decoded;
        self.messages_pending += other.messages_pending;
        self.messages_in_records += other.messages_in_records;
        self.records_created += other.records_created;
        self.records_numbered += other.records_numbered;
        self.queries_pending += other.queries_pending;
        self.queries_evicted += other.queries_evicted;
        for (sum, anomalies) in self.anomalies.iter_mut().zip(other.anomalies) {
            *sum += anomalies;
        }
        for (sum, signals) in self.signals.iter_mut().zip(other.signals) {
            *sum += signals;
        }
        for (sum, from) in self.answered_from.iter_mut().zip(other.answered_from) {
            *sum += from;
        }
        self.chains_without_verdict += other.chains_without_verdict;
        self.translations_undecided += other.translations_undecided;
        self.transactions_held += other.transactions_held;
        self.endpoints.add(&other.endpoints);
        self.ahead += other.ahead;
        for (sum, lost) in self.packets_lost.iter_mut().zip(other.packets_lost) {
            *sum += lost;
        }
        for (sum, filtered) in self.filtered.iter_mut().zip(other.filtered) {
            *sum += filtered;
        }
        for (sum, lost) in self.messages_lost.iter_mut().zip(other.messages_lost) {
            *sum += lost;
        }
        for (sum, flawed) in self.messages_flawed.iter_mut().zip(other.messages_flawed) {
            *sum += flawed;
        }
    }
}

/// A cell in which a stage publishes its counts: written once a batch, read for a snapshot.
///
/// Code that changes several cells together locks them all, as [`snapshot`] does; the cell of a worker is
/// locked before that of a sink.
#[derive(Clone, Debug, Default)]
pub struct Published<T>(Arc<Mutex<T>>);

impl<T: Clone> Published<T> {
    /// Creates a cell with these counts.
    pub fn new(counts: T) -> Self {
        Self(Arc::new(Mutex::new(counts)))
    }

    /// Replaces the counts.
    pub fn publish(&self, counts: T) {
        *self.lock() = counts;
    }

    /// Changes the counts in place.
    pub fn update(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.lock());
    }

    /// Calls `look` with the counts, which stay as they are meanwhile.
    pub fn with<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.lock())
    }

    /// Returns a copy of the counts.
    #[must_use]
    pub fn read(&self) -> T {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        // Counts stay true even if another holder panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the sum of the workers' counts, the number of each worker's last record, and the counts of
/// sinks, as of one moment: nothing is counted between the first and the last.
pub fn snapshot<'w, 's>(
    workers: impl IntoIterator<Item = &'w Published<WorkerCounts>>,
    sinks: impl IntoIterator<Item = &'s Published<SinkCounts>>,
) -> (WorkerCounts, Vec<u64>, Vec<SinkCounts>) {
    snapshot_with(workers, sinks, || ()).0
}

/// Does the same as [`snapshot`], and calls `read` at that moment: what workers publish together with their
/// counts is then read together with them.
pub fn snapshot_with<'w, 's, R>(
    workers: impl IntoIterator<Item = &'w Published<WorkerCounts>>,
    sinks: impl IntoIterator<Item = &'s Published<SinkCounts>>,
    read: impl FnOnce() -> R,
) -> ((WorkerCounts, Vec<u64>, Vec<SinkCounts>), R) {
    let workers: Vec<_> = workers.into_iter().map(Published::lock).collect();
    let sinks: Vec<_> = sinks.into_iter().map(Published::lock).collect();
    let read = read();
    let mut sum = WorkerCounts::default();
    workers.iter().for_each(|counts| sum.add(counts));
    let last_numbers = workers.iter().map(|counts| counts.records_numbered).collect();
    ((sum, last_numbers, sinks.iter().map(|counts| **counts).collect()), read)
}

/// Summaries of the ledger that a sink takes to their topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SummaryCounts {
    /// Written by this run.
    pub written: u64,
    /// Written by earlier runs, and not delivered by them.
    pub carried: u64,
    /// Known to have arrived.
    pub delivered: u64,
    /// Not yet known to have arrived.
    pub waiting: u64,
    /// Given up; the next summary makes up for them.
    pub lost: u64,
}

/// Counts of one sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkCounts {
    /// On their way to the sink, which has not taken them yet: in the batches of workers, or in the
    /// queue before a sink that may block.
    pub in_batches: Amount,
    /// Taken by the sink.
    pub offered: Amount,
    /// Known to have arrived.
    pub delivered: Amount,
    /// Accepted, in memory, and not yet known to have arrived.
    pub in_flight: Amount,
    /// In the spool when this run began.
    pub carried: Amount,
    /// In the spool, whether on their way or not, and not yet known to have arrived.
    pub spooled: Amount,
    /// Bytes that the spool takes on disk.
    pub spool_bytes: u64,
    /// Fates of everything that ever was in the spool; `None` without one.
    pub spool_totals: Option<Totals>,
    /// Not delivered, by [`SinkLoss`].
    pub lost: [Amount; SinkLoss::ALL.len()],
    /// Summaries of the ledger, where it takes them.
    pub summaries: SummaryCounts,
    /// Requests to its schema registry, where it has one.
    pub registry: Option<RegistryCounts>,
}

/// Counts of a schema registry's client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RegistryCounts {
    /// Requests made.
    pub requests: u64,
    /// Requests that failed: no answer, or a refusal.
    pub failures: u64,
    /// Times that the registry gave another id than before.
    pub id_changes: u64,
    /// Schemas that need an id.
    pub ids_wanted: u64,
    /// Schemas that need an id and have one.
    pub ids_known: u64,
}

impl SinkCounts {
    /// Counts records that the sink takes out of a worker's batch. The same update must count their
    /// fates.
    pub fn offer(&mut self, amount: Amount) {
        self.in_batches -= amount;
        self.offered += amount;
    }

    /// Counts records that the sink will not deliver.
    pub fn lose(&mut self, reason: SinkLoss, amount: Amount) {
        self.lost[reason as usize] += amount;
    }
}
