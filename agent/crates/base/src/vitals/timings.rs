//! Times on the way of a packet, from the kernel's timestamp to the delivery report.
//!
//! ```text
//!  hook ──▶ ring ──▶ decode ▸ pair ▸ encode ──▶ sink ──▶ spool ──▶ producer ──▶ broker
//!  └ ring wait ┘└────────── batch ──────────┘└─ write ───────────┘└── acknowledgement ──┘
//!  └ response ──────────────── age: written, or ──────┴ spooled, or ─────┴ acknowledged ┘
//! ```
//!
//! A query that waits for its response waits outside of the agent: that is the record's `latency_ns`.
//! So a record's age is that of its response, and a record without one, which is made when the time
//! for a response is over, has none.

use std::time::Duration;

use tap53_reasons::labels;

use super::histogram::{ABROAD, Histogram, Tally, WITHIN};

/// Times of the workers.
#[derive(Debug)]
pub struct WorkerTimings {
    /// From a packet's capture to the batch in which it was read from the ring. Each packet.
    pub ring_wait: Histogram,
    /// From reading a batch from the ring to its hand-over to the sinks. Each batch with packets.
    pub batch: Histogram,
}

impl Default for WorkerTimings {
    fn default() -> Self {
        Self { ring_wait: Histogram::new(WITHIN), batch: Histogram::new(WITHIN) }
    }
}

impl WorkerTimings {
    /// Notes how long the packets of a batch waited, and how long the batch took.
    pub fn note_batch(&self, waits: &mut Tally, took: Duration) {
        self.ring_wait.take(waits);
        self.batch.observe(took);
    }
}

labels! {
    /// How far a record has got, in the order of its way.
    pub enum Reached {
        /// The record is in a file, or was written to standard output.
        Written = "written";
        /// The record is on the disk, or in the page cache, as `fsync` says.
        Spooled = "spooled";
        /// The broker acknowledged the record, straight from memory.
        Acknowledged = "acknowledged";
    }
}

/// Times of one sink.
#[derive(Debug)]
pub struct SinkTimings {
    /// From the hand-over of a batch until the sink has taken it. Each batch.
    pub write: Histogram,
    /// Duration of a sync of the spool to the disk.
    pub sync: Histogram,
    /// From handing a record to the producer to its delivery report. Each record that arrived.
    pub acknowledgement: Histogram,
    /// From the capture of a record's response. Each record that has one, by [`Reached`].
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
    /// The ages at which records got so far.
    pub fn age(&self, reached: Reached) -> &Histogram {
        &self.ages[reached as usize]
    }

    /// Notes that records have got so far at `now_ns`, whose responses were captured at
    /// `answered_at_ns`, 0 for a record without one. Both are CLOCK_MONOTONIC.
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
