//! Counts, depths and timings of the data path that telemetry reads beside the ledger.

use std::sync::Arc;

use tap53_base::vitals::WorkerTimings;
use tap53_capture::ring::Depth;
use tap53_ledger::{Published, WorkerCounts};
use tap53_sinks::Named;

use crate::worker::Waiting;

/// Counts, depths and timings of the data path that telemetry reads beside the ledger.
#[derive(Clone)]
pub struct DataPath {
    pub(crate) timings: Arc<WorkerTimings>,
    pub(crate) workers: Vec<WorkerView>,
    pub(crate) sinks: Vec<Named>,
}

/// A worker, as telemetry reads it.
#[derive(Clone)]
pub(crate) struct WorkerView {
    pub(crate) number: u16,
    pub(crate) counts: Published<WorkerCounts>,
    pub(crate) ring: Option<Depth>,
    pub(crate) datagrams_waiting: Waiting,
}
