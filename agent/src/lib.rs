//! tap53, a DNS capture agent: DNS packets from a node's interfaces become DNS transactions in
//! Kafka.
//!
//! The stages are crates below `agent/crates`; this one runs them.
//!
//! ```text
//!  tap53_capture       kernel programs ─▶ ring ─▶ drained in batches
//!  tap53_dns           ─▶ packet ─▶ message                            ┐
//!  tap53_transactions  ─▶ transaction ─▶ filtered, addresses hidden    │ one thread a worker
//!  tap53_attribution   ─▶ client and server named                      │
//!  tap53_records       ─▶ record: Avro, JSON, text                     │
//!  tap53_spool         ─▶ on disk while Kafka is unreachable           │
//!  tap53_sinks         ─▶ Kafka, file, standard output                 ┘
//!  tap53_ledger        what became of every packet, message and record
//!  tap53_base          what all of them stand on
//!
//!  config     the sections of all parts together, from one YAML file and flags
//!  worker     runs ring to sink, a thread each
//!  tail       followers of a running agent
//!  pipeline   wires workers and sinks
//!  runs       what one run leaves to the next
//!  agent      reconciles interfaces, rules and configuration with what is desired
//!  control    operators switch capture while it runs
//!  telemetry  alive, ready, and metrics
//!  doctor     what is wrong with a machine, and the line that fixes it
//!  verify     whether records are as an agent wrote them
//!  replay     files in place of hooks
//! ```

pub mod config;

pub mod tail;

pub mod agent;
mod ending;
pub mod pipeline;
pub mod runs;
pub mod worker;

pub mod control;
pub mod doctor;
pub mod telemetry;
pub mod verify;

pub mod replay;
