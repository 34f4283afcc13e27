//! Losses of the queue, by reason.

use tap53_base::amount::Amount;

use super::segment::Position;

/// Reasons why a record left the queue without being acknowledged.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It was among the oldest when the queue was full.
    DroppedOldest,
    /// It exceeded the maximum age.
    TooOld,
    /// It could not be read from the disk.
    Unreadable,
    /// It can never be delivered, such as one that is longer than the broker accepts.
    Rejected,
}

impl Loss {
    /// All reasons, in index order.
    pub const ALL: [Self; 4] =
        [Self::DroppedOldest, Self::TooOld, Self::Unreadable, Self::Rejected];

    /// Returns the name of the reason.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DroppedOldest => "dropped_oldest",
            Self::TooOld => "too_old",
            Self::Unreadable => "unreadable",
            Self::Rejected => "rejected",
        }
    }
}

/// Amounts lost, by [`Loss`].
pub type Losses = [Amount; Loss::ALL.len()];

/// A loss that is to be written down once all records before it have left the queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsettled {
    /// The id after the lost records.
    pub(super) after_id: u64,
    pub(super) reason: Loss,
    pub(super) amount: Amount,
}

/// Totals of all records that ever were in the queue, over all processes that used it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct History {
    /// Start of the totals: the start of the queue, unless a checkpoint was damaged or an older
    /// version without losses wrote it.
    pub(super) from: Position,
    pub(super) lost: Losses,
}

/// Totals of all records that ever were in the queue, over all processes that used it, including
/// killed ones. Each record is in exactly one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Id of the first counted record; 0 unless a checkpoint was damaged.
    pub from_id: u64,
    /// Appended records.
    pub appended: Amount,
    /// Records that wait, in flight or not.
    pub waiting: Amount,
    /// Delivered records.
    pub arrived: Amount,
    /// Lost records by [`Loss`]. If a process was killed, they include the records that were in
    /// flight when their segment was dropped.
    pub lost: Losses,
}

impl Totals {
    pub(super) fn new(history: &History, end: Position, waiting: Amount) -> Self {
        let appended = super::segment::between(history.from, end);
        let mut arrived = appended;
        arrived -= waiting;
        history.lost.iter().for_each(|lost| arrived -= *lost);
        Self { from_id: history.from.id, appended, waiting, arrived, lost: history.lost }
    }
}
