//! `tap53 run`.

use std::{
    fs::Permissions,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::sys::signal::{
    SigSet,
    Signal::{SIGINT, SIGTERM, SIGUSR1},
};
use tap53::{
    capture::KernelLog,
    config::{Config, LogLevel},
    enrich::Kubernetes,
    interfaces::{self, Interface},
    ledger::Ledger,
    pipeline::Pipeline,
};
use tap53_ebpf::settings::Direction;
use tempfile::NamedTempFile;
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
    task::JoinHandle,
    time::MissedTickBehavior,
};

use crate::exit;

/// How often sinks are asked whether something is due.
const TICK: Duration = Duration::from_secs(1);

pub(crate) fn run(arguments: &super::Run) -> anyhow::Result<ExitCode> {
    let config = arguments.selection.load()?;
    start_log(config.log.level)?;
    let selected = select(&config)?;
    let ledger = arguments.ledger.as_deref().map(LedgerFile::create).transpose()?;
    // The workers are threads; the runtime only waits for signals, time and the kernel's log.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    runtime.block_on(capture(&config, &selected, ledger))
}

async fn capture(
    config: &Config,
    selected: &[Interface],
    ledger_file: Option<LedgerFile>,
) -> anyhow::Result<ExitCode> {
    // Before anything attaches: a signal that comes early must still detach.
    let mut signals = Signals::new()?;
    let stop = Arc::new(Notify::new());
    let kubernetes = Kubernetes::start_if_enabled(&config.kubernetes, &config.node)
        .context("cannot start the Kubernetes watches")?;
    let owners = kubernetes.as_ref().map_or_else(Default::default, Kubernetes::directory);
    let mut pipeline = Pipeline::start(config, selected, &owners, &stop)?;
    for attached in pipeline.attachments() {
        tracing::info!(
            interface = attached.interface.name,
            ifindex = attached.interface.ifindex,
            ingress = attached.describe(Direction::Ingress),
            egress = attached.describe(Direction::Egress),
            why = attached.why,
            "capturing"
        );
    }
    let kernel_log = pipeline.take_kernel_log().map(follow).transpose()?;
    tracing::info!(interfaces = pipeline.attachments().count(), "ready");

    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            () = stop.notified() => break,
            _ = signals.report.recv() => report(&pipeline.ledger()?),
            _ = ticks.tick() => pipeline.tick(Instant::now()),
        }
    }
    tracing::info!("stopping");
    if let Some(task) = kernel_log {
        task.abort();
    }
    let ledger = pipeline.shutdown(config.shutdown.flush_timeout)?;
    report(&ledger);
    if let Some(file) = ledger_file {
        file.write(&ledger)?;
    }
    let complete = ledger.balanced() && !ledger.lost_records();
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::from(exit::LOSS) })
}

/// Writes the kernel programs' messages to the log as they come.
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
        // A parent that blocks signals hands its mask down; nobody could then stop this process.
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

/// The interfaces that the patterns select.
fn select(config: &Config) -> anyhow::Result<Vec<Interface>> {
    let present = interfaces::list()?;
    let (selected, others): (Vec<_>, Vec<_>) = present
        .into_iter()
        .partition(|interface| interfaces::selects(&config.interfaces, &interface.name));
    if selected.is_empty() {
        let patterns: Vec<&str> =
            config.interfaces.include.iter().map(|pattern| pattern.as_str()).collect();
        let names: Vec<&str> = others.iter().map(|interface| interface.name.as_str()).collect();
        bail!(
            "no interface matches {} (after exclusion); present are {}",
            patterns.join(", "),
            names.join(", ")
        );
    }
    Ok(selected)
}

pub(super) fn start_log(level: LogLevel) -> anyhow::Result<()> {
    use std::io::IsTerminal;
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::from(level))
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        // It would panic where standard error has lost its reader.
        .log_internal_errors(false)
        .finish();
    tracing::subscriber::set_global_default(subscriber).context("cannot start the log")?;
    // aya and librdkafka's wrapper speak to the `log` crate.
    tracing_log::LogTracer::builder()
        // It tells of each relocation and instruction.
        .ignore_crate("aya_obj")
        .init()
        .context("cannot take over the log of libraries")
}

/// The ledger for people. A reader of standard error that went away is no reason to fail.
pub(super) fn report(ledger: &Ledger) {
    let _ = write!(io::stderr(), "{ledger}");
}

/// Where the final ledger goes. Tried at the start, so that a mistake shows then; written whole or
/// not at all, beside its final name until it is.
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
