//! Records that were read and have not left the queue.

use std::collections::VecDeque;

use tap53_base::amount::Amount;

use super::{loss::Loss, segment::Place};

/// What became of a record so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Handed out.
    Sent,
    /// Handed out in vain; to be handed out again.
    Failed,
    /// Done with, and only here because an older one is not.
    Done,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) place: Place,
    pub(super) messages: u32,
    pub(super) state: State,
    /// First id of its segment, and where in it the entry is.
    pub(super) segment: u64,
    pub(super) offset: u64,
    /// Why its segment was dropped while it was in flight.
    pub(super) gone: Option<Loss>,
}

impl Slot {
    pub(super) fn amount(&self) -> Amount {
        Amount::record(u64::from(self.messages))
    }
}

/// Slots in the order of ids. As long as what the producer holds, which is bounded.
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

    /// The oldest that has not left the queue.
    pub(super) fn front(&self) -> Option<&Slot> {
        self.slots.front()
    }

    /// The first at or after `id` that failed.
    pub(super) fn failed_from(&self, id: u64) -> Option<Slot> {
        let start = self.slots.partition_point(|slot| slot.place.id < id);
        self.slots.range(start..).find(|slot| slot.state == State::Failed).copied()
    }

    /// Ids of those that were sent.
    pub(super) fn all_sent(&self) -> Vec<u64> {
        let sent = self.slots.iter().filter(|slot| slot.state == State::Sent);
        sent.map(|slot| slot.place.id).collect()
    }

    /// Changes the state of a record from `from` to `to`; `None` if it is not in that state.
    pub(super) fn change(&mut self, id: u64, from: State, to: State) -> Option<Slot> {
        let index = self.slots.binary_search_by_key(&id, |slot| slot.place.id).ok()?;
        let slot = self.slots.get_mut(index).filter(|slot| slot.state == from)?;
        slot.state = to;
        let slot = *slot;
        for (state, is_entered) in [(from, false), (to, true)] {
            let count = match state {
                State::Sent => &mut self.sent,
                State::Failed => &mut self.failed,
                State::Done => continue,
            };
            *count = if is_entered { *count + 1 } else { count.saturating_sub(1) };
        }
        if index == 0 {
            self.drop_done();
        }
        Some(slot)
    }

    /// Gives up all that failed below `id`, and returns them.
    pub(super) fn give_up_failed_below(&mut self, id: u64) -> Vec<Slot> {
        let mut given_up = Vec::new();
        for slot in self.slots.iter_mut().take_while(|slot| slot.place.id < id) {
            if slot.state == State::Failed {
                slot.state = State::Done;
                self.failed -= 1;
                given_up.push(*slot);
            }
        }
        self.drop_done();
        given_up
    }

    /// The segments of all below `id` are gone: what of it is in flight is not to be sent again.
    pub(super) fn segments_gone_below(&mut self, id: u64, reason: Loss) {
        for slot in self.slots.iter_mut().take_while(|slot| slot.place.id < id) {
            slot.gone = slot.gone.or(Some(reason));
        }
    }

    /// How many below `id` have not left the queue.
    pub(super) fn undone_below(&self, id: u64) -> u64 {
        let below = self.slots.iter().take_while(|slot| slot.place.id < id);
        below.filter(|slot| slot.state != State::Done).count() as u64
    }

    fn drop_done(&mut self) {
        while self.slots.front().is_some_and(|slot| slot.state == State::Done) {
            self.slots.pop_front();
        }
    }
}
