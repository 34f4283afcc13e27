//! Recognises the sightings of one exchange before and after address translation, and in a tunnel.
//!
//! ```text
//!  outer  client ─▶ service     veth, ingress                         its query and response are the
//!  inner  client ─▶ backend     eth0, egress      ◀ translated        record; those of the inner
//!  inner  the same in a tunnel  eth0, egress      ◀ encapsulated      sightings are copies
//! ```
//!
//! - Translation leaves the bytes of a message as they are. A query is linked as the inner sighting
//!   of a pending one with equal bytes if it can be the same packet later on its path, and if there
//!   is exactly one such query: see [`Evidence`].
//! - The response to an inner query waits for the response to the outer one. Both have equal bytes,
//!   or they are recorded apart.
//! - Nothing is linked by a guess. Where several queries fit, all of them stay apart and are marked
//!   [`Nat::Undecided`].

use std::{collections::VecDeque, mem};

use tap53_dns::{Flow, Message};
use tap53_ebpf::settings::Direction;

use super::{
    Table,
    signs::hash_of,
    slots::{NONE, Slot},
};
use crate::pair::{
    Anomalies, Exchange, Nat, Observation, Related, Relation, Sightings, Transaction,
    recent::{COPIED_NS, EndedExchange, Sighting},
};

/// Number of places of the index of pending queries by their bytes, a power of two: 64 KiB per
/// worker, which stay in the cache.
const PLACES: usize = 16_384;

/// Maximum number of queries that a search compares. Nobody has so many pending queries with equal
/// bytes at once, except for an attacker.
const COMPARED: u32 = 32;

/// Maximum time in nanoseconds between two sightings whose client differs. A packet passes a node in
/// microseconds; the rest allows for a busy one.
const CLIENT_TRANSLATED_NS: u64 = 50_000_000;

/// Maximum decrease of the hop limit between two sightings whose client differs.
const HOPS: u8 = 3;

/// Time in nanoseconds of capture that the response to an inner query waits for that of the outer
/// one, which follows within microseconds.
const HELD_NS: u64 = 100_000_000;

/// Maximum number of responses that wait.
const HELD: usize = 1_024;

/// Maximum number of spare response buffers, and the maximum size of one in bytes.
const SPARE: usize = 8;
const SPARE_BYTES: usize = 16_384;

/// The evidence that two queries with equal bytes are one packet, from weak to strong. A decision
/// considers only the strongest that there is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Evidence {
    /// The client differs.
    OtherClient,
    /// The client differs, and both packets have the same IPv4 identification.
    OtherClientSamePacket,
    /// The client is the same.
    SameClient,
    /// The client and the IPv4 identification are the same.
    SameClientSamePacket,
}

/// The links of a slot to other sightings.
pub(super) struct Links {
    /// Hash of the query's bytes; 0 if they are not compared.
    content: u64,
    /// Neighbours in the list of queries of one place.
    older: u32,
    newer: u32,
    /// The sightings before and after this one.
    outer: u32,
    inner: u32,
    /// Set if several queries were candidates for one link.
    undecided: bool,
    /// The response that waits for the outer one.
    held: Option<Held>,
    /// Sequence number of the record of an inner sighting that was recorded apart; 0 if none was.
    apart: u64,
}

/// The response to an inner query.
struct Held {
    response: Box<Observation>,
    /// Hash of its bytes.
    content: u64,
    capture_gap: bool,
    /// Time until which it waits.
    until_ns: u64,
}

impl Links {
    pub(super) const NONE: Self = Self {
        content: 0,
        older: NONE,
        newer: NONE,
        outer: NONE,
        inner: NONE,
        undecided: false,
        held: None,
        apart: 0,
    };
}

/// State of the table that concerns sightings.
pub(super) struct SightingIndex {
    /// The newest pending query of each place.
    newest: Vec<u32>,
    /// Held slots in the order of their deadline; with some that are no longer held.
    deadlines: VecDeque<(u64, u32)>,
    /// Held slots that have lost their outer sighting.
    due: Vec<u32>,
    /// Number of held slots.
    held: usize,
    #[expect(clippy::vec_box, reason = "they are exchanged with boxes that the caller has")]
    spare: Vec<Box<Observation>>,
    /// The response of the slot that was recorded last.
    recorded: Option<Box<Observation>>,
}

impl SightingIndex {
    pub(super) fn new() -> Self {
        Self {
            newest: vec![NONE; PLACES],
            deadlines: VecDeque::new(),
            due: Vec::new(),
            held: 0,
            spare: Vec::new(),
            recorded: None,
        }
    }

    fn keep_spare(&mut self, response: Box<Observation>) {
        if self.spare.len() < SPARE && response.buffer_bytes() <= SPARE_BYTES {
            self.spare.push(response);
        }
    }
}

/// What the inner sightings of a transaction add to it.
pub(super) struct Merged {
    pub(super) sightings: Sightings,
    pub(super) copies: u32,
    pub(super) anomalies: Anomalies,
    pub(super) related: Option<Related>,
}

impl Table {
    /// Adds a new pending query to the index by bytes, and links it to the sighting before it.
    #[inline]
    pub(super) fn index_sighting(&mut self, number: u32, wire: &[u8]) {
        let slot = &mut self.slots[number as usize];
        slot.links = Links::NONE;
        // A query to a group has no server whose address could be translated.
        if !self.merge_interfaces
            || wire.len() < Message::HEADER_SIZE
            || slot.query.cut
            || slot.flow.server.ip().is_multicast()
        {
            return;
        }
        let content = hash_of(&self.hasher, wire).wrapping_add(u64::from(slot.question)) | 1;
        slot.links.content = content;
        let Some(newest) = self.sightings.newest.get_mut(place(content)) else { return };
        let older = mem::replace(newest, number);
        slot.links.older = older;
        if let Some(older) = self.slots.get_mut(older as usize) {
            older.links.newer = number;
            self.link(number);
        }
    }

    /// Removes a query from the index by bytes.
    #[inline]
    pub(super) fn unindex_sighting(&mut self, number: u32) {
        let Links { content, older, newer, .. } = self.slots[number as usize].links;
        if content == 0 {
            return;
        }
        match self.slots.get_mut(newer as usize) {
            Some(newer) => newer.links.older = older,
            None => self.sightings.newest[place(content)] = older,
        }
        if let Some(older) = self.slots.get_mut(older as usize) {
            older.links.newer = newer;
        }
        self.slots[number as usize].links.content = 0;
    }

    /// Links a new query to the one pending query that it is a later sighting of.
    #[cold]
    fn link(&mut self, number: u32) {
        let mut found: Vec<(Evidence, u32)> = Vec::new();
        let mut compared = 0;
        let mut at = self.slots[number as usize].links.older;
        while let Some(slot) = self.slots.get(at as usize) {
            compared += 1;
            if let Some(evidence) = self.evidence(at, number) {
                found.push((evidence, at));
            }
            if compared == COMPARED && slot.links.older != NONE {
                self.slots[number as usize].links.undecided |= !found.is_empty();
                return;
            }
            at = slot.links.older;
        }
        let Some(best) = found.iter().map(|(evidence, _)| *evidence).max() else { return };
        found.retain(|(evidence, _)| *evidence == best);
        if let [(_, outer)] = found[..]
            && !self.slots[outer as usize].links.undecided
        {
            self.slots[outer as usize].links.inner = number;
            self.slots[number as usize].links.outer = outer;
            return;
        }
        for slot in found.iter().map(|(_, slot)| *slot).chain([number]) {
            self.slots[slot as usize].links.undecided = true;
        }
    }

    /// Returns the evidence that a new query is the next sighting of a pending one; `None` if it is
    /// not.
    fn evidence(&self, pending: u32, new: u32) -> Option<Evidence> {
        let (outer, inner) = (&self.slots[pending as usize], &self.slots[new as usize]);
        let is_last = outer.pending && outer.links.inner == NONE;
        if !is_last
            || outer.links.content != inner.links.content
            || outer.flow.transport != inner.flow.transport
            || outer.query.message.id != inner.query.message.id
            || outer.question != inner.question
            || self.passed_before(pending, inner)
        {
            return None;
        }
        let [earlier, later] = [&outer.query, &inner.query];
        let between_ns = later.at_ns.saturating_sub(outer.latest.at_ns.min(later.at_ns));
        let both_known = |one: u64, other: u64| one != 0 && other != 0;
        let [one, other] = [earlier.sender.socket, later.sender.socket];
        let same_packet = both_known(earlier.identification.into(), later.identification.into());
        if later.at_ns < earlier.at_ns
            || both_known(one, other) && one != other
            || same_packet && earlier.identification != later.identification
            // The hop limit of a packet never increases.
            || later.hop_limit > earlier.hop_limit
        {
            return None;
        }
        let same_client = outer.flow.client == inner.flow.client;
        if same_client && outer.flow.server == inner.flow.server {
            // Only the tunnel differs. From one into another there is no direct way.
            let is_tunnel = outer.flow.tunnel.is_none() != inner.flow.tunnel.is_none();
            return (is_tunnel && between_ns <= COPIED_NS).then_some(if same_packet {
                Evidence::SameClientSamePacket
            } else {
                Evidence::SameClient
            });
        }
        let hops = earlier.hop_limit - later.hop_limit;
        let leaves = later.point.direction == Direction::Egress;
        // A translated packet has entered this node. Of a packet that leaves it, nothing follows: the
        // next one with these bytes is that of another server, which one socket may query at once.
        if earlier.point.direction != Direction::Ingress || !(leaves || hops > 0) {
            return None;
        }
        if same_client {
            return (between_ns <= COPIED_NS).then_some(if same_packet {
                Evidence::SameClientSamePacket
            } else {
                Evidence::SameClient
            });
        }
        // A forwarder repeats the bytes of a query too, in a packet of its own: from the address that
        // was queried, or with a hop limit that was not decremented.
        let may_be_forwarded =
            inner.flow.client.ip() == outer.flow.server.ip() || hops == 0 || hops > HOPS;
        let is_sure = leaves
            && !may_be_forwarded
            && between_ns <= CLIENT_TRANSLATED_NS
            && outer.gaps == self.gaps.known();
        is_sure.then_some(if same_packet {
            Evidence::OtherClientSamePacket
        } else {
            Evidence::OtherClient
        })
    }

    /// Returns true if a sighting of the same exchange was at the point of this one: a packet passes
    /// each point once.
    fn passed_before(&self, last: u32, inner: &Slot) -> bool {
        let mut at = last;
        while let Some(slot) = self.slots.get(at as usize) {
            if slot.query.point == inner.query.point || slot.flow == inner.flow {
                return true;
            }
            at = slot.links.outer;
        }
        false
    }

    /// Returns true if the response to this query waits for that of an outer sighting.
    #[inline]
    pub(super) fn has_outer(&self, number: u32) -> bool {
        self.slots[number as usize].links.outer != NONE
    }

    /// Returns true if a response to an inner query can wait.
    pub(super) fn may_hold(&self) -> bool {
        self.sightings.held < HELD
    }

    /// Keeps the response to an inner query, which was removed from the index, until the outer
    /// sighting ends.
    #[cold]
    pub(super) fn hold(
        &mut self,
        number: u32,
        response: &mut Box<Observation>,
        wire: &[u8],
        capture_gap: bool,
        anomalies: Anomalies,
    ) {
        let content = hash_of(&self.hasher, wire);
        let until_ns = response.at_ns.max(self.latest_ns).saturating_add(HELD_NS);
        let spare = self.sightings.spare.pop().unwrap_or_default();
        let response = mem::replace(response, spare);
        let slot = &mut self.slots[number as usize];
        slot.anomalies = anomalies;
        slot.links.held = Some(Held { response, content, capture_gap, until_ns });
        self.pending_messages += 1;
        self.sightings.held += 1;
        while let Some((until_ns, oldest)) = self.sightings.deadlines.front().copied()
            && !self.is_held_until(oldest, until_ns)
        {
            self.sightings.deadlines.pop_front();
        }
        self.sightings.deadlines.push_back((until_ns, number));
    }

    fn is_held_until(&self, number: u32, until_ns: u64) -> bool {
        let held = self.slots[number as usize].links.held.as_ref();
        held.is_some_and(|held| held.until_ns == until_ns)
    }

    /// Returns the sequence number of the record of the outermost sighting, which is reserved from
    /// now on.
    pub(super) fn reserve_outermost(&mut self, number: u32) -> u64 {
        let mut at = number;
        while self.has_outer(at) {
            at = self.slots[at as usize].links.outer;
        }
        let slot = &mut self.slots[at as usize];
        if slot.sequence == 0 {
            slot.sequence = self.ids.next();
        }
        slot.sequence
    }

    /// Separates a sighting from the one before it.
    fn separate(&mut self, number: u32) {
        let outer = mem::replace(&mut self.slots[number as usize].links.outer, NONE);
        if let Some(outer) = self.slots.get_mut(outer as usize) {
            outer.links.inner = NONE;
        }
    }

    /// Merges the inner sightings of a query that ends, with a response of these bytes or without
    /// one. Those that do not fit are separated from it.
    #[inline]
    pub(super) fn merge(&mut self, number: u32, response: Option<&[u8]>) -> Merged {
        if self.has_outer(number) {
            self.separate(number);
        }
        let mut merged = self.without_inner(number);
        if self.slots[number as usize].links.inner != NONE {
            let content = response.map(|wire| hash_of(&self.hasher, wire));
            self.merge_inner(number, content, &mut merged);
        }
        merged
    }

    /// Returns the sightings of a query without those after it.
    #[inline]
    fn without_inner(&self, number: u32) -> Merged {
        let slot = &self.slots[number as usize];
        let mut sightings = Sightings::single(&slot.flow);
        if slot.links.undecided {
            sightings.nat = Nat::Undecided;
        }
        Merged {
            sightings,
            copies: 0,
            anomalies: Anomalies::NONE,
            related: (slot.links.apart != 0).then(|| self.translated(slot.links.apart)),
        }
    }

    fn translated(&self, sequence: u64) -> Related {
        Related { relation: Relation::Translated, record: self.ids.of(sequence) }
    }

    #[cold]
    fn merge_inner(&mut self, outermost: u32, content: Option<u64>, merged: &mut Merged) {
        let sequence = self.reserve_outermost(outermost);
        let flow = self.slots[outermost as usize].flow;
        let removed = self.removed;
        let mut at = mem::replace(&mut self.slots[outermost as usize].links.inner, NONE);
        while let Some(slot) = self.slots.get_mut(at as usize) {
            slot.links.outer = NONE;
            let fits = match (content, &slot.links.held) {
                (Some(content), Some(held)) => held.content == content,
                // The response came by another way than the query, or was not captured.
                (Some(_), None) => slot.flow.client == flow.client,
                (None, held) => held.is_none(),
            };
            if !fits {
                self.refuse(at, content.is_some(), sequence, merged);
                break;
            }
            let inner = mem::replace(&mut slot.links.inner, NONE);
            merged.add(&flow, slot);
            if slot.links.held.is_some() {
                self.release_held(at);
            } else {
                self.remember_inner(at, sequence);
                self.remove_slot(at);
            }
            self.removed = at;
            self.shrink_buffers();
            at = inner;
        }
        self.removed = removed;
    }

    /// Leaves an inner sighting to itself, whose outer one ended in another way: with a response of
    /// other bytes, or without one.
    fn refuse(&mut self, number: u32, is_answered: bool, sequence: u64, merged: &mut Merged) {
        let slot = &mut self.slots[number as usize];
        if is_answered {
            slot.links.undecided = true;
            merged.sightings.nat = Nat::Undecided;
        }
        if slot.links.held.is_none() {
            return;
        }
        if !is_answered {
            if slot.sequence == 0 {
                slot.sequence = self.ids.next();
            }
            slot.links.apart = sequence;
            let inner = slot.sequence;
            merged.related = Some(self.translated(inner));
        }
        self.sightings.due.push(number);
    }

    /// Remembers an inner query that ends without a response of its own: one that comes late belongs
    /// to the record of the outer one.
    fn remember_inner(&mut self, number: u32, sequence: u64) {
        let slot = &self.slots[number as usize];
        let query = Sighting::of(&slot.query);
        self.recent.insert(&EndedExchange {
            key: slot.hash,
            question: slot.question,
            at_ns: self.latest_ns,
            sequence,
            query: Some(query),
            response: None,
            answers: 0,
        });
    }

    /// Frees a held slot, and returns its response.
    fn free_held(&mut self, number: u32) -> Option<Held> {
        let held = self.slots[number as usize].links.held.take()?;
        self.pending_messages -= 1;
        self.sightings.held -= 1;
        self.free_slot(number);
        Some(held)
    }

    /// Frees a held slot whose messages are copies.
    fn release_held(&mut self, number: u32) {
        if let Some(held) = self.free_held(number) {
            self.sightings.keep_spare(held.response);
        }
    }

    /// Returns a held slot that waits no longer at `now_ns`.
    #[inline]
    pub(super) fn next_due(&mut self, now_ns: u64) -> Option<u32> {
        if self.sightings.held == 0 {
            return None;
        }
        self.next_held(now_ns)
    }

    #[cold]
    fn next_held(&mut self, now_ns: u64) -> Option<u32> {
        while let Some(number) = self.sightings.due.pop() {
            if self.slots[number as usize].links.held.is_some() {
                return Some(number);
            }
        }
        while let Some((until_ns, number)) = self.sightings.deadlines.front().copied() {
            // Some have ended since, and their slots may hold others.
            let is_held = self.is_held_until(number, until_ns);
            if is_held && until_ns > now_ns {
                return None;
            }
            self.sightings.deadlines.pop_front();
            if is_held {
                return Some(number);
            }
        }
        None
    }

    /// Records a held slot apart from its outer sighting.
    #[cold]
    pub(super) fn record_held(&mut self, number: u32) -> Option<Transaction<'_>> {
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
        if let Some(recorded) = self.sightings.recorded.replace(response) {
            self.sightings.keep_spare(recorded);
        }
        let slot = &self.slots[number as usize];
        let response = self.sightings.recorded.as_deref()?;
        Some(Transaction {
            id: self.ids.of(sequence),
            flow: slot.flow,
            exchange: Exchange::Matched(&slot.query, response),
            query_count: slot.query_count,
            latest_query_ns: slot.latest.at_ns,
            copy_count: slot.copy_count + merged.copies,
            capture_gap,
            related: merged.related,
            anomalies: slot.anomalies.and(merged.anomalies),
            sightings: merged.sightings,
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

    /// Returns the slot of the group of `number` whose server this flow has, if there is one.
    pub(super) fn sighting_of_server(&self, number: u32, flow: &Flow) -> u32 {
        let links = |at: u32| self.slots.get(at as usize).map(|slot| &slot.links);
        let mut at = number;
        while let Some(outer) = links(at).map(|links| links.outer).filter(|it| *it != NONE) {
            at = outer;
        }
        while let Some(slot) = self.slots.get(at as usize) {
            if slot.flow.server == flow.server {
                return at;
            }
            at = slot.links.inner;
        }
        number
    }

    /// Returns the number of responses that wait for those of outer sightings.
    #[cfg(test)]
    pub(super) fn held_responses(&self) -> usize {
        self.sightings.held
    }
}

impl Merged {
    /// Adds the next sighting of an exchange whose outermost one has this flow.
    fn add(&mut self, outermost: &Flow, slot: &Slot) {
        let (client, server) = (slot.flow.client, slot.flow.server);
        self.sightings = Sightings {
            nat: Nat::between(outermost, &slot.flow),
            client,
            server,
            count: self.sightings.count + 1,
            messages: self.sightings.messages
                + slot.query_count
                + u32::from(slot.links.held.is_some()),
            responder: match &slot.links.held {
                Some(held) if held.response.sender.is_known() => held.response.sender,
                _ => self.sightings.responder,
            },
        };
        self.copies += slot.query_count + slot.copy_count;
        self.anomalies = self.anomalies.and(slot.anomalies);
    }
}

const fn place(content: u64) -> usize {
    (content >> 1) as usize & (PLACES - 1)
}
