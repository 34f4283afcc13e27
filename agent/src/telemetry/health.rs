//! Liveness and readiness, with the reasons where the agent is not alive or not ready.

use tap53_base::{
    clock::monotonic_ns,
    vitals::{Health, Liveness},
};
use tap53_capture::interfaces::InterfaceStatus;
use tap53_ledger::SinkCounts;

use super::storing::Storing;

/// What health is judged by, as the run loop holds it.
#[derive(Clone, Debug)]
pub struct Vitals {
    liveness: Liveness,
    storing: Storing,
    /// Whether the log was last told that the agent is alive.
    told_live: bool,
}

impl Vitals {
    /// Nothing is amiss yet.
    #[must_use]
    pub fn new(liveness: Liveness) -> Self {
        Self { liveness, storing: Storing::default(), told_live: true }
    }

    /// The workers' heartbeats.
    #[must_use]
    pub const fn liveness(&self) -> &Liveness {
        &self.liveness
    }

    /// Looks at workers and sinks; the log is told once when a worker stops, and when all go on.
    pub fn look<'a>(&mut self, sinks: impl Iterator<Item = (&'a str, SinkCounts)>) {
        self.storing.look(sinks);
        let reasons = self.liveness.reasons(monotonic_ns());
        if reasons.is_empty() != self.told_live {
            self.told_live = reasons.is_empty();
            if self.told_live {
                tracing::info!("all workers are at their rings again");
            } else {
                tracing::error!("{}", reasons.join("; "));
            }
        }
    }

    /// How it is now.
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
