//! tap53, a DNS capture agent: DNS packets from a node's interfaces become DNS transactions in
//! Kafka. The modules stand in the order of the data's path.
//!
//! ```text
//!  config     one YAML file and flags, checked whole
//!  interfaces which ones to capture from
//!  capture    kernel programs: load, attach, count          ┐ kernel
//!  ring       ─▶ drain in batches                           ┘
//!  decode     ─▶ packet ─▶ message                          ┐
//!  pair       ─▶ transaction                                │ one thread a worker
//!  filter     ─▶ dropped, with a reason                     │
//!  privacy    ─▶ addresses hidden                           │
//!  enrich     ─▶ client and server named                    │
//!  encode     ─▶ record: Avro, JSON, text                   │
//!  spool      ─▶ on disk, while Kafka is away               │
//!  sink       ─▶ Kafka, file, standard output               ┤
//!  tail       ─▶ who follows a running agent                ┘
//!  ledger     what became of every packet, message and record
//!  worker     runs ring to sink, a thread each
//!  pipeline   wires them
//!  runs       what one run leaves to the next
//!  agent      runs them: interfaces come and go, operators and files change what is wanted
//!  privileges given up; the capture thread keeps what attaching needs
//!  files      opened so that nobody can put another in their place
//!  http_client queries servers, with a deadline and bounded answers
//!  prefetch   memory that is read soon
//!  admission  who is let in where connections are bounded
//!  control    operators switch capture while it runs
//!  telemetry  alive, ready, and metrics
//!  doctor     what is wrong with a machine, and the line that fixes it
//!  verify     whether records are as an agent wrote them
//!  visible    text from outside, where people see it
//! ```

pub mod config;
pub mod interfaces;

pub mod capture;
pub mod ring;

pub mod decode;

pub mod pair;

pub mod filter;
pub mod privacy;

pub mod enrich;

pub mod ddl;
pub mod encode;

pub mod spool;

pub mod sink;
pub mod tail;

pub mod agent;
mod ending;
pub mod ledger;
pub mod pipeline;
pub mod privileges;
pub mod runs;
pub mod worker;

mod admission;
pub mod control;
pub mod doctor;
mod files;
mod http_client;
mod prefetch;
pub mod telemetry;
pub mod verify;
pub mod visible;

pub mod replay;
