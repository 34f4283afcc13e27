//! Export of metrics by OTLP/HTTP with protobuf: <https://opentelemetry.io/docs/specs/otlp/>.
//!
//! ```text
//!  the agent ─ Source ─▶ Metrics ─ request ─▶ messages ─ client ─▶ POST …/v1/metrics
//!                                                            └──▶ Status ─▶ /metrics, tap53 status
//! ```
//!
//! - **Nothing waits in a queue.** Values are totals since the start (cumulative temporality), so the next
//!   export carries everything that a failed one would have carried. A retry sends a new reading.
//! - **The export cannot block the agent.** It has its own thread, and reads the agent as a scrape does.
//! - **Every outcome is counted**: exports by result, and points by what the collector did with them.

#![forbid(unsafe_code)]

mod client;
pub mod config;
mod exporter;
mod failure;
mod failure_log;
mod metric;
mod request;
mod status;
#[cfg(test)]
mod tests;

pub use client::try_collector;
pub use exporter::{Exporter, Source};
pub use failure::Failure;
pub use metric::{Attributes, Distribution, Metric, Metrics, Number, Points};
pub use status::{Failing, SharedStatus, Status};
