//! The domains of the web, by rank, and their servers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::random::{Random, Zipf, mix};

/// Registrable domains of the web.
const DOMAINS: u32 = 60_000;

/// Percentage of visits that go to any domain, whatever its rank: the tail of the web is heavier than Zipf's.
const TAIL_PERCENT: usize = 30;

/// Syllables of made-up words; three of them make 64 000 different ones.
const SYLLABLES: [&str; 40] = [
    "ba", "bel", "cor", "da", "den", "do", "el", "fa", "fin", "gal", "go", "ha", "hin", "il", "ka",
    "kel", "la", "len", "lo", "ma", "mer", "mo", "na", "nor", "o", "pa", "pel", "ra", "rin", "sa",
    "sol", "ta", "ter", "tun", "u", "va", "vel", "wen", "yo", "zan",
];
/// Public suffixes.
pub(super) const SUFFIXES: [&str; 12] =
    ["com", "com", "com", "com", "net", "org", "de", "io", "fr", "info", "co.uk", "com.au"];
/// Those of two labels.
pub(super) const SUFFIXES_OF_TWO: [&str; 2] = ["co.uk", "com.au"];
const ADDITIONS: [&str; 8] = ["-shop", "online", "24", "-news", "media", "labs", "-app", "hq"];

/// The domains, and how popular they are.
#[derive(Clone, Debug)]
pub(super) struct Universe {
    popularity: Zipf,
}

impl Universe {
    pub(super) fn new() -> Self {
        Self { popularity: Zipf::new(DOMAINS) }
    }

    /// Draws the number of a domain by popularity.
    pub(super) fn draw(&self, random: &mut Random) -> usize {
        if random.chance(TAIL_PERCENT) {
            random.below(DOMAINS as usize)
        } else {
            self.popularity.rank(random)
        }
    }
}

/// Returns the name of a domain by its number; different for nearly all numbers. Its ending makes sure that it
/// belongs to nobody.
pub(super) fn domain(number: usize) -> String {
    let spread = number * 24_007 % SYLLABLES.len().pow(3);
    let [first, second, third] =
        [spread % 40, spread / 40 % 40, spread / 1_600].map(|index| SYLLABLES[index]);
    let noise = mix(number as u64);
    // A label of two syllables more or less, an addition, or an abbreviation with the number.
    let label = match noise % 20 {
        0..9 => format!("{first}{second}{third}"),
        9..14 => format!("{first}{second}{third}{}", ADDITIONS[spread % ADDITIONS.len()]),
        14..17 => format!("{first}-{second}{third}"),
        17..19 => format!("{first}{second}{third}{first}{second}"),
        _ => format!("{}{number}", Random::new(noise).text(3, "bcdfghjklmnpqrstvwxz")),
    };
    format!("{label}-t53.{}", SUFFIXES[(noise >> 32) as usize % SUFFIXES.len()])
}

/// Returns an IPv4 address of a host by a number: of the range for benchmarks (RFC 2544), so of nobody, which
/// is not private all the same.
pub(super) fn public_v4(number: usize) -> IpAddr {
    let noise = mix(number as u64 ^ 0x5353).to_le_bytes();
    Ipv4Addr::new(198, 18 | noise[0] & 1, noise[1], noise[2]).into()
}

/// Returns an IPv6 address of a host by a number, of the range for documentation (RFC 3849).
pub(super) fn public_v6(number: usize) -> IpAddr {
    let noise = u128::from(mix(number as u64 ^ 0x1234_5678));
    Ipv6Addr::from(0x2001_0db8_u128 << 96 | noise).into()
}

/// Returns the address of an office's workstation or phone.
pub(super) fn workstation(number: usize) -> IpAddr {
    private([10, 20], number)
}

/// Returns the address of a pod.
pub(super) fn pod(number: usize) -> IpAddr {
    private([10, 244], number)
}

/// Returns the address of a server: mail, proxy, resolver.
pub(super) fn server(number: usize) -> IpAddr {
    private([10, 9], number)
}

fn private(network: [u8; 2], number: usize) -> IpAddr {
    let [high, low] = u16::try_from(number + 2).expect("few clients").to_be_bytes();
    Ipv4Addr::new(network[0], network[1], high, low).into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn domains_are_different() {
        let domains: HashSet<_> = (0..DOMAINS as usize).map(domain).collect();
        // A few syllables join to the same word, as `da` `lo` and `dal` `o` would.
        assert!(domains.len() > DOMAINS as usize * 97 / 100, "{}", domains.len());
    }
}
