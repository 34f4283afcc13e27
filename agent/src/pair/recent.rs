//! What was recorded lately: to recognise a response that comes late, again, or at another
//! interface.
//!
//! A table of fixed size in which each exchange has one place; a newer one that has the same place
//! takes it. What was forgotten that way is a response without a query, as it would be without this
//! table. No list, no eviction, no allocation: a lookup is one cache line.

use tap53_ebpf::settings::Direction;

use super::Point;

/// Places, a power of two: at 1,000 transactions a second a minute's worth. 40 bytes each, 2.5 MiB
/// for a worker, which the kernel hands out as they are used.
const PLACES: usize = 65_536;

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

/// The places.
pub(super) struct Recent(Vec<Place>);

/// [`Ended`] without the niche of its enum, so that a new table is zeroed memory.
#[derive(Clone, Copy, Default)]
struct Place {
    exchange: u64,
    at_ns: u64,
    /// Zero while the place is free.
    sequence: u64,
    content: u64,
    ifindex: u32,
    direction: u8,
    answered: bool,
}

const _: () = assert!(size_of::<Place>() == 40);

impl Recent {
    pub(super) fn new() -> Self {
        Self(vec![Place::default(); PLACES])
    }

    /// The exchange, if it is remembered at `now_ns`.
    pub(super) fn get(&self, exchange: u64, now_ns: u64) -> Option<Ended> {
        let place = self.0.get(index(exchange))?;
        let known = place.sequence != 0 && place.exchange == exchange;
        if !known || now_ns.saturating_sub(place.at_ns) > REMEMBERED_NS {
            return None;
        }
        let end = if place.answered {
            let direction = Direction::from_u8(place.direction)?;
            let point = Point { ifindex: place.ifindex, direction };
            End::Answered { content: place.content, point }
        } else {
            End::Expired
        };
        Some(Ended { exchange, at_ns: place.at_ns, sequence: place.sequence, end })
    }

    pub(super) fn insert(&mut self, ended: &Ended) {
        let Some(place) = self.0.get_mut(index(ended.exchange)) else { return };
        *place = Place {
            exchange: ended.exchange,
            at_ns: ended.at_ns,
            sequence: ended.sequence,
            ..Place::default()
        };
        if let End::Answered { content, point } = ended.end {
            place.answered = true;
            place.content = content;
            place.ifindex = point.ifindex;
            place.direction = point.direction as u8;
        }
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
}
