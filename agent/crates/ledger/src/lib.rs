//! The loss ledger: the account of every packet, message and record.
//!
//! It has a line for each stage, in which `Σ taken = Σ passed + Σ waiting + Σ filtered + Σ ignored +
//! Σ lost`. `stages.rs` is the table of them; the check, text, JSON, summaries, metrics and the manual
//! derive from it.
//!
//! ```text
//!  hooks         seen               = captured + Σ ignored + Σ lost       each interface and direction
//!  rings         captured           = received + in rings + abandoned     in rings is zero at the end
//!  packets       received + joined  = decoded + fragments + Σ ignored + Σ lost
//!  fragments     received           = joined + waiting + Σ ignored + Σ lost
//!  TCP bytes     received           = in messages + waiting + Σ ignored + Σ lost
//!  messages      decoded            = in records + pending + Σ filtered + Σ ignored + Σ lost
//!  transactions  created            = in records + Σ filtered
//!  sinks         offered + carried  = delivered + in flight + spooled + Σ lost
//!                                                                         records, and their messages
//! ```
//!
//! Stages also agree with each other: each sink's *offered* and *in batches* are the records that were
//! created and not filtered, and their messages are those *in records*.
//!
//! Each side of a line is counted where it happens, by different code, so a line that does not add
//! up is a defect that the ledger finds.
//!
//! A snapshot of a running agent adds up too, at every moment. A worker publishes its counts
//! together, after a whole batch and before a sink receives it, and in the same step enters the
//! batch in each sink's counts as *in batches*; the sink moves it from there to *offered* together
//! with its fate. So it does not matter how long a sink takes, say for its disk. Where a batch grows so
//! large that sinks receive a part of it early, that part is *ahead*: created, as seen from the sinks,
//! and added to what the worker has published. [`snapshot`] reads all of it as of one moment.
//!
//! A worker that does not come to its end (see `agent/src/ending.rs`) is abandoned, and the ledger adds
//! up all the same: whatever waits in it, and in batches that sinks have not taken, is lost with the
//! reason `abandoned`. So are the packets in its ring and in its unfinished batch, which it has not
//! counted and which are therefore the one number here that is a difference. Records of such a batch
//! that sinks received early may have arrived: their packets are then counted twice, as abandoned and
//! as *ahead*, and never not at all.
//!
//! Before the hooks there is time in which no agent captured: see [`PreviousRuns`].
//!
//! Carried is what an earlier run left in a sink's spool, and spooled is what this run leaves to the
//! next: after a run that ended in good order, the two agree.

#![forbid(unsafe_code)]

pub mod chain;
mod counts;
mod previous;
mod render;
mod seal;
pub mod signature;
mod sources;
mod stage;
mod stages;
mod standing;
mod statement;
mod summary;
mod window_tracker;

pub use counts::{
    EndpointCounts, MessageLoss, Published, RegistryCounts, SinkCounts, SinkLoss, SummaryCounts,
    WorkerCounts,
};
pub use counts::{snapshot, snapshot_with};
pub use previous::{
    Bounds, EarlierRuns, End, Gap, InterfaceGap, Lost, PreviousRun, PreviousRuns, Since, Standing,
};
pub use seal::{Evidence, Sealer, signed_message, summary_digest};
pub use sources::{InterfaceCounts, Sources};
pub use stage::{ByReason, ByStatus, Countable, Stage, StageCount, Term, Total};
pub use stages::{
    Deliveries, Fragments, Hook, Messages, Packets, Records, Rings, SpoolHistory, Summaries,
    TcpBytes,
};
pub use statement::{Agent, AgentPackets, Interface, Ledger, Sink, SpoolTotals};
pub use summary::{
    Kind, Moment, Progress, SUMMARY_NAME, SUMMARY_SCHEMA_TEXT, SUMMARY_SCHEMA_VERSION,
    SUMMARY_SCHEMA_VERSIONS, Summary, SummaryEncoder, Windows, summary_schema,
};
pub use window_tracker::WindowTracker;
