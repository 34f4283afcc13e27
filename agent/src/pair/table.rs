//! The table of pending queries: a hash index over slots that a list keeps in order of arrival.
//!
//! ```text
//!  index: hash(flow, id) ─▶ slot       slots: [ pending | prev | next ] …
//!                                      oldest ─▶ … ─▶ newest   (expiry and eviction take the oldest)
//! ```

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable, hash_table::Entry};

use super::{Config, Exchange, Flow, Observation, Transaction};

/// End of the list.
const NONE: u32 = u32::MAX;

/// Flows of which is remembered that a packet could not be read, both ways of each: 0.5 MiB.
const DAMAGED_FLOWS: usize = 4_096;

struct Pending {
    flow: Flow,
    query: Observation,
    query_count: u32,
    /// Gaps known when the query was captured.
    gaps: u64,
}

struct Slot {
    /// `None` while the slot is free.
    pending: Option<Pending>,
    hash: u64,
    older: u32,
    newer: u32,
}

/// What a message did to the table.
#[derive(Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a box would cost an allocation per transaction")]
pub enum Observed {
    /// A query that now waits; `evicted` messages left to make room for it.
    Waits {
        /// Messages of the query that was evicted; zero when there was room.
        evicted: u32,
    },
    /// A query that already waits was seen again.
    Repeated,
    /// A response, with or without its query.
    Done(Transaction),
}

/// Pending queries of one worker.
pub struct Table {
    timeout_ns: u64,
    capacity: usize,
    index: HashTable<u32>,
    /// Keyed at random: the clients choose ports and identifiers.
    hasher: DefaultHashBuilder,
    slots: Vec<Slot>,
    free: Vec<u32>,
    oldest: u32,
    newest: u32,
    pending_messages: u64,
    ring_lost: u32,
    /// Gaps that any flow may have suffered from, and when the last one was noted.
    gaps: u64,
    gap_at_ns: u64,
    /// Flows of which a packet could not be read, and when.
    damaged: HashMap<Flow, u64>,
}

impl Table {
    pub(super) fn new(config: Config, started_at_ns: u64) -> Self {
        Self {
            timeout_ns: u64::try_from(config.timeout.as_nanos()).unwrap_or(u64::MAX),
            // Slot numbers are u32, and the last one marks the end of the list.
            capacity: config.capacity.clamp(1, NONE as usize),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            slots: Vec::new(),
            free: Vec::new(),
            oldest: NONE,
            newest: NONE,
            pending_messages: 0,
            ring_lost: 0,
            gaps: 0,
            damaged: HashMap::new(),
            // What came before the start was not seen either.
            gap_at_ns: started_at_ns,
        }
    }

    /// Messages that wait, repeated queries included.
    #[must_use]
    pub const fn pending_messages(&self) -> u64 {
        self.pending_messages
    }

    /// Takes note of the ring's loss count as of `at_ns`. A step means that packets are missing.
    pub fn note_ring_lost(&mut self, ring_lost: u32, at_ns: u64) {
        if ring_lost != self.ring_lost {
            self.ring_lost = ring_lost;
            self.note_gap(at_ns);
        }
    }

    /// Takes note of a packet between two endpoints that was captured and could not be read, such
    /// as a fragment: it may have held the message that one of their transactions waits for.
    pub fn note_unreadable(&mut self, flow: Flow, at_ns: u64) {
        if self.damaged.len() >= DAMAGED_FLOWS {
            // Too many to tell apart: any flow may be one of them.
            self.damaged.clear();
            self.note_gap(at_ns);
        }
        let back = Flow { client: flow.server, server: flow.client, ..flow };
        self.damaged.insert(flow, at_ns);
        self.damaged.insert(back, at_ns);
    }

    const fn note_gap(&mut self, at_ns: u64) {
        self.gaps += 1;
        self.gap_at_ns = at_ns;
    }

    fn is_damaged(&self, flow: &Flow, since_ns: u64) -> bool {
        self.damaged.get(flow).is_some_and(|at_ns| *at_ns >= since_ns)
    }

    /// Takes in a message.
    pub fn observe(&mut self, flow: Flow, observation: Observation) -> Observed {
        let hash = self.hasher.hash_one((flow, observation.message.id));
        if observation.message.response {
            Observed::Done(self.respond(hash, flow, observation))
        } else {
            self.ask(hash, flow, observation)
        }
    }

    fn ask(&mut self, hash: u64, flow: Flow, query: Observation) -> Observed {
        let same = |slot: &u32| {
            self.slots[*slot as usize].pending.as_ref().is_some_and(|pending| {
                pending.flow == flow
                    && pending.query.message.id == query.message.id
                    && pending.query.message.question() == query.message.question()
            })
        };
        if let Some(&slot) = self.index.find(hash, same) {
            // Found through the index, so the slot is taken.
            if let Some(pending) = &mut self.slots[slot as usize].pending {
                pending.query_count += 1;
                self.pending_messages += 1;
            }
            return Observed::Repeated;
        }
        let evicted = if self.index.len() < self.capacity {
            0
        } else {
            self.take(self.oldest).map_or(0, |pending| pending.query_count)
        };
        let pending = Pending { flow, query, query_count: 1, gaps: self.gaps };
        self.insert(hash, pending);
        Observed::Waits { evicted }
    }

    fn respond(&mut self, hash: u64, flow: Flow, response: Observation) -> Transaction {
        let answers = |slot: &u32| {
            self.slots[*slot as usize].pending.as_ref().is_some_and(|pending| {
                pending.flow == flow
                    && pending.query.message.id == response.message.id
                    && (response.message.question().is_none()
                        || response.message.question() == pending.query.message.question())
            })
        };
        let found = self.index.find(hash, answers).copied().and_then(|slot| self.take(slot));
        match found {
            Some(pending) => Transaction {
                flow,
                query_count: pending.query_count,
                capture_gap: pending.gaps != self.gaps,
                exchange: Exchange::Matched(pending.query, response),
            },
            None => Transaction {
                flow,
                query_count: 0,
                // Its query would have come within the timeout before it.
                capture_gap: self.gap_at_ns.saturating_add(self.timeout_ns) >= response.at_ns
                    || self.is_damaged(&flow, response.at_ns.saturating_sub(self.timeout_ns)),
                exchange: Exchange::Response(response),
            },
        }
    }

    /// The oldest query that has waited for the timeout at `now_ns` (CLOCK_MONOTONIC, the time up
    /// to which the ring has been read); call until there is none.
    pub fn expire(&mut self, now_ns: u64) -> Option<Transaction> {
        let timeout_ns = self.timeout_ns;
        let pending =
            self.take_oldest_if(|query| query.at_ns.saturating_add(timeout_ns) <= now_ns)?;
        let capture_gap =
            pending.gaps != self.gaps || self.is_damaged(&pending.flow, pending.query.at_ns);
        Some(unanswered(pending, capture_gap))
    }

    /// The oldest query that still waits, at the end of capture; call until there is none. A
    /// response may yet have come, so each is marked with a capture gap.
    pub fn drain(&mut self) -> Option<Transaction> {
        self.take_oldest_if(|_| true).map(|pending| unanswered(pending, true))
    }

    fn take_oldest_if(&mut self, due: impl FnOnce(&Observation) -> bool) -> Option<Pending> {
        let oldest = self.slots.get(self.oldest as usize)?.pending.as_ref()?;
        if due(&oldest.query) { self.take(self.oldest) } else { None }
    }

    fn insert(&mut self, hash: u64, pending: Pending) {
        self.pending_messages += u64::from(pending.query_count);
        let slot = Slot { pending: Some(pending), hash, older: self.newest, newer: NONE };
        let number = match self.free.pop() {
            Some(number) => {
                self.slots[number as usize] = slot;
                number
            }
            None => {
                self.slots.push(slot);
                // At most `capacity` slots, which fits u32.
                u32::try_from(self.slots.len() - 1).unwrap_or(NONE)
            }
        };
        match self.slots.get_mut(self.newest as usize) {
            Some(newest) => newest.newer = number,
            None => self.oldest = number,
        }
        self.newest = number;
        let slots = &self.slots;
        self.index.insert_unique(hash, number, |slot| slots[*slot as usize].hash);
    }

    /// Removes a slot from index and list.
    fn take(&mut self, number: u32) -> Option<Pending> {
        let slot = self.slots.get_mut(number as usize)?;
        let pending = slot.pending.take()?;
        let (hash, older, newer) = (slot.hash, slot.older, slot.newer);
        match self.slots.get_mut(older as usize) {
            Some(slot) => slot.newer = newer,
            None => self.oldest = newer,
        }
        match self.slots.get_mut(newer as usize) {
            Some(slot) => slot.older = older,
            None => self.newest = older,
        }
        let slots = &self.slots;
        let entry =
            self.index.entry(hash, |slot| *slot == number, |slot| slots[*slot as usize].hash);
        if let Entry::Occupied(entry) = entry {
            entry.remove();
        }
        self.free.push(number);
        self.pending_messages -= u64::from(pending.query_count);
        Some(pending)
    }
}

fn unanswered(pending: Pending, capture_gap: bool) -> Transaction {
    Transaction {
        flow: pending.flow,
        exchange: Exchange::Query(pending.query),
        query_count: pending.query_count,
        capture_gap,
    }
}

#[cfg(test)]
mod tests;
