//! The control socket of a running agent.
//!
//! ```text
//!  tap53 enable … ─▶ socket ─▶ Request ─▶ run loop ─▶ desired interfaces ─▶ hooks
//!  tap53 status   ◀─ socket ◀─ Status  ◀─────┘
//! ```
//!
//! A [`Request`] has the channel for its answer, so that only the loop that owns the pipeline touches
//! it. [`protocol`] describes the messages at the socket, `server` its limits.

pub mod agents;
pub mod client;
pub mod config;
mod count;
mod follow;
pub mod protocol;
mod request;
mod server;
mod socket;
#[cfg(test)]
pub(crate) mod tests;

pub use request::{AnnotationStatus, Bypass, ConfigStatus, Refusal, Request, Requester, Status};
pub use server::{Counts, QUEUED, Server};
