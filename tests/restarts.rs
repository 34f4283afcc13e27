//! One agent follows another under load. Each transaction of a numbered stream is recorded, or is
//! within what the agent says that nobody captured.
//!
//! ```text
//!  client                                      server
//!  c0 ── query q7 ───────────────────────────▶ s0 ◀── tap53, one run after the other
//!     ◀────────────────────────── answer q7 ──    │
//!                                                 └─▶ spool ─▶ Kafka ─▶ kcat ─▶ fastavro
//! ```
//!
//! Nothing but the stream is on the wire, so the packets of the device are those of the stream, and
//! what is reported can be compared with what is missing.

#[path = "restarts/kill.rs"]
mod kill;
#[path = "restarts/outcome.rs"]
mod outcome;
#[path = "restarts/stage.rs"]
mod stage;
#[path = "restarts/stream.rs"]
mod stream;
#[path = "restarts/upgrade.rs"]
mod upgrade;

use std::time::Duration;

/// Long enough for a machine that does much else; only a failing test waits for it.
const DEADLINE: Duration = Duration::from_secs(60);

/// Grace period of a pod with the configuration of these tests: the flush timeout, and five seconds.
const GRACE: Duration = Duration::from_secs(15);
