//! Queries and responses become transactions; filters choose among them, and rules of privacy say what
//! is shown of their addresses.

#![forbid(unsafe_code)]

pub mod filter;
pub mod pair;
pub mod privacy;
