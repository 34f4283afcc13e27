//! Keeps a fraction of the transactions.

use std::net::IpAddr;

/// Keeps a fraction of transactions, selected by a hash of client address, server address and name.
///
/// - A query, its response, its repetitions, the same question with another type (A and AAAA) and
///   the question again over TCP have one result, so related messages stay together.
/// - Every agent and version decides alike: BLAKE3 is fixed, and there is no key. A transaction
///   that passes two nodes is kept on both or on neither.
/// - Ports and identifiers are not hashed, since they would separate a query from its repetition.
///   Addresses alone would keep all or nothing of a forwarder that queries one resolver.
/// - The queries of one client to one server for one name are all kept or all left out: to count
///   those, count before sampling.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// A transaction is kept if its 32-bit hash is below this value; `None` keeps everything.
    below: Option<f64>,
}

impl Sample {
    /// Creates a sample from a fraction above 0, up to 1.
    pub(super) fn new(share: f64) -> Self {
        // At 1 there is no limit, so that nothing is hashed.
        Self { below: (share < 1.0).then_some(share * 2f64.powi(32)) }
    }

    pub(super) fn holds(self, client: IpAddr, server: IpAddr, name: &str) -> bool {
        self.below.is_none_or(|below| f64::from(hash(client, server, name)) < below)
    }
}

fn hash(client: IpAddr, server: IpAddr, name: &str) -> u32 {
    let mut hasher = blake3::Hasher::new();
    for address in [client, server] {
        match address.to_canonical() {
            IpAddr::V4(address) => hasher.update(&address.octets()),
            IpAddr::V6(address) => hasher.update(&address.octets()),
        };
    }
    hasher.update(name.as_bytes());
    let [a, b, c, d, ..] = *hasher.finalize().as_bytes();
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 53));

    #[test]
    fn the_share_is_kept_within_its_chance() {
        for share in [0.01, 0.1, 0.5] {
            let sample = Sample::new(share);
            let kept = (0..100_000u32)
                .filter(|n| sample.holds(IpAddr::V4((*n).into()), SERVER, "www.example"))
                .count();
            let kept = f64::from(u32::try_from(kept).unwrap());
            // Five standard deviations of a binomial distribution. The result is not random: the
            // hash is fixed.
            let deviation = (100_000.0 * share * (1.0 - share)).sqrt();
            assert!((kept - 100_000.0 * share).abs() < 5.0 * deviation, "{share}: {kept}");
        }
    }

    #[test]
    fn the_whole_is_kept_whole() {
        let sample = Sample::new(1.0);
        assert!((0..1_000u32).all(|n| sample.holds(IpAddr::V4(n.into()), SERVER, "")));
    }

    #[test]
    fn a_smaller_sample_is_part_of_a_larger_one() {
        let (small, large) = (Sample::new(0.1), Sample::new(0.2));
        for n in 0..1_000u32 {
            let client = IpAddr::V4(n.into());
            assert!(!small.holds(client, SERVER, "a") || large.holds(client, SERVER, "a"));
        }
    }

    #[test]
    fn the_hash_is_that_of_every_other_agent() {
        // printf '\xc0\x00\x02\x01\xc0\x00\x02\x35www.example' | b3sum
        assert_eq!(hash([192, 0, 2, 1].into(), SERVER, "www.example"), 561_341_186);
    }
}
