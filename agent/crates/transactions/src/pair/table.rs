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
mod signs;

use std::{
    hash::{BuildHasher, Hash, Hasher},
    mem,
};

use hashbrown::{DefaultHashBuilder, HashTable};
use tap53_dns::{Flow, ParseStatus, Question, Transport};

use super::{
    Anomalies, Anomaly, Config, Exchange, Observation, RecordIds, Related, Relation, Transaction,
    Truncations, multicast,
    recent::{Answered, COPIED_NS, Ended, MIRRORED_NS, Recent, Sighting},
};
use gaps::Gaps;
use signs::{Aims, Sides, answers_hash, case_hash};

/// No slot.
const NONE: u32 = u32::MAX;

/// Buffers that a free slot keeps at most, bytes; those of a query with a name of usual length are
/// smaller.
const KEPT_BUFFER_BYTES: usize = 512;

/// Bytes of buffers that pending queries hold at most, on average, when the table is full. One query
/// over TCP may have 64 KiB.
const BUFFER_BYTES_PER_QUERY: usize = 512;

/// Pending queries with one flow and identifier at most. A look-up compares the questions of all of
/// them, and a client that waits for several under one identifier has few.
const QUERIES_PER_KEY: usize = 64;

/// Pending queries to a group with one key at most: the hosts of a link may all ask for one name.
const GROUP_QUERIES_PER_KEY: usize = 256;

struct Slot {
    pending: bool,
    flow: Flow,
    query: Box<Observation>,
    /// Of the query, as of when it came.
    buffer_bytes: usize,
    query_count: u32,
    copy_count: u32,
    /// The query where it was seen last, copies aside.
    latest: Sighting,
    /// True if an exchange of the same flow and identifier may have ended lately.
    again: bool,
    /// True if it passed its interface in both directions: on `lo`, or where packets turn back.
    both_ways: bool,
    /// Hash of the question; 0 without one.
    question: u32,
    /// Hash of the name asked for, as it was sent.
    case: u32,
    anomalies: Anomalies,
    /// Sequence number of its record, where another had to name it already; 0 elsewhere.
    sequence: u64,
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

impl Slot {
    /// True if the name asked for was sent in other case than the response has it.
    fn has_other_case(&self, response: u32) -> bool {
        self.case != 0
            && response != 0
            && self.case != response
            && !self.flow.server.ip().is_multicast()
    }

    /// True if client and server are on different sides of an interface.
    fn has_two_sides(&self) -> bool {
        let [client, server] = [self.flow.client.ip(), self.flow.server.ip()];
        !self.both_ways && client != server && !client.is_loopback() && !server.is_multicast()
    }
}

/// Pending queries of one transport, in order of arrival.
#[derive(Clone, Copy)]
struct List {
    timeout_ns: u64,
    oldest: u32,
    newest: u32,
}

/// Hashes of a response's bytes.
#[derive(Clone, Copy)]
struct Bytes {
    /// All of them, with flow and identifier.
    content: u64,
    /// The question's name as it was sent.
    case: u32,
}

/// Hashes of a query.
#[derive(Clone, Copy)]
struct Hashes {
    /// Flow and identifier.
    key: u64,
    question: u32,
    /// The question's name as it was sent.
    case: u32,
}

/// Flow and identifier of a message, and their hash in the table that computed it.
#[derive(Clone, Copy)]
pub struct Key {
    flow: Flow,
    hash: u64,
}

/// What a message did to the table.
#[derive(Debug, PartialEq)]
pub enum Observed<'a> {
    /// A query that now waits; others may have to leave for it, see [`Table::evict`].
    Waits,
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
    /// The oldest query of a key that has as many as one may have, and that key's hash. It leaves
    /// with the next call of [`Table::evict`].
    crowded: Option<(u32, u64)>,
    gaps: Gaps,
    recent: Recent,
    aims: Aims,
    sides: Sides,
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
            capacity: config.capacity.clamp(1, NONE as usize - 1),
            merge_interfaces: config.merge_interfaces,
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            slots: Vec::new(),
            free: Vec::new(),
            lists,
            pending_messages: 0,
            buffer_bytes: 0,
            taken: NONE,
            crowded: None,
            gaps: Gaps::new(started_at_ns),
            recent: Recent::new(),
            aims: Aims::new(),
            sides: Sides::new(),
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

    /// Takes note of bytes that were sent twice in a TCP connection, and differ: nobody knows which
    /// of them its messages were.
    pub fn note_conflict(&mut self, mut flow: Flow, at_ns: u64) {
        self.identify(&mut flow);
        self.gaps.note_conflict(flow, at_ns);
    }

    /// Takes note that capture on an interface began or ended at `at_ns`: what belongs to a message
    /// seen there may have passed while nobody looked.
    pub fn note_switched(&mut self, ifindex: u32, at_ns: u64) {
        self.gaps.note_switched(ifindex, at_ns);
    }

    /// The key of a message with this identifier. Compute it before you read the message: what
    /// [`observe`](Self::observe) reads first is fetched meanwhile.
    #[inline]
    #[must_use]
    pub fn key(&self, mut flow: Flow, id: u16) -> Key {
        self.identify(&mut flow);
        let mut hash = self.hasher.build_hasher();
        flow.hash(&mut hash);
        hash.write_u16(id);
        let hash = hash.finish();
        self.recent.prefetch(hash);
        Key { flow, hash }
    }

    /// Processes the message of a key. `wire` are its bytes. A query is swapped into the table, and
    /// `seen` is another observation then, to be overwritten.
    pub fn observe<'a>(
        &'a mut self,
        key: Key,
        seen: &'a mut Box<Observation>,
        wire: &[u8],
    ) -> Observed<'a> {
        let Key { flow, mut hash } = key;
        self.tidy();
        self.latest_ns = self.latest_ns.max(seen.at_ns);
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
            self.ask(hash, &flow, seen, wire)
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
            latest_query_ns: if response { 0 } else { seen.at_ns },
            copy_count: 0,
            capture_gap: seen.cut,
            related: None,
            anomalies: Anomalies::NONE,
        }
    }

    const fn identify(&self, flow: &mut Flow) {
        if self.merge_interfaces {
            flow.ifindex = 0;
        }
    }

    fn ask(
        &mut self,
        hash: u64,
        flow: &Flow,
        query: &mut Box<Observation>,
        wire: &[u8],
    ) -> Observed<'_> {
        // The queries of the same key that the search passes, and the oldest of them.
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
            // Two equal messages of one TCP stream are two; what a mirror port shows twice of a
            // stream is told by its sequence numbers.
            let is_mirrored = flow.transport == Transport::Udp
                && seen.mirrors(&pending.latest)
                && pending.query.message == query.message;
            // A query that is sent again later may leave by another interface. One that was captured
            // before the latest, and comes after it in a file, is a copy of what was read before.
            let is_elsewhere = pending.query.point != query.point
                && query.at_ns <= pending.latest.at_ns.saturating_add(COPIED_NS);
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
        let again = self.recent.may_know(hash);
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
        let hashes = Hashes { key: hash, question, case: case_hash(&self.hasher, wire) };
        self.insert(hashes, flow, query, again);
        Observed::Waits
    }

    /// Takes in a response whose flow and identifier have this `hash`.
    fn respond<'a>(
        &'a mut self,
        hash: u64,
        flow: &Flow,
        response: &'a Observation,
        wire: &[u8],
    ) -> Observed<'a> {
        let bytes = self.bytes(hash, wire);
        let (slots, recent, hasher) = (&self.slots, &self.recent, &self.hasher);
        let question = response.message.question();
        let answers = |slot: &u32| {
            slots.get(*slot as usize).is_some_and(|slot| {
                slot.is_answered_by(flow, response)
                    && !(slot.again && is_of_earlier(recent, hasher, slot, question, response))
            })
        };
        let found = match self.index.find_entry(hash, answers) {
            Ok(entry) => {
                let (slot, _) = entry.remove();
                self.unlink(slot);
                Some(slot)
            }
            Err(_) => None,
        };
        self.conclude(found, hash, bytes, response.message.question(), flow, response)
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
        let bytes = self.bytes(hash, wire);
        // What it is remembered by, where no query waits for it: as one that came before if it can.
        let mut remembered = None;
        for (key, question) in multicast::Key::of_response(*flow, &response.message) {
            let hash = self.hasher.hash_one(key);
            let to_group = |slot: &u32| {
                self.pending(*slot).is_some_and(|pending| {
                    let asked = pending.query.message.question();
                    key.is_of(&pending.flow, &pending.query.message)
                        && (question.is_none() || question == asked)
                        && !(pending.again
                            && is_of_earlier(
                                &self.recent,
                                &self.hasher,
                                pending,
                                question,
                                response,
                            ))
                })
            };
            if let Some(&slot) = self.index.find(hash, to_group) {
                let pending = &self.slots[slot as usize];
                let flow = Flow { client: pending.flow.client, ..*flow };
                self.take(slot);
                return self.conclude(Some(slot), hash, bytes, question, &flow, response);
            }
            let asked = self.question_hash(question);
            let known = self.recent.exchange(hash, asked, response.at_ns).is_some();
            match remembered {
                Some((_, _, true)) => {}
                Some(_) if !known => {}
                _ => remembered = Some((hash, question, known)),
            }
        }
        let (hash, question, _) = remembered.unwrap_or((hash, question, false));
        self.conclude(None, hash, bytes, question, flow, response)
    }

    /// Hash of what a response says, to compare with others to the same query; 0 where several may
    /// differ: of a multicast query, or truncated. A response that was not read whole is not compared.
    #[inline]
    fn comparable_answers(&self, flow: &Flow, response: &Observation) -> u32 {
        let message = &response.message;
        let is_whole = !response.cut
            && message.answers_omitted == 0
            && matches!(message.parse_status, ParseStatus::Ok | ParseStatus::TrailingBytes);
        if !is_whole
            || message.flags.truncated
            || multicast::is_possible(flow)
            || message.question().is_some_and(|question| question.is_transfer())
        {
            return 0;
        }
        answers_hash(&self.hasher, message)
    }

    /// Since when the query of a response may have come: within the timeout before it.
    fn query_since_ns(&self, flow: &Flow, response: &Observation) -> u64 {
        response.at_ns.saturating_sub(self.lists[flow.transport as usize].timeout_ns)
    }

    /// True if the query of a response may have been lost while capture ran, so that the response
    /// need not aim at another query. The time before the start does not count as lost: signs would
    /// be missing from the first seconds of each capture file.
    #[cold]
    fn may_miss_query(&self, flow: &Flow, response: &Observation) -> bool {
        let since_ns = self.query_since_ns(flow, response);
        self.gaps.any_lost_since(flow, since_ns)
            || self.gaps.is_switched(response.point.ifindex, since_ns)
    }

    /// The record of the query that a response aims at without being its response, which is known
    /// by that number from now on.
    #[cold]
    fn aim(
        &mut self,
        flow: &Flow,
        question: Option<Question<'_>>,
        response: &Observation,
    ) -> Option<(Anomaly, Related)> {
        let hash = self.question_hash(question);
        let slot = self.aims.slot(&self.hasher, flow, hash)?;
        let slot = self.slots.get_mut(slot as usize).filter(|slot| slot.pending)?;
        let same_client = Flow { server: flow.server, ..slot.flow } == *flow;
        if !same_client
            || slot.query.message.question() != question
            || slot.flow.server.ip().is_multicast()
            // A query behind the response in a file has not been answered by it, nor attacked.
            || response.at_ns < slot.query.at_ns
        {
            return None;
        }
        let (anomaly, relation) = if slot.flow.server == flow.server {
            (Anomaly::WrongId, Relation::WrongId)
        } else {
            (Anomaly::WrongServer, Relation::WrongServer)
        };
        slot.anomalies.add(Anomaly::ForgedResponseSeen);
        if slot.sequence == 0 {
            slot.sequence = self.ids.next();
        }
        Some((anomaly, Related { relation, record: self.ids.of(slot.sequence) }))
    }

    /// Hash of a question; 0 without one.
    fn question_hash(&self, question: Option<Question<'_>>) -> u32 {
        question_hash(&self.hasher, question)
    }

    /// Hashes of a response's bytes; `hash` is that of its flow and identifier.
    #[inline]
    fn bytes(&self, hash: u64, wire: &[u8]) -> Bytes {
        let mut content = self.hasher.build_hasher();
        content.write_u64(hash);
        content.write(wire);
        Bytes { content: content.finish(), case: case_hash(&self.hasher, wire) }
    }

    /// Makes a transaction of a response, and of the query that was `found` for it. The two have
    /// their `key` in common.
    #[inline]
    fn conclude<'a>(
        &'a mut self,
        found: Option<u32>,
        key: u64,
        bytes: Bytes,
        question: Option<Question<'a>>,
        flow: &Flow,
        response: &'a Observation,
    ) -> Observed<'a> {
        let seen = Sighting::of(response);
        let content = bytes.content;
        let answered = Answered { content, seen };
        let mut ended = Ended {
            key,
            question: 0,
            at_ns: response.at_ns,
            sequence: 0,
            query: None,
            response: Some(answered),
            answers: self.comparable_answers(flow, response),
        };
        let mut earlier = None;
        let mut aimed = None;
        let mut anomalies = Anomalies::NONE;
        if let Some(slot) = found {
            let slot = &self.slots[slot as usize];
            let asked = slot.query.message.question();
            ended.question = slot.question;
            ended.query = Some(Sighting::of(&slot.query));
            ended.sequence = slot.sequence;
            if asked.is_some_and(|question| question.is_transfer()) {
                ended.answers = 0;
            }
            anomalies = slot.anomalies;
            if question.is_some() && slot.has_other_case(bytes.case) {
                anomalies.add(Anomaly::CaseMismatch);
            }
            if slot.has_two_sides() && self.sides.is_from_client(slot.query.point, response.point) {
                anomalies.add(Anomaly::ResponseFromClientSide);
            }
        } else {
            let datagram = flow.transport == Transport::Udp;
            if self.recent.is_copy_of_response(key, content, &seen, datagram) {
                return Observed::Copy;
            }
            ended.question = self.question_hash(question);
            earlier = self.recent.exchange(key, ended.question, response.at_ns);
            if let Some(earlier) = &earlier {
                // What comes next finds this one, and is to know as much.
                ended.query = earlier.query;
                if ended.question == 0 {
                    ended.question = earlier.question;
                }
                if earlier.response.is_some() {
                    if earlier.answers == 0 {
                        // A zone transfer goes on.
                        ended.answers = 0;
                    } else if ended.answers != 0 && ended.answers != earlier.answers {
                        anomalies.add(Anomaly::ConflictingResponse);
                    }
                }
            } else if question.is_some() && !self.may_miss_query(flow, response) {
                aimed = self.aim(flow, question, response);
            }
        }
        if ended.sequence == 0 {
            ended.sequence = self.ids.next();
        }
        self.recent.insert(&ended);
        let related = match (&earlier, aimed) {
            (Some(earlier), _) => Some(Related {
                relation: match earlier.response {
                    Some(_) => Relation::RepeatedResponse,
                    None => Relation::LateResponse,
                },
                record: self.ids.of(earlier.sequence),
            }),
            (None, Some((anomaly, related))) => {
                anomalies.add(anomaly);
                Some(related)
            }
            (None, None) => None,
        };
        let conflict = self.gaps.is_conflicting(flow, response.at_ns);
        if conflict {
            anomalies.add(Anomaly::TcpConflict);
        }
        let id = self.ids.of(ended.sequence);
        let mut transaction = match found {
            Some(slot) => {
                let pending = &self.slots[slot as usize];
                Transaction {
                    id,
                    flow: *flow,
                    query_count: pending.query_count,
                    latest_query_ns: pending.latest.at_ns,
                    copy_count: pending.copy_count,
                    capture_gap: pending.gaps != self.gaps.known()
                        || pending.query.cut
                        || response.cut
                        || conflict,
                    exchange: Exchange::Matched(&pending.query, response),
                    related,
                    anomalies,
                }
            }
            None => {
                let since_ns = self.query_since_ns(flow, response);
                Transaction {
                    id,
                    flow: *flow,
                    query_count: 0,
                    latest_query_ns: 0,
                    copy_count: 0,
                    capture_gap: response.cut
                        || conflict
                        || earlier.is_none()
                            && (self.gaps.any_since(flow, since_ns)
                                || self.gaps.is_switched(response.point.ifindex, since_ns)),
                    exchange: Exchange::Response(response),
                    related,
                    anomalies,
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
        // When it was due: a query that comes meanwhile is a new one.
        let timeout_ns = self.lists[pending.flow.transport as usize].timeout_ns;
        let due_ns = pending.since_ns.saturating_add(timeout_ns);
        let sequence = self.remember_unanswered(slot, due_ns);
        Some(self.unanswered(slot, sequence, capture_gap))
    }

    /// The oldest query, where more wait than there is room for, or the oldest of a key that too
    /// many queries have in common; call after each query until there is none. Its response may be
    /// yet to come, so it is marked with a capture gap, and a response that does come is a late one.
    pub fn evict(&mut self) -> Option<Transaction<'_>> {
        if let Some((slot, hash)) = self.crowded.take()
            && self.pending(slot).is_some_and(|pending| pending.hash == hash)
        {
            self.tidy();
            let sequence = self.remember_unanswered(slot, self.latest_ns);
            return Some(self.unanswered(slot, sequence, true));
        }
        let full = self.index.len() > self.capacity
            || self.buffer_bytes > self.capacity * BUFFER_BYTES_PER_QUERY;
        // The one that has just come stays, however large it is.
        if !full || self.index.len() < 2 {
            return None;
        }
        self.tidy();
        let slot = self.oldest()?;
        let sequence = self.remember_unanswered(slot, self.latest_ns);
        Some(self.unanswered(slot, sequence, true))
    }

    /// Remembers that a query is recorded without a response; the sequence number of its record.
    fn remember_unanswered(&mut self, slot: u32, at_ns: u64) -> u64 {
        let pending = &self.slots[slot as usize];
        let ended = Ended {
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

    /// The oldest query that still waits, at the end of capture; call until there is none. A
    /// response may yet have come, so each is marked with a capture gap.
    pub fn drain(&mut self) -> Option<Transaction<'_>> {
        self.tidy();
        let slot = self.oldest()?;
        let sequence = match self.slots[slot as usize].sequence {
            0 => self.ids.next(),
            reserved => reserved,
        };
        Some(self.unanswered(slot, sequence, true))
    }

    fn unanswered(&mut self, slot: u32, sequence: u64, capture_gap: bool) -> Transaction<'_> {
        self.take(slot);
        let pending = &self.slots[slot as usize];
        let mut anomalies = pending.anomalies;
        let conflict = self.gaps.is_conflicting(&pending.flow, self.latest_ns);
        if conflict {
            anomalies.add(Anomaly::TcpConflict);
        }
        let mut transaction = Transaction {
            id: self.ids.of(sequence),
            flow: pending.flow,
            exchange: Exchange::Query(&pending.query),
            query_count: pending.query_count,
            latest_query_ns: pending.latest.at_ns,
            copy_count: pending.copy_count,
            capture_gap: capture_gap || conflict,
            related: None,
            anomalies,
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
            .filter_map(|head| Some((self.slots.get(head as usize)?.since_ns, head)))
            .min()
            .map(|(_, head)| head)
    }

    fn insert(&mut self, hashes: Hashes, flow: &Flow, query: &mut Box<Observation>, again: bool) {
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
            });
            // One more than `capacity` at most, which fits u32.
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
        self.aims.note(&self.hasher, flow, hashes.question, number);
        self.index.insert_unique(hashes.key, number, |slot| slots[*slot as usize].hash);
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

/// Hash of a question; 0 without one.
fn question_hash(hasher: &DefaultHashBuilder, question: Option<Question<'_>>) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "any bits of a hash will do")]
    question.map_or(0, |question| hasher.hash_one(question) as u32 | 1)
}

/// True if a response that could answer `pending` was captured before it, and an exchange with the
/// same identifier and `question`, or one of them without a question, that had begun by then was
/// recorded lately, so that it belongs to that: in a file whose interfaces were written one after
/// the other. Clocks may differ by a little.
#[cold]
fn is_of_earlier(
    recent: &Recent,
    hasher: &DefaultHashBuilder,
    pending: &Slot,
    question: Option<Question<'_>>,
    response: &Observation,
) -> bool {
    let latest_ns = response.at_ns.saturating_add(MIRRORED_NS);
    latest_ns < pending.query.at_ns
        && recent
            .exchange(pending.hash, question_hash(hasher, question), response.at_ns)
            .is_some_and(|earlier| earlier.began_ns() <= latest_ns)
}

#[cfg(test)]
mod tests;
