//! What the control socket asks of the running agent, and what it is told.

use serde::{Deserialize, Serialize};
use tap53_base::vitals::Health;
use tap53_capture::interfaces::{InterfaceStatus, Switch};
use tap53_ledger::Ledger;
use tokio::sync::oneshot;

use tap53_attribution as enrich;

/// Something for the run loop to do; the answer goes back through the channel.
#[derive(Debug)]
pub enum Request {
    /// Capture on interfaces, or no longer.
    Switch {
        /// What to change.
        switch: Switch,
        /// Who asked.
        requester: Requester,
        /// Every interface that the pattern fits, as it is after the change.
        answer: oneshot::Sender<Result<Vec<InterfaceStatus>, Refusal>>,
    },
    /// Tell how things are.
    Status {
        /// The state of everything.
        answer: oneshot::Sender<Status>,
    },
}

/// Who asked, for the audit line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requester {
    /// User, by SO_PEERCRED.
    pub uid: u32,
    /// Process, by SO_PEERCRED; 0 outside this PID namespace.
    pub pid: i32,
    /// What that process calls itself, where it can be read; printable whatever it is.
    pub process: Option<String>,
}

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No interface that is there now fits the pattern.
    #[error("no interface matches {0:?}")]
    NoSuchInterface(String),
    /// More patterns are switched than are kept.
    #[error("{0}")]
    TooMany(String),
    /// The kernel refused a hook on each interface that fits.
    #[error("{0}")]
    NotAttached(String),
}

/// State of a running agent.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Version of the agent.
    pub version: &'static str,
    /// Name of the node in the records.
    pub node: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Where the configuration comes from.
    pub config: ConfigStatus,
    /// Where the annotation of the Node object stands.
    pub annotation: AnnotationStatus,
    /// Where the naming of clients and servers stands.
    pub enrichment: enrich::Status,
    /// Whether it is alive and ready, and why not.
    pub health: Health,
    /// Interfaces that are captured from, or that something asked to be.
    pub interfaces: Vec<InterfaceStatus>,
    /// What became of every packet and record.
    pub ledger: Ledger,
}

/// State of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// The file, where there is one.
    pub file: Option<String>,
    /// When what is in force was read, RFC 3339.
    pub loaded_at: String,
    /// Why the file as it is now is not in force, where it is not.
    pub error: Option<String>,
    /// Keys that were changed in the file and take a restart.
    pub restart_needed: Vec<String>,
    /// Times that the file had changed and was taken up.
    #[serde(default)]
    pub reloads: u64,
    /// Times that it had changed and was refused.
    #[serde(default)]
    pub reloads_refused: u64,
}

/// State of the annotation of the Node object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AnnotationStatus {
    /// Its value that is in force; `None` where there is none.
    pub in_force: Option<String>,
    /// Why its value as it is now is not in force, where it is not.
    pub error: Option<String>,
}
