//! Wires the stages; the only file that knows them all.
//!
//! ```text
//!  capture ─ attach ─▶ rings ─▶ workers (ring ▸ decode ▸ pair ▸ encode) ─▶ sinks
//!     └──────────────── counters ──────────────┴──────── counts ──────────────┴─▶ ledger
//! ```
//!
//! Start: sinks open and the programs load before anything attaches, so that a mistake costs no
//! packet; [`crate::agent`] attaches. End: detach, wait until no program runs any more, empty the
//! rings, flush the sinks within their deadline, draw up the ledger.

mod end;
mod ledger;
mod worker_thread;

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use data_encoding::HEXLOWER;
use tap53_attribution::{Directory, find_tree};
use tap53_base::{
    clock::monotonic_ns,
    vitals::{Liveness, WorkerTimings},
};
use tap53_capture::{
    capture::{self, CaptureThread, KernelLog},
    ring,
};
use tap53_insight::DnsMetrics;
use tap53_records::encode;
use tap53_signals::SharedSignals;
use tap53_sinks::{self as sink, Named, Summaries};
use tap53_transactions::{
    chain::Chains,
    pair::{RecordIds, SharedNotes},
};
use tokio::sync::Notify;

use crate::{
    config::{Config, ContainersConfig, ControlConfig, Observations},
    tail::Tails,
    telemetry::{DataPath, SinkReading, WorkerView},
    worker::{CrossWorkerQueue, Rules, RulesInForce, Shared, Worker},
};
use worker_thread::{Running, spawn};

/// An error that keeps the pipeline from starting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Loading or attaching failed.
    #[error(transparent)]
    Capture(#[from] capture::Error),
    /// A sink could not be opened.
    #[error(transparent)]
    Sink(#[from] sink::Error),
    /// An encoder could not be created.
    #[error(transparent)]
    Encode(#[from] encode::Error),
    /// A thread could not be started.
    #[error("cannot start worker {number}: {cause}")]
    Worker {
        /// Number of the worker.
        number: u16,
        /// The operating system's error.
        cause: std::io::Error,
    },
}

/// A running capture.
pub struct Pipeline {
    node: String,
    run: [u8; 8],
    capture: CaptureThread,
    kernel_log: Option<KernelLog>,
    rules: Arc<RulesInForce>,
    workers: Vec<Running>,
    timings: Arc<WorkerTimings>,
    ending: Arc<AtomicBool>,
    /// Set when workers must not wait for each other any more.
    released: Arc<AtomicBool>,
    /// Number of workers that did not end.
    abandoned: usize,
    sinks: Vec<Named>,
    summaries: Summaries,
    tails: Tails,
    dns_metrics: Option<DnsMetrics>,
    signals: Option<SharedSignals>,
}

impl Pipeline {
    /// Opens the sinks, has `capture` load the programs, and starts the workers, in that order.
    /// `stop` is notified when a worker or a sink has ended for good.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn start(
        config: &Config,
        capture: CaptureThread,
        owners: &Directory,
        stop: &Arc<Notify>,
    ) -> Result<Self, Error> {
        let sinks = sink::build(&config.sinks, &config.node, config.telemetry.is_read(), stop)?;
        let capture::Loaded { rings, ring_lost, doorbells, names, kernel_log, processes } =
            capture.load(&config.capture, cgroups_of_processes(&config.containers))?;
        // By a thread without privileges, as the workers are: kernel 5.19.
        ring_lost.get(0).inspect_err(|_| {
            tracing::error!(
                event = "bpf_maps_unreadable",
                "this kernel does not let a thread without CAP_BPF read BPF maps: set privileges.keep"
            );
        })?;
        let rules = Arc::new(RulesInForce::new(Rules::new(
            &config.filter,
            &config.privacy,
            &config.record.keep,
        )));
        let shared = Shared {
            wire_bytes: config.record.wire_bytes,
            kept: config.record.kept(),
            client_node_only: config.record.observations == Observations::ClientNode,
            max_record_bytes: config.record.max_bytes,
            rules: rules.clone(),
            owners: owners.clone(),
            processes,
            tails: Tails::new(recent_bytes(&config.control, rings.len())),
            chains: config.chains.tracker().map(|tracker| Chains::new(tracker, rings.len())),
            dns_metrics: dns_metrics(config),
            signals: signals(config, rings.len()),
            ..Shared::new(&config.node, names)
        };
        let run = random_bytes();
        let mut pipeline = Self {
            node: config.node.clone(),
            run,
            workers: Vec::new(),
            summaries: Summaries::begin(&sinks, Instant::now()),
            timings: Arc::default(),
            ending: shared.ending.clone(),
            released: Arc::default(),
            abandoned: 0,
            sinks,
            tails: shared.tails.clone(),
            dns_metrics: shared.dns_metrics.clone(),
            signals: shared.signals.clone(),
            capture,
            kernel_log,
            rules,
        };
        let queues = CrossWorkerQueue::between(rings.len(), &pipeline.released);
        let notes = SharedNotes::between(rings.len());
        for (ring, queue) in rings.into_iter().zip(queues) {
            // The configuration allows fewer workers than a u16 counts.
            let number = u16::try_from(ring.index).unwrap_or(u16::MAX);
            let depth =
                ring::Depth::new(&ring.buffer, config.capture.ring_bytes).inspect_err(|error| {
                    tracing::warn!(
                        event = "ring_depth_unavailable",
                        %error,
                        "cannot map a ring to read how full it is"
                    );
                });
            let doorbell = doorbells.of(ring.index);
            let worker = Worker::new(
                number,
                ring::Drain::new(ring.buffer, doorbell, queue.waker()),
                ring_lost.clone(),
                config.pair.build(monotonic_ns(), RecordIds::new(run, number), notes.clone()),
                &pipeline.sinks,
                &shared,
                queue,
            )?;
            let timings = pipeline.timings.clone();
            pipeline.workers.push(spawn(number, worker, depth.ok(), timings, stop.clone())?);
        }
        Ok(pipeline)
    }

    /// Returns the thread that attaches and detaches.
    #[must_use]
    pub const fn capture(&self) -> &CaptureThread {
        &self.capture
    }

    /// Returns the filters and privacy rules in force.
    #[must_use]
    pub fn rules(&self) -> Arc<RulesInForce> {
        self.rules.clone()
    }

    /// Replaces the filters and privacy rules, from the workers' next batches on.
    pub fn replace_rules(&self, rules: Rules) {
        self.rules.replace(rules);
    }

    /// Returns the id of this run as records and summaries have it.
    #[must_use]
    pub fn run_id(&self) -> String {
        HEXLOWER.encode(&self.run)
    }

    /// Returns the followers of the records.
    #[must_use]
    pub fn tails(&self) -> Tails {
        self.tails.clone()
    }

    /// Returns the workers' heartbeats; a worker is alive while its heartbeat is no older than
    /// `bound`.
    #[must_use]
    pub fn liveness(&self, bound: Duration) -> Liveness {
        let heartbeats = self.workers.iter().map(|worker| worker.heartbeat.clone());
        Liveness::new(heartbeats.collect(), bound)
    }

    /// Returns a view of the data path for the metrics.
    #[must_use]
    pub fn path(&self) -> DataPath {
        let worker = |running: &Running| WorkerView {
            number: running.heartbeat.worker(),
            counts: running.counts.clone(),
            ring: running.ring.clone(),
            datagrams_waiting: running.datagrams_waiting.clone(),
        };
        DataPath {
            timings: self.timings.clone(),
            workers: self.workers.iter().map(worker).collect(),
            sinks: self.sinks.clone(),
            dns_metrics: self.dns_metrics.clone(),
            signals: self.signals.clone(),
            rules: self.rules.clone(),
        }
    }

    /// Returns the counts and the state of each sink.
    pub fn sink_readings(&self) -> impl Iterator<Item = SinkReading<'_>> {
        self.sinks.iter().map(|sink| SinkReading {
            name: &sink.name,
            counts: sink.sink.counts().read(),
            state: sink.sink.state(),
        })
    }

    /// Takes the kernel programs' log, if the configuration enables it.
    pub fn take_kernel_log(&mut self) -> Option<KernelLog> {
        self.kernel_log.take()
    }

    /// Does what is due with time alone.
    pub fn tick(&mut self, now: Instant) {
        for sink in &self.sinks {
            sink.sink.tick(now);
        }
        if self.summaries.is_due(now) {
            match self.ledger() {
                Ok(ledger) => self.summaries.write(&ledger, now),
                Err(error) => tracing::error!(
                    event = "summary_ledger_unreadable",
                    %error,
                    "cannot read the ledger: no summary is written"
                ),
            }
        }
    }
}

/// Returns the tree of all cgroups if processes are to be followed by it.
fn cgroups_of_processes(config: &ContainersConfig) -> Option<PathBuf> {
    if !config.processes {
        return None;
    }
    let tree = find_tree(&config.cgroup_root).inspect_err(|reason| {
        tracing::warn!(
            event = "processes_unavailable",
            error = reason,
            "records do not name the processes of clients"
        );
    });
    tree.ok().map(|(root, _)| root)
}

/// Creates the signals if they are enabled.
fn signals(config: &Config, workers: usize) -> Option<SharedSignals> {
    let now_us = jiff::Timestamp::now().as_microsecond();
    config.signals.enabled.then(|| SharedSignals::open(&config.signals, workers, now_us))
}

/// Creates the metrics of the DNS if they are enabled and something reads them.
fn dns_metrics(config: &Config) -> Option<DnsMetrics> {
    let is_counted = config.telemetry.is_read() && config.dns_metrics.enabled;
    is_counted.then(|| DnsMetrics::new(config.dns_metrics))
}

/// Returns the memory for recent records of each worker, in bytes: none without the control socket.
fn recent_bytes(config: &ControlConfig, workers: usize) -> usize {
    if config.enabled { config.recent_bytes / workers.max(1) } else { 0 }
}

/// Returns eight random bytes: a SipHash of nothing, keyed by the operating system's random numbers.
pub(crate) fn random_bytes() -> [u8; 8] {
    RandomState::new().build_hasher().finish().to_ne_bytes()
}
