//! Operators in control of a running agent.
//!
//! ```text
//!  tap53 enable … ─▶ socket ─▶ Request ─▶ run loop ─▶ interfaces wanted ─▶ hooks
//!  tap53 status   ◀─ socket ◀─ Status  ◀─────┘
//! ```
//!
//! A [`Request`] carries the channel for its answer, so that the loop that owns the pipeline is the
//! only one that touches it. What goes over the socket is in [`protocol`], what is allowed there in
//! `server`.

pub mod client;
pub mod config;
mod follow;
pub mod protocol;
mod request;
mod server;
mod socket;
#[cfg(test)]
pub(crate) mod tests;

pub use request::{AnnotationStatus, ConfigStatus, Refusal, Request, Requester, Status};
pub use server::{Counts, QUEUED, Server};
