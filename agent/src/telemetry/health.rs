//! Liveness and readiness, with the reasons if the agent is not alive or not ready.

use tap53_base::{
    clock::monotonic_ns,
    vitals::{Health, Liveness},
};
use tap53_capture::interfaces::InterfaceStatus;
use tap53_ledger::SinkCounts;
use tap53_sinks::State;

use super::{conditions::Conditions, storing::Storing};

/// A sink's counts and state at a look.
#[derive(Clone, Debug)]
pub struct SinkReading<'a> {
    /// Name of the sink.
    pub name: &'a str,
    /// Its counts in the ledger.
    pub counts: SinkCounts,
    /// Its inner state.
    pub state: State,
}

/// The state of workers and sinks from which liveness and readiness are derived.
#[derive(Clone, Debug)]
pub struct Vitals {
    liveness: Liveness,
    storing: Storing,
    conditions: Conditions,
    /// The liveness that was logged last.
    logged_live: bool,
}

impl Vitals {
    /// Returns vitals of an agent that is alive and ready.
    #[must_use]
    pub fn new(liveness: Liveness) -> Self {
        let conditions = Conditions::new(&now());
        Self { liveness, storing: Storing::default(), conditions, logged_live: true }
    }

    /// Returns the workers' heartbeats.
    #[must_use]
    pub const fn liveness(&self) -> &Liveness {
        &self.liveness
    }

    /// Checks workers and sinks. Logs once when a worker stalls, and once when all have resumed.
    pub fn look<'a>(&mut self, sinks: impl Iterator<Item = SinkReading<'a>>) {
        let (sinks, now): (Vec<_>, _) = (sinks.collect(), now());
        self.storing.look(sinks.iter().map(|sink| (sink.name, sink.counts)));
        for SinkReading { name, state, .. } in &sinks {
            let lost = self.storing.failing().find(|(failing, _)| failing == name);
            let lost = lost.map(|(_, reason)| reason.name());
            self.conditions.look_at_sink(name, lost, state, &now);
        }
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

    /// Checks the desired interfaces.
    pub fn look_at_interfaces(&mut self, interfaces: &[InterfaceStatus]) {
        self.conditions.capture.update(not_as_wanted(interfaces), &now());
    }

    /// Returns the health now.
    #[must_use]
    pub fn health(&self, interfaces: &[InterfaceStatus]) -> Health {
        let live = self.liveness.reasons(monotonic_ns());
        let mut ready = live.clone();
        ready.extend(not_as_wanted(interfaces));
        let mut failing_sinks = Vec::new();
        for (name, reason) in self.storing.failing() {
            failing_sinks.push(name.to_owned());
            let reason = reason.name();
            ready.push(format!("sink {name} lost the last records that it took: {reason}"));
        }
        let Conditions { capture, sinks } = self.conditions.clone();
        Health { live: live.into(), ready: ready.into(), failing_sinks, capture, sinks }
    }
}

fn not_as_wanted(interfaces: &[InterfaceStatus]) -> Vec<String> {
    let wrong = interfaces.iter().filter(|interface| !interface.is_as_wanted());
    wrong
        .map(|InterfaceStatus { name, why, .. }| {
            format!("{name} is not captured from as wanted: {why}")
        })
        .collect()
}

/// Returns the time in RFC 3339, in seconds.
fn now() -> String {
    format!("{:.0}", jiff::Timestamp::now())
}
