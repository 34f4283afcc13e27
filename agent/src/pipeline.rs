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
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tap53_attribution::Directory;
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
use tap53_ledger::{
    InterfaceCounts, Ledger, Published, SinkCounts, Sources, WorkerCounts, snapshot,
};
use tap53_records::encode;
use tap53_sinks::{self as sink, Named, Summaries};
use tap53_transactions::pair::{self, RecordIds, Truncations};
use tokio::sync::Notify;

use crate::{
    config::{Config, PairConfig},
    ending::{self, EndWait, Verdict},
    tail::Tails,
    telemetry::{DataPath, WorkerView},
    worker::{CrossWorkerQueue, Rules, RulesInForce, Shared, Waiting, Worker},
};

/// How often the kernel's counters are read until they agree with what came out of the rings: a
/// program submits a packet before it counts it, and on another CPU that may take a moment. All
/// other counts are as of one moment, and need no second look.
const READINGS: usize = 100;

/// What a sink gets to deliver what it holds, even if another used up the time.
const LEAST_FLUSH: Duration = Duration::from_secs(1);

/// How long workers may take to end where the start has failed.
const DROP_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the pipeline could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Loading or attaching failed.
    #[error(transparent)]
    Capture(#[from] capture::Error),
    /// A sink could not be opened.
    #[error(transparent)]
    Sink(#[from] sink::Error),
    /// An encoder could not be made.
    #[error(transparent)]
    Encode(#[from] encode::Error),
    /// A thread could not be started.
    #[error("cannot start worker {number}: {cause}")]
    Worker {
        /// Number of the worker.
        number: u16,
        /// Why not.
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
    /// Set once no worker is to wait for another one any more.
    released: Arc<AtomicBool>,
    /// Workers that did not come to their end.
    abandoned: usize,
    sinks: Vec<Named>,
    summaries: Summaries,
    tails: Tails,
}

struct Running {
    counts: Published<WorkerCounts>,
    heartbeat: Heartbeat,
    /// `None` where the kernel does not map it.
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
        let sinks = sink::build(&config.sinks, &config.node, config.telemetry.enabled, stop)?;
        let capture::Loaded { rings, ring_lost, doorbells, names, kernel_log } =
            capture.load(&config.capture)?;
        // By a thread without privileges, as the workers are: kernel 5.19.
        ring_lost.get(0).inspect_err(|_| {
            tracing::error!("this kernel lets no thread without CAP_BPF read: set privileges.keep");
        })?;
        let rules = Arc::new(RulesInForce::new(Rules::new(&config.filter, &config.privacy)));
        let shared = Shared {
            wire_bytes: config.record.wire_bytes,
            max_record_bytes: config.record.max_bytes,
            rules: rules.clone(),
            owners: owners.clone(),
            ..Shared::new(&config.node, names)
        };
        let (pairing, truncations) = (pairing(&config.pair), Truncations::default());
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
            capture,
            kernel_log,
            rules,
        };
        let handovers = CrossWorkerQueue::between(rings.len(), &pipeline.released);
        for (ring, handover) in rings.into_iter().zip(handovers) {
            // The configuration allows fewer workers than a u16 counts.
            let number = u16::try_from(ring.index).unwrap_or(u16::MAX);
            let depth = ring::Depth::new(&ring.buffer, config.capture.ring_bytes)
                .inspect_err(|error| tracing::warn!(%error, "cannot see how full a ring is"));
            let doorbell = doorbells.of(ring.index);
            let worker = Worker::new(
                number,
                ring::Drain::new(ring.buffer, doorbell, handover.waker()),
                ring_lost.clone(),
                pairing.build(monotonic_ns(), RecordIds::new(run, number), truncations.clone()),
                &pipeline.sinks,
                &shared,
                handover,
            )?;
            let timings = pipeline.timings.clone();
            pipeline.workers.push(spawn(number, worker, depth.ok(), timings, stop.clone())?);
        }
        Ok(pipeline)
    }

    /// The thread that attaches and detaches.
    #[must_use]
    pub const fn capture(&self) -> &CaptureThread {
        &self.capture
    }

    /// Filters and privacy rules in force.
    #[must_use]
    pub fn rules(&self) -> Arc<RulesInForce> {
        self.rules.clone()
    }

    /// Puts other filters and privacy rules in force, from the workers' next batches on.
    pub fn replace_rules(&self, rules: Rules) {
        self.rules.replace(rules);
    }

    /// Where the records can be followed.
    #[must_use]
    pub fn tails(&self) -> Tails {
        self.tails.clone()
    }

    /// The workers' heartbeats, and how old one may be.
    #[must_use]
    pub fn liveness(&self, bound: Duration) -> Liveness {
        let heartbeats = self.workers.iter().map(|worker| worker.heartbeat.clone());
        Liveness::new(heartbeats.collect(), bound)
    }

    /// What the data path shows of itself while it runs.
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
        }
    }

    /// Name and counts of each sink.
    pub fn sink_counts(&self) -> impl Iterator<Item = (&str, SinkCounts)> {
        self.sinks.iter().map(|sink| (sink.name.as_str(), sink.sink.counts().read()))
    }

    /// The kernel programs' log, where the configuration asks for it; once.
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
                Err(error) => {
                    tracing::error!(%error, "no summary of the ledger: it cannot be read")
                }
            }
        }
    }

    /// The ledger of the running agent.
    ///
    /// # Errors
    /// When the kernel's counters cannot be read.
    pub fn ledger(&self) -> Result<Ledger, Error> {
        let mut sources = self.read_sources(false)?;
        let mut ledger = Ledger::new(&sources);
        for _ in 1..READINGS {
            if ledger.balanced() {
                break;
            }
            thread::yield_now();
            sources.interfaces = self.interface_counts()?;
            ledger = Ledger::new(&sources);
        }
        Ok(ledger)
    }

    /// Reads the ledger once. A packet may be between two counters at that moment, so the ledger
    /// need not balance.
    ///
    /// # Errors
    /// When the kernel's counters cannot be read.
    pub fn snapshot(&self) -> Result<Ledger, Error> {
        Ok(Ledger::new(&self.read_sources(false)?))
    }

    /// Stops capture; what was captured waits in the rings or is on its way.
    ///
    /// # Errors
    /// When the capture thread has ended.
    pub fn detach(&self) -> Result<(), Error> {
        for error in self.capture.detach_all()? {
            tracing::error!("{error}");
        }
        Ok(())
    }

    /// Stops capture, delivers what was captured and draws up the final ledger.
    ///
    /// # Errors
    /// When the kernel's counters cannot be read.
    pub fn shutdown(mut self, flush_timeout: Duration) -> Result<Ledger, Error> {
        self.detach()?;
        let deadline = Instant::now() + flush_timeout;
        self.end_workers(deadline);
        for sink in &self.sinks {
            let left = deadline.saturating_duration_since(Instant::now()).max(LEAST_FLUSH);
            if self.abandoned > 0 {
                close_aside(sink, left);
            } else {
                sink.sink.close(left);
            }
        }
        let ledger = Ledger::new(&self.read_sources(true)?);
        if std::mem::take(&mut self.summaries).end(&ledger) {
            // With what has become of the summaries.
            return Ok(Ledger::new(&self.read_sources(true)?));
        }
        Ok(ledger)
    }

    fn read_sources(&self, ended: bool) -> Result<Sources, Error> {
        let sinks = self.sinks.iter().map(|sink| sink.sink.counts());
        let workers = self.workers.iter().map(|worker| &worker.counts);
        let (workers, last_numbers, counts) = snapshot(workers, sinks);
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
            // Last, against the flow: what came out of a ring went into it before.
            interfaces: self.interface_counts()?,
        };
        if ended && self.abandoned > 0 {
            sources.abandon();
        }
        Ok(sources)
    }

    fn interface_counts(&self) -> Result<Vec<InterfaceCounts>, Error> {
        let Counted { interfaces, retired, unconfigured } = self.capture.counters()?;
        let mut counts: Vec<InterfaceCounts> = interfaces
            .into_iter()
            .map(|of| InterfaceCounts {
                hooks: Direction::ALL.map(|direction| of.attachment.describe(direction)),
                name: of.attachment.interface.name,
                ifindex: of.attachment.interface.ifindex,
                counters: of.by_direction,
            })
            .collect();
        let mut sum = |name: String, counters: [Counters; 2]| {
            if counters.iter().any(|counters| counters.get(Counter::Seen) > 0) {
                let hooks = Direction::ALL.map(|_| "none".to_owned());
                counts.push(InterfaceCounts { name, ifindex: 0, hooks, counters });
            }
        };
        let (interfaces, counters) = retired;
        sum(format!("({interfaces} earlier)"), counters);
        // Packets at a hook whose interface has no settings: none, unless something is amiss.
        sum("(unconfigured)".to_owned(), unconfigured);
        Ok(counts)
    }

    /// Ends the workers: see [`crate::ending`].
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
                None => "it is held up by a sink",
            };
            self.abandoned += 1;
            tracing::error!(
                event = "worker_abandoned",
                worker = number,
                "a worker is abandoned, {why}; what it holds is counted as lost"
            );
        }
    }

    /// Something that changes whenever a worker gets on.
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

/// Closes a sink on a thread of its own: a worker that was left behind in it may hold what closing
/// waits for.
fn close_aside(sink: &Named, deadline: Duration) {
    let (closed, is_closed) = mpsc::channel::<()>();
    let name = sink.name.clone();
    let sink = sink.sink.clone();
    let thread = thread::Builder::new().name("close".to_owned()).spawn(move || {
        sink.close(deadline);
        drop(closed);
    });
    let is_stuck =
        is_closed.recv_timeout(deadline + LEAST_FLUSH) == Err(mpsc::RecvTimeoutError::Timeout);
    if let Err(error) = thread {
        tracing::error!(%error, sink = name, "cannot close a sink");
    } else if is_stuck {
        tracing::error!(sink = name, "a sink cannot be closed: an abandoned worker is in it");
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

/// How messages are paired.
pub(crate) const fn pairing(config: &PairConfig) -> pair::Config {
    pair::Config {
        udp_timeout: config.udp_timeout,
        tcp_timeout: config.tcp_timeout,
        capacity: config.capacity,
        merge_interfaces: config.merge_interfaces,
    }
}

/// Eight random bytes: a SipHash of nothing, keyed by the operating system's random numbers.
pub(crate) fn random_bytes() -> [u8; 8] {
    RandomState::new().build_hasher().finish().to_ne_bytes()
}
