//! The running agent: one loop that owns the pipeline and answers to everything that can change what
//! it does.
//!
//! ```text
//!  netlink      interfaces come, change, go ─┐
//!  annotation   of the Node object ──────────┤            ┌─▶ capture thread: attach, switch, detach
//!  requests     operators' commands ─────────┼─▶ wanted ──┤
//!  file         changed, or SIGHUP ──────────┘            └─▶ status, and the log
//!               └─▶ filter, privacy, log level ─▶ workers
//!  orders       signals: report, reload, stop
//!  time         sinks, switches that end, what was refused
//! ```
//!
//! - **One thing after the other**: nothing else touches the pipeline, so a status is never half of
//!   one state and half of another. What takes longest is detaching, some tens of milliseconds; the
//!   workers and their rings do not wait for it.
//! - **Status tells what is**, asked of the kernel's maps and links, not what was asked for.
//! - **Every change has a line in the log** with who, what and when: lines that begin with `audit:`
//!   for what was asked, at every level, and a line for each interface that changed.

mod reload;
mod switching;

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
    interfaces::{self, Change, InterfaceStatus, Switch, SwitchTo, Wanted, Watch},
};
use tap53_ledger::{Ledger, Standing};
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
    worker::Rules,
};
use reload::FileWatch;
use switching::Switching;

pub use reload::ConfigFile;

/// How often sinks are asked whether something is due.
const TICK: Duration = Duration::from_secs(1);

/// Ticks between two looks at whether our hooks are in place.
const TICKS_PER_LOOK: u32 = 10;

/// How long after something happened in the directory the file is read: writing takes several
/// steps, and each tells again.
const SETTLING: Duration = Duration::from_millis(100);

/// Why the agent could not start, or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pipeline could not start, or its counters cannot be read.
    #[error(transparent)]
    Pipeline(#[from] pipeline::Error),
    /// The kernel does not tell of its interfaces.
    #[error(transparent)]
    Interfaces(#[from] interfaces::Error),
    /// A descriptor cannot be waited for.
    #[error("cannot wait for {what}: {cause}")]
    Wait {
        /// What for.
        what: &'static str,
        /// Why not.
        cause: io::Error,
    },
    /// Not one interface could be attached to; each failure has been logged.
    #[error("none of the {0} selected interfaces could be attached to")]
    NothingAttached(usize),
}

/// What the loop listens to.
pub struct Inputs {
    /// What operators ask.
    pub requests: mpsc::Receiver<Request>,
    /// Value of the annotation `tap53.io/capture` of this node.
    pub annotation: watch::Receiver<Option<String>>,
    /// What signals say.
    pub orders: mpsc::Receiver<Order>,
}

/// What a signal says.
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
    switching: Switching,
    owners: Directory,
    vitals: Vitals,
    runs: Runs,
    annotation: AnnotationStatus,
    links: AsyncFd<Watch>,
    file_watch: Option<AsyncFd<FileWatch>>,
    /// When to read the file, where something has happened to it.
    reload_at: Option<Instant>,
    log: Log,
    started_at: Instant,
    ticks: u32,
}

impl Agent {
    /// Starts the pipeline and attaches to the interfaces that are wanted. To be called within a
    /// tokio runtime. `stop` is notified when a worker or a sink has ended for good.
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
        let links = wait_for("changes of interfaces", Watch::open()?)?;
        let file_watch = file.watch().map(|watch| wait_for("the file", watch)).transpose()?;
        let heartbeat_timeout = file.config().telemetry.heartbeat_timeout;
        let mut agent = Self {
            vitals: Vitals::new(pipeline.liveness(heartbeat_timeout)),
            runs: Runs::open(&file.config().state),
            switching: Switching::new(Wanted::new(file.config().interfaces.clone())),
            pipeline,
            file,
            owners: owners.clone(),
            annotation: AnnotationStatus::default(),
            links,
            file_watch,
            reload_at: None,
            log,
            started_at: Instant::now(),
            ticks: 0,
        };
        // After the subscription, so that nothing comes in between.
        agent.switching.note_all(agent.pipeline.capture(), interfaces::list()?);
        let before = agent.runs.before_attaching();
        agent.reconcile();
        match agent.switching.counts() {
            (_, 0) => agent.say_that_nothing_matches(),
            (0, wanted) => return Err(Error::NothingAttached(wanted)),
            _ => {}
        }
        agent.runs.attached(&before, &agent.switching.captured());
        Ok(agent)
    }

    /// Interfaces that are attached to.
    #[must_use]
    pub fn attached(&self) -> usize {
        self.switching.counts().0
    }

    /// The pipeline.
    pub const fn pipeline(&mut self) -> &mut Pipeline {
        &mut self.pipeline
    }

    /// The workers' heartbeats.
    #[must_use]
    pub fn liveness(&self) -> Liveness {
        self.vitals.liveness().clone()
    }

    /// Runs until it is ordered to stop, or `stop` is notified.
    ///
    /// # Errors
    /// When the kernel's counters cannot be read.
    pub async fn run(&mut self, mut inputs: Inputs, stop: &Notify) -> Result<(), Error> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // A value that was there before we listened.
        let annotation = inputs.annotation.borrow_and_update().clone();
        self.annotate(annotation);
        let (mut requests, mut annotated, mut ordered) = (true, true, true);
        loop {
            let due = self.next_due();
            tokio::select! {
                () = stop.notified() => break,
                order = inputs.orders.recv(), if ordered => match order {
                    Some(Order::Stop) => break,
                    // Whoever started it by hand without a file has closed the terminal.
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
                () = readable(&self.links) => self.note_interfaces(),
                () = readable_if(self.file_watch.as_ref()) => {
                    if let Some(watch) = &self.file_watch {
                        watch.get_ref().clear();
                    }
                    self.reload_at.get_or_insert(Instant::now() + SETTLING);
                }
                () = sleep_until(due) => self.do_what_is_due(Instant::now()),
                _ = ticks.tick() => self.tick(Instant::now())?,
            }
        }
        Ok(())
    }

    /// The ledger of the running agent.
    ///
    /// # Errors
    /// When the kernel's counters cannot be read.
    pub fn ledger(&self) -> Result<Ledger, Error> {
        Ok(self.pipeline.ledger()?.after(self.runs.told()))
    }

    /// Stops capture, delivers what was captured and draws up the final ledger.
    ///
    /// # Errors
    /// When the kernel's counters cannot be read.
    pub fn shutdown(mut self) -> Result<Ledger, Error> {
        self.log.end_limit();
        let flush_timeout = self.file.config().shutdown.flush_timeout;
        self.write_down(Runs::stopping);
        self.pipeline.detach()?;
        self.runs.detached();
        let ledger = self.pipeline.shutdown(flush_timeout)?;
        self.runs.ended(Standing::from(&ledger));
        Ok(ledger.after(self.runs.told()))
    }

    /// Writes down where this run is, for the next one.
    fn write_down(
        &mut self,
        write: impl FnOnce(&mut Runs, &[(u32, Directions)], &dyn Fn() -> Standing),
    ) {
        let Self { runs, pipeline, switching, .. } = self;
        // One look: a sum that does not balance at this moment is near enough.
        let standing =
            || pipeline.snapshot().as_ref().map_or_else(|_| Standing::default(), Into::into);
        write(runs, &switching.captured(), &standing);
    }

    fn reconcile(&mut self) -> usize {
        self.switching.reconcile(self.pipeline.capture(), Instant::now())
    }

    /// Takes in what netlink tells.
    fn note_interfaces(&mut self) {
        let capture = self.pipeline.capture();
        let links = self.links.get_mut();
        match links.changes() {
            Ok(changes) if changes.contains(&Change::Lost) => {
                // What is still on its way is older than the list.
                while links.changes().is_ok_and(|changes| !changes.is_empty()) {}
                tracing::warn!("interfaces change faster than they are followed: listing them");
                match interfaces::list() {
                    Ok(all) => self.switching.note_all(capture, all),
                    Err(error) => tracing::error!(%error, "cannot list the interfaces"),
                }
            }
            Ok(changes) => self.switching.note(capture, changes),
            Err(error) => tracing::error!(%error, "cannot follow the interfaces"),
        }
        self.reconcile();
    }

    fn reload(&mut self) {
        self.reload_at = None;
        let changed = self.file.reload();
        let config = self.file.config();
        if changed.log_level {
            self.log.set_level(config.log.level);
        }
        if changed.rules {
            self.pipeline.replace_rules(Rules::new(&config.filter, &config.privacy));
        }
        if changed.interfaces {
            self.switching.wanted.set_file(config.interfaces.clone());
            self.reconcile();
            if self.switching.counts().1 == 0 {
                self.say_that_nothing_matches();
            }
        }
    }

    fn annotate(&mut self, value: Option<String>) {
        match self.switching.wanted.set_annotation(value.as_deref()) {
            Ok(()) => {
                self.annotation.error = None;
                if self.annotation.in_force != value {
                    let text = value.as_deref().unwrap_or_default();
                    self.annotation.in_force.clone_from(&value);
                    let changed = self.reconcile();
                    tracing::info!(target: AUDIT, value = text, changed, "audit: annotation of the node");
                }
            }
            Err(error) => {
                tracing::error!("annotation of the node changes nothing: {error}");
                self.annotation.error = Some(error.to_string());
            }
        }
    }

    fn answer(&mut self, request: Request) -> Result<(), Error> {
        // Who asked may have gone; the change stays.
        match request {
            Request::Switch { switch, requester, answer } => {
                let _ = answer.send(self.switch(&switch, &requester));
            }
            // Who hung up costs nothing more.
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
        let pattern = switch.pattern.as_str();
        let outcome = self.try_switch(switch, now);
        let lasts_s = switch.lasts.map(|lasts| lasts.as_secs());
        let Requester { uid, pid, process } = requester;
        let to = describe(switch.to);
        match &outcome {
            Ok(changed) => {
                tracing::info!(
                    target: AUDIT,
                    uid, pid, process, pattern, lasts_s, changed,
                    "audit: {to}"
                );
            }
            Err(refusal) => {
                tracing::warn!(
                    target: AUDIT,
                    uid, pid, process, pattern, lasts_s,
                    "audit: {to}, refused: {refusal}"
                );
            }
        }
        outcome?;
        let is_meant = |status: &InterfaceStatus| switch.pattern.matches(&status.name);
        Ok(self.switching.status(self.pipeline.capture(), now, is_meant))
    }

    fn try_switch(&mut self, switch: &Switch, now: Instant) -> Result<usize, Refusal> {
        let is_meant = |name: &str| switch.pattern.matches(name);
        let none = || Refusal::NoSuchInterface(switch.pattern.as_str().to_owned());
        let fits = self.switching.names().any(is_meant);
        if !fits && switch.to != SwitchTo::Reset {
            return Err(none());
        }
        let before = self.switching.wanted.clone();
        let different = self
            .switching
            .wanted
            .switch(switch, now)
            .map_err(|error| Refusal::TooMany(error.to_string()))?;
        if !fits && !different {
            return Err(none());
        }
        self.switching.try_again(now, is_meant);
        let changed = self.reconcile();
        if let SwitchTo::On(_) = switch.to
            && let Some(why) = self.switching.refusals(is_meant)
        {
            self.switching.wanted = before;
            self.reconcile();
            return Err(Refusal::NotAttached(why));
        }
        Ok(changed)
    }

    fn status(&self) -> Result<Status, Error> {
        let capture = self.pipeline.capture();
        let now = Instant::now();
        let interfaces = self.switching.status(capture, now, switching::is_of_interest);
        Ok(Status {
            version: env!("CARGO_PKG_VERSION"),
            node: self.file.config().node.clone(),
            uptime_s: now.saturating_duration_since(self.started_at).as_secs(),
            config: self.file.status().clone(),
            annotation: self.annotation.clone(),
            enrichment: self.owners.status(),
            health: self.vitals.health(&interfaces),
            interfaces,
            ledger: self.ledger()?,
        })
    }

    /// When something is due other than by the clock's tick.
    fn next_due(&self) -> Option<Instant> {
        let dues =
            [self.reload_at, self.switching.wanted.next_expiry(), self.switching.next_retry()];
        dues.into_iter().flatten().min()
    }

    fn do_what_is_due(&mut self, now: Instant) {
        if self.reload_at.is_some_and(|at| at <= now) {
            self.reload();
        }
        for pattern in self.switching.wanted.expire(now) {
            tracing::info!(target: AUDIT, pattern = pattern.as_str(), "audit: the time of a switch is over");
        }
        self.reconcile();
    }

    fn tick(&mut self, now: Instant) -> Result<(), Error> {
        if !self.pipeline.capture().is_running() {
            // Its links went with it: nothing is captured any more.
            return Err(pipeline::Error::from(capture::Error::ThreadEnded).into());
        }
        self.pipeline.tick(now);
        self.vitals.look(self.pipeline.sink_counts());
        self.log.tell_suppressed();
        self.write_down(Runs::beat);
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(TICKS_PER_LOOK) {
            self.switching.drop_lost_hooks(self.pipeline.capture());
            self.reconcile();
        }
        Ok(())
    }

    fn say_that_nothing_matches(&self) {
        let include = &self.switching.wanted.file().include;
        let patterns: Vec<&str> = include.iter().map(|pattern| pattern.as_str()).collect();
        let present: Vec<&str> = self.switching.names().collect();
        tracing::warn!(
            "nothing is captured: no interface matches {} (after exclusion); present are {}. One \
             that appears later will be captured from",
            patterns.join(", "),
            present.join(", ")
        );
    }
}

fn describe(to: SwitchTo) -> String {
    match to {
        SwitchTo::On(directions) => format!("enable, {directions:?}").to_lowercase(),
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

/// Waits until there is something to read. Whoever is told reads all, or is told again at the next
/// event: the kernel tells of each.
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
