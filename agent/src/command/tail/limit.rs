//! The time after which a follower ends.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use crate::command::switch::lasting;

/// Time of a follower without a terminal.
const WITHOUT_TERMINAL: Duration = Duration::from_secs(600);

/// The time after which a follower ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// After this time.
    After(Duration),
    /// When the agent stops or its user ends it.
    Never,
}

impl Limit {
    /// Returns the limit of a follower that was given none. The kernel ends a command whose terminal
    /// is closed (SIGHUP). Nothing ends one that `kubectl exec` has started without a terminal.
    pub(super) fn usual() -> Self {
        let is_terminal =
            io::stdin().is_terminal() || io::stdout().is_terminal() || io::stderr().is_terminal();
        if is_terminal { Self::Never } else { Self::After(WITHOUT_TERMINAL) }
    }
}

/// Parses `90s`, `8h` or `forever`.
pub(super) fn parse(text: &str) -> Result<Limit, String> {
    if text == "forever" {
        return Ok(Limit::Never);
    }
    lasting(text).map(Limit::After).map_err(|reason| format!("{reason}, or forever"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_duration_or_forever() {
        assert_eq!(parse("forever"), Ok(Limit::Never));
        assert_eq!(parse("90s"), Ok(Limit::After(Duration::from_secs(90))));
        assert!(parse("0s").unwrap_err().ends_with("or forever"));
    }
}
