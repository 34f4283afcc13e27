//! Heartbeats, health and timings, which the data path writes and telemetry exports.

mod health;
mod heartbeat;
mod histogram;
mod timings;

pub use health::{BrokerHealth, Condition, Health, Probe, SinkHealth};
pub use heartbeat::{Heartbeat, Liveness};
pub use histogram::Snapshot;
pub use histogram::{ABROAD, Histogram, Tally, WITHIN};
pub use timings::{Reached, SinkTimings, WorkerTimings};

/// Log target of the audit lines, which name the caller of a change. They are written at every log
/// level, and never rate limited.
pub const AUDIT: &str = "audit";
