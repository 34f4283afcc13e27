//! The chain behind an answer: the exchanges with upstream servers that a resolver needed for it.
//!
//! ```text
//!  client ── query ─▶ resolver ── query ─▶ upstream        worker 0: client's exchange    ─┐
//!         ◀─ answer ──          ◀─ answer ──               worker 1: upstream exchange    ─┤ events
//!                                                          tracker: in order of capture ◀──┘
//!                                                          ─▶ answered_from, served_record_id
//! ```
//!
//! A resolver is an endpoint that both answers queries and sends queries of its own. The two sides
//! reach different workers, so all workers report the queries and responses of resolvers to one
//! [`Tracker`], which processes them in the order of their capture, up to the time that every worker
//! has read. [`ChainReporter`] is a worker's side of it.
//!
//! Contract: nothing here reads a clock; memory is bounded by [`Config::capacity`] and the constants
//! of the modules; each closed exchange that was reported gets one verdict, and what cannot be
//! decided is AMBIGUOUS or UNKNOWN. `docs/decisions/messages.md` gives the reasons.

pub mod config;
mod event;
mod fetched;
mod names;
mod reporter;
mod resolver;
mod resolvers;
mod roles;
mod search;
#[cfg(test)]
mod tests;
mod tracker;
mod upstream;

pub use event::{Closed, Event, Opened, Party, Response, Settled};
pub use names::{Names, Related};
pub use reporter::{ChainReporter, Chains};
pub use tracker::{ChainCounts, Tracker};

use std::time::Duration;

/// Configures the tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Maximum time of capture that an exchange of a resolver waits for its verdict.
    pub hold: Duration,
    /// Maximum number of exchanges that each worker holds, and of open exchanges and recent upstream
    /// exchanges that the tracker keeps, each.
    pub capacity: usize,
}

impl Config {
    /// Returns the maximum time that an exchange waits, in nanoseconds.
    #[must_use]
    pub fn hold_ns(&self) -> u64 {
        u64::try_from(self.hold.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Returns the maximum number of events that wait for a worker that has not read so far: an exchange
    /// has two or three, and those of several workers wait.
    #[must_use]
    pub const fn max_events(&self) -> usize {
        self.capacity.saturating_mul(4)
    }
}
