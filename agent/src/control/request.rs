//! What the control socket asks of the running agent, and what it is told.

use std::time::Duration;

use glob::Pattern;
use serde::{Deserialize, Serialize};
use tap53_ebpf::settings::Direction;
use tokio::sync::oneshot;

use crate::{enrich, interfaces::config::Directions, ledger::Ledger, telemetry::Health};

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

/// A change of what is captured.
#[derive(Clone, Debug, PartialEq)]
pub struct Switch {
    /// Shell pattern of interface names; also holds for interfaces that appear later.
    pub pattern: Pattern,
    /// On or off, or what was before.
    pub to: SwitchTo,
    /// When the change ends by itself; `None` for a change that stays until the agent ends.
    pub lasts: Option<Duration>,
}

/// What a [`Switch`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchTo {
    /// Capture in these directions.
    On(Directions),
    /// Capture nothing. Programs stay attached and pass packets by unless `detach`.
    Off {
        /// Also take the programs off the interface.
        detach: bool,
    },
    /// Forget earlier switches of this pattern: annotation and file decide again.
    Reset,
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

/// Who decides whether an interface is captured from. Later ones win over earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WantedBy {
    /// The configuration, flags included.
    File,
    /// The annotation of the Node object.
    Annotation,
    /// `tap53 enable` and `tap53 disable`.
    Command,
}

/// State of an interface: what is wanted, what is, and why they differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Name.
    pub name: String,
    /// Number; 0 while there is no such interface.
    pub ifindex: u32,
    /// Kind of device.
    pub kind: String,
    /// Directions that are wanted; `None` for off.
    pub wanted: Option<Directions>,
    /// Who decides that.
    pub wanted_by: WantedBy,
    /// Seconds until that ends by itself.
    pub wanted_for_s: Option<u64>,
    /// What arrives.
    pub ingress: Actual,
    /// What leaves.
    pub egress: Actual,
    /// Why these hooks, and why wanted and actual differ where they do.
    pub why: String,
}

impl InterfaceStatus {
    /// True if what is wanted is captured, nothing else is, and nothing is in the way.
    #[must_use]
    pub fn is_as_wanted(&self) -> bool {
        let (ingress, egress) = (&self.ingress, &self.egress);
        if self.is_loopback() {
            return (ingress.capturing || egress.capturing) == self.wanted.is_some();
        }
        [(Direction::Ingress, ingress), (Direction::Egress, egress)].into_iter().all(
            |(direction, actual)| {
                let wanted = self.is_wanted(direction);
                wanted == actual.capturing && (!wanted || actual.shadowed.is_none())
            },
        )
    }

    /// True if `direction` is wanted. On `lo` either direction has every packet, so one is enough.
    #[must_use]
    pub fn is_wanted(&self, direction: Direction) -> bool {
        self.wanted.is_some_and(|wanted| {
            let other = self.is_loopback() && wanted == Directions::Both;
            wanted.contains(direction) && !(other && direction == Direction::Egress)
        })
    }

    fn is_loopback(&self) -> bool {
        self.kind == "loopback"
    }
}

/// State of one direction of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actual {
    /// Whether packets are captured.
    pub capturing: bool,
    /// Hook and mode of the program that is attached, such as `xdp native`; `None` where none is.
    pub hook: Option<String>,
    /// What keeps packets from the program, such as another program ahead of it that ends the
    /// chain; `None` where nothing does.
    pub shadowed: Option<String>,
}
