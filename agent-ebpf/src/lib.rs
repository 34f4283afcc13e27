//! The interface between the kernel programs and the agent.
//!
//! Both sides compile this library, so a layout, a constant or a header rule is defined once. It is
//! `no_std`, does not depend on aya, and its tests run on the host.
//!
//! ```text
//!  packet ─▶ headers: find DNS ─▶ settings: is it captured here? ─▶ ring item ─▶ ring
//!                 ├─ fragments: does the datagram carry DNS?
//!                 └────────────── counter: the reason of each packet that is not captured
//! ```
#![cfg_attr(not(test), no_std)]

mod interface;

pub mod counter;
pub mod fragments;
pub mod headers;
pub mod process;
pub mod record;
pub mod settings;

pub use interface::INTERFACE;
