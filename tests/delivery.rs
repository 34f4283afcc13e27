//! The way to a real broker, and the spool on it: whatever happens to either, each record is consumed, or in a counted
//! reason.
//!
//! ```text
//!  feed: numbered exchanges ─▶ FIFO ─▶ tap53 replay ─┬▶ spool ─▶ Kafka ─▶ kcat ─▶ fastavro
//!                                                    └▶ standard output: the record was accepted
//! ```
//!
//! Each exchange asks for a name with its number, so that a record identifies its exchange. The
//! Kafka sink comes first: once the other one has a record, this one has accepted it.

#[path = "delivery/cluster.rs"]
mod cluster;
#[path = "delivery/completeness.rs"]
mod completeness;
#[path = "delivery/crash.rs"]
mod crash;
#[path = "delivery/disk.rs"]
mod disk;
#[path = "delivery/fatal.rs"]
mod fatal;
#[path = "delivery/idle.rs"]
mod idle;
#[path = "delivery/late.rs"]
mod late;
#[path = "delivery/outage.rs"]
mod outage;
#[path = "delivery/registry.rs"]
mod registry;
#[path = "delivery/run.rs"]
mod run;
#[path = "delivery/security.rs"]
mod security;
#[path = "delivery/takeover.rs"]
mod takeover;
#[path = "delivery/tokens.rs"]
mod tokens;
#[path = "delivery/topics.rs"]
mod topics;
