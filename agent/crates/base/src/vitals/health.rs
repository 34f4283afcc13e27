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
    /// Capture at the desired interfaces.
    #[serde(default)]
    pub capture: Condition,
    /// Every sink; a sink can be in order and hold records back, if it loses none.
    #[serde(default)]
    pub sinks: Vec<SinkHealth>,
}

/// The condition of a part of the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// True if the part does all that it should.
    pub ok: bool,
    /// Time since when that is so, RFC 3339; empty if it is not known.
    pub since: String,
    /// The reasons if it does not; empty if it does.
    pub reasons: Vec<String>,
}

impl Condition {
    /// Takes the reasons at `now`, which becomes the time of the change if there is one.
    pub fn update(&mut self, reasons: Vec<String>, now: &str) {
        if self.since.is_empty() || self.ok != reasons.is_empty() {
            now.clone_into(&mut self.since);
        }
        self.ok = reasons.is_empty();
        self.reasons = reasons;
    }
}

/// The condition of a sink: whether it delivers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkHealth {
    /// Name of the sink.
    pub name: String,
    /// The state of its delivery.
    #[serde(flatten)]
    pub condition: Condition,
    /// Connections to its brokers, by number; empty if they are not observed.
    #[serde(default)]
    pub brokers: Vec<BrokerHealth>,
}

/// The connection to a broker. The producer connects only to the brokers that it needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerHealth {
    /// Number of the broker.
    pub name: String,
    /// True while there is a connection.
    pub connected: bool,
    /// Time since when that is so, RFC 3339.
    pub since: String,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_has_the_time_of_its_last_change_and_the_latest_reasons() {
        let mut condition = Condition::default();
        for (reason, now, since) in [
            (None, "1", "1"),
            (None, "2", "1"),
            (Some("down"), "3", "3"),
            (Some("still down"), "4", "3"),
            (None, "5", "5"),
        ] {
            let reasons: Vec<String> = reason.into_iter().map(str::to_owned).collect();
            condition.update(reasons.clone(), now);
            let expected = Condition { ok: reason.is_none(), since: since.to_owned(), reasons };
            assert_eq!(condition, expected);
        }
    }
}
