//! Liveness and readiness, with the reasons if the agent is not alive or not ready.

use tap53_base::{
    clock::monotonic_ns,
    vitals::{Health, Liveness},
};
use tap53_capture::interfaces::InterfaceStatus;
use tap53_ledger::SinkCounts;

use super::storing::Storing;

/// The state of workers and sinks from which liveness and readiness are derived.
#[derive(Clone, Debug)]
pub struct Vitals {
    liveness: Liveness,
    storing: Storing,
    /// The liveness that was logged last.
    logged_live: bool,
}

impl Vitals {
    /// Returns vitals of an agent that is alive and ready.
    #[must_use]
    pub fn new(liveness: Liveness) -> Self {
        Self { liveness, storing: Storing::default(), logged_live: true }
    }

    /// Returns the workers' heartbeats.
    #[must_use]
    pub const fn liveness(&self) -> &Liveness {
        &self.liveness
    }

    /// Checks workers and sinks. Logs once when a worker stalls, and once when all have resumed.
    pub fn look<'a>(&mut self, sinks: impl Iterator<Item = (&'a str, SinkCounts)>) {
        self.storing.look(sinks);
        let reasons = self.liveness.reasons(monotonic_ns());
        if reasons.is_empty() != self.logged_live {
            self.logged_live = reasons.is_empty();
            if self.logged_live {
                tracing::info!(event = "workers_resumed", "all workers read their rings again");
            } else {
                tracing::error!(event = "workers_stalled", "{}", reasons.join("; "));
            }
        }
    }

    /// Returns the health now.
    #[must_use]
    pub fn health(&self, interfaces: &[InterfaceStatus]) -> Health {
        let live = self.liveness.reasons(monotonic_ns());
        let mut ready = live.clone();
        for interface in interfaces.iter().filter(|interface| !interface.is_as_wanted()) {
            let InterfaceStatus { name, why, .. } = interface;
            ready.push(format!("{name} is not captured from as wanted: {why}"));
        }
        let mut failing_sinks = Vec::new();
        for (name, reason) in self.storing.failing() {
            failing_sinks.push(name.to_owned());
            let reason = reason.name();
            ready.push(format!("sink {name} lost the last records that it took: {reason}"));
        }
        Health { live: live.into(), ready: ready.into(), failing_sinks }
    }
}
