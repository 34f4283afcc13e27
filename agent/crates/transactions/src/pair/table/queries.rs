//! Observes queries: new ones, repetitions and copies.

use tap53_dns::{Flow, Transport};

use super::{Observed, Table, signs::case_hash, slots::QueryHashes};
use crate::pair::{
    Observation, multicast,
    recent::{COPIED_NS, Sighting},
};

/// Maximum number of pending queries with one flow and identifier. A lookup compares the questions
/// of all of them, and a client with several pending queries under one identifier has few.
pub(super) const QUERIES_PER_KEY: usize = 64;

/// Maximum number of pending queries to a group with one key: all hosts of a link may query one
/// name.
pub(super) const GROUP_QUERIES_PER_KEY: usize = 256;

impl Table {
    /// Processes a query whose flow and identifier, or group key, have this `hash`.
    pub(super) fn observe_query(
        &mut self,
        hash: u64,
        flow: &Flow,
        query: &mut Box<Observation>,
        wire: &[u8],
    ) -> Observed<'_> {
        // Count the queries of the same key that the search passes, and find the oldest of them.
        let mut passed = 0;
        let mut oldest: Option<(u64, u32)> = None;
        let same = |slot: &u32| {
            let Some(pending) = self.pending(*slot) else { return false };
            if pending.hash == hash {
                passed += 1;
                let this = (pending.since_ns, *slot);
                oldest = Some(oldest.map_or(this, |oldest| oldest.min(this)));
            }
            pending.query.message.id == query.message.id
                && pending.flow == *flow
                && pending.query.message.question() == query.message.question()
        };
        let seen = Sighting::of(query);
        if let Some(&slot) = self.index.find(hash, same) {
            let pending = &mut self.slots[slot as usize];
            // Two equal messages of one TCP stream are two messages; a mirror port's copies in a
            // stream are recognised by their sequence numbers.
            let is_mirrored = flow.transport == Transport::Udp
                && seen.mirrors(&pending.latest)
                && pending.query.message == query.message;
            // A query that is repeated later may leave by another interface. One that was captured
            // before the latest, and follows it in a file, is a copy of an earlier one.
            let is_elsewhere = pending.query.point != query.point
                && query.at_ns <= pending.latest.at_ns.saturating_add(COPIED_NS);
            if !pending.query.sender.is_known() {
                pending.query.sender = query.sender;
            }
            if is_elsewhere || is_mirrored {
                pending.copy_count += 1;
                pending.both_ways |= pending.query.point.ifindex == query.point.ifindex
                    && pending.query.point.direction != query.point.direction;
                return Observed::Copy;
            }
            pending.query_count += 1;
            pending.latest = seen;
            self.pending_messages += 1;
            return Observed::Repeated;
        }
        let again = self.recent.may_contain(hash);
        let question = self.question_hash(query.message.question());
        if again && self.recent.is_copy_of_query(hash, question, &seen) {
            return Observed::Copy;
        }
        let most = if flow.server.ip().is_multicast() && multicast::is_possible(flow) {
            GROUP_QUERIES_PER_KEY
        } else {
            QUERIES_PER_KEY
        };
        self.crowded = oldest.filter(|_| passed >= most).map(|(_, slot)| (slot, hash));
        let case = case_hash(&self.hasher, &query.message, wire);
        let hashes = QueryHashes { key: hash, question, case };
        let number = self.insert(hashes, flow, query, again);
        self.index_sighting(number, wire);
        Observed::Waits
    }
}
