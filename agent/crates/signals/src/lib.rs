//! Signals: what an analyst may want to look at among exchanges.
//!
//! ```text
//!  worker 0 ─ exchange ─▶ Detector ─▶ recent: seen within half a minute? ─ yes ─▶ the same signals
//!                                        │ no
//!                                        ├─▶ first seen: domains of node and workloads ─▶ state file
//!                                        ├─▶ tunnels: by client and registrable domain
//!                                        └─▶ bursts: by client
//!                            (the tables are shared by the workers)
//! ```
//!
//! - **Tables are shared by the workers**, since a client's flows are spread over them, and "first" means
//!   the node. Their memory is therefore independent of the number of workers. See
//!   `docs/decisions/signals.md`.
//! - **Nothing allocates for an exchange**, and no table grows: they have a fixed size, and replace the
//!   entry that is worth least.
//! - **A worker takes no lock for a name that the client looked up a moment ago.** Domains are in a table
//!   of atomics. Tunnels and bursts have locks, which are taken for conspicuous exchanges only.
//! - **Time is an argument**, so that a replayed capture has the signals of the live one. The hashes of a
//!   replay have fixed keys: it has the same signals each time.

#![forbid(unsafe_code)]

mod burst;
pub mod config;
mod detector;
mod first_seen;
mod rebinding;
mod recent;
mod shape;
mod signal;
mod state;
mod state_file;
mod striped;
mod tunnel;
mod window;

pub use config::SignalsConfig;
pub use detector::{Detector, Exchange, Key};
pub use signal::{Signal, Signals};
pub use state::{SharedSignals, Usage};
