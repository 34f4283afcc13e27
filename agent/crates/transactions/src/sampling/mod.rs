//! Selects transactions for less volume: those that are notable, and a consistent share of the others.
//!
//! - A transaction is notable if it is no plain answer: [`Notable`] lists the kinds.
//! - The share of the others is decided by a hash of the exchange, [`SampleKey`], so that every agent,
//!   version and run decides alike, and a larger share contains a smaller one.

mod notable;
mod sample_key;
mod share;

pub use notable::{Notable, Notables};
pub use sample_key::{SampleHash, SampleKey};
pub use share::Share;
