//! The slots of pending queries, and their lists in order of arrival.

use std::mem;

use super::{Table, sightings::Links, signs::target_hash};
use crate::pair::{Anomalies, Observation, recent::Sighting};
use tap53_dns::Flow;

/// Marks the end of a list, or no slot.
pub(super) const NONE: u32 = u32::MAX;

/// Maximum size in bytes of the buffers that a free slot keeps; a query with a name of usual length
/// needs less.
pub(super) const MAX_FREE_BUFFER_BYTES: usize = 512;

pub(super) struct Slot {
    pub(super) pending: bool,
    pub(super) flow: Flow,
    pub(super) query: Box<Observation>,
    /// Size of the query's buffers when it arrived, in bytes.
    pub(super) buffer_bytes: usize,
    pub(super) query_count: u32,
    pub(super) copy_count: u32,
    /// The latest sighting of the query, except for copies.
    pub(super) latest: Sighting,
    /// True if an exchange of the same flow and identifier may have ended recently.
    pub(super) again: bool,
    /// True if it passed its interface in both directions: on `lo`, or if packets are turned back.
    pub(super) both_ways: bool,
    /// Hash of the question; 0 without a question.
    pub(super) question: u32,
    /// Hash of the question's name in its original case.
    pub(super) case: u32,
    pub(super) anomalies: Anomalies,
    /// Sequence number of its record, if another record refers to it already; otherwise 0.
    pub(super) sequence: u64,
    /// Start of its timeout: its capture time, or a later time that was already reached. So the
    /// list is sorted by it, and a query of a slow clock (of another host in a capture file, of
    /// another CPU) gets its full timeout too.
    pub(super) since_ns: u64,
    /// Number of capture gaps when the query was captured.
    pub(super) gaps: u64,
    pub(super) hash: u64,
    pub(super) older: u32,
    pub(super) newer: u32,
    /// Other sightings of the exchange.
    pub(super) links: Links,
}

impl Slot {
    /// Returns true if its query is pending, and a response on `flow` belongs to it.
    #[inline]
    pub(super) fn is_answered_by(&self, flow: &Flow, response: &Observation) -> bool {
        let question = response.message.question();
        self.pending
            && self.query.message.id == response.message.id
            && self.flow == *flow
            && (question.is_none() || question == self.query.message.question())
    }

    /// Returns true if the case of the question's name differs from that in the response.
    pub(super) fn has_other_case(&self, response: u32) -> bool {
        self.case != 0
            && response != 0
            && self.case != response
            && !self.flow.server.ip().is_multicast()
    }

    /// Returns true if client and server are on different sides of an interface.
    pub(super) fn has_two_sides(&self) -> bool {
        let [client, server] = [self.flow.client.ip(), self.flow.server.ip()];
        !self.both_ways && client != server && !client.is_loopback() && !server.is_multicast()
    }
}

/// Pending queries of one transport, in order of arrival.
#[derive(Clone, Copy)]
pub(super) struct List {
    pub(super) timeout_ns: u64,
    pub(super) oldest: u32,
    pub(super) newest: u32,
}

/// Hashes of a query.
#[derive(Clone, Copy)]
pub(super) struct QueryHashes {
    /// Hash of flow and identifier.
    pub(super) key: u64,
    pub(super) question: u32,
    /// Hash of the question's name in its original case.
    pub(super) case: u32,
}

impl Table {
    pub(super) fn pending(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(slot as usize).filter(|slot| slot.pending)
    }

    /// Returns the oldest of all pending queries.
    pub(super) fn oldest(&self) -> Option<u32> {
        let heads = self.lists.iter().map(|list| list.oldest);
        heads
            .filter_map(|head| Some((self.slots.get(head as usize)?.since_ns, head)))
            .min()
            .map(|(_, head)| head)
    }

    pub(super) fn insert(
        &mut self,
        hashes: QueryHashes,
        flow: &Flow,
        query: &mut Box<Observation>,
        again: bool,
    ) -> u32 {
        let latest = Sighting::of(query);
        let number = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                pending: false,
                flow: *flow,
                query: Box::default(),
                buffer_bytes: 0,
                query_count: 0,
                copy_count: 0,
                latest,
                again: false,
                both_ways: false,
                question: 0,
                case: 0,
                anomalies: Anomalies::NONE,
                sequence: 0,
                since_ns: 0,
                gaps: 0,
                hash: 0,
                older: NONE,
                newer: NONE,
                links: Links::NONE,
            });
            // It is at most `capacity`, which fits u32.
            u32::try_from(self.slots.len() - 1).unwrap_or(NONE)
        });
        let list = &mut self.lists[flow.transport as usize];
        let slot = &mut self.slots[number as usize];
        mem::swap(&mut slot.query, query);
        slot.pending = true;
        slot.flow = *flow;
        slot.query_count = 1;
        slot.copy_count = 0;
        slot.latest = latest;
        slot.again = again;
        slot.both_ways = false;
        slot.question = hashes.question;
        slot.case = hashes.case;
        slot.anomalies = Anomalies::NONE;
        slot.sequence = 0;
        slot.since_ns = slot.query.at_ns.max(self.latest_ns);
        slot.gaps = self.gaps.known();
        slot.hash = hashes.key;
        slot.older = list.newest;
        slot.newer = NONE;
        self.pending_messages += 1;
        slot.buffer_bytes = slot.query.buffer_bytes();
        self.buffer_bytes += slot.buffer_bytes;
        match self.slots.get_mut(list.newest as usize) {
            Some(newest) => newest.newer = number,
            None => list.oldest = number,
        }
        list.newest = number;
        let slots = &self.slots;
        let target = target_hash(&self.hasher, flow, hashes.question);
        self.question_index.note(target, number);
        self.shared.note_worker(target, self.ids.worker());
        self.index.insert_unique(hashes.key, number, |slot| slots[*slot as usize].hash);
        number
    }

    /// Removes a slot from index and list; its content stays until another query replaces it.
    pub(super) fn remove_slot(&mut self, number: u32) {
        let hash = self.slots[number as usize].hash;
        if let Ok(entry) = self.index.find_entry(hash, |slot| *slot == number) {
            entry.remove();
        }
        self.unlink(number);
    }

    /// Removes a slot, which is no longer in the index, from its list, and frees it.
    pub(super) fn unlink(&mut self, number: u32) {
        self.detach(number);
        self.free_slot(number);
    }

    /// Removes a slot, which is no longer in the index, from its list.
    #[inline]
    pub(super) fn detach(&mut self, number: u32) {
        self.unindex_sighting(number);
        let slot = &mut self.slots[number as usize];
        slot.pending = false;
        let (older, newer) = (slot.older, slot.newer);
        let list = &mut self.lists[slot.flow.transport as usize];
        match self.slots.get_mut(older as usize) {
            Some(slot) => slot.newer = newer,
            None => list.oldest = newer,
        }
        match self.slots.get_mut(newer as usize) {
            Some(slot) => slot.older = older,
            None => list.newest = older,
        }
    }

    /// Frees a slot that was detached; its content stays until another query replaces it.
    #[inline]
    pub(super) fn free_slot(&mut self, number: u32) {
        let slot = &self.slots[number as usize];
        self.pending_messages -= u64::from(slot.query_count);
        self.buffer_bytes -= slot.buffer_bytes;
        self.free.push(number);
        self.removed = number;
    }

    /// Frees large buffers of the slot that was removed last.
    pub(super) fn shrink_buffers(&mut self) {
        if let Some(slot) = self.slots.get_mut(self.removed as usize)
            && !slot.pending
            && slot.buffer_bytes > MAX_FREE_BUFFER_BYTES
        {
            *slot.query = Observation::default();
            slot.buffer_bytes = 0;
        }
    }
}
