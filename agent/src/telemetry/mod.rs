//! Liveness, readiness and metrics of a running agent.
//!
//! ```text
//!  workers ── heartbeat ─▶ Liveness ──┬─▶ /livez
//!  sinks ──── counts ────▶ Storing ─┐ │
//!  interfaces ─ desired, observed ──┴─┴─▶ Health ─▶ /readyz, tap53 status --check
//!  ledger, status, enrichment, control, process ──▶ families ─▶ /metrics, export, docs/metrics.md
//!  workers, sinks ─ timings, depths, librdkafka ──────┘
//!  followers of the records ── confirmation ─▶ /probe
//! ```
//!
//! - **Liveness depends on the workers' heartbeats only.** Brokers, API servers and the run loop have
//!   no part in it, so that no outage restarts an agent: a restart loses the packets in the rings, and
//!   repairs nothing outside.
//! - **An agent is ready if all desired interfaces are attached, and its sinks store records.** An agent
//!   without desired interfaces is ready.
//! - **The server cannot block the agent**: it has its own thread without privileges, and limits on
//!   connections, bytes and time. Its requests to the run loop are the same as those of an operator.

mod conditions;
pub mod config;
pub(crate) mod confirmation;
mod data_path;
mod export;
mod families;
mod health;
pub mod log;
mod process;
mod reader;
mod server;
mod storing;
mod text;

pub use self::log::{
    CHANGE, Error as LogError, Lines, Log, SUPPRESSED, print_error, print_notice, print_warning,
    report,
};
pub use data_path::DataPath;
pub(crate) use data_path::WorkerView;
pub use export::{Export, Origin};
pub use health::{SinkReading, Vitals};
pub use reader::{Reader, Sources};
pub use server::Server;
