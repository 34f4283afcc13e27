//! The table of pending queries: a hash index over slots that a list keeps in order of arrival.
//!
//! ```text
//!  index: hash(flow, id) ─▶ slot       slots: [ pending | prev | next ] …
//!                                      oldest ─▶ … ─▶ newest   (expiry and eviction take the oldest)
//! ```

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable, hash_table::Entry};

use super::{Config, Exchange, Flow, Observation, Transaction};

/// End of the list.
const NONE: u32 = u32::MAX;

struct Pending {
    flow: Flow,
    query: Observation,
    query_count: u32,
    /// Losses of the ring when the query was captured.
    ring_lost: u32,
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
    gap_at_ns: u64,
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
            // What came before the start was not seen either.
            gap_at_ns: started_at_ns,
        }
    }

    /// Messages that wait, repeated queries included.
    #[must_use]
    pub const fn pending_messages(&self) -> u64 {
        self.pending_messages
    }

    /// Queries that wait.
    #[must_use]
    pub fn pending_queries(&self) -> usize {
        self.index.len()
    }

    /// Takes note of the ring's loss count as of `at_ns`. A step means that packets are missing.
    pub const fn note_ring_lost(&mut self, ring_lost: u32, at_ns: u64) {
        if ring_lost != self.ring_lost {
            self.ring_lost = ring_lost;
            self.gap_at_ns = at_ns;
        }
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
                    && pending.query.message.question == query.message.question
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
        let pending = Pending { flow, query, query_count: 1, ring_lost: self.ring_lost };
        self.insert(hash, pending);
        Observed::Waits { evicted }
    }

    fn respond(&mut self, hash: u64, flow: Flow, response: Observation) -> Transaction {
        let answers = |slot: &u32| {
            self.slots[*slot as usize].pending.as_ref().is_some_and(|pending| {
                pending.flow == flow
                    && pending.query.message.id == response.message.id
                    && (response.message.question.is_none()
                        || response.message.question == pending.query.message.question)
            })
        };
        let found = self.index.find(hash, answers).copied().and_then(|slot| self.take(slot));
        match found {
            Some(pending) => Transaction {
                flow,
                query_count: pending.query_count,
                capture_gap: pending.ring_lost != self.ring_lost,
                exchange: Exchange::Matched(pending.query, response),
            },
            None => Transaction {
                flow,
                query_count: 0,
                // Its query would have come within the timeout before it.
                capture_gap: self.gap_at_ns.saturating_add(self.timeout_ns) >= response.at_ns,
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
        let capture_gap = pending.ring_lost != self.ring_lost;
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
mod tests {
    use std::time::Duration;

    use tap53_ebpf::settings::Direction;

    use super::*;
    use crate::{
        decode::{Message, Question, Transport},
        pair::Outcome,
    };

    const SECOND: u64 = 1_000_000_000;

    fn table(capacity: usize) -> Table {
        Config { timeout: Duration::from_secs(5), capacity }.build(0)
    }

    fn flow(port: u16) -> Flow {
        Flow {
            ifindex: 7,
            transport: Transport::Udp,
            client: ([192, 0, 2, 1], port).into(),
            server: ([192, 0, 2, 53], 53).into(),
        }
    }

    fn message(at_ns: u64, id: u16, name: &str, response: bool) -> Observation {
        let question = Question { name: name.into(), qtype: 1, qclass: 1 };
        Observation {
            at_ns,
            direction: if response { Direction::Egress } else { Direction::Ingress },
            vlan_ids: [None; 2],
            message: Message { id, response, question: Some(question), ..Default::default() },
            wire: None,
        }
    }

    fn done(observed: Observed) -> Transaction {
        match observed {
            Observed::Done(transaction) => transaction,
            other => panic!("expected a transaction, got {other:?}"),
        }
    }

    #[test]
    fn a_response_finds_its_query() {
        let mut table = table(8);
        let waits = table.observe(flow(1_000), message(SECOND, 9, "a.test", false));
        assert_eq!(waits, Observed::Waits { evicted: 0 });
        let found = done(table.observe(flow(1_000), message(SECOND + 70, 9, "a.test", true)));
        assert_eq!((found.outcome(), found.messages()), (Outcome::Matched, 2));
        assert!(!found.capture_gap);
        assert_eq!((table.pending_messages(), table.pending_queries()), (0, 0));
    }

    #[test]
    fn flow_identifier_and_question_must_all_agree() {
        let mut table = table(8);
        table.observe(flow(1_000), message(10 * SECOND, 9, "a.test", false));
        for (port, id, name) in [(1_001, 9, "a.test"), (1_000, 8, "a.test"), (1_000, 9, "b.test")] {
            let other = done(table.observe(flow(port), message(11 * SECOND, id, name, true)));
            assert_eq!(other.outcome(), Outcome::UnmatchedResponse);
            assert!(!other.capture_gap);
        }
        let mut bare = message(11 * SECOND, 9, "", true);
        bare.message.question = None;
        assert_eq!(done(table.observe(flow(1_000), bare)).outcome(), Outcome::Matched);
    }

    #[test]
    fn a_repeated_query_is_one_transaction_with_a_count() {
        let mut table = table(8);
        table.observe(flow(1), message(0, 1, "a.test", false));
        assert_eq!(table.observe(flow(1), message(SECOND, 1, "a.test", false)), Observed::Repeated);
        assert_eq!(table.pending_messages(), 2);
        let found = done(table.observe(flow(1), message(2 * SECOND, 1, "a.test", true)));
        assert_eq!((found.query_count, found.messages()), (2, 3));
        assert_eq!(found.query().unwrap().at_ns, 0, "latency counts from the first query");
    }

    #[test]
    fn late_response_is_unmatched_after_timeout() {
        let mut table = table(8);
        table.observe(flow(1), message(20 * SECOND, 1, "a.test", false));
        assert_eq!(table.expire(25 * SECOND - 1), None);
        let expired = table.expire(25 * SECOND).unwrap();
        assert_eq!(expired.outcome(), Outcome::Unanswered);
        assert!(!expired.capture_gap);
        assert_eq!(table.expire(25 * SECOND), None);
        let late = done(table.observe(flow(1), message(26 * SECOND, 1, "a.test", true)));
        assert_eq!((late.outcome(), late.messages()), (Outcome::UnmatchedResponse, 1));
    }

    #[test]
    fn a_full_table_evicts_the_oldest_and_says_how_much() {
        let mut table = table(2);
        table.observe(flow(1), message(1, 1, "a.test", false));
        table.observe(flow(1), message(2, 1, "a.test", false));
        table.observe(flow(2), message(3, 1, "a.test", false));
        let third = table.observe(flow(3), message(4, 1, "a.test", false));
        assert_eq!(third, Observed::Waits { evicted: 2 });
        assert_eq!((table.pending_messages(), table.pending_queries()), (2, 2));
        let genuine = done(table.observe(flow(2), message(5, 1, "a.test", true)));
        assert_eq!(genuine.outcome(), Outcome::Matched);
    }

    #[test]
    fn slots_are_used_again_so_a_flood_stays_within_capacity() {
        let mut table = table(16);
        for round in 0..10_000u32 {
            let port = u16::try_from(round % 60_000).unwrap();
            table.observe(flow(port), message(u64::from(round), 1, "flood.test", false));
        }
        assert_eq!(table.slots.len(), 16);
        assert_eq!((table.pending_messages(), table.index.len()), (16, 16));
        let order: Vec<u64> = std::iter::from_fn(|| table.drain())
            .map(|transaction| transaction.first().at_ns)
            .collect();
        assert_eq!(order, (9_984..10_000).collect::<Vec<u64>>());
        assert_eq!(table.pending_messages(), 0);
    }

    #[test]
    fn a_loss_between_query_and_response_is_a_gap() {
        let mut table = table(8);
        table.observe(flow(1), message(20 * SECOND, 1, "a.test", false));
        table.observe(flow(2), message(20 * SECOND, 1, "a.test", false));
        table.note_ring_lost(3, 21 * SECOND);
        assert!(done(table.observe(flow(1), message(21 * SECOND, 1, "a.test", true))).capture_gap);
        let orphan = done(table.observe(flow(9), message(22 * SECOND, 1, "a.test", true)));
        assert!(orphan.capture_gap, "its query may be among the lost");
        assert!(table.expire(30 * SECOND).unwrap().capture_gap);
        let orphan = done(table.observe(flow(9), message(40 * SECOND, 1, "a.test", true)));
        assert!(!orphan.capture_gap, "the loss was longer ago than any query waits");
    }
}
