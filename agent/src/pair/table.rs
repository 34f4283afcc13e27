//! The table of pending queries: a hash index over slots that lists keep in order of arrival, one
//! for each transport, since their timeouts differ.
//!
//! ```text
//!  index: hash(flow, id) ─▶ slot       slots: [ pending | older | newer ] …
//!                                      oldest ─▶ … ─▶ newest   (expiry and eviction take the oldest)
//! ```
//!
//! A query changes places with what the slot that it takes held before, so that neither is copied or
//! allocated.

mod gaps;

use std::{
    hash::{BuildHasher, Hash, Hasher},
    mem,
};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::{
    Config, Exchange, Flow, Observation, RecordIds, Related, Relation, Transaction, Truncations,
    multicast,
    recent::{End, Ended, Recent},
};
use crate::decode::Question;
use gaps::Gaps;

/// No slot.
const NONE: u32 = u32::MAX;

/// Buffers that a free slot keeps at most, bytes; those of a query with a name of usual length are
/// smaller.
const KEPT_BUFFER_BYTES: usize = 512;

/// Bytes of buffers that pending queries hold at most, on average, when the table is full. One query
/// over TCP may have 64 KiB.
const BUFFER_BYTES_PER_QUERY: usize = 512;

struct Slot {
    pending: bool,
    flow: Flow,
    query: Box<Observation>,
    /// Of the query, as of when it came.
    buffer_bytes: usize,
    query_count: u32,
    copy_count: u32,
    /// Since when the query waits: when it was captured, or, where time had been further already,
    /// that time. So the list is in order of it, and a query of a clock that is behind (another
    /// host's in a capture file, another CPU's) has its time too.
    since_ns: u64,
    /// Gaps known when the query was captured.
    gaps: u64,
    hash: u64,
    older: u32,
    newer: u32,
}

impl Slot {
    /// True if its query waits, and a response that came along `flow` answers it.
    #[inline]
    fn is_answered_by(&self, flow: &Flow, response: &Observation) -> bool {
        let question = response.message.question();
        self.pending
            && self.query.message.id == response.message.id
            && self.flow == *flow
            && (question.is_none() || question == self.query.message.question())
    }
}

/// Pending queries of one transport, in order of arrival.
#[derive(Clone, Copy)]
struct List {
    timeout_ns: u64,
    oldest: u32,
    newest: u32,
}

/// What a message did to the table.
#[derive(Debug, PartialEq)]
pub enum Observed<'a> {
    /// A query that now waits; `evicted` messages left to make room for it.
    Waits {
        /// Messages of the queries that were evicted; zero when there was room.
        evicted: u64,
    },
    /// A query that already waits was seen again.
    Repeated,
    /// The message was seen at another interface before.
    Copy,
    /// A response, with or without its query.
    Done(Transaction<'a>),
}

/// Pending queries of one worker.
pub struct Table {
    capacity: usize,
    merge_interfaces: bool,
    index: HashTable<u32>,
    /// Keyed at random: the clients choose ports and identifiers.
    hasher: DefaultHashBuilder,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// By transport.
    lists: [List; 2],
    pending_messages: u64,
    /// Of the queries that wait.
    buffer_bytes: usize,
    /// The slot that was taken last: its content may be on its way into a record.
    taken: u32,
    gaps: Gaps,
    recent: Recent,
    truncations: Truncations,
    ids: RecordIds,
    /// The latest time heard of.
    latest_ns: u64,
}

impl Table {
    pub(super) fn new(
        config: Config,
        started_at_ns: u64,
        ids: RecordIds,
        truncations: Truncations,
    ) -> Self {
        let lists = [config.udp_timeout, config.tcp_timeout].map(|timeout| List {
            timeout_ns: u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX),
            oldest: NONE,
            newest: NONE,
        });
        Self {
            // Slot numbers are u32, and the last one marks the end of a list.
            capacity: config.capacity.clamp(1, NONE as usize),
            merge_interfaces: config.merge_interfaces,
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            slots: Vec::new(),
            free: Vec::new(),
            lists,
            pending_messages: 0,
            buffer_bytes: 0,
            taken: NONE,
            gaps: Gaps::new(started_at_ns),
            recent: Recent::new(),
            truncations,
            ids,
            latest_ns: started_at_ns,
        }
    }

    /// What the records of this table are identified by.
    #[must_use]
    pub const fn ids(&self) -> RecordIds {
        self.ids
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
        self.gaps.note_ring_lost(ring_lost, at_ns);
    }

    /// Takes note of a packet between two endpoints that was captured and could not be read: it may
    /// have held the message that one of their transactions waits for.
    pub fn note_unreadable(&mut self, mut flow: Flow, at_ns: u64) {
        self.identify(&mut flow);
        self.gaps.note_unreadable(flow, at_ns);
    }

    /// Takes note that capture on an interface began or ended at `at_ns`: what belongs to a message
    /// seen there may have passed while nobody looked.
    pub fn note_switched(&mut self, ifindex: u32, at_ns: u64) {
        self.gaps.note_switched(ifindex, at_ns);
    }

    /// Takes in a message. `wire` are its bytes. A query goes into the table, and `seen` is another
    /// one then, to be written over.
    pub fn observe<'a>(
        &'a mut self,
        mut flow: Flow,
        seen: &'a mut Box<Observation>,
        wire: &[u8],
    ) -> Observed<'a> {
        self.tidy();
        self.latest_ns = self.latest_ns.max(seen.at_ns);
        self.identify(&mut flow);
        let mut hash = self.hasher.build_hasher();
        flow.hash(&mut hash);
        hash.write_u16(seen.message.id);
        let mut hash = hash.finish();
        if multicast::is_possible(&flow) {
            if seen.message.response {
                return self.respond_to_group(hash, &flow, seen, wire);
            }
            if let Some(key) = multicast::Key::of_query(&flow, &seen.message) {
                hash = self.hasher.hash_one(key);
            }
        }
        if seen.message.response {
            self.respond(hash, &flow, seen, wire)
        } else {
            self.ask(hash, &flow, seen)
        }
    }

    /// A transaction of one message, which is neither matched with another nor remembered.
    pub fn alone<'a>(&mut self, flow: Flow, seen: &'a Observation) -> Transaction<'a> {
        let response = seen.message.response;
        let sequence = self.ids.next();
        Transaction {
            id: self.ids.of(sequence),
            flow,
            exchange: if response { Exchange::Response(seen) } else { Exchange::Query(seen) },
            query_count: u32::from(!response),
            copy_count: 0,
            capture_gap: seen.cut,
            related: None,
        }
    }

    const fn identify(&self, flow: &mut Flow) {
        if self.merge_interfaces {
            flow.ifindex = 0;
        }
    }

    fn ask(&mut self, hash: u64, flow: &Flow, query: &mut Box<Observation>) -> Observed<'_> {
        let same = |slot: &u32| {
            self.pending(*slot).is_some_and(|pending| {
                pending.query.message.id == query.message.id
                    && pending.flow == *flow
                    && pending.query.message.question() == query.message.question()
            })
        };
        if let Some(&slot) = self.index.find(hash, same) {
            let pending = &mut self.slots[slot as usize];
            if pending.query.point != query.point {
                pending.copy_count += 1;
                return Observed::Copy;
            }
            pending.query_count += 1;
            self.pending_messages += 1;
            return Observed::Repeated;
        }
        let mut evicted = 0;
        while self.index.len() >= self.capacity
            || self.buffer_bytes > self.capacity * BUFFER_BYTES_PER_QUERY
        {
            let Some(slot) = self.oldest() else { break };
            self.take(slot);
            evicted += u64::from(self.slots[slot as usize].query_count);
            self.tidy();
        }
        self.insert(hash, flow, query);
        Observed::Waits { evicted }
    }

    fn respond<'a>(
        &'a mut self,
        hash: u64,
        flow: &Flow,
        response: &'a Observation,
        wire: &[u8],
    ) -> Observed<'a> {
        let question = response.message.question();
        let slots = &self.slots;
        let answers = |slot: &u32| {
            slots.get(*slot as usize).is_some_and(|slot| slot.is_answered_by(flow, response))
        };
        let found = match self.index.find_entry(hash, answers) {
            Ok(entry) => {
                let (slot, _) = entry.remove();
                self.unlink(slot);
                Some(slot)
            }
            Err(_) => None,
        };
        self.conclude(found, hash, question, flow, response, wire)
    }

    /// As [`respond`](Self::respond), for a response to a query that may have gone to a group.
    #[cold]
    fn respond_to_group<'a>(
        &'a mut self,
        hash: u64,
        flow: &Flow,
        response: &'a Observation,
        wire: &[u8],
    ) -> Observed<'a> {
        let question = response.message.question();
        let slots = &self.slots;
        let to_host = |slot: &u32| {
            slots.get(*slot as usize).is_some_and(|slot| slot.is_answered_by(flow, response))
        };
        if self.index.find(hash, to_host).is_some() {
            return self.respond(hash, flow, response, wire);
        }
        // What it is remembered by, where no query waits for it: as one that came before if it can.
        let mut remembered = None;
        for (key, question) in multicast::Key::of_response(*flow, &response.message) {
            let hash = self.hasher.hash_one(key);
            let to_group = |slot: &u32| {
                self.pending(*slot).is_some_and(|pending| {
                    let asked = pending.query.message.question();
                    key.is_of(&pending.flow, &pending.query.message)
                        && (question.is_none() || question == asked)
                })
            };
            if let Some(&slot) = self.index.find(hash, to_group) {
                let flow = Flow { client: self.slots[slot as usize].flow.client, ..*flow };
                self.take(slot);
                return self.conclude(Some(slot), hash, question, &flow, response, wire);
            }
            let exchange = self.hasher.hash_one((hash, question));
            let known = self.recent.get(exchange, response.at_ns).is_some();
            match remembered {
                Some((_, _, true)) => {}
                Some(_) if !known => {}
                _ => remembered = Some((hash, question, known)),
            }
        }
        let (hash, question, _) = remembered.unwrap_or((hash, question, false));
        self.conclude(None, hash, question, flow, response, wire)
    }

    /// Makes a transaction of a response, and of the query that was `found` for it.
    #[inline]
    fn conclude<'a>(
        &'a mut self,
        found: Option<u32>,
        hash: u64,
        question: Option<Question<'a>>,
        flow: &Flow,
        response: &'a Observation,
        wire: &[u8],
    ) -> Observed<'a> {
        let asked = match found {
            Some(slot) => self.slots[slot as usize].query.message.question(),
            None => question,
        };
        // Those that go on with a zone transfer need not repeat the question (RFC 5936 §2.2.1), so
        // it is the identifier that they are remembered by.
        let asked = asked.filter(|question| !question.is_transfer());
        let exchange = self.hasher.hash_one((hash, asked));
        let end = End::Answered { content: self.hasher.hash_one(wire), point: response.point };
        let earlier = match found {
            Some(_) => None,
            None => self.recent.get(exchange, response.at_ns),
        };
        if let Some(earlier) = earlier
            && is_copy(earlier.end, end)
        {
            return Observed::Copy;
        }
        let sequence = self.ids.next();
        self.recent.insert(&Ended { exchange, at_ns: response.at_ns, sequence, end });
        let related = earlier.map(|earlier| Related {
            relation: match earlier.end {
                End::Answered { .. } => Relation::RepeatedResponse,
                End::Expired => Relation::LateResponse,
            },
            record: self.ids.of(earlier.sequence),
        });
        let id = self.ids.of(sequence);
        let mut transaction = match found {
            Some(slot) => {
                let pending = &self.slots[slot as usize];
                Transaction {
                    id,
                    flow: *flow,
                    query_count: pending.query_count,
                    copy_count: pending.copy_count,
                    capture_gap: pending.gaps != self.gaps.known()
                        || pending.query.cut
                        || response.cut,
                    exchange: Exchange::Matched(&pending.query, response),
                    related,
                }
            }
            None => {
                // Its query would have come within the timeout before it.
                let timeout_ns = self.lists[flow.transport as usize].timeout_ns;
                let since_ns = response.at_ns.saturating_sub(timeout_ns);
                Transaction {
                    id,
                    flow: *flow,
                    query_count: 0,
                    copy_count: 0,
                    capture_gap: response.cut
                        || earlier.is_none()
                            && (self.gaps.any_since(flow, since_ns)
                                || self.gaps.is_switched(response.point.ifindex, since_ns)),
                    exchange: Exchange::Response(response),
                    related,
                }
            }
        };
        if related.is_none() {
            transaction.related = self.truncations.relate(&transaction);
        }
        Observed::Done(transaction)
    }

    /// The oldest query that has waited for the timeout at `now_ns` (CLOCK_MONOTONIC, the time up
    /// to which the ring has been read); call until there is none.
    pub fn expire(&mut self, now_ns: u64) -> Option<Transaction<'_>> {
        self.tidy();
        self.latest_ns = self.latest_ns.max(now_ns);
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
        let exchange = self.hasher.hash_one((pending.hash, pending.query.message.question()));
        let sequence = self.ids.next();
        self.recent.insert(&Ended { exchange, at_ns: now_ns, sequence, end: End::Expired });
        Some(self.unanswered(slot, sequence, capture_gap))
    }

    /// The oldest query that still waits, at the end of capture; call until there is none. A
    /// response may yet have come, so each is marked with a capture gap.
    pub fn drain(&mut self) -> Option<Transaction<'_>> {
        self.tidy();
        let slot = self.oldest()?;
        let sequence = self.ids.next();
        Some(self.unanswered(slot, sequence, true))
    }

    fn unanswered(&mut self, slot: u32, sequence: u64, capture_gap: bool) -> Transaction<'_> {
        self.take(slot);
        let pending = &self.slots[slot as usize];
        let mut transaction = Transaction {
            id: self.ids.of(sequence),
            flow: pending.flow,
            exchange: Exchange::Query(&pending.query),
            query_count: pending.query_count,
            copy_count: pending.copy_count,
            capture_gap,
            related: None,
        };
        transaction.related = self.truncations.relate(&transaction);
        transaction
    }

    fn pending(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(slot as usize).filter(|slot| slot.pending)
    }

    /// The oldest of all pending queries.
    fn oldest(&self) -> Option<u32> {
        let heads = self.lists.iter().map(|list| list.oldest);
        heads
            .filter_map(|head| Some((self.slots.get(head as usize)?.query.at_ns, head)))
            .min()
            .map(|(_, head)| head)
    }

    fn insert(&mut self, hash: u64, flow: &Flow, query: &mut Box<Observation>) {
        let number = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                pending: false,
                flow: *flow,
                query: Box::default(),
                buffer_bytes: 0,
                query_count: 0,
                copy_count: 0,
                since_ns: 0,
                gaps: 0,
                hash: 0,
                older: NONE,
                newer: NONE,
            });
            // At most `capacity` slots, which fits u32.
            u32::try_from(self.slots.len() - 1).unwrap_or(NONE)
        });
        let list = &mut self.lists[flow.transport as usize];
        let slot = &mut self.slots[number as usize];
        mem::swap(&mut slot.query, query);
        slot.pending = true;
        slot.flow = *flow;
        slot.query_count = 1;
        slot.copy_count = 0;
        slot.since_ns = slot.query.at_ns.max(self.latest_ns);
        slot.gaps = self.gaps.known();
        slot.hash = hash;
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
        self.index.insert_unique(hash, number, |slot| slots[*slot as usize].hash);
    }

    /// Takes a slot out of index and list; its content stays until another query takes it.
    fn take(&mut self, number: u32) {
        let hash = self.slots[number as usize].hash;
        if let Ok(entry) = self.index.find_entry(hash, |slot| *slot == number) {
            entry.remove();
        }
        self.unlink(number);
    }

    /// Takes a slot, which is in the index no more, out of its list.
    fn unlink(&mut self, number: u32) {
        let slot = &mut self.slots[number as usize];
        slot.pending = false;
        let (older, newer) = (slot.older, slot.newer);
        let list = &mut self.lists[slot.flow.transport as usize];
        self.pending_messages -= u64::from(slot.query_count);
        self.buffer_bytes -= slot.buffer_bytes;
        match self.slots.get_mut(older as usize) {
            Some(slot) => slot.newer = newer,
            None => list.oldest = newer,
        }
        match self.slots.get_mut(newer as usize) {
            Some(slot) => slot.older = older,
            None => list.newest = older,
        }
        self.free.push(number);
        self.taken = number;
    }

    /// Gives back what is more than usual of the buffers of the slot that was taken last.
    fn tidy(&mut self) {
        if let Some(slot) = self.slots.get_mut(self.taken as usize)
            && !slot.pending
            && slot.buffer_bytes > KEPT_BUFFER_BYTES
        {
            *slot.query = Observation::default();
            slot.buffer_bytes = 0;
        }
    }
}

/// True if a response is the one that ended the exchange, at another interface or direction.
fn is_copy(earlier: End, now: End) -> bool {
    match (earlier, now) {
        (
            End::Answered { content: first, point: first_point },
            End::Answered { content, point },
        ) => first == content && first_point != point,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
