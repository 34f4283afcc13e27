//! Exchanges that were recorded lately: a message that comes late, again, or at another interface is
//! recognised by them.
//!
//! ```text
//!  exchanges: key(flow, id) ─▶ newest entry ─▶ older one of the same key ─▶ …
//!  contents:  hash(flow, id, bytes of the response) ─▶ newest entry
//!  log:       [entry][entry][entry] …                  written in order, the oldest is overwritten
//! ```
//!
//! - By its content a response is found whatever its query asked, whatever came between, and with or
//!   without a question of its own.
//! - By flow and identifier a response finds the exchange that it belongs to, and a query the
//!   exchange that it is a late copy of. The question is compared there, so that a response without
//!   one is found too.
//!
//! All three are of fixed size: no list, no eviction, no allocation. What was overwritten is a
//! response without a query, as it would be without this.
//!
//! The log is there for the processor: in a table alone each exchange would be written somewhere
//! among 4 MiB, and half of what pairing costs would be the wait for a page's translation. Written
//! in order, only the indexes are jumped about in, and they stay in the cache. For the same reason
//! an index of exchanges holds 16 bits of each key: a query that is no copy, so nearly every one,
//! never touches the log.

use tap53_base::prefetch::prefetch;
use tap53_ebpf::settings::Direction;

use super::{Observation, Point};

/// Entries of the log, and places of each index: as many as there are `u16`, at 1,000 transactions
/// a second a minute's worth. Each takes 64 bytes in the log, 4 in the index of exchanges and 2 in
/// that of contents: 4.4 MiB for a worker.
const PLACES: usize = 1 << u16::BITS;

/// How long an exchange is remembered, nanoseconds of capture time.
const REMEMBERED_NS: u64 = 60_000_000_000;

/// Entries of one key that are looked at: exchanges of one client's port and identifier, of which
/// one that uses both again makes one after the other.
const CHAIN: usize = 16;

/// Longest time between a packet and its copy at another point, nanoseconds: what queues on its way
/// and clocks that differ may take.
pub(super) const COPIED_NS: u64 = 1_000_000_000;

/// Longest time between a packet and its copy at the same point, where a mirror port shows each
/// packet twice, nanoseconds. A client that asks again waits a thousand times as long.
pub(super) const MIRRORED_NS: u64 = 1_000_000;

/// Where and when a message was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    pub(super) at_ns: u64,
    pub(super) point: Point,
    /// IPv4 identification, see [`Observation`](super::Observation).
    pub(super) identification: u16,
}

impl Sighting {
    pub(super) const fn of(seen: &Observation) -> Self {
        Self { at_ns: seen.at_ns, point: seen.point, identification: seen.identification }
    }

    /// True if this is `earlier`, which has the same bytes, shown again at the same point by a
    /// mirror port.
    pub(super) fn mirrors(&self, earlier: &Self) -> bool {
        self.point == earlier.point
            && self.identification == earlier.identification
            && self.at_ns.abs_diff(earlier.at_ns) <= MIRRORED_NS
    }
}

/// The response that ended an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answered {
    /// Hash of flow, identifier and bytes.
    pub(super) content: u64,
    pub(super) seen: Sighting,
}

/// An exchange that was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// Hash of flow and identifier.
    pub(super) key: u64,
    /// Hash of the question; 0 where there is none to compare.
    pub(super) question: u32,
    /// When, capture time.
    pub(super) at_ns: u64,
    /// Sequence number of its record; numbers begin with 1.
    pub(super) sequence: u64,
    /// Its first query, unless that was not seen.
    pub(super) query: Option<Sighting>,
    /// Its response, unless the query's time ran out.
    pub(super) response: Option<Answered>,
    /// Hash of what the response says; 0 where there is nothing to compare.
    pub(super) answers: u32,
}

impl Ended {
    /// True if a message with this question, or 0 for none, can belong to it.
    fn may_concern(&self, question: u32) -> bool {
        self.question == 0 || question == 0 || self.question == question
    }

    pub(super) fn began_ns(&self) -> u64 {
        self.query.as_ref().map_or(self.at_ns, |query| query.at_ns)
    }

    /// Time of its latest message. In a file whose interfaces were written one after the other, that
    /// may be the query.
    fn last_ns(&self) -> u64 {
        self.at_ns.max(self.began_ns())
    }

    /// True if a query with this question belongs to it, and is found behind the response. Files
    /// whose interfaces were written one after the other have such.
    fn is_copied_by(&self, question: u32, query: &Sighting) -> bool {
        let Some(first) = &self.query else { return false };
        if self.question != question {
            return false;
        }
        let last_ns = self.last_ns();
        if query.point == first.point {
            // A client on the same host may ask with the same port and identifier in less than a
            // millisecond: without an identification of IP, nothing tells that from a mirrored
            // query. One that was captured before the response came again while this one waited.
            query.identification != 0 && query.mirrors(first)
                || query.at_ns > first.at_ns && query.at_ns < last_ns
        } else {
            let while_it_waited =
                first.at_ns.saturating_sub(MIRRORED_NS)..=last_ns.saturating_add(MIRRORED_NS);
            while_it_waited.contains(&query.at_ns)
        }
    }
}

/// The exchanges.
///
/// New ones cost no time: the log grows into memory that is reserved, and the indexes are zeroed
/// pages.
pub(super) struct Recent {
    log: Vec<Logged>,
    /// Where the next one is logged.
    next: u16,
    /// The newest exchange of a key, by the low bits of the key: its position, and above it bits of
    /// the key that do not choose the place.
    exchanges: Vec<u32>,
    /// Where a response is logged, by the low bits of its content.
    contents: Vec<u16>,
}

/// [`Ended`] in one line of the cache.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Logged {
    key: u64,
    content: u64,
    at_ns: u64,
    sequence: u64,
    query_at_ns: u64,
    question: u32,
    answers: u32,
    ifindex: u32,
    query_ifindex: u32,
    identification: u16,
    query_identification: u16,
    /// Position of the one before of the same key; its own where there is none.
    older: u16,
    /// Directions of the response and, shifted by [`QUERY_SHIFT`], of the query.
    directions: u8,
    /// True if all older ones of the same key ended before this one began, so that a search that
    /// reaches the past need not go on. They do, unless a file is read whose interfaces were written
    /// one after the other.
    ordered: bool,
}

const _: () = assert!(size_of::<Logged>() == 64);

/// In place of a direction, where there is no such message.
const NO_MESSAGE: u8 = 0b11;

const QUERY_SHIFT: u32 = 2;

impl Recent {
    pub(super) fn new() -> Self {
        Self {
            log: Vec::with_capacity(PLACES),
            next: 0,
            exchanges: vec![0; PLACES],
            contents: vec![0; PLACES],
        }
    }

    /// Fetches the place of this key in the index of exchanges: 256 KiB, of which each message reads
    /// another line.
    #[inline]
    pub(super) fn prefetch(&self, key: u64) {
        if let Some(place) = self.exchanges.get(index(key)) {
            prefetch(place);
        }
    }

    /// True if exchanges of this key may be remembered. Looks at the index alone.
    #[inline]
    pub(super) fn may_know(&self, key: u64) -> bool {
        self.newest(key).is_some()
    }

    /// The latest exchange that a message with this question, or 0 for none, captured at `now_ns`
    /// can belong to, if it is still remembered then.
    pub(super) fn exchange(&self, key: u64, question: u32, now_ns: u64) -> Option<Ended> {
        let mut found: Option<Ended> = None;
        for (ended, ordered) in self.chain(key, now_ns) {
            if !ended.may_concern(question) {
                continue;
            }
            // In a file whose interfaces follow each other, the order of the log is not that of
            // time: it is the latest that had begun.
            let begun_ns = |ended: &Ended| {
                let began_ns = ended.began_ns();
                (began_ns <= now_ns.saturating_add(MIRRORED_NS)).then_some(began_ns)
            };
            let begun = begun_ns(&ended);
            if found.as_ref().is_none_or(|found| begun_ns(found) < begun) {
                found = Some(ended);
            }
            if ordered && begun.is_some() {
                break;
            }
        }
        found
    }

    /// True if a query is one that was recorded, seen elsewhere or shown twice.
    pub(super) fn is_copy_of_query(&self, key: u64, question: u32, query: &Sighting) -> bool {
        let since_ns = query.at_ns.saturating_sub(MIRRORED_NS);
        self.chain_since(key, query.at_ns, since_ns)
            .any(|ended| ended.is_copied_by(question, query))
    }

    /// True if a response is one that was recorded, seen elsewhere or, as a `datagram`, shown twice.
    /// Where it was seen first, one that comes again was sent again.
    pub(super) fn is_copy_of_response(
        &self,
        key: u64,
        content: u64,
        seen: &Sighting,
        datagram: bool,
    ) -> bool {
        let copies = |first: &Sighting| {
            if first.point == seen.point {
                datagram && seen.mirrors(first)
            } else {
                seen.at_ns.abs_diff(first.at_ns) <= COPIED_NS
            }
        };
        // Seldom not the latest: where an identifier is used again for the same answer, and the
        // copies of an earlier one are behind it in a file; or where another content took the place.
        let of_same_content = || {
            let since_ns = seen.at_ns.saturating_sub(COPIED_NS);
            let ended = self.chain_since(key, seen.at_ns, since_ns);
            let responses = ended.filter_map(|ended| ended.response);
            responses.filter(|response| response.content == content).map(|response| response.seen)
        };
        self.response(content, seen.at_ns).is_some_and(|latest| copies(&latest.seen))
            || of_same_content().any(|first| copies(&first))
    }

    /// The latest response of this content, if it is remembered at `now_ns`.
    fn response(&self, content: u64, now_ns: u64) -> Option<Answered> {
        let logged = self.log.get(usize::from(*self.contents.get(index(content))?))?;
        let response = logged.ended(now_ns)?.response?;
        (response.content == content).then_some(response)
    }

    /// Where the newest exchange of a key is logged, if it is that one's.
    #[inline]
    fn newest(&self, key: u64) -> Option<u16> {
        let [low, high, tag @ ..] = self.exchanges.get(index(key))?.to_le_bytes();
        (tag == self::tag(key)).then_some(u16::from_le_bytes([low, high]))
    }

    /// The exchanges of a key that had not ended at `since_ns`, and some that had; the newest first.
    fn chain_since(&self, key: u64, now_ns: u64, since_ns: u64) -> impl Iterator<Item = Ended> {
        self.chain(key, now_ns)
            .take_while(move |(ended, ordered)| !ordered || ended.last_ns() >= since_ns)
            .map(|(ended, _)| ended)
    }

    /// The exchanges of a key, the newest first, each with [`Logged::ordered`].
    fn chain(&self, key: u64, now_ns: u64) -> impl Iterator<Item = (Ended, bool)> {
        let first = self.newest(key);
        let older = |position: &u16| {
            let older = self.log.get(usize::from(*position))?.older;
            (older != *position).then_some(older)
        };
        std::iter::successors(first, older)
            .take(CHAIN)
            .map_while(move |position| {
                self.log.get(usize::from(position)).filter(|logged| logged.key == key)
            })
            .filter_map(move |logged| Some((logged.ended(now_ns)?, logged.ordered)))
    }

    #[inline]
    pub(super) fn insert(&mut self, ended: &Ended) {
        let position = self.next;
        self.next = position.wrapping_add(1);
        // A key that had another's place has no older ones: they are forgotten.
        let older = self.newest(ended.key).unwrap_or(position);
        let ordered = older == position || self.is_after(ended, older);
        if let Some(newest) = self.exchanges.get_mut(index(ended.key)) {
            let ([low, high], [first, second]) = (position.to_le_bytes(), tag(ended.key));
            *newest = u32::from_le_bytes([low, high, first, second]);
        }
        let (query, response) = (ended.query.as_ref(), ended.response.as_ref());
        if let Some(response) = response
            && let Some(place) = self.contents.get_mut(index(response.content))
        {
            *place = position;
        }
        let direction =
            |seen: Option<&Sighting>| seen.map_or(NO_MESSAGE, |seen| seen.point.direction as u8);
        let seen = response.map(|response| &response.seen);
        let directions = direction(query) << QUERY_SHIFT | direction(seen);
        let logged = Logged {
            key: ended.key,
            content: response.map_or(0, |response| response.content),
            at_ns: ended.at_ns,
            sequence: ended.sequence,
            query_at_ns: query.map_or(0, |query| query.at_ns),
            question: ended.question,
            answers: ended.answers,
            ifindex: seen.map_or(0, |seen| seen.point.ifindex),
            identification: seen.map_or(0, |seen| seen.identification),
            query_ifindex: query.map_or(0, |query| query.point.ifindex),
            query_identification: query.map_or(0, |query| query.identification),
            older,
            directions,
            ordered,
        };
        match self.log.get_mut(usize::from(position)) {
            Some(oldest) => *oldest = logged,
            None => self.log.push(logged),
        }
    }
}

impl Recent {
    /// True if an exchange began after the one at this position, and all older ones, had ended.
    fn is_after(&self, ended: &Ended, older: u16) -> bool {
        self.log.get(usize::from(older)).is_none_or(|older| {
            older.key != ended.key || older.ordered && older.last_ns() <= ended.began_ns()
        })
    }
}

impl Logged {
    fn last_ns(&self) -> u64 {
        self.at_ns.max(self.query_at_ns)
    }

    /// What was logged, if it is remembered at `now_ns`.
    fn ended(&self, now_ns: u64) -> Option<Ended> {
        if now_ns.saturating_sub(self.at_ns) > REMEMBERED_NS {
            return None;
        }
        let sighting = |at_ns, ifindex, direction, identification| {
            let direction = Direction::from_u8(direction)?;
            Some(Sighting { at_ns, point: Point { ifindex, direction }, identification })
        };
        let query = sighting(
            self.query_at_ns,
            self.query_ifindex,
            self.directions >> QUERY_SHIFT,
            self.query_identification,
        );
        let response = self.directions & NO_MESSAGE;
        let seen = sighting(self.at_ns, self.ifindex, response, self.identification);
        Some(Ended {
            key: self.key,
            question: self.question,
            at_ns: self.at_ns,
            sequence: self.sequence,
            query,
            response: seen.map(|seen| Answered { content: self.content, seen }),
            answers: self.answers,
        })
    }
}

/// The hash is keyed at random, so its low bits are as good as any.
#[expect(clippy::cast_possible_truncation, reason = "only the low bits count")]
const fn index(hash: u64) -> usize {
    hash as usize & (PLACES - 1)
}

/// Never the tag of a place that was never taken.
const fn tag(key: u64) -> [u8; 2] {
    let [first, second, ..] = key.to_be_bytes();
    [first | 1, second]
}

#[cfg(test)]
mod tests;
