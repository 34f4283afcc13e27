//! The loss ledger: what became of every packet, message and record.
//!
//! ```text
//!  hooks      seen      = captured + Σ ignored + Σ lost              each interface and direction
//!  rings      captured  = received + in rings                        in rings is zero at the end
//!  packets    received + joined = decoded + fragments + Σ ignored + Σ lost
//!  fragments  received  = joined + waiting + Σ ignored + Σ lost
//!  TCP bytes  received  = in messages + waiting + Σ ignored + Σ lost
//!  messages   decoded   = pending + in records + Σ ignored + Σ lost
//!  sinks      offered + carried = delivered + in flight + spooled + Σ lost
//!                                                                    records, and their messages
//!             offered   = created (records), in records (messages)
//! ```
//!
//! Each side of a line is counted where it happens, by different code, so a line that does not add
//! up is a defect that the ledger finds. A stage publishes its counts together, after a whole
//! batch, so that a snapshot of a running agent adds up too.
//!
//! Carried is what an earlier run left in a sink's spool, and spooled what this one leaves to the
//! next: what a run that ended in good order says of the one, the next says of the other.

mod counts;
mod render;
mod statement;
mod summary;

pub use counts::{
    Amount, MessageLoss, Published, SinkCounts, SinkLoss, SummaryCounts, WorkerCounts,
};
pub(crate) use statement::{ByReason, Deliveries, Hook};
pub use statement::{InterfaceCounts, Ledger, Sources};
pub use summary::{Kind, Moment, SUMMARY_SCHEMA_VERSION, Summary, Windows};
