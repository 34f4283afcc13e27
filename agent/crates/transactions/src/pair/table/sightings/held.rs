//! Holds the response to an inner query until the outer sighting ends.

use std::{collections::VecDeque, mem};

use super::super::{Table, signs::hash_of, slots::NONE};
use crate::pair::{Anomalies, Exchange, Observation, Transaction};

/// Time in nanoseconds of capture that the response to an inner query waits for that of the outer
/// one, which follows within microseconds.
const HELD_NS: u64 = 100_000_000;

/// Maximum number of responses that wait.
const HELD: usize = 1_024;

/// Maximum number of spare response buffers, and the maximum size of one in bytes.
const SPARE: usize = 8;
const SPARE_BYTES: usize = 16_384;

/// The response to an inner query.
pub(super) struct Held {
    pub(super) response: Box<Observation>,
    /// Hash of its bytes.
    pub(super) content: u64,
    capture_gap: bool,
    /// Time until which it waits.
    until_ns: u64,
}

/// The responses that wait. Each is in its slot.
#[derive(Default)]
pub(super) struct HeldResponses {
    /// Slots in the order of their deadline; some of them are no longer held.
    deadlines: VecDeque<(u64, u32)>,
    /// Slots that have lost their outer sighting.
    pub(super) due: Vec<u32>,
    count: usize,
    #[expect(clippy::vec_box, reason = "they are exchanged with boxes that the caller has")]
    spare: Vec<Box<Observation>>,
    /// The response of the slot that was recorded last.
    recorded: Option<Box<Observation>>,
}

impl HeldResponses {
    fn keep_spare(&mut self, response: Box<Observation>) {
        if self.spare.len() < SPARE && response.buffer_bytes() <= SPARE_BYTES {
            self.spare.push(response);
        }
    }
}

impl Table {
    /// Returns true if a response to an inner query can wait.
    pub(in crate::pair::table) fn may_hold(&self) -> bool {
        self.sightings.held.count < HELD
    }

    /// Keeps the response to an inner query, which was removed from the index, until the outer
    /// sighting ends.
    #[cold]
    pub(in crate::pair::table) fn hold(
        &mut self,
        number: u32,
        response: &mut Box<Observation>,
        wire: &[u8],
        capture_gap: bool,
        anomalies: Anomalies,
    ) {
        let content = hash_of(&self.hasher, wire);
        let until_ns = response.at_ns.max(self.latest_ns).saturating_add(HELD_NS);
        let spare = self.sightings.held.spare.pop().unwrap_or_default();
        let response = mem::replace(response, spare);
        let slot = &mut self.slots[number as usize];
        slot.anomalies = anomalies;
        slot.links.held = Some(Held { response, content, capture_gap, until_ns });
        self.pending_messages += 1;
        self.sightings.held.count += 1;
        while let Some((until_ns, oldest)) = self.sightings.held.deadlines.front().copied()
            && !self.is_held_until(oldest, until_ns)
        {
            self.sightings.held.deadlines.pop_front();
        }
        self.sightings.held.deadlines.push_back((until_ns, number));
    }

    fn is_held_until(&self, number: u32, until_ns: u64) -> bool {
        let held = self.slots[number as usize].links.held.as_ref();
        held.is_some_and(|held| held.until_ns == until_ns)
    }

    /// Frees a held slot, and returns its response.
    fn free_held(&mut self, number: u32) -> Option<Held> {
        let held = self.slots[number as usize].links.held.take()?;
        self.pending_messages -= 1;
        self.sightings.held.count -= 1;
        self.free_slot(number);
        Some(held)
    }

    /// Frees a held slot whose messages are copies.
    pub(super) fn release_held(&mut self, number: u32) {
        if let Some(held) = self.free_held(number) {
            self.sightings.held.keep_spare(held.response);
        }
    }

    /// Returns a held slot that waits no longer at `now_ns`.
    #[inline]
    pub(in crate::pair::table) fn next_due(&mut self, now_ns: u64) -> Option<u32> {
        if self.sightings.held.count == 0 {
            return None;
        }
        self.next_held(now_ns)
    }

    #[cold]
    fn next_held(&mut self, now_ns: u64) -> Option<u32> {
        while let Some(number) = self.sightings.held.due.pop() {
            if self.slots[number as usize].links.held.is_some() {
                return Some(number);
            }
        }
        while let Some((until_ns, number)) = self.sightings.held.deadlines.front().copied() {
            // Some have ended since, and their slots may hold others.
            let is_held = self.is_held_until(number, until_ns);
            if is_held && until_ns > now_ns {
                return None;
            }
            self.sightings.held.deadlines.pop_front();
            if is_held {
                return Some(number);
            }
        }
        None
    }

    /// Records a held slot apart from its outer sighting.
    #[cold]
    pub(in crate::pair::table) fn record_held(&mut self, number: u32) -> Option<Transaction<'_>> {
        let slot = &mut self.slots[number as usize];
        let content = slot.links.held.as_ref()?.content;
        if slot.sequence == 0 {
            slot.sequence = self.ids.next();
        }
        let sequence = slot.sequence;
        self.relate_apart(number, sequence);
        let mut merged = self.without_inner(number);
        if self.slots[number as usize].links.inner != NONE {
            self.merge_inner(number, Some(content), &mut merged);
        }
        let Held { response, capture_gap, .. } = self.free_held(number)?;
        if let Some(recorded) = self.sightings.held.recorded.replace(response) {
            self.sightings.held.keep_spare(recorded);
        }
        let slot = &self.slots[number as usize];
        let response = self.sightings.held.recorded.as_deref()?;
        Some(Transaction {
            id: self.ids.of(sequence),
            flow: slot.flow,
            exchange: Exchange::Matched(&slot.query, response),
            query_count: slot.query_count,
            latest_query_ns: slot.latest.at_ns,
            copy_count: slot.copy_count + merged.copies,
            capture_gap,
            related: merged.related,
            anomalies: slot.anomalies.union(merged.anomalies),
            sightings: merged.sightings,
            chain: None,
        })
    }

    /// Separates a held slot from its outer sighting, which has no response yet: it was lost on its
    /// way back. The records refer to each other if they have the same client.
    fn relate_apart(&mut self, number: u32, sequence: u64) {
        let outer = self.slots[number as usize].links.outer;
        if outer == NONE {
            return;
        }
        let outermost = self.reserve_outermost(number);
        self.separate(number);
        let client = self.slots[number as usize].flow.client;
        let is_same_client = self.slots[outer as usize].flow.client == client;
        for (slot, other) in [(outer, sequence), (number, outermost)] {
            let links = &mut self.slots[slot as usize].links;
            if is_same_client {
                links.apart = other;
            } else {
                links.undecided = true;
            }
        }
    }

    /// Returns the number of responses that wait for those of outer sightings.
    #[cfg(test)]
    pub(in crate::pair::table) fn held_responses(&self) -> usize {
        self.sightings.held.count
    }
}
