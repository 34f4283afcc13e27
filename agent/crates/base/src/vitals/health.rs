//! Liveness and readiness, with the reasons where the agent is not alive or not ready.

use serde::{Deserialize, Serialize};

/// The answers to both probes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Alive: every worker polls its ring. If one does not, the agent should be restarted.
    pub live: Probe,
    /// Ready: capture runs as configured, and every sink delivers or stores its records.
    pub ready: Probe,
    /// Sinks that lost records most recently.
    pub failing_sinks: Vec<String>,
}

/// The result of one probe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// True if the probe succeeds.
    pub ok: bool,
    /// The reasons why the probe fails; empty if it succeeds.
    pub reasons: Vec<String>,
}

impl From<Vec<String>> for Probe {
    fn from(reasons: Vec<String>) -> Self {
        Self { ok: reasons.is_empty(), reasons }
    }
}
