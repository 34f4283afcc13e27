//! A worker: one thread that owns a ring, a table of pending queries and a buffer for each sink,
//! and runs a batch from the ring to the sinks before it takes the next. Workers share nothing on
//! that way, since the kernel programs put both directions of a flow into one ring; only datagrams
//! joined from fragments may have to change over ([`handover`]).

mod handover;
mod held;
mod recorder;
mod rules;
mod stages;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tap53_attribution::Directory;
use tap53_base::{
    clock::{monotonic_ns, utc_offset_ns},
    privileges,
    vitals::{Heartbeat, Tally, WITHIN, WorkerTimings},
};
use tap53_capture::{
    capture::RingLost,
    interfaces::Names,
    ring::{Drain, Waker},
};
use tap53_ledger::{Published, WorkerCounts};
use tap53_records::encode::{self, Clock};
use tap53_sinks::Named;
use tap53_transactions::pair::Table;

use crate::tail::Tails;
use recorder::Recorder;

pub use handover::CrossWorkerQueue;
pub(crate) use handover::{QUEUED, Waiting};
pub use rules::{Rules, RulesInForce};
pub use stages::Stages;

/// What every worker is told.
#[derive(Clone)]
pub struct Shared {
    /// Name of this node.
    pub node: Arc<str>,
    /// Names of the interfaces.
    pub interfaces: Arc<Names>,
    /// Whether records carry their messages as they were sent.
    pub wire_bytes: bool,
    /// Bytes of a record's Avro datum at most.
    pub max_record_bytes: usize,
    /// Which transactions become records, and what they show of addresses.
    pub rules: Arc<RulesInForce>,
    /// Who owned which address when.
    pub owners: Directory,
    /// Whether each message makes a record of its own, instead of each transaction.
    pub each_message: bool,
    /// Who follows the records.
    pub tails: Tails,
    /// Set once nothing enters the rings any more.
    pub ending: Arc<AtomicBool>,
}

impl Shared {
    /// What workers are told where every transaction becomes a record and nothing is known of
    /// addresses.
    #[must_use]
    pub fn new(node: &str, interfaces: Arc<Names>) -> Self {
        Self {
            node: node.into(),
            interfaces,
            wire_bytes: false,
            max_record_bytes: encode::DEFAULT_MAX_BYTES,
            rules: Arc::default(),
            owners: Directory::default(),
            each_message: false,
            tails: Tails::default(),
            ending: Arc::default(),
        }
    }
}

/// One worker.
pub(crate) struct Worker {
    number: u16,
    drain: Drain,
    ring_lost: RingLost,
    ending: Arc<AtomicBool>,
    heartbeat: Heartbeat,
    stages: Stages,
}

impl Worker {
    /// # Errors
    /// When an encoder cannot be made.
    #[allow(clippy::too_many_arguments)] // The parts of a worker, put together in one place.
    pub(crate) fn new(
        number: u16,
        drain: Drain,
        ring_lost: RingLost,
        table: Table,
        sinks: &[Named],
        shared: &Shared,
        handover: CrossWorkerQueue,
    ) -> Result<Self, encode::Error> {
        let stages =
            Stages::new(table, sinks, shared, handover, Clock { utc_offset_ns: utc_offset_ns() })?;
        let heartbeat = Heartbeat::new(number, monotonic_ns());
        let ending = shared.ending.clone();
        Ok(Self { number, drain, ring_lost, ending, heartbeat, stages })
    }

    /// Where this worker publishes its counts.
    pub(crate) fn counts(&self) -> Published<WorkerCounts> {
        self.stages.published()
    }

    /// Datagrams that other workers have for this one.
    pub(crate) fn datagrams_waiting(&self) -> Waiting {
        self.stages.datagrams_waiting()
    }

    /// What wakes this worker.
    pub(crate) fn waker(&self) -> Waker {
        self.drain.waker()
    }

    /// Where this worker says that it is at its ring.
    pub(crate) fn heartbeat(&self) -> Heartbeat {
        self.heartbeat.clone()
    }

    /// Runs until [`Shared::ending`] is set and the ring is empty; false if it had to end before that.
    pub(crate) fn run(mut self, timings: &WorkerTimings) -> bool {
        privileges::confine_to_work();
        let mut waits = Tally::new(WITHIN);
        let is_ring_empty = loop {
            // In this order: once `ending` is set the ring gets nothing more, so what is found
            // empty after that stays empty.
            let ending = self.ending.load(Ordering::Acquire);
            let now_ns = monotonic_ns();
            self.heartbeat.beat(now_ns);
            self.stages.begin_batch(Clock { utc_offset_ns: utc_offset_ns() });
            let mut read_up_to_ns = 0;
            let (stages, heartbeat) = (&mut self.stages, &self.heartbeat);
            let taken = self.drain.batch(|item| {
                heartbeat.count_packet();
                if let Some(captured_at_ns) = stages.take(item) {
                    read_up_to_ns = captured_at_ns;
                    // What was captured since the batch began has not waited.
                    waits.observe(now_ns.saturating_sub(captured_at_ns));
                }
            });
            if taken == 0 {
                // Losses with nothing behind them in the ring show in the map alone.
                match self.ring_lost.get(u32::from(self.number)) {
                    // Records carry the lower half of the count.
                    Ok(lost) => self.stages.note_ring_lost((lost & 0xffff_ffff) as u32, now_ns),
                    Err(error) => tracing::error!(%error, "cannot read the ring's losses"),
                }
                read_up_to_ns = now_ns;
            }
            self.stages.receive();
            self.stages.expire(read_up_to_ns);
            if taken > 0 {
                let took_ns = monotonic_ns().saturating_sub(now_ns);
                timings.note_batch(&mut waits, Duration::from_nanos(took_ns));
            }
            self.stages.deliver();
            if taken == 0 && ending {
                break true;
            }
            if taken == 0
                && let Err(error) = self.drain.wait(self.stages.is_quiet())
            {
                tracing::error!(%error, "cannot wait for the ring");
                break false;
            }
        };
        self.stages.finish();
        is_ring_empty
    }
}
