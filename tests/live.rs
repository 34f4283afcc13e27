//! Changes while the agent runs: interfaces come and go, operators switch them, the configuration file
//! changes, privileges are dropped. Other interfaces lose nothing, nothing is left behind, the ledger
//! balances, and the status matches the kernel's state.

#[path = "live/bypass.rs"]
mod bypass;
#[path = "live/hotplug.rs"]
mod hotplug;
#[path = "live/kills.rs"]
mod kills;
#[path = "live/pods.rs"]
mod pods;
#[path = "live/privileges.rs"]
mod privileges;
#[path = "live/running.rs"]
mod running;
#[path = "live/shadow.rs"]
mod shadow;
#[path = "live/stage.rs"]
mod stage;
#[path = "live/toggling.rs"]
mod toggling;

use std::time::Duration;

/// Long enough for a machine that does much else; only a failing test waits for it.
const DEADLINE: Duration = Duration::from_secs(60);
