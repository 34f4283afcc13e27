//! Removes queries without a response: those whose timeout has expired, those beyond the limits, and
//! all of them at the end.

use super::{Table, slots::List};
use crate::pair::{
    Anomaly, Exchange, Transaction,
    recent::{EndedExchange, Sighting},
};

/// Maximum average size in bytes of the buffers of pending queries when the table is full. One
/// query over TCP may have 64 KiB.
pub(super) const BUFFER_BYTES_PER_QUERY: usize = 512;

impl Table {
    /// Removes a response that waits no longer for its outer sighting, or the oldest query whose timeout has expired at `now_ns` (CLOCK_MONOTONIC, the time up
    /// to which the ring has been read). Call it until it returns `None`.
    pub fn expire(&mut self, now_ns: u64) -> Option<Transaction<'_>> {
        self.shrink_buffers();
        self.latest_ns = self.latest_ns.max(now_ns);
        if let Some(held) = self.next_due(now_ns) {
            return self.record_held(held);
        }
        let due = |list: &List| {
            let oldest = self.slots.get(list.oldest as usize)?;
            let due = oldest.since_ns.saturating_add(list.timeout_ns) <= now_ns;
            due.then_some(list.oldest)
        };
        let slot = self.lists.iter().find_map(due)?;
        let pending = &self.slots[slot as usize];
        let capture_gap = pending.query.cut
            || pending.gaps != self.gaps.known()
            || self.gaps.is_damaged(&pending.flow, pending.query.at_ns)
            || self.gaps.is_switched(pending.query.point.ifindex, pending.query.at_ns);
        // Its end is the time when it was due: a query that arrives later is a new one.
        let timeout_ns = self.lists[pending.flow.transport as usize].timeout_ns;
        let due_ns = pending.since_ns.saturating_add(timeout_ns);
        let sequence = self.remember_unanswered(slot, due_ns);
        Some(self.unanswered(slot, sequence, capture_gap))
    }

    /// Removes the oldest query if the table is over its limits, or the oldest of a key with too
    /// many queries. Call it after each query until it returns `None`. The response may still
    /// arrive, so the query is marked with a capture gap, and its response counts as late.
    pub fn evict(&mut self) -> Option<Transaction<'_>> {
        if let Some((slot, hash)) = self.crowded.take()
            && self.pending(slot).is_some_and(|pending| pending.hash == hash)
        {
            self.shrink_buffers();
            let sequence = self.remember_unanswered(slot, self.latest_ns);
            return Some(self.unanswered(slot, sequence, true));
        }
        let full = self.index.len() > self.capacity
            || self.buffer_bytes > self.capacity * BUFFER_BYTES_PER_QUERY;
        // The latest query stays, however large it is.
        if !full || self.index.len() < 2 {
            return None;
        }
        self.shrink_buffers();
        let slot = self.oldest()?;
        let sequence = self.remember_unanswered(slot, self.latest_ns);
        Some(self.unanswered(slot, sequence, true))
    }

    /// Remembers a query that is recorded without a response; returns the sequence number of its
    /// record.
    fn remember_unanswered(&mut self, slot: u32, at_ns: u64) -> u64 {
        let pending = &self.slots[slot as usize];
        let ended = EndedExchange {
            key: pending.hash,
            question: pending.question,
            at_ns,
            sequence: match pending.sequence {
                0 => self.ids.next(),
                reserved => reserved,
            },
            query: Some(Sighting::of(&pending.query)),
            response: None,
            answers: 0,
        };
        self.recent.insert(&ended);
        ended.sequence
    }

    /// Removes the oldest pending query at the end of the capture. Call it until it returns `None`.
    /// A response might have followed, so each is marked with a capture gap.
    pub fn drain(&mut self) -> Option<Transaction<'_>> {
        self.shrink_buffers();
        if let Some(held) = self.next_due(u64::MAX) {
            return self.record_held(held);
        }
        let slot = self.oldest()?;
        let sequence = match self.slots[slot as usize].sequence {
            0 => self.ids.next(),
            reserved => reserved,
        };
        Some(self.unanswered(slot, sequence, true))
    }

    fn unanswered(&mut self, slot: u32, sequence: u64, capture_gap: bool) -> Transaction<'_> {
        self.remove_slot(slot);
        // The inner sightings relate to this record.
        self.slots[slot as usize].sequence = sequence;
        let merged = self.merge(slot, None);
        let pending = &self.slots[slot as usize];
        let mut anomalies = pending.anomalies.union(merged.anomalies);
        let conflict = self.gaps.is_conflicting(&pending.flow, self.latest_ns);
        if conflict {
            anomalies.add(Anomaly::TcpConflict);
        }
        let (id, exchange) = (self.ids.of(sequence), Exchange::Query(&pending.query));
        let relate = || self.shared.truncations.relate(id, &pending.flow, exchange);
        Transaction {
            id,
            flow: pending.flow,
            exchange,
            query_count: pending.query_count,
            latest_query_ns: pending.latest.at_ns,
            copy_count: pending.copy_count + merged.copies,
            capture_gap: capture_gap || conflict,
            related: merged.related.or_else(relate),
            anomalies,
            sightings: merged.sightings,
            chain: None,
        }
    }
}
