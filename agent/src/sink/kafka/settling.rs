//! Which windows of the ledger have records that are on their way, in memory or in the spool.
//!
//! A count for each of the last windows, of what was announced in it and is in memory; and for
//! stretches of the spool, in which window they were announced. A worker announces its batch before
//! it publishes the numbers of its records, and a summary reads the numbers before it begins a
//! window here; so a record counts for its window or for one before, which may delay what a summary
//! says and makes nothing wrong.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use crate::encode::Ticket;

/// Windows that memory is counted for. While the place of the next one is still in use, as with
/// windows of a second and a message timeout of minutes, the one before goes on.
pub(super) const PLACES: usize = 64;

/// Stretches of the spool that are told apart.
const STRETCHES: usize = 4_096;

pub(super) struct Settling {
    /// The window that records are handed over in.
    current: AtomicI64,
    in_memory: [AtomicU64; PLACES],
    spooled: Mutex<VecDeque<Stretch>>,
}

/// Records of the spool below `end_id` that are in no stretch before.
struct Stretch {
    end_id: u64,
    window: i64,
}

impl Settling {
    /// Nothing is on its way, in the first window.
    pub(super) fn new() -> Self {
        Self {
            current: AtomicI64::new(0),
            in_memory: [const { AtomicU64::new(0) }; PLACES],
            spooled: Mutex::default(),
        }
    }

    /// So many records are about to be handed over; where they count until they have left memory.
    pub(super) fn enter(&self, records: u64) -> Ticket {
        let place = Self::place(self.current.load(Ordering::Acquire));
        self.in_memory[usize::from(place)].fetch_add(records, Ordering::AcqRel);
        Ticket(place)
    }

    /// So many of them are delivered, lost, or in the spool.
    pub(super) fn leave(&self, ticket: Ticket, records: u64) {
        if let Some(count) = self.in_memory.get(usize::from(ticket.0)) {
            // A report may come after everything was given up.
            let less = |count: u64| Some(count.saturating_sub(records));
            let _ = count.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        }
    }

    /// What is in memory has been given up.
    pub(super) fn give_up_memory(&self) {
        self.in_memory.iter().for_each(|count| count.store(0, Ordering::Release));
    }

    /// Records that were handed over with `ticket` are in the spool, up to `end_id`. To be called
    /// before they leave memory, so that they are never nowhere.
    pub(super) fn spool(&self, ticket: Ticket, end_id: u64) {
        let current = self.current.load(Ordering::Acquire);
        self.push(end_id, Self::latest_at(ticket.0, current));
    }

    /// What earlier runs have left in the spool counts for the first window.
    pub(super) fn carry(&self, end_id: u64) {
        self.push(end_id, 0);
    }

    fn push(&self, end_id: u64, window: i64) {
        let mut stretches = self.lock();
        let is_full = stretches.len() >= STRETCHES;
        match stretches.back_mut() {
            Some(last) if last.window == window || is_full => {
                last.end_id = end_id;
                last.window = last.window.min(window);
            }
            _ => stretches.push_back(Stretch { end_id, window }),
        }
    }

    /// From now on records are of `window`. The last window before it of which nothing is on its
    /// way, where all below `done_id` has left the spool; `None` if it is none.
    pub(super) fn begin_window(&self, window: i64, done_id: u64) -> Option<i64> {
        let before = self.current.load(Ordering::Acquire);
        let oldest = self.oldest_in_memory(before);
        // All windows that are told apart have a place of their own.
        if oldest.is_none_or(|oldest| window - oldest < PLACES as i64) {
            self.current.store(window, Ordering::Release);
        }
        let mut stretches = self.lock();
        while stretches.front().is_some_and(|stretch| stretch.end_id <= done_id) {
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
            .map(|(place, _)| Self::latest_at(place, current))
            .min()
    }

    fn place(window: i64) -> u8 {
        // Below 64, so it fits.
        u8::try_from(window.rem_euclid(PLACES as i64)).unwrap_or(0)
    }

    /// The last window up to `current` that counts at `place`.
    fn latest_at(place: u8, current: i64) -> i64 {
        (current - (current - i64::from(place)).rem_euclid(PLACES as i64)).max(0)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Stretch>> {
        // Each change is one step.
        self.spooled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_settled_once_all_of_it_and_of_those_before_has_left_memory() {
        let settling = Settling::new();
        assert_eq!(settling.begin_window(1, 0), Some(0));
        let first = settling.enter(2);
        assert_eq!(settling.begin_window(2, 0), Some(0));
        let second = settling.enter(1);
        settling.leave(first, 1);
        assert_eq!(settling.begin_window(3, 0), Some(0));
        settling.leave(second, 1);
        assert_eq!(settling.begin_window(4, 0), Some(0), "one of the first is on its way");
        settling.leave(first, 1);
        assert_eq!(settling.begin_window(5, 0), Some(4));
    }

    #[test]
    fn what_was_carried_is_before_every_window() {
        let settling = Settling::new();
        settling.carry(10);
        assert_eq!(settling.begin_window(1, 0), None);
        let ticket = settling.enter(2);
        settling.spool(ticket, 12);
        settling.leave(ticket, 2);
        assert_eq!(settling.begin_window(2, 9), None);
        assert_eq!(settling.begin_window(3, 10), Some(0));
        assert_eq!(settling.begin_window(4, 12), Some(3));
    }

    #[test]
    fn what_comes_back_late_counts_for_its_own_window() {
        let settling = Settling::new();
        settling.begin_window(1, 0);
        let late = settling.enter(1);
        settling.begin_window(2, 0);
        let other = settling.enter(1);
        settling.spool(other, 5);
        settling.leave(other, 1);
        settling.spool(late, 6);
        settling.leave(late, 1);
        assert_eq!(settling.begin_window(3, 4), Some(0));
        assert_eq!(settling.begin_window(4, 5), Some(0), "the one of window 1 is behind");
        assert_eq!(settling.begin_window(5, 6), Some(4));
    }

    #[test]
    fn a_window_whose_place_is_in_use_goes_on_in_the_one_before() {
        let settling = Settling::new();
        for window in 1..=3 {
            settling.begin_window(window, 0);
        }
        let stuck = settling.enter(1);
        for window in 4..200 {
            assert_eq!(settling.begin_window(window, 0), Some(2), "before {window}");
        }
        let late = settling.enter(1);
        settling.leave(stuck, 1);
        assert_eq!(settling.begin_window(200, 0), Some(65));
        settling.leave(late, 1);
        assert_eq!(settling.begin_window(201, 0), Some(200));
    }
}
