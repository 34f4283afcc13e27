//! Recently recorded exchanges, by which late, repeated and copied messages are recognised.
//!
//! ```text
//!  exchanges: key(flow, id) ─▶ newest entry ─▶ older one of the same key ─▶ …
//!  contents:  hash(flow, id, bytes of the response) ─▶ newest entry
//!  log:       [entry][entry][entry] …                  written in order, the oldest is overwritten
//! ```
//!
//! - The content finds a response whatever its query was, whatever arrived in between, and with or
//!   without a question.
//! - Flow and identifier find the exchange of a response, and the exchange of which a query is a
//!   late copy. The question is compared then, so that a response without one is found too.
//!
//! All three have a fixed size: no list, no eviction, no allocation. A response to an overwritten
//! exchange is recorded without a query, as it would be without this module.
//!
//! The log is for the processor: a table alone would write each exchange at a random place in 4
//! MiB, and half of the cost of pairing would be address translation. The log is written in order,
//! and only the indexes are accessed randomly, which stay in the cache. For the same reason an
//! index of exchanges stores 16 bits of each key: a query that is no copy, so nearly every one,
//! never reads the log.

use tap53_base::prefetch::prefetch;
use tap53_ebpf::settings::Direction;

use super::{Observation, Point};

/// Number of entries of the log, and of slots of each index: the range of `u16`, which is a minute
/// at 1,000 transactions per second. Each takes 64 bytes in the log, 4 in the index of exchanges
/// and 2 in that of contents: 4.4 MiB per worker.
pub(super) const PLACES: usize = 1 << u16::BITS;

/// Time that an exchange is remembered, in nanoseconds of capture time.
const REMEMBERED_NS: u64 = 60_000_000_000;

/// Maximum number of entries of one key that are searched. A client that reuses a port and
/// identifier adds one after the other.
const CHAIN: usize = 16;

/// Maximum time between a packet and its copy at another point, in nanoseconds: it allows for
/// queues on the path and for clocks that differ.
pub(super) const COPIED_NS: u64 = 1_000_000_000;

/// Maximum time between a packet and its copy from a mirror port at the same point, in nanoseconds.
/// A client that retries waits a thousand times as long.
pub(super) const MIRRORED_NS: u64 = 1_000_000;

/// Point and time at which a message was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    pub(super) at_ns: u64,
    pub(super) point: Point,
    /// IPv4 identification, see [`Observation`].
    pub(super) identification: u16,
}

impl Sighting {
    pub(super) const fn of(seen: &Observation) -> Self {
        Self { at_ns: seen.at_ns, point: seen.point, identification: seen.identification }
    }

    /// Returns true if this is a mirror port's copy of `earlier`, which has the same bytes.
    pub(super) fn mirrors(&self, earlier: &Self) -> bool {
        self.point == earlier.point
            && self.identification == earlier.identification
            && self.at_ns.abs_diff(earlier.at_ns) <= MIRRORED_NS
    }
}

/// The response of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordedResponse {
    /// Hash of flow, identifier and bytes.
    pub(super) content: u64,
    pub(super) seen: Sighting,
    /// True if it was seen after address translation: its repetitions are copies of those before.
    pub(super) is_inner: bool,
}

/// A recorded exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EndedExchange {
    /// Hash of flow and identifier.
    pub(super) key: u64,
    /// Hash of the question; 0 if there is none.
    pub(super) question: u32,
    /// Capture time of its end, in nanoseconds.
    pub(super) at_ns: u64,
    /// Sequence number of its record; numbers start with 1.
    pub(super) sequence: u64,
    /// Its first query; `None` if it was not captured.
    pub(super) query: Option<Sighting>,
    /// Its response; `None` if the query timed out.
    pub(super) response: Option<RecordedResponse>,
    /// Hash of the response's content; 0 if it is not comparable.
    pub(super) answers: u32,
}

impl EndedExchange {
    /// Returns true if a message with this question, or 0 for none, can belong to it.
    fn may_concern(&self, question: u32) -> bool {
        self.question == 0 || question == 0 || self.question == question
    }

    pub(super) fn began_ns(&self) -> u64 {
        self.query.as_ref().map_or(self.at_ns, |query| query.at_ns)
    }

    /// Returns the time of its latest message. In a file whose interfaces were written one after
    /// the other, that may be the query.
    fn last_ns(&self) -> u64 {
        self.at_ns.max(self.began_ns())
    }

    /// Returns true if a query with this question is its copy that was found after the response, as
    /// in files whose interfaces were written one after the other.
    fn is_copied_by(&self, question: u32, query: &Sighting) -> bool {
        let Some(first) = &self.query else { return false };
        if self.question != question {
            return false;
        }
        let last_ns = self.last_ns();
        if query.point == first.point {
            // A client on the same host may reuse port and identifier within a millisecond: without
            // an IP identification, such a query cannot be distinguished from a mirrored one. One
            // that was captured before the response was a repetition while this one was pending.
            query.identification != 0 && query.mirrors(first)
                || query.at_ns > first.at_ns && query.at_ns < last_ns
        } else {
            let while_it_waited =
                first.at_ns.saturating_sub(MIRRORED_NS)..=last_ns.saturating_add(MIRRORED_NS);
            while_it_waited.contains(&query.at_ns)
        }
    }
}

/// Recent exchanges.
///
/// Creating it takes no time: the log grows into reserved memory, and the indexes are zeroed pages.
pub(super) struct Recent {
    log: Vec<Logged>,
    /// Position of the next entry in the log.
    next: u16,
    /// The newest exchange of a key, by the low bits of the key: its position in the log, and above
    /// it bits of the key that do not select the slot.
    exchanges: Vec<u32>,
    /// Position of a response in the log, by the low bits of its content hash.
    contents: Vec<u16>,
}

/// An [`EndedExchange`] in one cache line.
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
    /// Position of the previous one of the same key; its own position if there is none.
    older: u16,
    /// Directions of the response and, shifted by [`QUERY_SHIFT`], of the query; and [`INNER`].
    directions: u8,
    /// True if all older ones of the same key ended before this one began, so that a search can
    /// stop when it reaches the past. It is only false for a file whose interfaces were written one
    /// after the other.
    ordered: bool,
}

const _: () = assert!(size_of::<Logged>() == 64);

/// Marks a missing message in place of a direction.
const NO_MESSAGE: u8 = 0b11;

const QUERY_SHIFT: u32 = 2;

/// Bit of [`Logged::directions`] that stands for [`RecordedResponse::is_inner`].
const INNER: u8 = 1 << 4;

impl Recent {
    pub(super) fn new() -> Self {
        Self {
            log: Vec::with_capacity(PLACES),
            next: 0,
            exchanges: vec![0; PLACES],
            contents: vec![0; PLACES],
        }
    }

    /// Prefetches the slot of this key in the index of exchanges: it has 256 KiB, of which each
    /// message reads another cache line.
    #[inline]
    pub(super) fn prefetch(&self, key: u64) {
        if let Some(place) = self.exchanges.get(index(key)) {
            prefetch(place);
        }
    }

    /// Returns true if exchanges of this key may be stored. Reads only the index.
    #[inline]
    pub(super) fn may_contain(&self, key: u64) -> bool {
        self.newest(key).is_some()
    }

    /// Returns the latest exchange to which a message with this question, or 0 for none, captured
    /// at `now_ns`, can belong, if it is still remembered then.
    pub(super) fn exchange(&self, key: u64, question: u32, now_ns: u64) -> Option<EndedExchange> {
        let mut found: Option<EndedExchange> = None;
        for (ended, ordered) in self.chain(key, now_ns) {
            if !ended.may_concern(question) {
                continue;
            }
            // In a file whose interfaces follow each other, the order of the log is not that of
            // time: find the latest exchange that had begun.
            let begun_ns = |ended: &EndedExchange| {
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

    /// Returns true if a query is a copy of a recorded one, at another point or from a mirror port.
    pub(super) fn is_copy_of_query(&self, key: u64, question: u32, query: &Sighting) -> bool {
        let since_ns = query.at_ns.saturating_sub(MIRRORED_NS);
        self.chain_since(key, query.at_ns, since_ns)
            .any(|ended| ended.is_copied_by(question, query))
    }

    /// Returns true if a response is a copy of a recorded one, at another point or, if it is a
    /// `datagram`, from a mirror port. Another one at the first point is a repetition.
    pub(super) fn is_copy_of_response(
        &self,
        key: u64,
        content: u64,
        seen: &Sighting,
        datagram: bool,
    ) -> bool {
        let copies = |response: &RecordedResponse| {
            let first = &response.seen;
            if response.is_inner {
                true
            } else if first.point == seen.point {
                datagram && seen.mirrors(first)
            } else {
                seen.at_ns.abs_diff(first.at_ns) <= COPIED_NS
            }
        };
        // It is rarely not the latest: if an identifier is reused for the same answer and a file
        // contains the copies of an earlier one later, or if another content took the slot.
        let of_same_content = || {
            let since_ns = seen.at_ns.saturating_sub(COPIED_NS);
            let ended = self.chain_since(key, seen.at_ns, since_ns);
            let responses = ended.filter_map(|ended| ended.response);
            responses.filter(|response| response.content == content)
        };
        self.response(content, seen.at_ns).is_some_and(|latest| copies(&latest))
            || of_same_content().any(|first| copies(&first))
    }

    /// Returns the latest response of this content, if it is remembered at `now_ns`.
    fn response(&self, content: u64, now_ns: u64) -> Option<RecordedResponse> {
        let logged = self.log.get(usize::from(*self.contents.get(index(content))?))?;
        let response = logged.ended(now_ns)?.response?;
        (response.content == content).then_some(response)
    }

    /// Returns the log position of the newest exchange of a key, unless the slot has another key.
    #[inline]
    fn newest(&self, key: u64) -> Option<u16> {
        let [low, high, tag @ ..] = self.exchanges.get(index(key))?.to_le_bytes();
        (tag == self::tag(key)).then_some(u16::from_le_bytes([low, high]))
    }

    /// Returns the exchanges of a key that had not ended at `since_ns`, and some that had; the
    /// newest first.
    fn chain_since(
        &self,
        key: u64,
        now_ns: u64,
        since_ns: u64,
    ) -> impl Iterator<Item = EndedExchange> {
        self.chain(key, now_ns)
            .take_while(move |(ended, ordered)| !ordered || ended.last_ns() >= since_ns)
            .map(|(ended, _)| ended)
    }

    /// Returns the exchanges of a key, the newest first, each with [`Logged::ordered`].
    fn chain(&self, key: u64, now_ns: u64) -> impl Iterator<Item = (EndedExchange, bool)> {
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
    pub(super) fn insert(&mut self, ended: &EndedExchange) {
        let position = self.next;
        self.next = position.wrapping_add(1);
        // A key that takes the slot of another one has no older exchanges: they are lost.
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
        let inner = if response.is_some_and(|response| response.is_inner) { INNER } else { 0 };
        let directions = inner | direction(query) << QUERY_SHIFT | direction(seen);
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
    /// Returns true if an exchange began after the one at this position, and all older ones, had
    /// ended.
    fn is_after(&self, ended: &EndedExchange, older: u16) -> bool {
        self.log.get(usize::from(older)).is_none_or(|older| {
            older.key != ended.key || older.ordered && older.last_ns() <= ended.began_ns()
        })
    }
}

impl Logged {
    fn last_ns(&self) -> u64 {
        self.at_ns.max(self.query_at_ns)
    }

    /// Decodes the entry, if it is remembered at `now_ns`.
    fn ended(&self, now_ns: u64) -> Option<EndedExchange> {
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
            self.directions >> QUERY_SHIFT & NO_MESSAGE,
            self.query_identification,
        );
        let response = self.directions & NO_MESSAGE;
        let seen = sighting(self.at_ns, self.ifindex, response, self.identification);
        Some(EndedExchange {
            key: self.key,
            question: self.question,
            at_ns: self.at_ns,
            sequence: self.sequence,
            query,
            response: seen.map(|seen| RecordedResponse {
                content: self.content,
                seen,
                is_inner: self.directions & INNER != 0,
            }),
            answers: self.answers,
        })
    }
}

/// The hash has a random key, so its low bits are as good as any.
#[expect(clippy::cast_possible_truncation, reason = "only the low bits count")]
const fn index(hash: u64) -> usize {
    hash as usize & (PLACES - 1)
}

/// Never equals the tag of an unused slot.
const fn tag(key: u64) -> [u8; 2] {
    let [first, second, ..] = key.to_be_bytes();
    [first | 1, second]
}

#[cfg(test)]
mod tests;
