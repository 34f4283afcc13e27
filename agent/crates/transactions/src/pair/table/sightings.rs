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

mod evidence;
mod held;

use std::mem;

use tap53_dns::{Flow, Message};

use super::{
    Table,
    signs::hash_of,
    slots::{NONE, Slot},
};
use crate::pair::{
    Anomalies, Nat, Related, Relation, Sightings,
    recent::{EndedExchange, Sighting},
};
use evidence::Evidence;
use held::{Held, HeldResponses};

/// Number of places of the index of pending queries by their bytes, a power of two: 64 KiB per
/// worker, which stay in the cache.
const PLACES: usize = 16_384;

/// Maximum number of queries that a search compares. Only an attacker has so many
/// pending queries with equal bytes at once.
const COMPARED: u32 = 32;

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
    held: HeldResponses,
}

impl SightingIndex {
    pub(super) fn new() -> Self {
        Self { newest: vec![NONE; PLACES], held: HeldResponses::default() }
    }
}

/// The part of a transaction that comes from its inner sightings.
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

    /// Returns true if the response to this query waits for that of an outer sighting.
    #[inline]
    pub(super) fn has_outer(&self, number: u32) -> bool {
        self.slots[number as usize].links.outer != NONE
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
        self.sightings.held.due.push(number);
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
            response_ns: match &slot.links.held {
                Some(held) => Some(held.response.at_ns),
                None => self.sightings.response_ns,
            },
        };
        self.copies += slot.query_count + slot.copy_count;
        self.anomalies = self.anomalies.union(slot.anomalies);
    }
}

const fn place(content: u64) -> usize {
    (content >> 1) as usize & (PLACES - 1)
}
