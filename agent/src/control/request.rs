//! Requests of the control socket to the run loop, and their answers.

use serde::{Deserialize, Serialize};
use tap53_base::vitals::Health;
use tap53_capture::interfaces::{InterfaceStatus, Switch};
use tap53_insight::Reading as DnsReading;
use tap53_ledger::Ledger;
use tokio::sync::oneshot;

use tap53_attribution as enrich;

/// A request to the run loop, with the channel for the answer.
#[derive(Debug)]
pub enum Request {
    /// Start or stop capture on interfaces.
    Switch {
        /// The change.
        switch: Switch,
        /// The client.
        requester: Requester,
        /// Channel for the status of every interface that the pattern matches, after the change.
        answer: oneshot::Sender<Result<Vec<InterfaceStatus>, Refusal>>,
    },
    /// Return the agent's status.
    Status {
        /// Channel for the status.
        answer: oneshot::Sender<Status>,
    },
}

/// The client of a request, for the audit line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requester {
    /// User, by SO_PEERCRED.
    pub uid: u32,
    /// Process, by SO_PEERCRED; 0 outside this PID namespace.
    pub pid: i32,
    /// Name of the process, if it can be read; always printable.
    pub process: Option<String>,
}

/// The reason why a switch was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No interface that is present matches the pattern.
    #[error("no interface matches {0:?}")]
    NoSuchInterface(String),
    /// The limit of switched patterns is reached.
    #[error("{0}")]
    TooMany(String),
    /// Every interface that matches could not be attached to.
    #[error("{0}")]
    NotAttached(String),
}

/// State of a running agent.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Version of the agent.
    pub version: &'static str,
    /// Revision of its sources.
    pub revision: &'static str,
    /// Name of the node in the records.
    pub node: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// State of the configuration.
    pub config: ConfigStatus,
    /// State of the annotation of the Node object.
    pub annotation: AnnotationStatus,
    /// State of attribution.
    pub enrichment: enrich::Status,
    /// Liveness and readiness, with reasons.
    pub health: Health,
    /// Interfaces that are captured from, or that something selects.
    pub interfaces: Vec<InterfaceStatus>,
    /// State of the export of metrics, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export: Option<tap53_otlp::Status>,
    /// Devices of pods that responses seem to go past; `None` if there are none.
    pub bypass: Option<Bypass>,
    /// The ledger.
    pub ledger: Ledger,
    /// Metrics of the DNS as of the moment of the ledger, if they are enabled; in no text and no JSON.
    #[serde(skip)]
    pub dns: Option<DnsReading>,
}

/// Devices of pods at which queries arrive, and no response leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bypass {
    /// Names of the devices.
    pub interfaces: Vec<String>,
    /// Names of interfaces that are not captured, by which the responses may enter the node.
    pub add: Vec<String>,
}

impl Bypass {
    /// Returns the problem, in a sentence without its end.
    #[must_use]
    pub fn problem(&self) -> String {
        const SHOWN: usize = 3;
        let mut names: Vec<&str> = self.interfaces.iter().take(SHOWN).map(String::as_str).collect();
        let rest = match self.interfaces.len().saturating_sub(SHOWN) {
            0 => String::new(),
            rest => format!("{rest} more"),
        };
        names.extend(Some(rest.as_str()).filter(|rest| !rest.is_empty()));
        format!(
            "queries arrive at {} and no response leaves there: responses seem to go past, as with \
             bpf_redirect_peer (Cilium's eBPF host routing)",
            names.join(", ")
        )
    }
}

/// State of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// Path of the file, if there is one.
    pub file: Option<String>,
    /// Time at which the configuration in force was loaded, RFC 3339.
    pub loaded_at: String,
    /// The error that keeps the file as it is now from being in force.
    pub error: Option<String>,
    /// Keys that were changed in the file and take effect after a restart.
    pub restart_needed: Vec<String>,
    /// Number of times that a changed file was reloaded.
    #[serde(default)]
    pub reloads: u64,
    /// Number of times that a changed file was refused.
    #[serde(default)]
    pub reloads_refused: u64,
}

/// State of the annotation of the Node object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AnnotationStatus {
    /// The value in force; `None` if there is no annotation.
    pub in_force: Option<String>,
    /// The error that keeps the current value from being in force.
    pub error: Option<String>,
}
