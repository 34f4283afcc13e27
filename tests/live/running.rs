//! The agent inside the test's process, in a namespace, with its requests and its annotation at hand.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use tap53::{
    agent::{Agent, ConfigFile, Inputs, Order},
    config::{Directions, LogLevel, Overrides},
    control::{Refusal, Request, Requester, Status},
    telemetry::Log,
};
use tap53_attribution::Directory;
use tap53_capture::{
    capture::CaptureThread,
    interfaces::{InterfaceStatus, Selector, Switch, SwitchTo},
};
use tap53_harness::{namespace::Namespace, wait};
use tokio::sync::{Notify, mpsc, oneshot, watch};

const DEADLINE: Duration = Duration::from_secs(60);

/// Off, with the programs left where they are.
pub(crate) const OFF: SwitchTo = SwitchTo::Off { detach: false };
/// Off, with the programs taken away.
pub(crate) const DETACHED: SwitchTo = SwitchTo::Off { detach: true };
/// On in both directions.
pub(crate) const ON: SwitchTo = SwitchTo::On(Directions::Both);

/// A running agent; dropping it stops it.
pub(crate) struct Running {
    requests: mpsc::Sender<Request>,
    orders: mpsc::Sender<Order>,
    annotation: watch::Sender<Option<String>>,
    /// Levels that the log was set to.
    pub(crate) log_levels: Arc<Mutex<Vec<LogLevel>>>,
    thread: Option<JoinHandle<Result<Value>>>,
}

impl Running {
    /// Starts the agent with the configuration file at `path` and waits until it runs.
    pub(crate) fn start(namespace: &Namespace, path: &Path) -> Result<Self> {
        let (to_requests, requests) = mpsc::channel(16);
        let (to_orders, orders) = mpsc::channel(16);
        let (to_annotation, annotation) = watch::channel(None);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let log_levels = Arc::new(Mutex::new(Vec::new()));
        let levels = log_levels.clone();
        let path = path.to_owned();
        let body = move || -> Result<Value> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async move {
                let stop = Arc::new(Notify::new());
                let file = ConfigFile::load(Some(&path), Overrides::default())?;
                let log = Log::external(move |level| levels.lock().expect("no panic").push(level));
                let mut agent =
                    Agent::start(file, CaptureThread::start()?, &Directory::default(), log, &stop)?;
                ready.send(())?;
                agent.run(Inputs { requests, annotation, orders }, &stop).await?;
                Ok(serde_json::to_value(agent.shutdown()?)?)
            })
        };
        // Threads are in the namespace of the thread that starts them.
        let thread = namespace.enter(|| Ok(thread::spawn(body)))?;
        let running = Self {
            requests: to_requests,
            orders: to_orders,
            annotation: to_annotation,
            log_levels,
            thread: Some(thread),
        };
        match is_ready.recv_timeout(DEADLINE) {
            Ok(()) => Ok(running),
            Err(_) => Err(running.stop().err().unwrap_or_else(|| anyhow!("it does not start"))),
        }
    }

    /// Switches what fits `pattern`.
    pub(crate) fn switch(
        &self,
        pattern: &str,
        to: SwitchTo,
    ) -> Result<Result<Vec<InterfaceStatus>, Refusal>> {
        self.switch_until(pattern, to, None)
    }

    /// Switches what fits `pattern`, for some time.
    pub(crate) fn switch_for(
        &self,
        pattern: &str,
        to: SwitchTo,
        lasts: Duration,
    ) -> Result<Result<Vec<InterfaceStatus>, Refusal>> {
        self.switch_until(pattern, to, Some(lasts))
    }

    fn switch_until(
        &self,
        pattern: &str,
        to: SwitchTo,
        lasts: Option<Duration>,
    ) -> Result<Result<Vec<InterfaceStatus>, Refusal>> {
        let (answer, answered) = oneshot::channel();
        let selector = Selector::parse(pattern).map_err(anyhow::Error::msg)?;
        let switch = Switch { selector, to, lasts };
        let requester = Requester { uid: 0, pid: 1, process: None };
        self.requests.blocking_send(Request::Switch { switch, requester, answer })?;
        Ok(answered.blocking_recv()?)
    }

    /// The state of everything.
    pub(crate) fn status(&self) -> Result<Status> {
        let (answer, answered) = oneshot::channel();
        self.requests.blocking_send(Request::Status { answer })?;
        Ok(answered.blocking_recv()?)
    }

    /// Returns the state of one interface; `None` if nothing selects it.
    pub(crate) fn interface(&self, name: &str) -> Result<Option<InterfaceStatus>> {
        Ok(self.status()?.interfaces.into_iter().find(|interface| interface.name == name))
    }

    /// Sets the annotation of the node.
    pub(crate) fn annotate(&self, value: Option<&str>) {
        self.annotation.send_replace(value.map(str::to_owned));
    }

    /// Reloads the configuration, as SIGHUP does.
    pub(crate) fn reload(&self) -> Result<()> {
        Ok(self.orders.blocking_send(Order::Reload)?)
    }

    /// Waits until the state is as `look` wants it.
    pub(crate) fn wait_until<T>(
        &self,
        what: &str,
        mut look: impl FnMut(&Status) -> Option<T>,
    ) -> Result<T> {
        let found = wait::until(what, DEADLINE, || Ok(look(&self.status()?)));
        found.with_context(|| match self.status() {
            Ok(status) => format!("{:#?}", (status.config, status.annotation, status.interfaces)),
            Err(error) => error.to_string(),
        })
    }

    /// Stops it and returns the final ledger.
    pub(crate) fn stop(mut self) -> Result<Value> {
        self.end()
    }

    fn end(&mut self) -> Result<Value> {
        let Some(thread) = self.thread.take() else { return Ok(Value::Null) };
        // It may have ended by itself.
        let _ = self.orders.blocking_send(Order::Stop);
        thread.join().map_err(|_| anyhow!("the agent panicked"))?
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// Returns the time that `work` takes, and its result.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let began = Instant::now();
    let value = work();
    (began.elapsed(), value)
}
