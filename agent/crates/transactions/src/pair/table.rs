//! The table of pending queries: a hash index over slots. Lists, one per transport since their
//! timeouts differ, keep the slots in order of arrival.
//!
//! ```text
//!  index: hash(flow, id) ─▶ slot       slots: [ pending | older | newer ] …
//!                                      oldest ─▶ … ─▶ newest   (expiry and eviction take the oldest)
//! ```
//!
//! A query is swapped with the previous content of its slot, so that neither is copied or
//! allocated.

mod expiry;
mod gaps;
mod queries;
mod responses;
mod sightings;
mod signs;
mod slots;

use std::hash::{BuildHasher, Hash, Hasher};

use hashbrown::{DefaultHashBuilder, HashTable};
use tap53_dns::{Flow, Question, Transport};

use super::{
    Anomalies, Config, Exchange, Observation, RecordId, RecordIds, SharedNotes, Sightings,
    Transaction, multicast, recent::Recent,
};
use gaps::Gaps;
use sightings::SightingIndex;
use signs::{QuestionIndex, Sides};
use slots::{List, NONE, Slot};

/// Flow and identifier of a message, and their hash in the table that computed it.
#[derive(Clone, Copy)]
pub struct Key<'f> {
    /// By reference: it is a hundred bytes.
    flow: &'f Flow,
    hash: u64,
    is_final: bool,
}

impl Key<'_> {
    /// Makes the table process the message itself, whatever it is: it is never
    /// [`Observed::Elsewhere`].
    #[must_use]
    pub const fn final_here(self) -> Self {
        Self { is_final: true, ..self }
    }
}

/// The effect of a message on the table.
#[derive(Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "it is consumed at once, and a box would be allocated"
)]
pub enum Observed<'a> {
    /// A query that is pending now; others may have to be evicted for it, see [`Table::evict`].
    Waits,
    /// A repetition of a pending query.
    Repeated,
    /// A copy of a message at another observation point, or from a mirror port.
    Copy,
    /// A response after address translation, which waits for its sighting before it.
    Held,
    /// A response without a query here. The worker of this number has a query of the same client and
    /// question, which the response may be forged for. Nothing has been recorded.
    Elsewhere(u16),
    /// A response, with or without its query.
    Done(Transaction<'a>),
}

/// Pending queries of one worker.
pub struct Table {
    capacity: usize,
    merge_interfaces: bool,
    index: HashTable<u32>,
    /// The seed is random: clients choose ports and identifiers.
    hasher: DefaultHashBuilder,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Indexed by transport.
    lists: [List; 2],
    pending_messages: u64,
    /// Size of the buffers of pending queries in bytes.
    buffer_bytes: usize,
    /// The slot that was removed last: its content may be in use by a record.
    removed: u32,
    /// The oldest query of a key that has the maximum number of queries, and the hash of the key.
    /// The next call of [`Table::evict`] removes it.
    crowded: Option<(u32, u64)>,
    gaps: Gaps,
    recent: Recent,
    question_index: QuestionIndex,
    sides: Sides,
    sightings: SightingIndex,
    shared: SharedNotes,
    ids: RecordIds,
    /// True if the current message stays here, whoever has its query.
    is_final: bool,
    /// The latest time of any call.
    latest_ns: u64,
}

impl Table {
    pub(super) fn new(
        config: Config,
        started_at_ns: u64,
        ids: RecordIds,
        shared: SharedNotes,
    ) -> Self {
        let lists = [config.udp_timeout, config.tcp_timeout].map(|timeout| List {
            timeout_ns: u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX),
            oldest: NONE,
            newest: NONE,
        });
        Self {
            // Slot numbers are u32, and the largest one marks the end of a list.
            capacity: config.capacity.clamp(1, NONE as usize - 1),
            merge_interfaces: config.merge_interfaces,
            index: HashTable::new(),
            hasher: shared.hasher.clone(),
            slots: Vec::new(),
            free: Vec::new(),
            lists,
            pending_messages: 0,
            buffer_bytes: 0,
            removed: NONE,
            crowded: None,
            gaps: Gaps::new(started_at_ns),
            recent: Recent::new(),
            question_index: QuestionIndex::new(),
            sides: Sides::new(),
            sightings: SightingIndex::new(),
            shared,
            is_final: true,
            ids,
            latest_ns: started_at_ns,
        }
    }

    /// Returns the generator of the records' identifiers.
    #[must_use]
    pub const fn ids(&self) -> RecordIds {
        self.ids
    }

    /// Returns the number of pending messages, including repeated queries and responses that wait.
    #[must_use]
    pub const fn pending_messages(&self) -> u64 {
        self.pending_messages
    }

    /// Returns the number of pending queries.
    #[must_use]
    pub fn pending_queries(&self) -> usize {
        self.index.len()
    }

    /// Records the ring's loss count as of `at_ns`. An increase means that packets are missing: returns
    /// true then.
    pub const fn note_ring_lost(&mut self, ring_lost: u32, at_ns: u64) -> bool {
        let known = self.gaps.known();
        self.gaps.note_ring_lost(ring_lost, at_ns);
        known != self.gaps.known()
    }

    /// Returns the latest pending query of a transport, after [`Observed::Waits`], and assigns the
    /// identifier of its record: that of the outermost sighting, if there is one.
    pub fn newest(&mut self, transport: Transport) -> Option<(RecordId, &Flow, &Observation)> {
        let newest = self.lists[transport as usize].newest;
        if newest == NONE {
            return None;
        }
        let sequence = self.reserve_outermost(newest);
        let slot = self.slots.get(newest as usize)?;
        Some((self.ids.of(sequence), &slot.flow, &slot.query))
    }

    /// Records that a captured packet between two endpoints could not be read: it may have
    /// contained the message that one of their transactions waits for.
    pub fn note_unreadable(&mut self, mut flow: Flow, at_ns: u64) {
        self.identify(&mut flow);
        self.gaps.note_unreadable(flow, at_ns);
    }

    /// Records that bytes were sent twice in a TCP connection with different content: it is unknown
    /// which of them the receiver used.
    pub fn note_conflict(&mut self, mut flow: Flow, at_ns: u64) {
        self.identify(&mut flow);
        self.gaps.note_conflict(flow, at_ns);
    }

    /// Records that capture on an interface started or stopped at `at_ns`: related messages may
    /// have passed while it was off.
    pub fn note_switched(&mut self, ifindex: u32, at_ns: u64) {
        self.gaps.note_switched(ifindex, at_ns);
    }

    /// Returns the key of a message with this identifier. Compute it before you read the message:
    /// the memory that [`observe`](Self::observe) reads first is prefetched meanwhile.
    #[inline]
    #[must_use]
    pub fn key<'f>(&self, flow: &'f Flow, id: u16) -> Key<'f> {
        let mut hash = self.hasher.build_hasher();
        self.identified(flow, &mut None).hash(&mut hash);
        hash.write_u16(id);
        let hash = hash.finish();
        self.recent.prefetch(hash);
        Key { flow, hash, is_final: false }
    }

    /// Processes the message of a key, with its bytes `wire`. A query is swapped into the table,
    /// and `seen` is then another observation that may be overwritten.
    pub fn observe<'a>(
        &'a mut self,
        key: Key<'_>,
        seen: &'a mut Box<Observation>,
        wire: &[u8],
    ) -> Observed<'a> {
        let Key { flow, mut hash, is_final } = key;
        let mut copy = None;
        let flow = self.identified(flow, &mut copy);
        self.is_final = is_final;
        self.shrink_buffers();
        self.latest_ns = self.latest_ns.max(seen.at_ns);
        if multicast::is_possible(flow) {
            if seen.message.response {
                return self.observe_group_response(hash, flow, seen, wire);
            }
            if let Some(key) = multicast::Key::of_query(flow, &seen.message) {
                hash = self.hasher.hash_one(key);
            }
        }
        if seen.message.response {
            self.observe_response(hash, flow, seen, wire)
        } else {
            self.observe_query(hash, flow, seen, wire)
        }
    }

    /// Creates a transaction of one message, which is neither paired nor remembered.
    pub fn alone<'a>(&mut self, flow: Flow, seen: &'a Observation) -> Transaction<'a> {
        let response = seen.message.response;
        let sequence = self.ids.next();
        Transaction {
            id: self.ids.of(sequence),
            flow,
            exchange: if response { Exchange::Response(seen) } else { Exchange::Query(seen) },
            query_count: u32::from(!response),
            latest_query_ns: if response { 0 } else { seen.at_ns },
            copy_count: 0,
            capture_gap: seen.cut,
            related: None,
            anomalies: Anomalies::NONE,
            sightings: Sightings::single(&flow),
            chain: None,
        }
    }

    /// Returns the flow, or the copy without its interface if interfaces are merged.
    #[inline]
    fn identified<'f>(&self, flow: &'f Flow, copy: &'f mut Option<Flow>) -> &'f Flow {
        if !self.merge_interfaces {
            return flow;
        }
        let copy = copy.insert(*flow);
        self.identify(copy);
        copy
    }

    const fn identify(&self, flow: &mut Flow) {
        if self.merge_interfaces {
            flow.ifindex = 0;
        }
    }

    /// Returns the hash of a question; 0 without a question.
    fn question_hash(&self, question: Option<Question<'_>>) -> u32 {
        question_hash(&self.hasher, question)
    }
}

/// Returns the hash of a question; 0 without a question.
fn question_hash(hasher: &DefaultHashBuilder, question: Option<Question<'_>>) -> u32 {
    let Some(question) = question else { return 0 };
    let mut hash = hasher.build_hasher();
    hash.write(question.name.as_bytes());
    hash.write_u32(u32::from(question.qtype) << 16 | u32::from(question.qclass));
    #[expect(clippy::cast_possible_truncation, reason = "any bits of a hash will do")]
    let hash = hash.finish() as u32;
    hash | 1
}

#[cfg(test)]
mod tests;
