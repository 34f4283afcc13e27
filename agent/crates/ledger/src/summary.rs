//! Summaries of the ledger, for a topic beside that of the records. With the two topics and SQL alone,
//! a reader can prove which records arrived, which are missing, and why.
//!
//! ```text
//!  worker 0   1 2 3 4 5 | 6 7 8 9 | 10 …      each record has its number
//!  worker 1   1 2 3     | 4 5     |  6 …
//!  window           0        1        2       each summary has the last number of each worker
//! ```
//!
//! **The window of a record.** Each worker numbers its records, 1, 2, 3 and so on, when they are
//! created: after filters, evictions and the wait for a name, so that no number is left out.
//! A record carries run, worker and number. A summary says up to which number each worker had come,
//! so a window is a range of numbers, and the windows of a run cover all numbers once, wherever a
//! batch was at the boundary. Nobody needs to agree on a time: no worker waits, looks at a clock or
//! knows of windows. The price is one addition for each record and a few bytes in it.
//!
//! Rejected: counts of records by the minute of their query, which late responses and a clock that
//! is set would make wrong; a window written into each record, which workers would have to read
//! from a place that they share, for a boundary that is no sharper; the sequence in `record_id`,
//! which is given when a transaction begins, because others refer to it, and has gaps where
//! transactions are filtered or evicted.
//!
//! **Time.** Windows are numbered and measured by the monotonic clock. UTC is a label.
//!
//! **These statements are exact.**
//! - For each window: which records to expect, by number; hence which are missing, by number.
//! - For each run, once it has its final summary and nothing of it is spooled: expected = arrived +
//!   Σ lost by reason + what later runs lost of what it left in the spool. Those say how much that
//!   was, apart from their own, and not whose it was: a segment that is dropped is not read again.
//! - For a node, over its runs, once nothing is spooled: Σ expected = Σ arrived + Σ lost by reason,
//!   unless an agent was killed: what that held in memory nobody could count, and it may have
//!   delivered records after its last summary, which have numbers that no window has.
//! - Of records that expired some may have arrived all the same. Then more arrived than the sums
//!   say, and the numbers are right.
//! - Losses by reason change in the window in which they become known, not in that of the record.
//! - Losses before there is a record are here by stage, as in the ledger.
//!
//! **Complete, incomplete, or not yet.** Under load something is always on its way, so "in flight:
//! 0" may never be seen. The sink therefore knows for each window whether anything of it is on its
//! way, in memory or on disk, and a summary tells up to which window nothing is: from there on down,
//! what is missing stays missing. A batch is announced to the sink before its numbers are published,
//! and a summary reads the numbers before the sink begins the next window; so the sink counts a
//! record for its window or for one before, and says "settled" late at times, and never too early.
//!
//! **Summaries may get lost or come twice.** Totals count from the start of the run, and ranges
//! follow from totals, so a lost summary makes one window of two, and no sum wrong. Where the sink
//! has a spool, they wait on disk in a spool of their own, so that also the final summary of a run
//! that ended without a broker comes later; else the last ones wait in memory.

mod avro;

use std::iter;

use serde::{Serialize, Serializer};

use super::{
    chain::{Digest, WorkerChain},
    signature::Signature,
    stage::{StageCount, sum},
    statement::Ledger,
};

pub use avro::{
    SUMMARY_NAME, SUMMARY_SCHEMA_TEXT, SUMMARY_SCHEMA_VERSIONS, SummaryEncoder, summary_schema,
};

/// Version of the schema, which each summary carries.
pub const SUMMARY_SCHEMA_VERSION: i32 = 2;

/// The place of a summary in its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Kind {
    /// It is the first.
    Start,
    /// It is one of the following.
    Window,
    /// It is the last.
    Final,
}

/// A summary, with the fields of `agent/schema/ledger_summary.avsc`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    schema_version: i32,
    tap53_version: &'static str,
    /// Node of the agent.
    pub node: String,
    run_id: String,
    sink: String,
    topic: String,
    run_started_at: i64,
    window_number: i64,
    kind: Kind,
    window_began_at: i64,
    /// End of the window, UTC microseconds since 1970.
    pub window_ended_at: i64,
    window_ns: i64,
    balanced: bool,
    workers: Vec<WorkerNumbers>,
    records_expected: i64,
    records_expected_total: i64,
    records_delivered_total: i64,
    records_lost_total: i64,
    records_in_flight: i64,
    records_spooled: i64,
    records_carried: i64,
    records_carried_lost_total: i64,
    settled_window: Option<i64>,
    counts: Vec<Count>,
    summaries_lost_total: i64,
    pub(super) record_fingerprint: Option<String>,
    pub(super) chains: Vec<WorkerChain>,
    pub(super) previous_digest: Option<Digest>,
    pub(super) signing_key: Option<String>,
    #[serde(serialize_with = "as_bytes")]
    pub(super) signature: Option<Signature>,
}

/// The last record of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct WorkerNumbers {
    worker: i32,
    last_record_number: i64,
    records: i64,
}

/// One number of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Count {
    stage: &'static str,
    fate: &'static str,
    reason: &'static str,
    unit: &'static str,
    total: i64,
    change: i64,
}

impl Count {
    fn new(count: StageCount, before: i64) -> Self {
        let StageCount { stage, unit, fate, reason, total } = count;
        let total = signed(total);
        Self { stage, fate: fate.name(), reason, unit, total, change: total - before }
    }
}

/// The windows of a run, for one sink.
#[derive(Clone, Debug)]
pub struct Windows {
    topic: String,
    started_at_us: i64,
    /// Number of the window that goes on, and its beginning by either clock.
    window: i64,
    began_at_us: i64,
    began_at_ns: u64,
    last_numbers: Vec<u64>,
    counts: Vec<Count>,
}

/// Progress of a sink that no count of the ledger shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last window such that no record of it, or of an earlier one, is still on its way; `None` if
    /// records from before the first window are.
    pub settled_window: Option<i64>,
    /// Records that earlier runs left, and this one lost.
    pub carried_lost: u64,
}

/// A moment, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// UTC, microseconds since 1970.
    pub utc_us: i64,
    /// CLOCK_MONOTONIC, nanoseconds.
    pub monotonic_ns: u64,
}

impl Windows {
    /// Begins the windows of a run that starts now and writes records to `topic`.
    #[must_use]
    pub fn begin(topic: &str, now: Moment) -> Self {
        Self {
            topic: topic.to_owned(),
            started_at_us: now.utc_us,
            window: 0,
            began_at_us: now.utc_us,
            began_at_ns: now.monotonic_ns,
            last_numbers: Vec::new(),
            counts: Vec::new(),
        }
    }

    /// Returns the number of the window that goes on.
    #[must_use]
    pub const fn current(&self) -> i64 {
        self.window
    }

    /// Ends the window and begins the next. `ledger` was read a moment ago, and `progress` after it.
    /// Returns `None` if the ledger has no such sink.
    pub fn end(
        &mut self,
        kind: Kind,
        sink: &str,
        ledger: &Ledger,
        progress: Progress,
        now: Moment,
    ) -> Option<Summary> {
        let of = ledger.agent.sinks.iter().find(|of| of.name == sink)?;
        let numbers = &ledger.agent.records.last_numbers;
        self.last_numbers.resize(numbers.len(), 0);
        let workers: Vec<_> = (0..)
            .zip(numbers.iter().zip(&self.last_numbers))
            .map(|(worker, (last, before))| WorkerNumbers {
                worker,
                last_record_number: signed(*last),
                records: signed(last.saturating_sub(*before)),
            })
            .collect();
        let counts = self.changes(ledger.counts(of));
        let records = &of.records;
        let summary = Summary {
            schema_version: SUMMARY_SCHEMA_VERSION,
            tap53_version: ledger.tap53_version,
            node: ledger.node.clone(),
            run_id: ledger.run_id.clone(),
            sink: sink.to_owned(),
            topic: self.topic.clone(),
            run_started_at: self.started_at_us,
            window_number: self.window,
            kind,
            window_began_at: self.began_at_us,
            window_ended_at: now.utc_us,
            window_ns: signed(now.monotonic_ns.saturating_sub(self.began_at_ns)),
            balanced: ledger.balanced,
            records_expected: workers.iter().map(|worker| worker.records).sum(),
            records_expected_total: signed(numbers.iter().sum()),
            workers,
            records_delivered_total: signed(records.delivered),
            records_lost_total: signed(sum(&records.lost)),
            records_in_flight: signed(records.in_flight),
            records_spooled: signed(records.spooled),
            records_carried: signed(records.carried),
            records_carried_lost_total: signed(progress.carried_lost),
            settled_window: progress.settled_window,
            counts: counts
                .iter()
                .filter(|count| count.total != 0 || count.change != 0)
                .cloned()
                .collect(),
            summaries_lost_total: signed(of.summaries.as_ref().map_or(0, |of| of.lost)),
            record_fingerprint: None,
            chains: Vec::new(),
            previous_digest: None,
            signing_key: None,
            signature: None,
        };
        self.counts = counts;
        self.last_numbers.clone_from(numbers);
        self.window += 1;
        self.began_at_us = now.utc_us;
        self.began_at_ns = now.monotonic_ns;
        Some(summary)
    }

    /// Returns the counts with their changes since the summary before.
    fn changes(&self, counts: Vec<StageCount>) -> Vec<Count> {
        // They are in the same order each time; the first time there were none.
        let before = self.counts.iter().map(|before| before.total).chain(iter::repeat(0));
        counts.into_iter().zip(before).map(|(count, before)| Count::new(count, before)).collect()
    }
}

/// Serializes a signature as bytes of Avro, not as an array of numbers.
fn as_bytes<S: Serializer>(
    signature: &Option<Signature>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    struct Octets<'a>(&'a [u8]);

    impl Serialize for Octets<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(self.0)
        }
    }

    match signature {
        None => serializer.serialize_none(),
        Some(signature) => serializer.serialize_some(&Octets(signature)),
    }
}

/// Converts a count. Counts stay far below 2⁶³.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
