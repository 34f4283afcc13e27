//! tap53, a DNS capture agent: DNS packets from a node's interfaces become DNS transactions in
//! Kafka.
//!
//! The stages are crates below `agent/crates`; this one runs them.
//!
//! ```text
//!  tap53_capture       kernel programs ─▶ ring ─▶ drained in batches
//!  tap53_dns           ─▶ packet ─▶ message                            ┐
//!  tap53_transactions  ─▶ transaction ─▶ filtered, addresses hidden    │ one thread a worker
//!  tap53_attribution   ─▶ client and server named, by socket or address │
//!  tap53_records       ─▶ record: Avro, JSON, text                     │
//!  tap53_spool         ─▶ on disk while Kafka is unreachable           │
//!  tap53_sinks         ─▶ Kafka, file, standard output                 ┘
//!  tap53_ledger        accounts for every packet, message and record
//!  tap53_base          shared by all of them
//!  tap53_reasons       the reasons for which something is ignored or lost
//!
//!  config     the sections of all parts together, from one YAML file and flags
//!  keep       which transactions become records
//!  worker     runs ring to sink, a thread each
//!  tail       followers of a running agent
//!  top        what an agent reports to a terminal view
//!  pipeline   wires workers and sinks
//!  runs       saves the state of a run for the next one
//!  agent      reconciles interfaces, rules and configuration with what is desired
//!  control    the socket for operators of a running agent
//!  telemetry  liveness, readiness, metrics and the log
//!  doctor     checks whether a host can run tap53
//!  probe      sends a query, and follows it through a running agent until its record
//!  verdict    ok, warn or fail: the results of doctor and probe
//!  verify     verifies that records are as an agent wrote them
//!  replay     capture files in place of hooks
//!  query      records of files for questions and reports
//!  version    version, revision and schema version of this program
//! ```

pub mod config;

pub mod keep;

pub mod tail;
pub mod top;

pub mod agent;
mod ending;
pub mod pipeline;
pub mod probe;
pub mod runs;
pub mod worker;

pub mod control;
pub mod doctor;
pub mod telemetry;
pub mod verdict;
pub mod verify;

pub mod query;
pub mod replay;
pub mod version;
