//! Desired and observed state of an interface.

use serde::{Deserialize, Serialize};
use tap53_ebpf::settings::Direction;

use super::config::Directions;

/// Source of the desired state of an interface. Later sources take precedence.
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

impl WantedBy {
    /// Returns the name, the same in JSON and in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Annotation => "annotation",
            Self::Command => "command",
        }
    }
}

/// State of an interface: the desired state, the observed state, and the reason for a difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Name.
    pub name: String,
    /// Ifindex; 0 while there is no such interface.
    pub ifindex: u32,
    /// Kind of device.
    pub kind: String,
    /// Desired directions; `None` for off.
    pub wanted: Option<Directions>,
    /// Source of the desired state.
    pub wanted_by: WantedBy,
    /// Seconds until the desired state expires.
    pub wanted_for_s: Option<u64>,
    /// Observed state of the arriving direction.
    pub ingress: Actual,
    /// Observed state of the departing direction.
    pub egress: Actual,
    /// Reasons for the hooks, and for a difference between desired and observed state.
    pub why: String,
}

impl InterfaceStatus {
    /// Returns true if exactly the desired directions are captured, and nothing is shadowed.
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

    /// Returns true if `direction` is desired. On `lo` either direction has every packet, so one is
    /// enough.
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

/// Observed state of one direction of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actual {
    /// True if packets are captured.
    pub capturing: bool,
    /// Hook and mode of the attached program, such as `xdp native`; `None` if none is attached.
    pub hook: Option<String>,
    /// The reason why packets do not reach the program, such as another program that ends the chain;
    /// `None` if nothing does.
    pub shadowed: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_one_name_everywhere() {
        for by in [WantedBy::File, WantedBy::Annotation, WantedBy::Command] {
            assert_eq!(serde_json::to_value(by).unwrap(), by.name());
        }
    }
}
