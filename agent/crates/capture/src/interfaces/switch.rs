//! Changes of what is captured, as operators ask for them.

use std::time::Duration;

use glob::Pattern;

use super::config::Directions;

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

/// The change that a [`Switch`] requests.
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
