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

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use data_encoding::HEXLOWER;
use tap53_attribution::{Directory, find_tree};
use tap53_base::{
    clock::monotonic_ns,
    vitals::{Heartbeat, Liveness, WorkerTimings},
};
use tap53_capture::{
    capture::{self, CaptureThread, Counted, KernelLog},
    ring,
};
use tap53_ebpf::{
    counter::{Counter, Counters},
    settings::Direction,
};
use tap53_insight::{DnsMetrics, Reading as DnsReading};
use tap53_ledger::{InterfaceCounts, Ledger, Published, Sources, WorkerCounts, snapshot_with};
use tap53_records::encode;
use tap53_signals::SharedSignals;
use tap53_sinks::{self as sink, Named, Summaries};
use tap53_transactions::{
    chain::Chains,
    pair::{self, RecordIds, SharedNotes},
};
use tokio::sync::Notify;

use crate::{
    config::{Config, ContainersConfig, ControlConfig, Observations, PairConfig},
    ending::{self, EndWait, Verdict},
    tail::Tails,
    telemetry::{DataPath, SinkReading, WorkerView},
    worker::{CrossWorkerQueue, Rules, RulesInForce, Shared, Waiting, Worker},
};

/// Maximum number of reads of the kernel's counters until they agree with the items that came out of
/// the rings: a program submits a packet before it counts it, and on another CPU that may take a
/// moment. All other counts are of one moment, and are read once.
const READINGS: usize = 100;

/// Minimum time for a sink to deliver what it holds, even if another one has used up the timeout.
const MIN_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Time for the workers to end after the start has failed.
const DROP_TIMEOUT: Duration = Duration::from_secs(2);

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

struct Running {
    counts: Published<WorkerCounts>,
    heartbeat: Heartbeat,
    /// `None` if the kernel does not map the ring.
    ring: Option<ring::Depth>,
    datagrams_waiting: Waiting,
    waker: ring::Waker,
    /// `None` once joined.
    thread: Option<JoinHandle<bool>>,
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
        let pairing = pairing(&config.pair);
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
                pairing.build(monotonic_ns(), RecordIds::new(run, number), notes.clone()),
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

    /// Returns the ledger of the running agent.
    ///
    /// # Errors
    /// When the kernel's counters cannot be read.
    pub fn ledger(&self) -> Result<Ledger, Error> {
        Ok(self.ledger_with(|| ())?.0)
    }

    /// Returns the ledger of the running agent, and the metrics of the DNS as of the same moment.
    ///
    /// # Errors
    /// When the kernel's counters cannot be read.
    pub fn ledger_and_dns(&self) -> Result<(Ledger, Option<DnsReading>), Error> {
        self.ledger_with(|| self.dns_metrics.as_ref().map(DnsMetrics::read))
    }

    fn ledger_with<R>(&self, read: impl FnOnce() -> R) -> Result<(Ledger, R), Error> {
        let (mut sources, read) = self.read_sources_with(false, read)?;
        let mut ledger = Ledger::new(&sources);
        for _ in 1..READINGS {
            if ledger.balanced() {
                break;
            }
            thread::yield_now();
            sources.interfaces = self.interface_counts()?;
            ledger = Ledger::new(&sources);
        }
        Ok((ledger, read))
    }

    /// Reads the ledger once. A packet may be between two counters at that moment, so the ledger
    /// need not balance.
    ///
    /// # Errors
    /// When the kernel's counters cannot be read.
    pub fn snapshot(&self) -> Result<Ledger, Error> {
        Ok(Ledger::new(&self.read_sources(false)?))
    }

    /// Stops capture. Packets that were captured stay in the rings until the workers read them.
    ///
    /// # Errors
    /// When the capture thread has ended.
    pub fn detach(&self) -> Result<(), Error> {
        for error in self.capture.detach_all()? {
            tracing::error!(event = "detach_failed", "{error}");
        }
        Ok(())
    }

    /// Stops capture, delivers what was captured and returns the final ledger.
    ///
    /// # Errors
    /// When the kernel's counters cannot be read.
    pub fn shutdown(mut self, flush_timeout: Duration) -> Result<Ledger, Error> {
        self.detach()?;
        let deadline = Instant::now() + flush_timeout;
        self.end_workers(deadline);
        for sink in &self.sinks {
            let left = deadline.saturating_duration_since(Instant::now()).max(MIN_FLUSH_TIMEOUT);
            if self.abandoned > 0 {
                close_on_own_thread(sink, left);
            } else {
                sink.sink.close(left);
            }
        }
        let ledger = Ledger::new(&self.read_sources(true)?);
        if std::mem::take(&mut self.summaries).end(&ledger) {
            // With the outcome of the summaries.
            return Ok(Ledger::new(&self.read_sources(true)?));
        }
        Ok(ledger)
    }

    fn read_sources(&self, ended: bool) -> Result<Sources, Error> {
        Ok(self.read_sources_with(ended, || ())?.0)
    }

    /// Calls `read` while no worker and no sink can publish.
    fn read_sources_with<R>(
        &self,
        ended: bool,
        read: impl FnOnce() -> R,
    ) -> Result<(Sources, R), Error> {
        let sinks = self.sinks.iter().map(|sink| sink.sink.counts());
        let workers = self.workers.iter().map(|worker| &worker.counts);
        let ((workers, last_numbers, counts), read) = snapshot_with(workers, sinks, read);
        let names = self.sinks.iter().map(|sink| sink.name.clone());
        let mut sources = Sources {
            node: self.node.clone(),
            run: self.run,
            taken_at_us: jiff::Timestamp::now().as_microsecond(),
            ended,
            is_abandoned: false,
            workers,
            last_numbers,
            sinks: names.zip(counts).collect(),
            // Last, against the flow: an item that came out of a ring went into it before.
            interfaces: self.interface_counts()?,
        };
        if ended && self.abandoned > 0 {
            sources.abandon();
        }
        Ok((sources, read))
    }

    fn interface_counts(&self) -> Result<Vec<InterfaceCounts>, Error> {
        let Counted { interfaces, retired, unconfigured } = self.capture.counters()?;
        let mut counts: Vec<InterfaceCounts> = interfaces
            .into_iter()
            .map(|of| InterfaceCounts {
                hooks: Direction::ALL.map(|direction| of.attachment.describe(direction)),
                name: of.attachment.interface.name.clone(),
                ifindex: of.attachment.interface.ifindex,
                counters: of.by_direction,
                is_pair: of.attachment.interface.kind.is_pair(),
                is_attached: of.is_attached,
            })
            .collect();
        let mut sum = |name: String, is_pair: bool, counters: [Counters; 2]| {
            if counters.iter().any(|counters| counters.get(Counter::Seen) > 0) {
                let hooks = Direction::ALL.map(|_| "none".to_owned());
                counts.push(InterfaceCounts {
                    name,
                    ifindex: 0,
                    hooks,
                    counters,
                    is_pair,
                    is_attached: false,
                });
            }
        };
        let [(others, of_others), (pairs, of_pairs)] = retired;
        sum(format!("({others} earlier)"), false, of_others);
        sum(format!("({pairs} earlier pairs)"), true, of_pairs);
        // Packets at a hook whose interface has no settings: none, unless there is a defect.
        sum("(unconfigured)".to_owned(), false, unconfigured);
        Ok(counts)
    }

    /// Ends the workers, see [`crate::ending`].
    fn end_workers(&mut self, deadline: Instant) {
        self.ending.store(true, Ordering::Release);
        self.workers.iter().for_each(|worker| worker.waker.wake());
        let mut wait = EndWait::new(Instant::now(), deadline);
        while self.workers.iter().any(Running::is_running) {
            match wait.look(Instant::now(), self.progress()) {
                Verdict::Wait => {}
                Verdict::PastDeadline => tracing::warn!(
                    event = "worker_slow_at_stop",
                    "the flush timeout is over and workers still make progress: waiting for them"
                ),
                Verdict::Release => self.released.store(true, Ordering::Release),
                Verdict::Abandon => break,
            }
            thread::park_timeout(ending::POLL_INTERVAL);
        }
        for worker in &mut self.workers {
            let Some(thread) = worker.thread.take() else { continue };
            let number = worker.heartbeat.worker();
            let ended = thread.is_finished().then(|| thread.join());
            let why = match ended {
                Some(Ok(true)) => continue,
                Some(Ok(false)) => "it could not read its ring",
                Some(Err(_)) => "it panicked",
                None => "a sink blocks it",
            };
            self.abandoned += 1;
            tracing::error!(
                event = "worker_abandoned",
                worker = number,
                "a worker is abandoned: {why}; its records are counted as lost"
            );
        }
    }

    /// Returns a value that changes whenever a worker makes progress.
    fn progress(&self) -> Vec<([u64; 2], WorkerCounts, bool)> {
        let of = |worker: &Running| {
            (worker.heartbeat.progress(), worker.counts.read(), worker.is_running())
        };
        self.workers.iter().map(of).collect()
    }
}

impl Running {
    fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

/// Closes a sink on a separate thread: an abandoned worker may block in it, and hold a lock that
/// closing waits for.
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

fn close_on_own_thread(sink: &Named, deadline: Duration) {
    let (closed, is_closed) = mpsc::channel::<()>();
    let name = sink.name.clone();
    let sink = sink.sink.clone();
    let thread = thread::Builder::new().name("close".to_owned()).spawn(move || {
        sink.close(deadline);
        drop(closed);
    });
    let is_stuck = is_closed.recv_timeout(deadline + MIN_FLUSH_TIMEOUT)
        == Err(mpsc::RecvTimeoutError::Timeout);
    if let Err(error) = thread {
        tracing::error!(event = "sink_close_failed", %error, sink = name, "cannot close a sink");
    } else if is_stuck {
        tracing::error!(
            event = "sink_close_blocked",
            sink = name,
            "cannot close a sink: an abandoned worker blocks in it"
        );
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.end_workers(Instant::now() + DROP_TIMEOUT);
    }
}

fn spawn(
    number: u16,
    worker: Worker,
    ring: Option<ring::Depth>,
    timings: Arc<WorkerTimings>,
    stop: Arc<Notify>,
) -> Result<Running, Error> {
    /// Notifies also when the thread unwinds.
    struct Ended(Arc<Notify>);
    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let (counts, heartbeat) = (worker.counts(), worker.heartbeat());
    let (datagrams_waiting, waker) = (worker.datagrams_waiting(), worker.waker());
    let ended = Ended(stop);
    let thread = thread::Builder::new()
        .name(format!("worker-{number}"))
        .spawn(move || {
            let _ended = ended;
            worker.run(&timings)
        })
        .map_err(|cause| Error::Worker { number, cause })?;
    Ok(Running { counts, heartbeat, ring, datagrams_waiting, waker, thread: Some(thread) })
}

/// Creates the signals if they are enabled.
fn signals(config: &Config, workers: usize) -> Option<SharedSignals> {
    let now_us = jiff::Timestamp::now().as_microsecond();
    config.signals.enabled.then(|| SharedSignals::open(&config.signals, workers, now_us))
}

/// Creates the metrics of the DNS, unless nobody reads them.
fn dns_metrics(config: &Config) -> Option<DnsMetrics> {
    let is_counted = config.telemetry.is_read() && config.dns_metrics.enabled;
    is_counted.then(|| DnsMetrics::new(config.dns_metrics))
}

/// Returns the memory for recent records of each worker, in bytes: none without the control socket.
fn recent_bytes(config: &ControlConfig, workers: usize) -> usize {
    if config.enabled { config.recent_bytes / workers.max(1) } else { 0 }
}

/// Returns the configuration of the pairing.
pub(crate) const fn pairing(config: &PairConfig) -> pair::Config {
    pair::Config {
        udp_timeout: config.udp_timeout,
        tcp_timeout: config.tcp_timeout,
        capacity: config.capacity,
        merge_interfaces: config.merge_interfaces,
    }
}

/// Returns eight random bytes: a SipHash of nothing, keyed by the operating system's random numbers.
pub(crate) fn random_bytes() -> [u8; 8] {
    RandomState::new().build_hasher().finish().to_ne_bytes()
}
