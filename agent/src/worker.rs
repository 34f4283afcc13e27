//! A worker: one thread that owns a ring, a table of pending queries and a buffer for each sink. It
//! runs a batch from the ring to the sinks before it takes the next one. Workers share nothing on
//! that path, since the kernel programs put a query and its response into one ring, before and after address
//! translation; few messages belong to another worker than their packet ([`cross_worker`]).

mod cross_worker;
mod pending;
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
    capture::{Processes, RingLost},
    interfaces::Names,
    ring::{BATCH, Drain, Waker},
};
use tap53_dns::Kept;
use tap53_insight::DnsMetrics;
use tap53_ledger::{Published, WorkerCounts};
use tap53_records::encode::{self, Clock};
use tap53_signals::SharedSignals;
use tap53_sinks::Named;
use tap53_transactions::{chain::Chains, pair::Table};

use crate::tail::{RecordFilter, Tails};
use recorder::Recorder;

pub use cross_worker::CrossWorkerQueue;
pub(crate) use cross_worker::{QUEUED, Waiting};
pub use rules::{Rules, RulesInForce};
pub use stages::Stages;

/// State and settings that all workers share.
#[derive(Clone)]
pub struct Shared {
    /// Name of this node.
    pub node: Arc<str>,
    /// Names of the interfaces.
    pub interfaces: Arc<Names>,
    /// Set if records contain their messages as they were sent.
    pub wire_bytes: bool,
    /// The records of a message that its record contains.
    pub kept: Kept,
    /// Set if exchanges of other nodes' pods are left to their agents.
    pub client_node_only: bool,
    /// Maximum size of a record's Avro datum, in bytes.
    pub max_record_bytes: usize,
    /// Filters and privacy rules in force.
    pub rules: Arc<RulesInForce>,
    /// Owners of addresses over time.
    pub owners: Directory,
    /// Processes that use sockets, if records name them.
    pub processes: Option<Processes>,
    /// Set if each message becomes a record, instead of each transaction.
    pub each_message: bool,
    /// Chains behind answers, if the configuration enables them.
    pub chains: Option<Chains>,
    /// Followers of the records.
    pub tails: Tails,
    /// Metrics of the DNS, if the configuration enables them.
    pub dns_metrics: Option<DnsMetrics>,
    /// Signals, if the configuration enables them.
    pub signals: Option<SharedSignals>,
    /// The transactions that a replay records; `None` for all.
    pub selection: Option<Arc<RecordFilter>>,
    /// Set when nothing enters the rings any more.
    pub ending: Arc<AtomicBool>,
}

impl Shared {
    /// Returns the state of workers that record every transaction, without attribution.
    #[must_use]
    pub fn new(node: &str, interfaces: Arc<Names>) -> Self {
        Self {
            node: node.into(),
            interfaces,
            wire_bytes: false,
            kept: Kept::Answers,
            client_node_only: false,
            max_record_bytes: encode::DEFAULT_MAX_BYTES,
            rules: Arc::default(),
            owners: Directory::default(),
            processes: None,
            each_message: false,
            chains: None,
            tails: Tails::default(),
            dns_metrics: None,
            signals: None,
            selection: None,
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
    /// When an encoder cannot be created.
    #[allow(clippy::too_many_arguments)] // The parts of a worker, put together in one place.
    pub(crate) fn new(
        number: u16,
        drain: Drain,
        ring_lost: RingLost,
        table: Table,
        sinks: &[Named],
        shared: &Shared,
        queue: CrossWorkerQueue,
    ) -> Result<Self, encode::Error> {
        let stages =
            Stages::new(table, sinks, shared, queue, Clock { utc_offset_ns: utc_offset_ns() })?;
        let heartbeat = Heartbeat::new(number, monotonic_ns());
        let ending = shared.ending.clone();
        Ok(Self { number, drain, ring_lost, ending, heartbeat, stages })
    }

    /// Returns the counts that this worker publishes.
    pub(crate) fn counts(&self) -> Published<WorkerCounts> {
        self.stages.published()
    }

    /// Returns the number of datagrams that other workers have queued for this one.
    pub(crate) fn datagrams_waiting(&self) -> Waiting {
        self.stages.datagrams_waiting()
    }

    /// Returns the handle that wakes this worker.
    pub(crate) fn waker(&self) -> Waker {
        self.drain.waker()
    }

    /// Returns the heartbeat of this worker.
    pub(crate) fn heartbeat(&self) -> Heartbeat {
        self.heartbeat.clone()
    }

    /// Runs until [`Shared::ending`] is set and the ring is empty; returns false if it had to end
    /// before that.
    pub(crate) fn run(mut self, timings: &WorkerTimings) -> bool {
        privileges::confine_to_work();
        let mut waits = Tally::new(WITHIN);
        let is_ring_empty = loop {
            // In this order: once `ending` is set the ring gets nothing more, so a ring that is found
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
                    // A packet that was captured after the batch began has not waited.
                    waits.observe(now_ns.saturating_sub(captured_at_ns));
                }
            });
            if taken == 0 {
                // Losses after the last item of the ring are only in the map.
                match self.ring_lost.get(u32::from(self.number)) {
                    // Records carry the lower half of the count.
                    Ok(lost) => self.stages.note_ring_lost((lost & 0xffff_ffff) as u32, now_ns),
                    Err(error) => tracing::error!(
                        event = "ring_losses_unreadable",
                        %error,
                        "cannot read the number of packets that the ring has lost"
                    ),
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
            // A batch that is not full has emptied the ring.
            if taken < BATCH
                && !ending
                && let Err(error) = self.drain.wait(self.stages.is_quiet())
            {
                tracing::error!(event = "ring_wait_failed", %error, "cannot wait for the ring");
                break false;
            }
        };
        self.stages.finish();
        is_ring_empty
    }
}
