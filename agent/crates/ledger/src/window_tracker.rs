//! Tracks the windows with unsettled records, in memory or in a spool.
//!
//! For each of the last windows, it counts the records in memory that were announced in it, and it
//! knows in which windows the stretches of the spool were announced. A worker announces its batch
//! before it publishes the numbers of its records, and a summary reads the numbers before it begins
//! a window here. So a record counts for its window or for one before: a window may be reported as
//! settled late, and never too early.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
};

use parking_lot::Mutex;
use tap53_records::encode::WindowSlot;

/// The number of windows with a count of their own. While the slot of the next one is in use, for
/// instance with windows of a second and a message timeout of minutes, the one before goes on.
const SLOTS: usize = WindowTracker::SLOTS;

/// The most stretches of the spool that are distinguished.
const STRETCHES: usize = 4_096;

/// The windows with unsettled records of one sink; see the [ledger's summaries](crate::summary).
pub struct WindowTracker {
    /// The window of new records.
    current: AtomicI64,
    in_memory: [AtomicU64; SLOTS],
    spooled: Mutex<VecDeque<Stretch>>,
}

/// Records of the spool below `end_id`, without those of earlier stretches.
struct Stretch {
    end_id: u64,
    window: i64,
}

impl Default for WindowTracker {
    /// In the first window, without records.
    fn default() -> Self {
        Self {
            current: AtomicI64::new(0),
            in_memory: [const { AtomicU64::new(0) }; SLOTS],
            spooled: Mutex::default(),
        }
    }
}

impl WindowTracker {
    /// The number of [slots](WindowSlot).
    pub const SLOTS: usize = 64;

    /// Adds records to memory; returns the slot that they count at.
    pub fn enter(&self, records: u64) -> WindowSlot {
        let slot = Self::slot(self.current.load(Ordering::Acquire));
        self.in_memory[usize::from(slot)].fetch_add(records, Ordering::AcqRel);
        WindowSlot(slot)
    }

    /// Removes records from memory, which are delivered, lost, or in the spool.
    pub fn leave(&self, slot: WindowSlot, records: u64) {
        if let Some(count) = self.in_memory.get(usize::from(slot.0)) {
            // A delivery report may follow `give_up_memory`.
            let less = |count: u64| Some(count.saturating_sub(records));
            let _ = count.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        }
    }

    /// Removes all records from memory, which have been counted as lost.
    pub fn give_up_memory(&self) {
        self.in_memory.iter().for_each(|count| count.store(0, Ordering::Release));
    }

    /// Adds records of `slot` to the spool, up to `end_id`. This comes before they leave memory, so
    /// that their window is unsettled throughout.
    pub fn spool(&self, slot: WindowSlot, end_id: u64) {
        let current = self.current.load(Ordering::Acquire);
        self.push(end_id, Self::latest_at(slot.0, current));
    }

    /// Counts records that earlier runs left in the spool for the first window.
    pub fn inherit(&self, end_id: u64) {
        self.push(end_id, 0);
    }

    fn push(&self, end_id: u64, window: i64) {
        let mut stretches = self.spooled.lock();
        let is_full = stretches.len() >= STRETCHES;
        match stretches.back_mut() {
            Some(last) if last.window == window || is_full => {
                last.end_id = end_id;
                last.window = last.window.min(window);
            }
            _ => stretches.push_back(Stretch { end_id, window }),
        }
    }

    /// Begins `window`. Returns the last window before it such that all records up to it are settled,
    /// if all below `acknowledged_id` have left the spool.
    pub fn begin_window(&self, window: i64, acknowledged_id: u64) -> Option<i64> {
        let before = self.current.load(Ordering::Acquire);
        let oldest = self.oldest_in_memory(before);
        // Windows with records have different slots.
        if oldest.is_none_or(|oldest| window - oldest < SLOTS as i64) {
            self.current.store(window, Ordering::Release);
        }
        let mut stretches = self.spooled.lock();
        while stretches.front().is_some_and(|stretch| stretch.end_id <= acknowledged_id) {
            stretches.pop_front();
        }
        let in_spool = stretches.iter().map(|stretch| stretch.window).min();
        let unsettled = oldest.into_iter().chain(in_spool).min().unwrap_or(window);
        (unsettled > 0).then(|| unsettled - 1)
    }

    fn oldest_in_memory(&self, current: i64) -> Option<i64> {
        let in_use = |count: &AtomicU64| count.load(Ordering::Acquire) > 0;
        (0..)
            .zip(&self.in_memory)
            .filter(|(_, count)| in_use(count))
            .map(|(slot, _)| Self::latest_at(slot, current))
            .min()
    }

    fn slot(window: i64) -> u8 {
        u8::try_from(window.rem_euclid(SLOTS as i64)).unwrap_or(0)
    }

    /// The last window up to `current` that counts at `slot`.
    fn latest_at(slot: u8, current: i64) -> i64 {
        (current - (current - i64::from(slot)).rem_euclid(SLOTS as i64)).max(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_settled_once_all_of_it_and_of_those_before_has_left_memory() {
        let tracker = WindowTracker::default();
        assert_eq!(tracker.begin_window(1, 0), Some(0));
        let first = tracker.enter(2);
        assert_eq!(tracker.begin_window(2, 0), Some(0));
        let second = tracker.enter(1);
        tracker.leave(first, 1);
        assert_eq!(tracker.begin_window(3, 0), Some(0));
        tracker.leave(second, 1);
        assert_eq!(tracker.begin_window(4, 0), Some(0), "one of the first is in flight");
        tracker.leave(first, 1);
        assert_eq!(tracker.begin_window(5, 0), Some(4));
    }

    #[test]
    fn what_was_inherited_is_before_every_window() {
        let tracker = WindowTracker::default();
        tracker.inherit(10);
        assert_eq!(tracker.begin_window(1, 0), None);
        let slot = tracker.enter(2);
        tracker.spool(slot, 12);
        tracker.leave(slot, 2);
        assert_eq!(tracker.begin_window(2, 9), None);
        assert_eq!(tracker.begin_window(3, 10), Some(0));
        assert_eq!(tracker.begin_window(4, 12), Some(3));
    }

    #[test]
    fn what_comes_back_late_counts_for_its_own_window() {
        let tracker = WindowTracker::default();
        tracker.begin_window(1, 0);
        let late = tracker.enter(1);
        tracker.begin_window(2, 0);
        let other = tracker.enter(1);
        tracker.spool(other, 5);
        tracker.leave(other, 1);
        tracker.spool(late, 6);
        tracker.leave(late, 1);
        assert_eq!(tracker.begin_window(3, 4), Some(0));
        assert_eq!(tracker.begin_window(4, 5), Some(0), "the one of window 1 comes after it");
        assert_eq!(tracker.begin_window(5, 6), Some(4));
    }

    #[test]
    fn a_window_whose_slot_is_in_use_goes_on_in_the_one_before() {
        let tracker = WindowTracker::default();
        for window in 1..=3 {
            tracker.begin_window(window, 0);
        }
        let stuck = tracker.enter(1);
        for window in 4..200 {
            assert_eq!(tracker.begin_window(window, 0), Some(2), "before {window}");
        }
        let late = tracker.enter(1);
        tracker.leave(stuck, 1);
        assert_eq!(tracker.begin_window(200, 0), Some(65));
        tracker.leave(late, 1);
        assert_eq!(tracker.begin_window(201, 0), Some(200));
    }
}
