//! Reads the metrics of a running agent, for a scrape and for the export.

use std::sync::Arc;

use jiff::Timestamp;
use tap53_attribution::Directory;
use tap53_base::{clock::monotonic_ns, vitals::Liveness};
use tap53_insight::DnsMetrics;
use tap53_ledger::Published;
use tap53_otlp::SharedStatus;
use tokio::sync::{mpsc, oneshot};

use super::{
    config::PodInterfaces, data_path::DataPath, families::Reading, log::Log, process::Process,
    server::Counts as PortCounts,
};
use crate::{
    control::{self, Status},
    tail::Tails,
};

/// Sources of the probes and metrics.
#[derive(Clone)]
pub struct Sources {
    /// The workers' heartbeats.
    pub liveness: Liveness,
    /// Channel to the run loop.
    pub requests: mpsc::Sender<control::Request>,
    /// Counts of the control socket.
    pub control: Published<control::Counts>,
    /// Followers of the records.
    pub tails: Tails,
    /// Owners of addresses.
    pub owners: Directory,
    /// View of the data path.
    pub path: DataPath,
    /// The log.
    pub log: Log,
    /// When the agent started.
    pub started_at: Timestamp,
    /// State of the export of metrics, if there is one.
    pub export: Option<SharedStatus>,
    /// Series for interfaces of pods.
    pub pod_interfaces: PodInterfaces,
}

/// Reads all metrics. Cheap to clone.
#[derive(Clone)]
pub struct Reader(Arc<Inner>);

struct Inner {
    sources: Sources,
    port: Published<PortCounts>,
}

impl Reader {
    /// Creates a reader of these sources.
    #[must_use]
    pub fn new(sources: Sources) -> Self {
        Self(Arc::new(Inner { sources, port: Published::default() }))
    }

    pub(super) fn sources(&self) -> &Sources {
        &self.0.sources
    }

    /// Returns the counts of the telemetry port.
    pub(super) fn port(&self) -> &Published<PortCounts> {
        &self.0.port
    }

    /// Requests the agent's status from the run loop; `None` if that has ended.
    pub(super) async fn status(&self) -> Option<Status> {
        let (answer, answered) = oneshot::channel();
        self.0.sources.requests.send(control::Request::Status { answer }).await.ok()?;
        answered.await.ok()
    }

    /// Calls `look` with all metrics as of `status`.
    pub(super) fn read<R>(&self, status: &Status, look: impl FnOnce(&Reading<'_>) -> R) -> R {
        let Sources { liveness, control, tails, owners, path, log, started_at, .. } =
            &self.0.sources;
        let workers = path.workers.iter().map(|worker| worker.counts.read());
        look(&Reading {
            status,
            pod_interfaces: self.0.sources.pod_interfaces,
            heartbeats: liveness.heartbeats(),
            now_ns: monotonic_ns(),
            control: control.read(),
            telemetry: self.0.port.read(),
            followers: tails.followers(),
            follower_lines_lost: tails.lines_lost(),
            follower_bytes: tails.bytes_waiting(),
            enrichment: &owners.status(),
            process: Process::read(started_at.as_duration().as_secs_f64()),
            path,
            policy: &path.rules.read().privacy,
            dns_top: path.dns_metrics.as_ref().map(DnsMetrics::read_top).unwrap_or_default(),
            log_lines: log.lines(),
            workers: workers.collect(),
            sink_states: path.sinks.iter().map(|sink| sink.sink.state()).collect(),
        })
    }
}
