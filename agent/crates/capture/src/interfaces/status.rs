//! Desired and observed state of an interface.

use serde::{Deserialize, Serialize};
use tap53_ebpf::settings::Direction;

use super::config::Directions;

/// Source of the desired state of an interface. Later sources win over earlier ones.
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
