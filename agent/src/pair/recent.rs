//! What was recorded lately: to recognise a response that comes late, again, or at another
//! interface.
//!
//! A log of fixed size, of which the oldest is forgotten, and an index by hash, in which each exchange
//! has one place; a newer one that has the same place takes it. What was forgotten either way is a
//! response without a query, as it would be without this. No list, no eviction, no allocation.
//!
//! The log is there for the processor: in a table alone each exchange would be written somewhere
//! among 2.5 MiB, and half of what pairing costs would be the wait for a page's translation. Written
//! in order, only the index is jumped about in, and that stays in the cache.

use tap53_ebpf::settings::Direction;

use super::Point;

/// Exchanges and places, as many as there are `u16`: at 1,000 transactions a second a minute's
/// worth. 42 bytes each, 2.6 MiB for a worker.
const PLACES: usize = 1 << u16::BITS;

/// How long an exchange is remembered, nanoseconds of capture time.
const REMEMBERED_NS: u64 = 60_000_000_000;

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With this response.
    Answered {
        /// Hash of the response's bytes.
        content: u64,
        /// Where it was seen.
        point: Point,
    },
    /// Its query's time ran out.
    Expired,
}

/// An exchange that was recorded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    /// Hash of flow, identifier and question.
    pub(super) exchange: u64,
    /// When, capture time.
    pub(super) at_ns: u64,
    /// Sequence number of its record; numbers begin with 1.
    pub(super) sequence: u64,
    /// How.
    pub(super) end: End,
}

/// The exchanges.
pub(super) struct Recent {
    log: Vec<Logged>,
    /// Where the next one is logged.
    next: u16,
    /// Where an exchange is logged, by the low bits of its hash.
    places: Vec<u16>,
}

/// [`Ended`] without the niche of its enum, so that a new log is zeroed memory.
#[derive(Clone, Copy, Default)]
struct Logged {
    exchange: u64,
    at_ns: u64,
    /// Zero where nothing is logged yet.
    sequence: u64,
    content: u64,
    ifindex: u32,
    direction: u8,
    answered: bool,
}

const _: () = assert!(size_of::<Logged>() == 40);

impl Recent {
    pub(super) fn new() -> Self {
        Self { log: vec![Logged::default(); PLACES], next: 0, places: vec![0; PLACES] }
    }

    /// The exchange, if it is remembered at `now_ns`.
    pub(super) fn get(&self, exchange: u64, now_ns: u64) -> Option<Ended> {
        let logged = self.log.get(usize::from(*self.places.get(index(exchange))?))?;
        let known = logged.sequence != 0 && logged.exchange == exchange;
        if !known || now_ns.saturating_sub(logged.at_ns) > REMEMBERED_NS {
            return None;
        }
        let end = if logged.answered {
            let direction = Direction::from_u8(logged.direction)?;
            let point = Point { ifindex: logged.ifindex, direction };
            End::Answered { content: logged.content, point }
        } else {
            End::Expired
        };
        Some(Ended { exchange, at_ns: logged.at_ns, sequence: logged.sequence, end })
    }

    #[inline]
    pub(super) fn insert(&mut self, ended: &Ended) {
        let place = self.places.get_mut(index(ended.exchange));
        let logged = self.log.get_mut(usize::from(self.next));
        let (Some(place), Some(logged)) = (place, logged) else { return };
        *place = self.next;
        self.next = self.next.wrapping_add(1);
        let (answered, content, ifindex, direction) = match ended.end {
            End::Answered { content, point } => {
                (true, content, point.ifindex, point.direction as u8)
            }
            End::Expired => (false, 0, 0, 0),
        };
        *logged = Logged {
            exchange: ended.exchange,
            at_ns: ended.at_ns,
            sequence: ended.sequence,
            content,
            ifindex,
            direction,
            answered,
        };
    }
}

/// The hash is keyed at random, so its low bits are as good as any.
#[expect(clippy::cast_possible_truncation, reason = "only the low bits count")]
const fn index(exchange: u64) -> usize {
    exchange as usize & (PLACES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDED: Ended = Ended { exchange: 5, at_ns: 1_000, sequence: 1, end: End::Expired };

    #[test]
    fn an_exchange_is_remembered_for_a_minute() {
        let mut recent = Recent::new();
        assert!(recent.get(5, 1_000).is_none());
        recent.insert(&ENDED);
        assert_eq!(recent.get(5, 1_000 + REMEMBERED_NS).map(|ended| ended.sequence), Some(1));
        assert!(recent.get(5, 1_001 + REMEMBERED_NS).is_none());
        assert!(recent.get(5 + PLACES as u64, 1_000).is_none(), "another one of the same place");
    }

    #[test]
    fn a_newer_exchange_takes_the_place() {
        let mut recent = Recent::new();
        recent.insert(&ENDED);
        let point = Point { ifindex: 7, direction: Direction::Egress };
        let end = End::Answered { content: 9, point };
        recent.insert(&Ended { exchange: 5 + PLACES as u64, end, ..ENDED });
        assert!(recent.get(5, 1_000).is_none());
        assert_eq!(recent.get(5 + PLACES as u64, 1_000).map(|ended| ended.end), Some(end));
    }

    #[test]
    fn the_oldest_is_forgotten_for_the_next() {
        let mut recent = Recent::new();
        recent.insert(&ENDED);
        // Another place each time, never that of the first.
        for sequence in 2..=PLACES as u64 {
            let exchange = if sequence % 2 == 0 { 6 } else { 7 };
            recent.insert(&Ended { exchange, sequence, ..ENDED });
        }
        assert_eq!(recent.get(5, 1_000).map(|ended| ended.sequence), Some(1));
        recent.insert(&Ended { exchange: 6, sequence: 1 << 20, ..ENDED });
        assert!(recent.get(5, 1_000).is_none());
        assert_eq!(recent.get(6, 1_000).map(|ended| ended.sequence), Some(1 << 20));
    }
}
