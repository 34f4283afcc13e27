//! Signs of life and times: what the data path writes down as it runs, and telemetry shows.

mod health;
mod heartbeat;
mod histogram;
mod timings;

pub use health::{Health, Probe};
pub use heartbeat::{Heartbeat, Liveness};
pub use histogram::Snapshot;
pub use histogram::{ABROAD, Histogram, Tally, WITHIN};
pub use timings::{Reached, SinkTimings, WorkerTimings};

/// Target of the lines of the log that say who changed what; they are written at every level of the
/// log, and never limited.
pub const AUDIT: &str = "audit";
