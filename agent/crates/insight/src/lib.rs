//! Metrics of the DNS itself: transactions by client workload, server, query type, response code, transport
//! and outcome; latencies; retries, truncations, conflicts; top names and clients.
//!
//! ```text
//!  worker 0 ─ record ─▶ DnsCounter ─ publish, with the worker's counts ─▶ cell 0 ─┐
//!  worker 1 ─ record ─▶ DnsCounter ─ publish, with the worker's counts ─▶ cell 1 ─┴▶ Reading ─▶ /metrics
//!                           └─ first record of a series ─▶ Registry: caps, labels
//! ```
//!
//! - **The series add up to the ledger.** A worker publishes its series under the lock of its counts, and
//!   [`DnsMetrics::read`] is called under the locks of all workers, so the sum over all series is the number
//!   of records that the ledger of the same reading has, and of transactions that `record.keep` left out.
//! - **A worker takes no lock for a record.** It counts in its own table: one look-up. The registry, which
//!   workers share, is locked only for the first record of a series; once it is full, it is read without a
//!   lock.
//! - **Everything is bounded.** The registry admits a fixed number of series, pairs and servers for the
//!   whole process, first come, first served, and never removes one, so counters only grow. Records that
//!   fit into no series count in the one whose labels are all [`OTHER`].
//! - **The privacy rules apply at the reading.** Addresses and names are stored as they are, and shown by
//!   the rules in force, so that a stricter rule also hides what was counted before it.

#![forbid(unsafe_code)]

mod admission;
mod cell;
pub mod config;
mod counter;
mod dirty;
mod key;
mod latency;
mod pair;
mod reading;
mod registry;
mod top;

use std::sync::Arc;

use parking_lot::Mutex;

use cell::{SeriesCell, TopCell};
use config::DnsMetricsConfig;
use registry::Registry;

pub use counter::DnsCounter;
pub use key::OTHER;
pub use latency::{BOUNDS_NS, Latencies};
pub use pair::PairCounts;
pub use reading::{Reading, TopReading};
pub use registry::{Usage, WorkloadKind};
pub use top::{Counter, SpaceSaving};

/// The metrics of all workers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DnsMetrics {
    registry: Arc<Registry>,
    workers: Arc<Mutex<Vec<WorkerCells>>>,
}

/// The cells in which one worker publishes.
#[derive(Clone, Debug)]
struct WorkerCells {
    series: Arc<Mutex<SeriesCell>>,
    top: Arc<Mutex<TopCell>>,
}

impl DnsMetrics {
    /// Creates metrics without workers.
    #[must_use]
    pub fn new(config: DnsMetricsConfig) -> Self {
        Self { registry: Arc::new(Registry::new(config)), workers: Arc::default() }
    }

    /// Creates the counter of one more worker.
    #[must_use]
    pub fn counter(&self) -> DnsCounter {
        let counter = DnsCounter::new(self.registry.clone());
        let (series, top) = counter.cells();
        self.workers.lock().push(WorkerCells { series, top });
        counter
    }

    /// Returns a copy of all series as of now. Call it while the workers' published counts are locked, so
    /// that both are of one moment.
    #[must_use]
    pub fn read(&self) -> Reading {
        let workers = self.workers.lock();
        let cells = workers.iter().map(|worker| worker.series.lock().clone()).collect();
        Reading::new(self.registry.clone(), cells)
    }

    /// Returns the lists of the most frequent names and clients.
    #[must_use]
    pub fn read_top(&self) -> TopReading {
        let cells = self.workers.lock().iter().map(|worker| worker.top.clone()).collect::<Vec<_>>();
        TopReading::new(self.registry.config.top, cells.iter().map(|cell| cell.lock().clone()))
    }
}

#[cfg(test)]
mod tests;
