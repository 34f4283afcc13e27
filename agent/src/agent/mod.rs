//! The running agent: one loop that owns the pipeline and handles every event that can change what
//! it does.
//!
//! ```text
//!  netlink      interfaces come, change, go ─┐
//!  annotation   of the Node object ──────────┤            ┌─▶ capture thread: attach, switch, detach
//!  requests     operators' commands ─────────┼─▶ desired ─┤
//!  file         changed, or SIGHUP ──────────┘            └─▶ status, and the log
//!               └─▶ filter, privacy, log level ─▶ workers
//!  orders       signals: report, reload, stop
//!  timers       sinks, switches that expire, retries
//! ```
//!
//! - **Events are handled one after the other.** Nothing else touches the pipeline, so a status is
//!   never half of one state and half of another. Detaching takes longest, some tens of milliseconds;
//!   the workers and their rings do not wait for it.
//! - **The status shows the observed state**, read from the kernel's maps and links, not the desired
//!   one.
//! - **Every change is logged** with its cause: a line that begins with `audit:` for each request, at
//!   every log level, and a line for each interface that changed.

mod bypass;
mod links;
mod reconciler;
mod reload;

use std::{
    io,
    os::fd::AsRawFd,
    sync::Arc,
    time::{Duration, Instant},
};

use tap53_attribution::Directory;
use tap53_base::vitals::{AUDIT, Liveness};
use tap53_capture::{
    capture::{self, CaptureThread},
    interfaces::{self, Interface, InterfaceStatus, Selector, Switch, SwitchTo, Wanted},
};
use tap53_ledger::{Ledger, Standing};
use tap53_otlp::SharedStatus;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{Notify, mpsc, watch},
    time::MissedTickBehavior,
};

use crate::{
    config::Directions,
    control::{AnnotationStatus, Refusal, Request, Requester, Status},
    pipeline::{self, Pipeline},
    runs::Runs,
    telemetry::{Log, Vitals, report},
    version::{REVISION, VERSION},
    worker::Rules,
};
use bypass::Counted;
use links::Links;
use reconciler::InterfaceReconciler;
use reload::FileWatch;

pub use reload::ConfigFile;

/// Interval at which sinks do what is due with time alone.
const TICK: Duration = Duration::from_secs(1);

/// Ticks between two checks that our hooks are in place.
const TICKS_PER_HOOK_CHECK: u32 = 10;

/// Time between an event in the configuration's directory and the reload: editors write in several
/// steps, each of which is an event.
const RELOAD_DELAY: Duration = Duration::from_millis(100);

/// An error that keeps the agent from starting, or ends it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pipeline could not start, or its counters cannot be read.
    #[error(transparent)]
    Pipeline(#[from] pipeline::Error),
    /// The kernel does not list its interfaces, or does not report changes.
    #[error(transparent)]
    Interfaces(#[from] interfaces::Error),
    /// A descriptor cannot be waited for.
    #[error("cannot wait for {what}: {cause}")]
    Wait {
        /// The event that was to be waited for.
        what: &'static str,
        /// The operating system's error.
        cause: io::Error,
    },
    /// Not one interface could be attached to; each failure has been logged.
    #[error("none of the {0} selected interfaces could be attached to")]
    NothingAttached(usize),
}

/// Channels that the loop reads.
pub struct Inputs {
    /// Requests of operators, from the control socket.
    pub requests: mpsc::Receiver<Request>,
    /// Value of the annotation `tap53.io/capture` of this node.
    pub annotation: watch::Receiver<Option<String>>,
    /// Orders given by signals.
    pub orders: mpsc::Receiver<Order>,
}

/// An order given by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Stop.
    Stop,
    /// Read the configuration file again; stop where there is none.
    Reload,
    /// Print the ledger on standard error.
    Report,
}

/// A running agent.
pub struct Agent {
    pipeline: Pipeline,
    file: ConfigFile,
    reconciler: InterfaceReconciler,
    owners: Directory,
    vitals: Vitals,
    runs: Runs,
    annotation: AnnotationStatus,
    links: Links,
    file_watch: Option<AsyncFd<FileWatch>>,
    /// Time of the next reload; `None` where the file has not changed.
    reload_at: Option<Instant>,
    log: Log,
    /// `None` if metrics are not exported.
    export: Option<SharedStatus>,
    started_at: Instant,
    ticks: u32,
}

impl Agent {
    /// Starts the pipeline and attaches to the desired interfaces. Must be called within a tokio
    /// runtime. `stop` is notified when a worker or a sink has ended for good.
    ///
    /// # Errors
    /// See [`Error`]. Nothing stays attached.
    pub fn start(
        file: ConfigFile,
        capture: CaptureThread,
        owners: &Directory,
        log: Log,
        stop: &Arc<Notify>,
    ) -> Result<Self, Error> {
        let pipeline = Pipeline::start(file.config(), capture, owners, stop)?;
        let links = Links::open()?;
        let file_watch = file.watch().map(|watch| wait_for("the file", watch)).transpose()?;
        let heartbeat_timeout = file.config().telemetry.heartbeat_timeout;
        let otlp = file.config().telemetry.otlp.as_ref();
        let export = otlp.map(|otlp| SharedStatus::new(otlp.url()));
        let mut agent = Self {
            vitals: Vitals::new(pipeline.liveness(heartbeat_timeout)),
            runs: Runs::open(&file.config().state),
            reconciler: InterfaceReconciler::new(Wanted::new(file.config().interfaces.clone())),
            pipeline,
            file,
            owners: owners.clone(),
            annotation: AnnotationStatus::default(),
            links,
            file_watch,
            reload_at: None,
            log,
            export,
            started_at: Instant::now(),
            ticks: 0,
        };
        // After the subscription, so that no change is missed in between.
        agent.reconciler.note_all(agent.pipeline.capture(), interfaces::list()?);
        let before = agent.runs.before_attaching();
        agent.reconcile();
        match agent.reconciler.counts() {
            (_, 0) => agent.log_no_interface(),
            (0, wanted) => return Err(Error::NothingAttached(wanted)),
            _ => {}
        }
        agent.runs.attached(&before, &agent.reconciler.captured());
        Ok(agent)
    }

    /// Returns the number of interfaces that are attached to.
    #[must_use]
    pub fn attached(&self) -> usize {
        self.reconciler.counts().0
    }

    /// Returns the pipeline.
    pub const fn pipeline(&mut self) -> &mut Pipeline {
        &mut self.pipeline
    }

    /// Returns the workers' heartbeats.
    #[must_use]
    pub fn liveness(&self) -> Liveness {
        self.vitals.liveness().clone()
    }

    /// Returns the state of the export of metrics, which the exporter writes; `None` if there is none.
    #[must_use]
    pub fn export(&self) -> Option<SharedStatus> {
        self.export.clone()
    }

    /// Runs until it is ordered to stop, or `stop` is notified.
    ///
    /// # Errors
    /// When the kernel's counters cannot be read.
    pub async fn run(&mut self, mut inputs: Inputs, stop: &Notify) -> Result<(), Error> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // A value from before the loop began.
        let annotation = inputs.annotation.borrow_and_update().clone();
        self.annotate(annotation);
        let (mut requests, mut annotated, mut ordered) = (true, true, true);
        loop {
            let due = self.next_due();
            tokio::select! {
                () = stop.notified() => break,
                order = inputs.orders.recv(), if ordered => match order {
                    Some(Order::Stop) => break,
                    // SIGHUP without a file: the terminal that it was started from was closed.
                    Some(Order::Reload) if !self.file.is_there() => break,
                    Some(Order::Reload) => self.reload(),
                    Some(Order::Report) => report(&self.ledger()?),
                    None => ordered = false,
                },
                request = inputs.requests.recv(), if requests => match request {
                    Some(request) => self.answer(request)?,
                    None => requests = false,
                },
                changed = inputs.annotation.changed(), if annotated => {
                    annotated = changed.is_ok();
                    if annotated {
                        let value = inputs.annotation.borrow_and_update().clone();
                        self.annotate(value);
                    }
                }
                () = self.links.readable() => {
                    self.reconcile();
                }
                () = readable_if(self.file_watch.as_ref()) => {
                    if let Some(watch) = &self.file_watch {
                        watch.get_ref().clear();
                    }
                    self.reload_at.get_or_insert(Instant::now() + RELOAD_DELAY);
                }
                () = sleep_until(due) => self.do_what_is_due(Instant::now()),
                _ = ticks.tick() => self.tick(Instant::now())?,
            }
        }
        Ok(())
    }

    /// Returns the ledger of the running agent.
    ///
    /// # Errors
    /// When the kernel's counters cannot be read.
    pub fn ledger(&self) -> Result<Ledger, Error> {
        Ok(self.pipeline.ledger()?.after(self.runs.previous()))
    }

    /// Stops capture, delivers what was captured and returns the final ledger.
    ///
    /// # Errors
    /// When the kernel's counters cannot be read.
    pub fn shutdown(mut self) -> Result<Ledger, Error> {
        self.log.end_limit();
        let flush_timeout = self.file.config().shutdown.flush_timeout;
        self.save_run(Runs::stopping);
        self.pipeline.detach()?;
        self.runs.detached();
        let ledger = self.pipeline.shutdown(flush_timeout)?;
        self.runs.ended(Standing::from(&ledger));
        Ok(ledger.after(self.runs.previous()))
    }

    /// Saves the state of this run for the next one.
    fn save_run(
        &mut self,
        write: impl FnOnce(&mut Runs, &[(u32, Directions)], &dyn Fn() -> Standing),
    ) {
        let Self { runs, pipeline, reconciler, .. } = self;
        // Read once: a sum that does not balance at this moment is near enough.
        let standing =
            || pipeline.snapshot().as_ref().map_or_else(|_| Standing::default(), Into::into);
        write(runs, &reconciler.captured(), &standing);
    }

    /// Applies what netlink has reported, and brings the interfaces to their desired state.
    fn reconcile(&mut self) -> usize {
        let Self { reconciler, pipeline, links, .. } = self;
        reconciler.reconcile(pipeline.capture(), Instant::now(), &mut || links.read())
    }

    fn reload(&mut self) {
        self.reload_at = None;
        let changed = self.file.reload();
        let config = self.file.config();
        if changed.log_level {
            self.log.set_level(config.log.level);
        }
        if changed.rules {
            self.pipeline.replace_rules(Rules::new(
                &config.filter,
                &config.privacy,
                &config.record.keep,
            ));
        }
        if changed.interfaces {
            self.reconciler.wanted.set_file(config.interfaces.clone());
            self.reconcile();
            if self.reconciler.counts().1 == 0 {
                self.log_no_interface();
            }
        }
    }

    fn annotate(&mut self, value: Option<String>) {
        match self.reconciler.wanted.set_annotation(value.as_deref()) {
            Ok(()) => {
                self.annotation.error = None;
                if self.annotation.in_force != value {
                    let text = value.as_deref().unwrap_or_default();
                    self.annotation.in_force.clone_from(&value);
                    let changed = self.reconcile();
                    tracing::info!(
                        target: AUDIT,
                        event = "annotation_applied",
                        value = text,
                        changed,
                        "audit: annotation of the node"
                    );
                }
            }
            Err(error) => {
                tracing::error!(
                    event = "annotation_invalid",
                    "the annotation of the node is invalid and changes nothing: {error}"
                );
                self.annotation.error = Some(error.to_string());
            }
        }
    }

    fn answer(&mut self, request: Request) -> Result<(), Error> {
        // The client may have disconnected; the change stays.
        match request {
            Request::Switch { switch, requester, answer } => {
                let _ = answer.send(self.switch(&switch, &requester));
            }
            // A client that has disconnected needs no status.
            Request::Status { answer } if answer.is_closed() => {}
            Request::Status { answer } => {
                let _ = answer.send(self.status()?);
            }
        }
        Ok(())
    }

    fn switch(
        &mut self,
        switch: &Switch,
        requester: &Requester,
    ) -> Result<Vec<InterfaceStatus>, Refusal> {
        let now = Instant::now();
        let pattern = switch.selector.as_str();
        let outcome = self.try_switch(switch, now);
        let lasts_s = switch.lasts.map(|lasts| lasts.as_secs());
        let Requester { uid, pid, process } = requester;
        let to = describe(switch.to);
        match &outcome {
            Ok(changed) => {
                tracing::info!(
                    target: AUDIT,
                    event = "switch_applied",
                    uid, pid, process, pattern, lasts_s, changed,
                    "audit: {to}"
                );
            }
            Err(refusal) => {
                tracing::warn!(
                    target: AUDIT,
                    event = "switch_refused",
                    uid, pid, process, pattern, lasts_s,
                    "audit: {to}, refused: {refusal}"
                );
            }
        }
        outcome?;
        let is_meant = |interface: &Interface, _: &_| switch.selector.matches(interface);
        Ok(self.reconciler.status(self.pipeline.capture(), now, is_meant))
    }

    fn try_switch(&mut self, switch: &Switch, now: Instant) -> Result<usize, Refusal> {
        let is_meant = |interface: &Interface| switch.selector.matches(interface);
        let none = || Refusal::NoSuchInterface(switch.selector.as_str().to_owned());
        let fits = self.reconciler.interfaces().any(is_meant);
        if !fits && switch.to != SwitchTo::Reset {
            return Err(none());
        }
        let before = self.reconciler.wanted.clone();
        let different = self
            .reconciler
            .wanted
            .switch(switch, now)
            .map_err(|error| Refusal::TooMany(error.to_string()))?;
        if !fits && !different {
            return Err(none());
        }
        self.reconciler.retry_now(now, is_meant);
        let changed = self.reconcile();
        if let SwitchTo::On(_) = switch.to
            && let Some(why) = self.reconciler.attach_errors(is_meant)
        {
            self.reconciler.wanted = before;
            self.reconcile();
            return Err(Refusal::NotAttached(why));
        }
        Ok(changed)
    }

    /// Returns the state of the running agent.
    ///
    /// # Errors
    /// When the kernel's counters cannot be read.
    pub fn status(&mut self) -> Result<Status, Error> {
        let now = Instant::now();
        let interfaces = self.interfaces_of_interest(now);
        self.vitals.look_at_interfaces(&interfaces);
        let (ledger, dns) = self.pipeline.ledger_and_dns()?;
        let bypass =
            bypass::find(self.reconciler.interfaces(), &interfaces, &Counted::all(&ledger));
        Ok(Status {
            version: VERSION,
            revision: REVISION,
            node: self.file.config().node.clone(),
            uptime_s: now.saturating_duration_since(self.started_at).as_secs(),
            config: self.file.status().clone(),
            annotation: self.annotation.clone(),
            enrichment: self.owners.status(),
            health: self.vitals.health(&interfaces),
            interfaces,
            export: self.export.as_ref().map(SharedStatus::read),
            bypass,
            ledger: ledger.after(self.runs.previous()),
            dns,
        })
    }

    fn interfaces_of_interest(&self, now: Instant) -> Vec<InterfaceStatus> {
        let capture = self.pipeline.capture();
        self.reconciler.status(capture, now, |_, status| reconciler::is_of_interest(status))
    }

    /// Returns when the next thing is due, other than by the tick.
    fn next_due(&self) -> Option<Instant> {
        let dues =
            [self.reload_at, self.reconciler.wanted.next_expiry(), self.reconciler.next_due()];
        dues.into_iter().flatten().min()
    }

    fn do_what_is_due(&mut self, now: Instant) {
        if self.reload_at.is_some_and(|at| at <= now) {
            self.reload();
        }
        for selector in self.reconciler.wanted.expire(now) {
            tracing::info!(
                target: AUDIT,
                event = "switch_expired",
                pattern = selector.as_str(),
                "audit: the time of a switch has expired"
            );
        }
        self.reconcile();
    }

    fn tick(&mut self, now: Instant) -> Result<(), Error> {
        if !self.pipeline.capture().is_running() {
            // Its links ended with it: nothing is captured any more.
            return Err(pipeline::Error::from(capture::Error::ThreadEnded).into());
        }
        self.pipeline.tick(now);
        self.vitals.look(self.pipeline.sink_readings());
        self.log.report_suppressed();
        self.save_run(Runs::save);
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(TICKS_PER_HOOK_CHECK) {
            self.reconciler.drop_lost_hooks(self.pipeline.capture());
            self.reconcile();
            let interfaces = self.interfaces_of_interest(now);
            self.vitals.look_at_interfaces(&interfaces);
        }
        Ok(())
    }

    fn log_no_interface(&self) {
        let include = &self.reconciler.wanted.file().include;
        let patterns: Vec<&str> = include.iter().map(Selector::as_str).collect();
        let present: Vec<&str> = self.reconciler.names().collect();
        tracing::warn!(
            event = "no_interface",
            "nothing is captured: no interface matches {} (after exclusion); present are {}. An \
             interface that matches and appears later is captured from",
            patterns.join(", "),
            present.join(", ")
        );
    }
}

fn describe(to: SwitchTo) -> String {
    match to {
        SwitchTo::On(directions) => format!("enable, {}", directions.name()),
        SwitchTo::Off { detach: false } => "disable".to_owned(),
        SwitchTo::Off { detach: true } => "disable and detach".to_owned(),
        SwitchTo::Reset => "reset".to_owned(),
    }
}

fn wait_for<T: AsRawFd>(what: &'static str, source: T) -> Result<AsyncFd<T>, Error> {
    // SAFETY: the descriptor belongs to `source`, which keeps it open for as long as it lives.
    unsafe { AsyncFd::register_with_interest(source, Interest::READABLE) }
        .map_err(|error| Error::Wait { what, cause: error.into() })
}

/// Waits until there is something to read. The caller reads all of it, or is woken again by the next
/// event.
async fn readable<T: AsRawFd>(source: &AsyncFd<T>) {
    match source.readable().await {
        Ok(mut ready) => ready.clear_ready(),
        // Only when the runtime ends.
        Err(_) => std::future::pending().await,
    }
}

async fn readable_if<T: AsRawFd>(source: Option<&AsyncFd<T>>) {
    match source {
        Some(source) => readable(source).await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
