//! Delivery to a real broker, with a spool: whatever happens to either, each record is consumed, or counted as lost for
//! a reason.
//!
//! ```text
//!  feed: numbered exchanges ─▶ FIFO ─▶ tap53 replay ─┬▶ spool ─▶ Kafka ─▶ kcat ─▶ fastavro
//!                                                    └▶ standard output: the record was accepted
//! ```
//!
//! Each exchange queries a name with its number, so that a record identifies its exchange. The Kafka
//! sink comes first: once a record is on standard output, the Kafka sink has accepted it.

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
