//! Timings along the path of a packet, from the kernel's timestamp to the delivery report.
//!
//! ```text
//!  hook ──▶ ring ──▶ decode ▸ pair ▸ encode ──▶ sink ──▶ spool ──▶ producer ──▶ broker
//!  └ ring wait ┘└────────── batch ──────────┘└─ write ───────────┘└── acknowledgement ──┘
//!  └ response ──────────────── age: written, or ──────┴ spooled, or ─────┴ acknowledged ┘
//! ```
//!
//! A query waits for its response outside of the agent; that time is the record's `latency_ns`. So
//! a record's age counts from its response. A record without a response is created when the query
//! times out, and has no age.
//! for a response is over, has none.

use std::time::Duration;

use tap53_reasons::labels;

use super::histogram::{ABROAD, Histogram, Tally, WITHIN};

/// Timings of the workers.
#[derive(Debug)]
pub struct WorkerTimings {
    /// From the capture of a packet to the read of its batch from the ring. Observed per packet.
    pub ring_wait: Histogram,
    /// From the read of a batch to its handover to the sinks. Observed per batch with packets.
    pub batch: Histogram,
}

impl Default for WorkerTimings {
    fn default() -> Self {
        Self { ring_wait: Histogram::new(WITHIN), batch: Histogram::new(WITHIN) }
    }
}

impl WorkerTimings {
    /// Records how long the packets of a batch waited, and how long the batch took.
    pub fn note_batch(&self, waits: &mut Tally, took: Duration) {
        self.ring_wait.take(waits);
        self.batch.observe(took);
    }
}

labels! {
    /// A stage on the path of a record, in path order.
    pub enum Reached {
        /// The record is in a file, or was written to standard output.
        Written = "written";
        /// The record is on the disk, or in the page cache, as `fsync` says.
        Spooled = "spooled";
        /// The broker acknowledged the record, straight from memory.
        Acknowledged = "acknowledged";
    }
}

/// Timings of one sink.
#[derive(Debug)]
pub struct SinkTimings {
    /// Time to accept a batch. Observed per batch.
    pub write: Histogram,
    /// Time to sync the spool to the disk.
    pub sync: Histogram,
    /// From the handover of a record to the producer to its delivery report. Observed per delivered
    /// record.
    pub acknowledgement: Histogram,
    /// From the capture of a record's response to each stage ([`Reached`]). Observed per record
    /// with a response.
    ages: [Histogram; Reached::ALL.len()],
}

impl Default for SinkTimings {
    fn default() -> Self {
        Self {
            write: Histogram::new(WITHIN),
            sync: Histogram::new(WITHIN),
            acknowledgement: Histogram::new(ABROAD),
            ages: Reached::ALL.map(|_| Histogram::new(ABROAD)),
        }
    }
}

impl SinkTimings {
    /// Returns the histogram of the ages at which records reached a stage.
    pub fn age(&self, reached: Reached) -> &Histogram {
        &self.ages[reached as usize]
    }

    /// Observes the ages of records that reached a stage at `now_ns`. `answered_at_ns` yields the
    /// capture times of their responses, 0 for a record without a response. Both are
    /// CLOCK_MONOTONIC, in nanoseconds.
    pub fn all_reached(
        &self,
        reached: Reached,
        answered_at_ns: impl Iterator<Item = u64>,
        now_ns: u64,
    ) {
        let mut tally = Tally::new(ABROAD);
        for at_ns in answered_at_ns.filter(|at_ns| *at_ns > 0) {
            tally.observe(now_ns.saturating_sub(at_ns));
        }
        self.age(reached).take(&mut tally);
    }
}
