//! tap53, a DNS capture agent.
pub mod capture;
pub mod config;
pub mod decode;
pub mod encode;
pub mod interfaces;
pub mod ledger;
pub mod pair;
pub mod sink;
