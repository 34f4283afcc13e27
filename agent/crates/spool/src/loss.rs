//! Losses of the queue, by reason.

use tap53_base::amount::Amount;
use tap53_reasons::reasons;

use super::segment::Position;

reasons! {
    /// Why a record left the queue without being acknowledged.
    pub enum Loss {
        /// The spool was full, and the record was among the oldest.
        DroppedOldest = "dropped_oldest", Lost, "raise `spool.max_bytes`; bring the broker back";
        /// The record was longer in the spool than `max_age_s`.
        TooOld = "too_old", Lost, "raise `max_age_s`; check the clock";
        /// The entry is damaged.
        Unreadable = "unreadable", Lost, "`tap53 spool verify DIRECTORY`; check the disk";
        /// The record can never be delivered, such as one that is larger than the broker accepts.
        Rejected = "rejected", Lost, "the log names the error";
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
