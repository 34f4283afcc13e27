//! The part of an exchange that decides whether a sample contains it.

use std::{
    hash::Hasher as _,
    net::{IpAddr, SocketAddr},
};

use clap::ValueEnum;
use serde::Serialize;
use siphasher::sip::SipHasher13;

use crate::pair::Transaction;

/// The part of an exchange that decides: exchanges that agree in it are all in the sample, or none is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum SampleKey {
    /// The client's address and the name: repetitions, both address types and all servers together.
    #[default]
    ClientAndName,
    /// The name: the chain from the first client to the authoritative server together.
    Name,
    /// Client with port, name, type and identifier: each exchange for itself.
    Exchange,
}

/// The hash of an exchange, which a [`Share`](super::Share) is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleHash(pub(super) u64);

impl SampleKey {
    /// Hashes a transaction. SipHash-1-3 with the key 0 is the same for every agent and version, and
    /// independent of the hash of `filter.sample`.
    #[inline]
    #[must_use]
    pub fn hash(self, transaction: &Transaction<'_>) -> SampleHash {
        let message = &transaction.first().message;
        let question = message.question();
        let client = transaction.flow.client;
        let mut hasher = SipHasher13::new_with_keys(0, 0);
        match self {
            Self::ClientAndName => write_address(&mut hasher, client),
            Self::Name => {}
            Self::Exchange => {
                write_address(&mut hasher, client);
                let qtype = question.map_or(0, |question| question.qtype);
                for number in [client.port(), message.id, qtype] {
                    hasher.write(&number.to_be_bytes());
                }
            }
        }
        hasher.write(question.map_or("", |question| question.name).as_bytes());
        SampleHash(hasher.finish())
    }
}

/// Hashes an address; `::ffff:10.0.0.1` is 10.0.0.1 (RFC 4291 §2.5.5.2).
fn write_address(hasher: &mut SipHasher13, end: SocketAddr) {
    match end.ip().to_canonical() {
        IpAddr::V4(address) => hasher.write(&address.octets()),
        IpAddr::V6(address) => hasher.write(&address.octets()),
    }
}

#[cfg(test)]
mod tests {
    use tap53_dns::{Flow, Transport, build::Build};

    use super::*;
    use crate::{
        pair::{Anomalies, Exchange, Observation, RecordId, Sightings},
        sampling::Share,
    };

    const KEYS: [SampleKey; 3] = [SampleKey::ClientAndName, SampleKey::Name, SampleKey::Exchange];

    /// A query, as one node sees it.
    #[derive(Clone, Copy)]
    struct Query<'a> {
        client: SocketAddr,
        server: SocketAddr,
        id: u16,
        name: &'a str,
        qtype: u16,
    }

    impl Query<'_> {
        fn hash(self, key: SampleKey) -> SampleHash {
            let message = Build::message(self.id, false).question(self.name, self.qtype).parse();
            let seen = Observation { message, ..Observation::default() };
            let flow = Flow {
                transport: Transport::Udp,
                client: self.client,
                server: self.server,
                tunnel: None,
                ifindex: 1,
            };
            key.hash(&Transaction {
                id: RecordId([0; 16]),
                flow,
                exchange: Exchange::Query(&seen),
                query_count: 1,
                latest_query_ns: 0,
                copy_count: 0,
                capture_gap: false,
                related: None,
                anomalies: Anomalies::NONE,
                sightings: Sightings::single(&flow),
                chain: None,
            })
        }
    }

    fn query(name: &str) -> Query<'_> {
        Query {
            client: ([192, 0, 2, 1], 40_000).into(),
            server: ([192, 0, 2, 53], 53).into(),
            id: 7,
            name,
            qtype: 1,
        }
    }

    #[test]
    fn each_key_tells_apart_what_it_contains_and_nothing_else() {
        let base = query("a.test");
        let changed = [
            Query { client: ([192, 0, 2, 2], 40_000).into(), ..base },
            Query { name: "b.test", ..base },
            Query { id: 8, ..base },
            Query { qtype: 28, ..base },
            Query { client: ([192, 0, 2, 1], 40_001).into(), ..base },
            Query { server: ([192, 0, 2, 54], 53).into(), ..base },
            Query { name: "A.Test", ..base },
        ];
        for (key, differs) in [
            (SampleKey::ClientAndName, [true, true, false, false, false, false, false]),
            (SampleKey::Name, [false, true, false, false, false, false, false]),
            (SampleKey::Exchange, [true, true, true, true, true, false, false]),
        ] {
            let found = changed.map(|other| other.hash(key) != base.hash(key));
            assert_eq!(found, differs, "{key:?}");
        }
    }

    /// A change would separate nodes of two versions. Another implementation of SipHash-1-3 agrees.
    #[test]
    fn the_hash_is_that_of_every_other_agent() {
        let hashes = KEYS.map(|key| query("www.example").hash(key).0);
        assert_eq!(hashes, HASHES);
        let mapped =
            Query { client: "[::ffff:192.0.2.1]:40000".parse().unwrap(), ..query("www.example") };
        assert_eq!(mapped.hash(SampleKey::ClientAndName).0, HASHES[0]);
    }

    /// Hashes for [`KEYS`] of the octets `c0000201`, the name; the name; `c0000201 9c40 0007 0001`, the name.
    const HASHES: [u64; 3] =
        [7_472_914_755_542_022_658, 4_377_397_933_175_711_370, 13_539_550_069_842_341_051];

    #[test]
    fn shares_are_within_five_standard_deviations_and_contain_smaller_ones() {
        const COUNT: u32 = 100_000;
        for key in KEYS {
            let hashes: Vec<_> =
                (0..COUNT).map(|n| query(&format!("n{n}.test")).hash(key)).collect();
            for share in [0.01, 0.05, 0.5] {
                let [smaller, larger] = [share, share * 2.0].map(|it| Share::new(it).unwrap());
                let kept = hashes.iter().filter(|hash| smaller.holds(**hash)).count();
                let kept = f64::from(u32::try_from(kept).unwrap());
                // The result is not random: the hash is fixed.
                let mean = f64::from(COUNT) * share;
                let deviation = (mean * (1.0 - share)).sqrt();
                assert!((kept - mean).abs() < 5.0 * deviation, "{key:?} {share}: {kept}");
                assert!(hashes.iter().all(|hash| !smaller.holds(*hash) || larger.holds(*hash)));
            }
        }
    }
}
