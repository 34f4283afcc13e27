//! Records that were read and have not left the queue.

use std::collections::VecDeque;

use tap53_base::amount::Amount;

use super::{loss::Loss, segment::Position};

/// The state of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Sent, without a report so far.
    Sent,
    /// The delivery failed; it is to be sent again.
    Failed,
    /// Settled, and only kept because an older record is not.
    Settled,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) position: Position,
    pub(super) messages: u32,
    pub(super) state: State,
    /// First id of its segment, and offset of the entry.
    pub(super) segment: u64,
    pub(super) offset: u64,
    /// The reason why its segment was dropped while it was in flight.
    pub(super) dropped: Option<Loss>,
}

impl Slot {
    pub(super) fn amount(&self) -> Amount {
        Amount::record(u64::from(self.messages))
    }
}

/// Slots in the order of ids. Bounded, since the producer's queue is bounded.
#[derive(Debug, Default)]
pub(super) struct Window {
    slots: VecDeque<Slot>,
    pub(super) sent: usize,
    pub(super) failed: usize,
}

impl Window {
    pub(super) fn push(&mut self, slot: Slot) {
        self.slots.push_back(slot);
        self.sent += 1;
    }

    /// Returns the oldest record that has not left the queue.
    pub(super) fn front(&self) -> Option<&Slot> {
        self.slots.front()
    }

    /// Returns the first failed record at or after `id`.
    pub(super) fn failed_from(&self, id: u64) -> Option<Slot> {
        let start = self.slots.partition_point(|slot| slot.position.id < id);
        self.slots.range(start..).find(|slot| slot.state == State::Failed).copied()
    }

    /// Returns the ids of the sent records.
    pub(super) fn all_sent(&self) -> Vec<u64> {
        let sent = self.slots.iter().filter(|slot| slot.state == State::Sent);
        sent.map(|slot| slot.position.id).collect()
    }

    /// Changes the state of a record from `from` to `to`. Returns `None` if it is not in that
    /// state.
    pub(super) fn change(&mut self, id: u64, from: State, to: State) -> Option<Slot> {
        let index = self.slots.binary_search_by_key(&id, |slot| slot.position.id).ok()?;
        let slot = self.slots.get_mut(index).filter(|slot| slot.state == from)?;
        slot.state = to;
        let slot = *slot;
        for (state, is_entered) in [(from, false), (to, true)] {
            let count = match state {
                State::Sent => &mut self.sent,
                State::Failed => &mut self.failed,
                State::Settled => continue,
            };
            *count = if is_entered { *count + 1 } else { count.saturating_sub(1) };
        }
        if index == 0 {
            self.drop_settled();
        }
        Some(slot)
    }

    /// Removes all failed records below `id`, and returns them.
    pub(super) fn take_failed_below(&mut self, id: u64) -> Vec<Slot> {
        let mut given_up = Vec::new();
        for slot in self.slots.iter_mut().take_while(|slot| slot.position.id < id) {
            if slot.state == State::Failed {
                slot.state = State::Settled;
                self.failed -= 1;
                given_up.push(*slot);
            }
        }
        self.drop_settled();
        given_up
    }

    /// Marks that the segments below `id` were dropped: records in flight are not sent again.
    pub(super) fn mark_dropped_below(&mut self, id: u64, reason: Loss) {
        for slot in self.slots.iter_mut().take_while(|slot| slot.position.id < id) {
            slot.dropped = slot.dropped.or(Some(reason));
        }
    }

    /// Returns the number of records below `id` that have not left the queue.
    pub(super) fn pending_below(&self, id: u64) -> u64 {
        let below = self.slots.iter().take_while(|slot| slot.position.id < id);
        below.filter(|slot| slot.state != State::Settled).count() as u64
    }

    fn drop_settled(&mut self) {
        while self.slots.front().is_some_and(|slot| slot.state == State::Settled) {
            self.slots.pop_front();
        }
    }
}
