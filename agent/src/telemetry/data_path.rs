//! The counts, depths and timings of the data path that telemetry reads in addition to the ledger.

use std::sync::Arc;

use tap53_base::vitals::WorkerTimings;
use tap53_capture::ring::Depth;
use tap53_insight::DnsMetrics;
use tap53_ledger::{Published, WorkerCounts};
use tap53_signals::SharedSignals;
use tap53_sinks::Named;

use crate::worker::{RulesInForce, Waiting};

/// A view of the data path's counts, depths and timings.
#[derive(Clone)]
pub struct DataPath {
    pub(crate) timings: Arc<WorkerTimings>,
    pub(crate) workers: Vec<WorkerView>,
    pub(crate) sinks: Vec<Named>,
    /// `None` unless the metrics of the DNS are enabled.
    pub(crate) dns_metrics: Option<DnsMetrics>,
    /// `None` unless the agent looks for signals.
    pub(crate) signals: Option<SharedSignals>,
    pub(crate) rules: Arc<RulesInForce>,
}

/// A worker, as telemetry reads it.
#[derive(Clone)]
pub(crate) struct WorkerView {
    pub(crate) number: u16,
    pub(crate) counts: Published<WorkerCounts>,
    pub(crate) ring: Option<Depth>,
    pub(crate) datagrams_waiting: Waiting,
}
