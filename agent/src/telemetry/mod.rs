//! What a running agent tells machines: whether it is alive and ready, and its metrics.
//!
//! ```text
//!  workers ── heartbeat ─▶ Liveness ──┬─▶ /livez
//!  sinks ──── counts ────▶ Storing ─┐ │
//!  interfaces ─ wanted, actual ─────┴─┴─▶ Health ─▶ /readyz, tap53 status --check
//!  ledger, status, enrichment, control, process ──▶ families ─▶ /metrics, docs/metrics.md
//!  workers, sinks ─ timings, depths, librdkafka ──────┘
//! ```
//!
//! - **Liveness is the data path's heartbeat and nothing else.** No answer of a broker or an API
//!   server has a part in it, nor has the run loop, so that no outage restarts an agent: a restart
//!   loses what is in the rings and mends nothing outside.
//! - **Readiness is attached as wanted, and sinks that keep what they take.** Nothing wanted is
//!   ready.
//! - **The server cannot hold anything up**: a thread of its own without privileges, bounds on
//!   connections, bytes and time, and what it asks of the run loop it asks as an operator does.

pub mod config;
mod data_path;
mod families;
mod health;
pub mod log;
mod process;
mod server;
mod storing;
mod text;

pub use self::log::{
    CHANGE, Error as LogError, Lines, Log, SUPPRESSED, print_error, print_warning, report,
};
pub use data_path::DataPath;
pub(crate) use data_path::WorkerView;
pub use health::Vitals;
pub use server::{Server, Sources};
