//! The contract between the kernel programs and the agent.
//!
//! Both sides compile this library, so a layout, a constant or a header rule is stated once. It is
//! `no_std`, knows nothing of aya, and its tests run on the host.
//!
//! ```text
//!  packet ─▶ headers: where does DNS begin? ─▶ settings: is it wanted here? ─▶ record ─▶ ring
//!                 ├─ fragments: does the datagram carry DNS?
//!                 └────────────── counter: one reason for each packet not captured
//! ```
#![cfg_attr(not(test), no_std)]

pub mod counter;
pub mod fragments;
pub mod headers;
pub mod record;
pub mod settings;
