//! Data from which signs of tampering are recognised.

use std::{
    hash::{BuildHasher, Hasher},
    net::IpAddr,
};

use hashbrown::DefaultHashBuilder;
use tap53_dns::{Flow, Message};

use crate::pair::Point;

/// Number of queries for which a response with a wrong identifier or sender can be recognised: 4
/// bytes each, 64 KiB per worker, which stay in the cache. A newer query replaces an older one:
/// only pending queries matter, and a response for one that is not found is an ordinary unmatched
/// response.
const INDEXED_QUERIES: usize = 16_384;

/// Number of interfaces whose usual direction of responses is known, in the slot of the low bits of
/// the ifindex: of two that share a slot, the latest one.
const TRACKED_INTERFACES: usize = 64;

/// Returns the hash of a question's name if it has upper case letters, and the same value for all
/// other names, which are nearly all; 0 if there is no name to compare. The names of two messages
/// with an equal question differ in case if these values differ.
#[inline]
pub(super) fn case_hash(hasher: &DefaultHashBuilder, message: &Message, wire: &[u8]) -> u32 {
    if message.is_name_lower() { LOWER_CASE } else { case_hash_of_name(hasher, wire) }
}

#[cold]
fn case_hash_of_name(hasher: &DefaultHashBuilder, wire: &[u8]) -> u32 {
    let Some(question) = wire.get(Message::HEADER_SIZE..) else { return 0 };
    let mut end = 0;
    loop {
        match question.get(end) {
            Some(0) => break,
            Some(length @ 1..=63) => end += 1 + usize::from(*length),
            // A pointer, or no name: the bytes cannot be compared.
            _ => return 0,
        }
    }
    let Some(name) = question.get(..end) else { return 0 };
    #[expect(clippy::cast_possible_truncation, reason = "any bits of a hash will do")]
    if may_have_upper_case(name) { hash_of(hasher, name) as u32 | 1 } else { LOWER_CASE }
}

/// Returns false if no octet is an upper case letter. May return true for the other characters
/// between `@` and `_`, and for some above 127: eight octets are tested at a time, by two of their
/// bits. A length is below 64.
#[inline]
fn may_have_upper_case(name: &[u8]) -> bool {
    const EACH: u64 = 0x4040_4040_4040_4040;
    let is_upper = |word: u64| (word & !(word << 1) & EACH) != 0;
    let (words, rest) = name.as_chunks::<8>();
    let last = name.last_chunk::<8>().copied().unwrap_or_else(|| {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        last
    });
    words.iter().any(|word| is_upper(u64::from_ne_bytes(*word)))
        || is_upper(u64::from_ne_bytes(last))
}

/// The hash of all names without upper case letters. It is even, unlike that of a name.
const LOWER_CASE: u32 = 2;

/// Returns the hash of bytes without their length, for one kind of bytes only.
#[inline]
pub(super) fn hash_of<S: BuildHasher>(hasher: &S, bytes: &[u8]) -> u64 {
    let mut hash = hasher.build_hasher();
    hash.write(bytes);
    hash.finish()
}

/// Odd, so that multiplication is invertible; its bits are those of the golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Returns the hash of a response's content: its code, and its answers in any order without their
/// TTL.
#[inline]
pub(super) fn answers_hash<S: BuildHasher>(hasher: &S, response: &Message) -> u32 {
    let code = u64::from(response.rcode);
    // Thousands of answers may share an owner's text, and a message refers to two such texts at a
    // time (`decode::message::sections`): the hashes of the last two are cached.
    let mut owners: [Option<(&str, u64)>; 2] = [None; 2];
    let answers = response.answers().map(|it| {
        let [latest, earlier] = owners;
        let is_owner = |(name, _): &(&str, u64)| std::ptr::eq(*name, it.name);
        let (_, owner) = latest.filter(is_owner).unwrap_or_else(|| {
            let read = || (it.name, hash_of(hasher, it.name.as_bytes()));
            let owner = earlier.filter(is_owner).unwrap_or_else(read);
            owners = [Some(owner), latest];
            owner
        });
        // Both hashes have a random key: a sender of answers cannot choose the sum.
        let rdata = hash_of(hasher, it.rdata.as_bytes()).wrapping_add(u64::from(it.rtype));
        (owner.rotate_left(32) ^ rdata).wrapping_mul(MULTIPLIER)
    });
    #[expect(clippy::cast_possible_truncation, reason = "any bits of a hash will do")]
    let hash = answers.fold(code, u64::wrapping_add) as u32;
    hash | 1
}

/// Finds pending queries by client and question.
pub(super) struct QuestionIndex(Vec<u32>);

impl QuestionIndex {
    pub(super) fn new() -> Self {
        Self(vec![0; INDEXED_QUERIES])
    }

    /// Stores the slot of a query with this [`target_hash`].
    #[inline]
    pub(super) fn note(&mut self, target: u64, slot: u32) {
        if let Some(place) = self.0.get_mut(place(target)) {
            *place = slot;
        }
    }

    /// Returns the slot that was stored last for such a query, or for another one with the same
    /// position.
    pub(super) fn slot(&self, target: u64) -> Option<u32> {
        self.0.get(place(target)).copied()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "only the low bits count")]
const fn place(target: u64) -> usize {
    target as usize & (INDEXED_QUERIES - 1)
}

/// Returns the hash of what a forged response and its target have in common: client and question.
#[inline]
pub(super) fn target_hash(hasher: &DefaultHashBuilder, flow: &Flow, question: u32) -> u64 {
    let mut hash = hasher.build_hasher();
    // The number of an IPv4 address is not that of the IPv4-mapped one; equal numbers would only share
    // a place.
    hash.write_u128(match flow.client.ip() {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    });
    let port = u32::from(flow.client.port()) << 1 | flow.transport as u32;
    hash.write_u64(u64::from(port) << 32 | u64::from(question));
    hash.finish()
}

/// The directions in which responses pass the interfaces that saw their queries.
pub(super) struct Sides([ResponseDirections; TRACKED_INTERFACES]);

#[derive(Clone, Copy, Default)]
struct ResponseDirections {
    ifindex: u32,
    /// Responses against the direction of their query.
    opposite: u32,
    /// Responses in the direction of their query.
    same: u32,
}

impl Sides {
    pub(super) const fn new() -> Self {
        Self([ResponseDirections { ifindex: 0, opposite: 0, same: 0 }; TRACKED_INTERFACES])
    }

    /// Records where a query and its response were seen. Returns true if the response came from the
    /// client's side, and that is unusual at this interface: at a mirror port everything arrives.
    #[inline]
    pub(super) fn is_from_client(&mut self, query: Point, response: Point) -> bool {
        if query.ifindex != response.ifindex {
            return false;
        }
        let Some(seen) = self.0.get_mut(query.ifindex as usize % TRACKED_INTERFACES) else {
            return false;
        };
        if seen.ifindex != query.ifindex {
            *seen = ResponseDirections { ifindex: query.ifindex, ..ResponseDirections::default() };
        }
        if query.direction != response.direction {
            seen.opposite = seen.opposite.saturating_add(1);
            return false;
        }
        seen.same = seen.same.saturating_add(1);
        // A forger may send more responses than there are genuine ones, but not many times more.
        seen.opposite > 0 && seen.opposite >= seen.same / 8
    }
}
