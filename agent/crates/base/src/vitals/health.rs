//! Liveness and readiness, with the reasons where the agent is not alive or not ready.

use serde::{Deserialize, Serialize};

/// The two answers that probes get.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Every worker is at its ring; a restart is due where one is not.
    pub live: Probe,
    /// Captures as it is wanted to, and every sink keeps what it takes.
    pub ready: Probe,
    /// Sinks that lost what they took last.
    pub failing_sinks: Vec<String>,
}

/// One question and its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The answer.
    pub ok: bool,
    /// Why not; empty if it is.
    pub reasons: Vec<String>,
}

impl From<Vec<String>> for Probe {
    fn from(reasons: Vec<String>) -> Self {
        Self { ok: reasons.is_empty(), reasons }
    }
}
