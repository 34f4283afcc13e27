//! Indexes the owners of addresses: hash tables with open addressing, in which each slot is one
//! cache line.
//!
//! ```text
//!  hash of the address ─▶ 8 bits: shard ─▶ 32 bits: slot, then the next ones up to an empty slot
//!                                            │
//!                            address, from, until, owner ─▶ the owner's fields in Avro
//! ```
//!
//! In a large cluster nearly every lookup reads cold memory, so the cost is the number of cache
//! lines that are read one after the other. A line that was prefetched in time costs nothing: the
//! first slot follows from the address alone, so it can be fetched as soon as a packet arrives.
//! Rejected alternative: hashbrown's map, whose control bytes are a cache line before the entry,
//! and whose slots cannot be predicted.

use std::{net::IpAddr, sync::Arc};

use tap53_base::prefetch::prefetch;
use tap53_records::encode::{Owner, Profile};

use super::address_history::{Micros, Span};

/// Number of shards of an index. A change of one address copies one of them: at 100,000 addresses
/// some 700 slots of 64 bytes, 45 KB, and the list of shards, 4 KB.
pub(super) const SHARDS: usize = 256;

/// The slots of one shard. At least one is always empty, so that a search ends.
pub(super) type Shard = Arc<[Option<Entry>]>;

/// An address and its owners: one cache line.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Entry {
    address: IpAddr,
    history: AddressHistory,
}

const _: () = assert!(size_of::<Option<Entry>>() == 64);

/// The owners of one address over time: usually one, which needs no allocation.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum AddressHistory {
    /// One owner for one span of time.
    One(Span),
    /// Several owners, in order of time.
    Several(Box<[Span]>),
}

impl AddressHistory {
    /// Creates a history of spans in order of time; `None` if there are none.
    pub(super) fn new(mut spans: Vec<Span>) -> Option<Self> {
        match spans.len() {
            0 | 1 => spans.pop().map(Self::One),
            _ => Some(Self::Several(spans.into_boxed_slice())),
        }
    }

    /// Returns the owner of the address at a time.
    #[inline]
    pub(super) fn at(&self, at_us: Micros) -> Option<&Owner> {
        let within = |span: &&Span| span.from <= at_us && at_us < span.until;
        let span = match self {
            Self::One(span) => Some(span).filter(within),
            Self::Several(spans) => spans.iter().rev().find(within),
        };
        span.map(|span| &span.owner)
    }

    /// Returns the latest owner.
    #[inline]
    pub(super) fn latest(&self) -> Option<&Owner> {
        let span = match self {
            Self::One(span) => Some(span),
            Self::Several(spans) => spans.last(),
        };
        span.map(|span| &span.owner)
    }
}

/// The shard of an address, and its position in the shard as a fraction of 2³².
#[derive(Clone, Copy)]
struct Position {
    shard: usize,
    part: u32,
}

impl Position {
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "halves of a hash")]
    fn of(address: &IpAddr) -> Self {
        let bits = match address {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits(),
        };
        // Folded multiplication: every bit of both halves counts. The keys are fixed, since a party
        // that assigns addresses gains nothing by attacking the agent.
        let low = bits as u64 ^ 0x9e37_79b9_7f4a_7c15;
        let high = (bits >> 64) as u64 ^ 0xd1b5_4a32_d192_ed03;
        let product = u128::from(low) * u128::from(high);
        let hash = product as u64 ^ (product >> 64) as u64;
        Self { shard: (hash >> 56) as usize % SHARDS, part: hash as u32 }
    }

    /// Returns the slot that the address has if it is free.
    #[inline]
    const fn place(self, places: usize) -> usize {
        ((self.part as u64 * places as u64) >> 32) as usize
    }
}

/// Finds the slot of an address (`Ok`), or the empty slot where it would be inserted (`Err`).
#[inline]
fn find(places: &[Option<Entry>], part: Position, address: &IpAddr) -> Result<usize, usize> {
    let mut at = part.place(places.len());
    loop {
        match places.get(at) {
            Some(Some(entry)) if entry.address == *address => return Ok(at),
            Some(Some(_)) => at += 1,
            Some(None) => return Err(at),
            None if places.is_empty() => return Err(0),
            None => at = 0,
        }
    }
}

/// The index as workers read it.
#[derive(Clone, Debug)]
pub(super) struct Shards(Box<[Shard]>);

impl Default for Shards {
    fn default() -> Self {
        Self(vec![Shard::from([]); SHARDS].into_boxed_slice())
    }
}

impl Shards {
    /// Returns the owners of an address.
    #[inline]
    pub(super) fn get(&self, address: &IpAddr) -> Option<&AddressHistory> {
        let position = Position::of(address);
        let places = self.0.get(position.shard)?;
        let at = find(places, position, address).ok()?;
        places.get(at)?.as_ref().map(|entry| &entry.history)
    }

    /// Prefetches the slot of an address that will be looked up soon.
    #[inline]
    pub(super) fn fetch(&self, address: &IpAddr) {
        let position = Position::of(address);
        if let Some(places) = self.0.get(position.shard)
            && let Some(place) = places.get(position.place(places.len()))
        {
            prefetch(place);
        }
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Shard> {
        self.0.iter()
    }
}

/// The index as its only writer updates it.
pub(super) struct Index {
    shards: Shards,
    /// Number of addresses in each shard.
    taken: Box<[usize]>,
}

impl Default for Index {
    fn default() -> Self {
        Self { shards: Shards::default(), taken: vec![0; SHARDS].into_boxed_slice() }
    }
}

impl Index {
    /// Returns the shards for readers: they are shared until one of them changes.
    pub(super) const fn shards(&self) -> &Shards {
        &self.shards
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.taken.iter().all(|taken| *taken == 0)
    }

    /// Replaces the owners of an address, or removes it. Returns false if nothing changes.
    pub(super) fn set(&mut self, address: IpAddr, history: Option<AddressHistory>) -> bool {
        if self.shards.get(&address) == history.as_ref() {
            return false;
        }
        let position = Position::of(&address);
        let shard = self.shards.0.get_mut(position.shard);
        let (Some(shard), Some(taken)) = (shard, self.taken.get_mut(position.shard)) else {
            return false;
        };
        match (find(shard, position, &address), history) {
            (Ok(at), Some(history)) => {
                Arc::make_mut(shard)[at] = Some(Entry { address, history });
            }
            (Ok(at), None) => {
                remove(Arc::make_mut(shard), at);
                *taken -= 1;
            }
            (Err(_), Some(history)) => {
                *taken += 1;
                // A third of the slots stays empty, so that searches are short.
                if *taken * 3 > shard.len() * 2 {
                    *shard = grown(shard, *taken * 2);
                }
                insert(Arc::make_mut(shard), Entry { address, history });
            }
            (Err(_), None) => {}
        }
        true
    }
}

fn insert(places: &mut [Option<Entry>], entry: Entry) {
    let (Ok(at) | Err(at)) = find(places, Position::of(&entry.address), &entry.address);
    if let Some(place) = places.get_mut(at) {
        *place = Some(entry);
    }
}

/// Copies the addresses into a table with `places` slots.
fn grown(shard: &[Option<Entry>], places: usize) -> Shard {
    let mut grown = vec![None; places];
    for entry in shard.iter().flatten() {
        insert(&mut grown, entry.clone());
    }
    grown.into()
}

/// Empties a slot. Entries after it that are displaced from their own slot move up, so that no
/// search meets an empty slot before its entry.
fn remove(places: &mut [Option<Entry>], at: usize) {
    let length = places.len();
    let distance = |from: usize, to: usize| (to + length - from) % length;
    places[at] = None;
    let (mut hole, mut behind) = (at, (at + 1) % length);
    while let Some(entry) = &places[behind] {
        let home = Position::of(&entry.address).place(length);
        if distance(home, behind) >= distance(hole, behind) {
            places.swap(hole, behind);
            hole = behind;
        }
        behind = (behind + 1) % length;
    }
}

/// Prefetches the cache lines of an owner's fields, which will be written soon.
#[inline]
pub(super) fn fetch_fields(owner: &Owner) {
    // The fields of the flat profile are elsewhere, and few installations use it.
    for line in owner.encoded(Profile::Full).chunks(LINE) {
        prefetch(line.as_ptr());
    }
}

/// Size of a cache line in bytes.
const LINE: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use tap53_records::encode::Identity;

    fn history(until: Micros) -> AddressHistory {
        let owner = Owner::new(Identity::default());
        AddressHistory::new(vec![Span { from: 0, until, owner }]).unwrap()
    }

    fn address(number: u32) -> IpAddr {
        if number.is_multiple_of(3) {
            IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::try_from(number).unwrap()])
        } else {
            IpAddr::from((10 << 24 | number).to_be_bytes())
        }
    }

    proptest! {
        #[test]
        fn an_index_equals_a_map(
            changes in prop::collection::vec((0..4_000_u32, prop::option::of(1..3_i64)), 0..6_000),
        ) {
            let (mut index, mut model) = (Index::default(), HashMap::new());
            let mut earlier = None;
            for (number, until) in &changes {
                let changes = model.get(number) != until.as_ref();
                let before = index.shards().get(&address(*number)).cloned();
                if changes && earlier.is_none() {
                    earlier = Some((index.shards().clone(), *number, before));
                }
                prop_assert_eq!(index.set(address(*number), until.map(history)), changes);
                match until {
                    Some(until) => model.insert(*number, *until),
                    None => model.remove(number),
                };
            }
            for number in 0..4_000 {
                let expected = model.get(&number).copied().map(history);
                prop_assert_eq!(index.shards().get(&address(number)), expected.as_ref());
            }
            let taken: usize = index.taken.iter().sum();
            prop_assert_eq!(taken, model.len());
            if let Some((shards, number, before)) = earlier {
                prop_assert_eq!(shards.get(&address(number)), before.as_ref());
            }
        }
    }

    #[test]
    fn addresses_of_one_shard_survive_each_others_removal() {
        let all: Vec<IpAddr> = (0..60_000)
            .map(|number: u32| IpAddr::from((10 << 24 | number).to_be_bytes()))
            .filter(|address| Position::of(address).shard == 7)
            .collect();
        let mut index = Index::default();
        for address in &all {
            assert!(index.set(*address, Some(history(1))));
        }
        for (position, gone) in all.iter().enumerate() {
            assert!(index.set(*gone, None) && !index.set(*gone, None));
            assert!(index.shards().get(gone).is_none());
            for left in all.iter().skip(position + 1) {
                assert!(index.shards().get(left).is_some(), "{left} without {gone}");
            }
        }
    }

    #[test]
    fn shards_and_places_are_used_alike() {
        let nodes = 0..=255;
        let pods =
            nodes.flat_map(|node| (0..100).map(move |pod| IpAddr::from([10, 244, node, pod])));
        let v6 = (0..100).flat_map(|node| {
            (0..=255).map(move |pod| IpAddr::from([0xfd00, 0, 0, node, 0, 0, 0, pod]))
        });
        for addresses in [pods.collect::<Vec<_>>(), v6.collect()] {
            let (mut shards, mut places) = (vec![0; SHARDS], vec![0; SHARDS]);
            for address in &addresses {
                let position = Position::of(address);
                shards[position.shard] += 1;
                places[position.place(SHARDS)] += 1;
            }
            for used in [shards, places] {
                let most = used.iter().max().unwrap();
                assert!(*most < 200, "one of {SHARDS} has {most} of {}", addresses.len());
            }
        }
    }
}
