//! What the queue lost, and why.

use crate::ledger::Amount;

/// Why a record left the queue without being acknowledged.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It was among the oldest when room was needed.
    DroppedOldest,
    /// It was older than records may get.
    TooOld,
    /// It could not be read back.
    Unreadable,
    /// It can never be delivered, such as one that is longer than the broker takes.
    Rejected,
}

impl Loss {
    /// All reasons, in index order.
    pub const ALL: [Self; 4] =
        [Self::DroppedOldest, Self::TooOld, Self::Unreadable, Self::Rejected];
}

/// Amounts lost, by [`Loss`].
pub type Losses = [Amount; Loss::ALL.len()];
