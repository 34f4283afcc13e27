//! Where the owners of addresses are found: hash tables with open addressing, of which each place is
//! one line of the processor's cache.
//!
//! ```text
//!  hash of the address ─▶ 8 bits: shard ─▶ 32 bits: place, and those behind it up to an empty one
//!                                            │
//!                            address, from, until, owner ─▶ the owner's fields in Avro
//! ```
//!
//! In a large cluster nearly every look is one at cold memory, so what costs time is how many lines
//! are looked at one after the other, and what costs none is a line that was asked for in time: the
//! first place follows from the address alone, and so can be fetched as soon as a packet comes.
//! Rejected: hashbrown's map, whose control bytes are a line before the entry and whose places
//! cannot be told beforehand.

use std::{net::IpAddr, sync::Arc};

use tap53_base::prefetch::prefetch;
use tap53_records::encode::{Owner, Profile};

use super::tenancy::{Micros, Span};

/// Shards of an index. A change of one address copies one of them: at 100,000 addresses some 700
/// places of 64 bytes, 45 KB, and the list of shards, 4 KB.
pub(super) const SHARDS: usize = 256;

/// Places for addresses. Never full, so that a search ends.
pub(super) type Shard = Arc<[Option<Entry>]>;

/// An address and who owned it: a line of the cache.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Entry {
    address: IpAddr,
    tenants: Tenants,
}

const _: () = assert!(size_of::<Option<Entry>>() == 64);

/// Who owned one address: mostly one owner, which needs no memory of its own.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tenants {
    /// One, in one time.
    One(Span),
    /// Several, in order of time.
    Several(Box<[Span]>),
}

impl Tenants {
    /// Takes spans in order of time; `None` without any.
    pub(super) fn new(mut spans: Vec<Span>) -> Option<Self> {
        match spans.len() {
            0 | 1 => spans.pop().map(Self::One),
            _ => Some(Self::Several(spans.into_boxed_slice())),
        }
    }

    /// Who owned the address at a time.
    #[inline]
    pub(super) fn at(&self, at_us: Micros) -> Option<&Owner> {
        let within = |span: &&Span| span.from <= at_us && at_us < span.until;
        let span = match self {
            Self::One(span) => Some(span).filter(within),
            Self::Several(spans) => spans.iter().rev().find(within),
        };
        span.map(|span| &span.owner)
    }

    /// Who owns it last.
    #[inline]
    pub(super) fn latest(&self) -> Option<&Owner> {
        let span = match self {
            Self::One(span) => Some(span),
            Self::Several(spans) => spans.last(),
        };
        span.map(|span| &span.owner)
    }
}

/// The shard of an address, and where in it, as a part of 2³².
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
        // Folded multiplication: every bit of both halves counts. Fixed keys, since who gives out
        // addresses does not attack the one who names them.
        let low = bits as u64 ^ 0x9e37_79b9_7f4a_7c15;
        let high = (bits >> 64) as u64 ^ 0xd1b5_4a32_d192_ed03;
        let product = u128::from(low) * u128::from(high);
        let hash = product as u64 ^ (product >> 64) as u64;
        Self { shard: (hash >> 56) as usize % SHARDS, part: hash as u32 }
    }

    /// The place that an address has if it is free.
    #[inline]
    const fn place(self, places: usize) -> usize {
        ((self.part as u64 * places as u64) >> 32) as usize
    }
}

/// Where an address is, or would be.
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
    /// Who owned an address.
    #[inline]
    pub(super) fn get(&self, address: &IpAddr) -> Option<&Tenants> {
        let position = Position::of(address);
        let places = self.0.get(position.shard)?;
        let at = find(places, position, address).ok()?;
        places.get(at)?.as_ref().map(|entry| &entry.tenants)
    }

    /// Has the place of an address fetched that will be looked up soon.
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

/// The index as its one writer has it.
pub(super) struct Index {
    shards: Shards,
    /// Addresses in each shard.
    taken: Box<[usize]>,
}

impl Default for Index {
    fn default() -> Self {
        Self { shards: Shards::default(), taken: vec![0; SHARDS].into_boxed_slice() }
    }
}

impl Index {
    /// What readers get: shared with this until one of them changes.
    pub(super) const fn shards(&self) -> &Shards {
        &self.shards
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.taken.iter().all(|taken| *taken == 0)
    }

    /// Gives an address other owners, or none; false if it has these.
    pub(super) fn set(&mut self, address: IpAddr, tenants: Option<Tenants>) -> bool {
        if self.shards.get(&address) == tenants.as_ref() {
            return false;
        }
        let position = Position::of(&address);
        let shard = self.shards.0.get_mut(position.shard);
        let (Some(shard), Some(taken)) = (shard, self.taken.get_mut(position.shard)) else {
            return false;
        };
        match (find(shard, position, &address), tenants) {
            (Ok(at), Some(tenants)) => {
                Arc::make_mut(shard)[at] = Some(Entry { address, tenants });
            }
            (Ok(at), None) => {
                remove(Arc::make_mut(shard), at);
                *taken -= 1;
            }
            (Err(_), Some(tenants)) => {
                *taken += 1;
                // A third of the places stays empty, so that searches are short.
                if *taken * 3 > shard.len() * 2 {
                    *shard = grown(shard, *taken * 2);
                }
                insert(Arc::make_mut(shard), Entry { address, tenants });
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

/// The same addresses in so many places.
fn grown(shard: &[Option<Entry>], places: usize) -> Shard {
    let mut grown = vec![None; places];
    for entry in shard.iter().flatten() {
        insert(&mut grown, entry.clone());
    }
    grown.into()
}

/// Empties a place. Those behind it that are not where they would be if theirs had been free move
/// up, so that every search still finds what it looks for before an empty place.
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

/// Has the lines of an owner's fields fetched, which will be written soon.
#[inline]
pub(super) fn fetch_fields(owner: &Owner) {
    // Those of the flat profile are elsewhere, and few have that.
    for line in owner.encoded(Profile::Full).chunks(LINE) {
        prefetch(line.as_ptr());
    }
}

/// Bytes of a line of the cache.
const LINE: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use tap53_records::encode::Identity;

    fn tenants(until: Micros) -> Tenants {
        let owner = Owner::new(Identity::default());
        Tenants::new(vec![Span { from: 0, until, owner }]).unwrap()
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
        fn an_index_holds_what_a_map_holds(
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
                prop_assert_eq!(index.set(address(*number), until.map(tenants)), changes);
                match until {
                    Some(until) => model.insert(*number, *until),
                    None => model.remove(number),
                };
            }
            for number in 0..4_000 {
                let expected = model.get(&number).copied().map(tenants);
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
            assert!(index.set(*address, Some(tenants(1))));
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
