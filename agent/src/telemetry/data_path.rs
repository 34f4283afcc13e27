//! What the data path shows of itself while it runs, beside the ledger.

use std::sync::Arc;

use tap53_base::vitals::WorkerTimings;
use tap53_capture::ring::Depth;
use tap53_ledger::{Published, WorkerCounts};
use tap53_sinks::Named;

use crate::worker::Waiting;

/// What the data path shows of itself while it runs, beside the ledger.
#[derive(Clone)]
pub struct DataPath {
    pub(crate) timings: Arc<WorkerTimings>,
    pub(crate) workers: Vec<WorkerView>,
    pub(crate) sinks: Vec<Named>,
}

/// What a worker shows.
#[derive(Clone)]
pub(crate) struct WorkerView {
    pub(crate) number: u16,
    pub(crate) counts: Published<WorkerCounts>,
    pub(crate) ring: Option<Depth>,
    pub(crate) datagrams_waiting: Waiting,
}
