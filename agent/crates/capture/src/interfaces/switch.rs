//! Changes of what is captured, as requested by operators.

use std::time::Duration;

use super::{Selector, config::Directions};

/// A change of what is captured.
#[derive(Clone, Debug, PartialEq)]
pub struct Switch {
    /// The names or the kind; it also applies to interfaces that appear later.
    pub selector: Selector,
    /// The requested state.
    pub to: SwitchTo,
    /// Duration of the change; `None` if it lasts until the agent ends.
    pub lasts: Option<Duration>,
}

/// The state that a [`Switch`] requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchTo {
    /// Capture in these directions.
    On(Directions),
    /// Capture nothing. Programs stay attached and ignore packets unless `detach` is set.
    Off {
        /// Also detach the programs from the interface.
        detach: bool,
    },
    /// Remove earlier switches of this pattern: annotation and file decide again.
    Reset,
}
