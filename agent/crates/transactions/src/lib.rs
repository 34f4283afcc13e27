//! Pairs queries and responses to transactions, filters them, and applies the privacy rules to
//! their addresses.

#![forbid(unsafe_code)]

pub mod chain;
pub mod filter;
pub mod pair;
pub mod privacy;
pub mod sampling;
