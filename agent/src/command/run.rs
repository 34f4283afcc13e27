//! `tap53 run`.

use std::{
    fs::Permissions,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, bail};
use jiff::Timestamp;
use nix::sys::signal::{
    SigSet,
    Signal::{SIGHUP, SIGINT, SIGTERM, SIGUSR1},
};
use tap53::{
    agent::{self, Agent, ConfigFile, Inputs, Order},
    config::{Config, SinkConfig},
    control, pipeline,
    tail::Known,
    telemetry::{self, Log, Origin, Reader, Sources, report},
    version,
};
use tap53_attribution::{Containers, Directory, Kubernetes};
use tap53_base::privileges;
use tap53_capture::capture::{CaptureThread, KernelLog, privilege::lift_limit_of_locked_memory};
use tap53_ledger::Ledger;
use tap53_sinks::{self as sink, OpenError};
use tap53_spool as spool;
use tempfile::NamedTempFile;
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
};

use crate::exit;

pub(crate) fn run(arguments: &super::Run) -> anyhow::Result<ExitCode> {
    let file = arguments.open()?;
    let log = Log::start(&file.config().log, &file.config().node)?;
    log_start(file.config(), arguments.selection.file());
    // In this order: a thread inherits the privileges of the thread that starts it, and only the
    // capture thread keeps any.
    lift_limit_of_locked_memory();
    let dropping = privileges::begin(&file.config().privileges)?;
    let capture = CaptureThread::start()?;
    dropping.finish()?;
    // Created without privileges, as it will be written at the end.
    let ledger =
        arguments.ledger.as_deref().map(LedgerFile::create).transpose().map_err(explain)?;
    // The workers are threads; the runtime only waits.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    runtime.block_on(run_agent(file, capture, log, ledger)).map_err(explain)
}

/// Logs what starts: the first line of the log.
fn log_start(config: &Config, file: Option<&Path>) {
    let file = file.map_or_else(|| "none".to_owned(), |file| file.display().to_string());
    let sinks: Vec<_> = config.sinks.iter().map(SinkConfig::name).collect();
    tracing::info!(
        event = "starting",
        version = version::VERSION,
        revision = version::REVISION,
        schema_version = version::SCHEMA_VERSION,
        config = file,
        sinks = sinks.join(","),
        "tap53 starting"
    );
}

/// Explains why root cannot write to a file that another user owns.
fn explain(error: anyhow::Error) -> anyhow::Error {
    let is_denial = |cause: &io::Error| cause.kind() == io::ErrorKind::PermissionDenied;
    let at_a_sink = match error.downcast_ref() {
        Some(agent::Error::Pipeline(pipeline::Error::Sink(sink::Error {
            cause: OpenError::File { cause, .. } | OpenError::Spool(spool::Error::Io { cause, .. }),
            ..
        }))) => is_denial(cause),
        _ => false,
    };
    let elsewhere = error.chain().any(|cause| cause.downcast_ref().is_some_and(is_denial));
    if (at_a_sink || elsewhere) && privileges::is_root_without_privileges() {
        return error.context(
            "this process has dropped root's privilege to override file permissions, and can only \
             write to files that root owns: see privileges.user and privileges.keep",
        );
    }
    error
}

async fn run_agent(
    file: ConfigFile,
    capture: CaptureThread,
    log: Log,
    ledger_file: Option<LedgerFile>,
) -> anyhow::Result<ExitCode> {
    // Before anything attaches: an early signal must detach as well.
    let orders = orders()?;
    let (started_at, stop) = (Timestamp::now(), Arc::new(Notify::new()));
    let kubernetes = Kubernetes::start_if_enabled(&file.config().kubernetes, &file.config().node)
        .context("cannot start the Kubernetes watches")?;
    let containers = Containers::start(&file.config().containers, &file.config().node)
        .context("cannot follow the cgroups of containers")?;
    let owners = kubernetes.as_ref().map_or_else(Directory::default, Kubernetes::directory);
    let owners = owners.with_containers(containers.directory());
    let control_config = file.config().control.clone();
    let config = file.config().clone();
    let known = Known {
        pods: file.config().kubernetes.enabled,
        labels: file.config().kubernetes.labels.clone(),
        signals: file.config().signals.enabled,
    };
    let mut agent = Agent::start(file, capture, &owners, log.clone(), &stop)?;
    containers.log_unavailable();
    let kernel_log = agent.pipeline().take_kernel_log().map(follow).transpose()?;
    let (to, requests) = mpsc::channel(control::QUEUED);
    let (telemetry_requests, liveness) = (to.clone(), agent.liveness());
    let pipeline = agent.pipeline();
    let tails = pipeline.tails();
    let control = control::Server::start(
        &control_config,
        pipeline.rules(),
        to,
        (pipeline.tails(), known),
        liveness.clone(),
    )
    .context("cannot start the thread of the control socket")?;
    let sources = Sources {
        liveness,
        requests: telemetry_requests,
        control: control.published(),
        tails,
        owners,
        path: pipeline.path(),
        log,
        started_at,
        export: agent.export(),
        pod_interfaces: config.telemetry.pod_interfaces,
    };
    let reader = Reader::new(sources);
    let telemetry = telemetry::Server::start(&config.telemetry, reader.clone())
        .context("cannot start the thread of the telemetry port")?;
    let run = agent.pipeline().run_id();
    let origin = Origin { run: &run, node: &config.node, is_kubernetes: config.kubernetes.enabled };
    let export = telemetry::Export::start(config.telemetry.otlp.as_ref(), origin, &reader)
        .context("cannot start the thread that exports metrics")?;
    // Without Kubernetes the sender is dropped at once, which ends the wait for it.
    let annotation =
        kubernetes.as_ref().map_or_else(|| watch::channel(None).1, Kubernetes::capture_annotation);
    tracing::info!(interfaces = agent.attached(), event = "ready", "ready");

    agent.run(Inputs { requests, annotation, orders }, &stop).await?;

    tracing::info!(event = "stopping", "stopping");
    if let Some(task) = kernel_log {
        task.abort();
    }
    let deadline = Instant::now() + config.shutdown.flush_timeout;
    let status = agent.status();
    let ledger = agent.shutdown()?;
    // After the last records.
    control.stop();
    telemetry.stop();
    report(&ledger);
    if let Some(file) = ledger_file {
        file.write(&ledger)?;
    }
    // Last, since a collector that does not answer must not delay anything else.
    if let (Some(export), Ok(status)) = (export, status) {
        export.finish(status, &ledger, deadline);
    }
    let complete = ledger.balanced() && !ledger.lost_records();
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::from(exit::LOSS) })
}

/// Handles signals from now on, and returns them as orders.
fn orders() -> anyhow::Result<mpsc::Receiver<Order>> {
    let mut signals = Signals::new()?;
    let ours: SigSet = [SIGHUP].into_iter().collect();
    ours.thread_unblock().context("cannot unblock signals")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for signals")?;
    let (to, orders) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let order = tokio::select! {
                _ = signals.terminate.recv() => Order::Stop,
                _ = signals.interrupt.recv() => Order::Stop,
                _ = signals.report.recv() => Order::Report,
                _ = hangup.recv() => Order::Reload,
            };
            if to.send(order).await.is_err() {
                break;
            }
        }
    });
    Ok(orders)
}

/// Writes the messages of the kernel programs to the log as they arrive.
fn follow(log: KernelLog) -> anyhow::Result<JoinHandle<()>> {
    // SAFETY: the descriptor is the ring's, which `log` owns and keeps for as long as it lives.
    let registered = unsafe { AsyncFd::register_with_interest(log, Interest::READABLE) };
    let mut log =
        registered.map_err(io::Error::from).context("cannot follow the kernel programs' log")?;
    Ok(tokio::spawn(async move {
        while let Ok(mut ready) = log.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }))
}

pub(super) struct Signals {
    pub(super) terminate: Signal,
    pub(super) interrupt: Signal,
    pub(super) report: Signal,
}

impl Signals {
    pub(super) fn new() -> anyhow::Result<Self> {
        // A child inherits the mask of a parent that blocks signals, and could not be stopped then.
        let ours: SigSet = [SIGTERM, SIGINT, SIGUSR1].into_iter().collect();
        ours.thread_unblock().context("cannot unblock signals")?;
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            report: listen(SignalKind::user_defined1())?,
        })
    }
}

/// The file of the final ledger. It is tried at the start, so that an error shows early, and replaced
/// by rename, as a whole or not at all.
pub(super) struct LedgerFile(PathBuf);

impl LedgerFile {
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        if path.is_dir() {
            bail!("cannot write the ledger to {}: it is a directory", path.display());
        }
        let file = Self(path.to_owned());
        // Dropped at once, which removes it.
        file.partial()?;
        Ok(file)
    }

    fn partial(&self) -> anyhow::Result<NamedTempFile> {
        let directory = match self.0.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        tempfile::Builder::new()
            .prefix(".tap53-ledger-")
            .permissions(Permissions::from_mode(0o644))
            .tempfile_in(directory)
            .with_context(|| format!("cannot write the ledger to {}", self.0.display()))
    }

    pub(super) fn write(&self, ledger: &Ledger) -> anyhow::Result<()> {
        let json = serde_json::to_vec_pretty(ledger).context("cannot write the ledger as JSON")?;
        let mut partial = self.partial()?;
        partial
            .write_all(&json)
            .and_then(|()| partial.persist(&self.0).map_err(|error| error.error))
            .with_context(|| format!("cannot write the ledger to {}", self.0.display()))?;
        Ok(())
    }
}
