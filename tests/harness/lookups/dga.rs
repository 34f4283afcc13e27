//! Programs that look for their server below domains that an algorithm generates: most do not exist.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use super::{
    Answer, Kind, Lookup, NOERROR, NXDOMAIN, Random, rtype, universe::SUFFIXES, wire::name_of,
};

/// The address of the domains that exist (RFC 5737).
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));

/// A family of algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// Hexadecimal digits, as a hash has them.
    Hex,
    /// Two or three words of a dictionary.
    Words,
    /// Consonants and vowels in turn, which can be spoken.
    Syllables,
    /// Letters from a generator whose seed is the date.
    Date,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 4] = [Self::Hex, Self::Words, Self::Syllables, Self::Date];

    /// Returns the label of a domain.
    fn label(self, random: &mut Random, number: u32) -> String {
        match self {
            Self::Hex => random.hex(12 + random.clone().below(5)),
            Self::Words => {
                let count = 2 + random.below(2);
                (0..count).map(|_| random.pick(&WORDS)).collect()
            }
            Self::Syllables => {
                let pairs = 4 + random.below(3);
                let pair = |_| random.text(1, "bcdfghklmnprstvz") + &random.text(1, "aeiou");
                (0..pairs).map(pair).collect()
            }
            Self::Date => date_seeded(2_026, 11, 29, number),
        }
    }
}

const WORDS: [&str; 48] = [
    "apple", "arrow", "basket", "bridge", "candle", "castle", "circle", "cloud", "copper",
    "cotton", "desert", "dinner", "dragon", "engine", "family", "feather", "finger", "forest",
    "garden", "guitar", "hammer", "harbor", "island", "jacket", "kitchen", "ladder", "letter",
    "market", "mirror", "mountain", "needle", "number", "orange", "paper", "pencil", "pocket",
    "rabbit", "river", "saddle", "school", "silver", "summer", "ticket", "travel", "valley",
    "window", "winter", "yellow",
];

/// A linear congruential generator that begins with the date, as several families have it.
fn date_seeded(year: u32, month: u32, day: u32, number: u32) -> String {
    let mut state = year.wrapping_mul(10_000) + month * 100 + day + number.wrapping_mul(7_919);
    let mut next = || {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        state >> 16
    };
    let length = 10 + next() % 6;
    (0..length).map(|_| char::from(b"abcdefghijklmnopqrstuvwxy"[(next() % 25) as usize])).collect()
}

/// Returns `count` lookups of a client that begin at a time, at a mean rate in lookups per second. One in
/// fifty domains exists.
#[must_use]
pub fn burst(
    family: Family,
    seed: u64,
    client: IpAddr,
    begin: Duration,
    (count, per_second): (u32, u32),
) -> Vec<Lookup> {
    let mut random = Random::new(seed);
    let mut at = begin;
    (0..count)
        .map(|number| {
            at += random.interval(Duration::from_secs(1) / per_second);
            let suffix = random.pick(&SUFFIXES);
            let name = format!("{}.{suffix}", family.label(&mut random, number));
            let exists = random.chance(2);
            let answers = if exists { vec![Answer::address(SERVER)] } else { Vec::new() };
            Lookup {
                at,
                client,
                name: name_of(&name),
                qtype: rtype::A,
                rcode: if exists { NOERROR } else { NXDOMAIN },
                answers,
                captured_sizes: None,
                kind: Kind::Dga,
            }
        })
        .collect()
}
