//! Data in names: a score for each client and registrable domain.
//!
//! Only conspicuous exchanges are counted: names that have more data than a hash, and query types that
//! carry data back. Block lists, antivirus services and content networks have many names too, but short
//! ones, or those of a hash. Each name counts once in an interval.

use crate::{shape::Shape, striped::Entry, window::Window};

/// Minimum number of different conspicuous names.
const MIN_NAMES: u16 = 24;

/// Minimum number of long names among them, for the part of the score that they give.
const MIN_LONG: u16 = 8;

/// Score from which on a domain is a tunnel.
const THRESHOLD: f32 = 60.0;

/// Bytes by which a response exceeds its query if it carries data: more than an address or a verdict.
const MIN_CARRIED: u32 = 120;

const NXDOMAIN: u16 = 3;

/// Properties of an exchange that are frequent in tunnels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sign {
    /// The name has more data than a hash.
    pub(crate) is_long: bool,
    /// The type is NULL, or one that is assigned to nothing.
    pub(crate) is_exotic: bool,
    /// The type carries text, names or bytes.
    pub(crate) is_carrier: bool,
    /// The type is a carrier, and the response is much larger than the query.
    pub(crate) is_large: bool,
    /// The type is a carrier, and a label looks encoded.
    pub(crate) is_random: bool,
    /// The name does not exist.
    pub(crate) is_missing: bool,
}

impl Sign {
    /// Returns the sign of an exchange with these labels before its registrable domain; `None` if it is
    /// not conspicuous.
    #[inline]
    pub(crate) fn of(
        labels: &str,
        qtype: u16,
        rcode: Option<u16>,
        query_bytes: u32,
        response_bytes: u32,
    ) -> Option<Self> {
        /// Length from which on labels may have more data than a hash.
        const MIN_LABELS: usize = 64;
        let (is_exotic, is_carrier) = (is_exotic(qtype), is_carrier(qtype));
        if labels.len() <= MIN_LABELS && !is_exotic && !is_carrier {
            return None;
        }
        let shape = Shape::of(labels);
        let sign = Self {
            is_long: shape.is_long(),
            is_exotic,
            is_carrier: is_carrier || is_exotic,
            is_large: response_bytes > query_bytes.saturating_add(MIN_CARRIED)
                && (is_carrier || is_exotic),
            is_random: shape.is_random,
            is_missing: rcode == Some(NXDOMAIN),
        };
        (sign.is_long || sign.is_carrier && !labels.is_empty()).then_some(sign)
    }
}

/// NULL (RFC 1035 §3.3.10), and types for private use and unassigned ones.
const fn is_exotic(qtype: u16) -> bool {
    const NULL: u16 = 10;
    qtype == NULL || matches!(qtype, 1_000..=32_767 | 32_772..=65_534)
}

/// CNAME, MX, TXT, KEY, SRV and ANY.
const fn is_carrier(qtype: u16) -> bool {
    matches!(qtype, 5 | 15 | 16 | 25 | 33 | 255)
}

/// The counts of a client and a registrable domain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tunnel {
    /// A bit for each name of this interval, by its hash.
    names: [u64; 2],
    window: Window,
    counted: u16,
    long: u16,
    exotic: u16,
    carrier: u16,
    large: u16,
    random: u16,
    missing: u16,
}

impl Tunnel {
    /// Counts an exchange; returns true if the domain is a tunnel.
    pub(crate) fn count(&mut self, name: u64, sign: Sign, now_s: u32) -> bool {
        self.age(now_s);
        let bit = 1 << (name & 63);
        let word = &mut self.names[(name >> 6 & 1) as usize];
        if *word & bit == 0 {
            *word |= bit;
            self.add(sign);
            if self.score() >= THRESHOLD {
                self.window.mark(now_s);
            }
        }
        self.window.is_marked(now_s)
    }

    fn age(&mut self, now_s: u32) {
        let passed = self.window.advance(now_s);
        if passed > 0 {
            self.names = [0; 2];
            for count in self.counts() {
                *count >>= passed;
            }
        }
    }

    const fn counts(&mut self) -> [&mut u16; 7] {
        [
            &mut self.counted,
            &mut self.long,
            &mut self.exotic,
            &mut self.carrier,
            &mut self.large,
            &mut self.random,
            &mut self.missing,
        ]
    }

    fn add(&mut self, sign: Sign) {
        let signs = [
            true,
            sign.is_long,
            sign.is_exotic,
            sign.is_carrier,
            sign.is_large,
            sign.is_random,
            sign.is_missing,
        ];
        // At most 128 an interval, and half of what was before.
        for (count, is_set) in self.counts().into_iter().zip(signs) {
            *count += u16::from(is_set);
        }
    }

    /// Returns the score from 0 to about 200.
    pub(crate) fn score(&self) -> f32 {
        if self.counted < MIN_NAMES {
            return 0.0;
        }
        let counted = f32::from(self.counted);
        let share = |count: u16| f32::from(count) / counted;
        let long = if self.long < MIN_LONG { 0.0 } else { (share(self.long) / 0.3).min(1.0) };
        let exotic = (share(self.exotic) / 0.25).min(1.0);
        let carrier = (share(self.carrier) / 0.5).min(1.0);
        let large = (share(self.large) / 0.2).min(1.0);
        let found = 1.0 - share(self.missing);
        // Long names carry data out even if no name exists.
        60.0 * long
            + found * (60.0 * exotic + 20.0 * carrier + 25.0 * large + 20.0 * share(self.random))
    }
}

impl Entry for Tunnel {
    fn worth(&self, now_s: u32) -> u32 {
        self.window.worth(self.counted, now_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::MARK_S;

    const LONG: &str = "a3kq0zj5vxw1ytre2hbn4mcpgsu5dflo3ia0qkzwv1xjy2trh4ebnmcp5\
                        .sgu0dlfo3i1akq5zwvxj2ytr4hebn0mcpsgu3dlf1oia";

    /// Returns the number of names after which a domain is marked, if it is within 200.
    fn marked_after(signs: &[Option<Sign>]) -> Option<usize> {
        let mut tunnel = Tunnel::default();
        (1..=200).find(|number| {
            let name = (*number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 9;
            signs[number % signs.len()].is_some_and(|sign| tunnel.count(name, sign, 1_000))
        })
    }

    #[test]
    fn long_names_of_any_type_are_a_tunnel() {
        for qtype in [1, 28, 5, 10, 15, 16, 33, 65_399] {
            let data = Sign::of(LONG, qtype, Some(0), 160, 200);
            let poll = Sign::of("paaq4b2i", qtype, Some(0), 40, 80);
            assert!(marked_after(&[data]).is_some_and(|names| names < 60), "type {qtype}");
            assert!(marked_after(&[data, poll, poll]).is_some(), "type {qtype} with polls");
        }
        let unanswered = Sign::of(LONG, 1, Some(3), 160, 160);
        assert!(marked_after(&[unanswered]).is_some(), "one way");
    }

    #[test]
    fn data_that_comes_back_is_a_tunnel() {
        let download = Sign::of("paaq4b2i", 16, Some(0), 40, 900);
        assert!(marked_after(&[download]).is_some());
        let null = Sign::of("paaq4b2i", 10, Some(0), 40, 60);
        assert!(marked_after(&[null]).is_some());
    }

    #[test]
    fn lookups_are_none() {
        let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a0";
        for (labels, qtype, response_bytes) in [
            ("77.2.0.192.zen", 1, 90),
            ("77.2.0.192.origin.asn", 16, 130),
            (hash, 16, 120),
            (hash, 1, 100),
            ("4z9p5tjmcbnblehp4557z1d136.avqs", 1, 90),
            ("_ldap._tcp.dc._msdcs", 33, 400),
            ("_25._tcp.mail", 52, 120),
            ("selector1._domainkey", 16, 500),
            ("cdn-37-1f.edge", 5, 150),
            ("d3abc41lpz0q2x", 1, 500),
        ] {
            for rcode in [0, 3] {
                let sign = Sign::of(labels, qtype, Some(rcode), 70, response_bytes);
                assert_eq!(marked_after(&[sign]), None, "{labels} {qtype}: {sign:?}");
            }
        }
    }

    #[test]
    fn a_name_counts_once_and_a_mark_ends() {
        let sign = Sign::of(LONG, 1, Some(0), 160, 200).expect("it is conspicuous");
        let mut tunnel = Tunnel::default();
        assert!((0..1_000).all(|_| !tunnel.count(7, sign, 1_000)));
        for name in 0..128 {
            tunnel.count(name, sign, 1_000);
        }
        assert!(tunnel.count(0, sign, 1_000));
        assert!(tunnel.count(0, sign, 1_000 + MARK_S - 1));
        assert!(!tunnel.count(0, sign, 1_000 + MARK_S));
    }

    #[test]
    fn five_names_a_second_are_marked_within_a_minute() {
        let sign = Sign::of(LONG, 16, Some(0), 160, 200).expect("it is conspicuous");
        let mut tunnel = Tunnel::default();
        let marked = (0..300_u32).position(|number| {
            let name = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 9;
            tunnel.count(name, sign, 500 + number / 5)
        });
        assert!(marked.is_some_and(|names| names < 100), "{marked:?}");
    }
}
