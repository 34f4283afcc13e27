//! The identifier of an exchange, which is the same at every node that sees it.
//!
//! It is a hash of what is on the wire after address translation on the node of the client, and
//! before any on the node of the server. SipHash-1-3 with 128 bits takes a third of the time
//! of BLAKE3. With a public key, whoever sends queries can construct two that share an
//! identifier. That is of no use: it confuses the sender's own exchanges, and a join also compares
//! times.
//!
//! Under rules that hide addresses, a public key would let everybody try all addresses. The hash
//! then has a key that is derived from the one for pseudonyms. Without that, there is no identifier.

use std::{
    hash::Hasher as _,
    net::{IpAddr, SocketAddr},
};

use data_encoding::HEXLOWER;
use serde::{Serialize, Serializer};
use siphasher::sip128::{Hash128, Hasher128 as _, SipHasher13};

use super::config::{AddressRule, PrivacyConfig};
use crate::pair::{Sightings, Transaction};

/// Identifies an exchange at every node; see the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangeId(pub [u8; 16]);

/// Serializes as bytes in Avro, and as hexadecimal in JSON.
impl Serialize for ExchangeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&HEXLOWER.encode(&self.0))
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

/// The key of identifiers.
#[derive(Clone, Copy, Default)]
pub(super) enum ExchangeKey {
    /// Everybody can compute them.
    #[default]
    Public,
    /// Only who has the key for pseudonyms can.
    Secret([u64; 2]),
    /// There are none.
    Missing,
}

impl std::fmt::Debug for ExchangeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Public => "Public",
            Self::Secret(_) => "Secret(not shown)",
            Self::Missing => "Missing",
        })
    }
}

impl ExchangeKey {
    /// Returns the key under these rules: derived from that of the first rule which has one.
    pub(super) fn of(config: &PrivacyConfig) -> Self {
        if !config.hides_addresses() {
            return Self::Public;
        }
        let rules = [&config.client_address, &config.server_address, &config.reverse_names];
        let key = rules.into_iter().find_map(|rule| match rule {
            AddressRule::Hash(hash) => Some(hash.key.derive("tap53 2026 exchange_id")),
            _ => None,
        });
        match key.as_ref().and_then(|key| key.first_chunk::<16>()) {
            Some(key) => {
                let key = u128::from_le_bytes(*key);
                #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
                Self::Secret([key as u64, (key >> 64) as u64])
            }
            None => Self::Missing,
        }
    }

    /// Returns the identifier of a transaction; `None` without a question.
    #[inline]
    pub(super) fn id_of(self, transaction: &Transaction<'_>) -> Option<ExchangeId> {
        let message = &transaction.first().message;
        let question = message.question()?;
        let [one, other] = match self {
            Self::Public => [0; 2],
            Self::Secret(key) => key,
            Self::Missing => return None,
        };
        let Sightings { client, server, .. } = transaction.sightings;
        let mut input = Input { octets: [0; LARGEST], length: 1 };
        input.octets[0] = transaction.flow.transport as u8
            | u8::from(client.is_ipv4()) << 6
            | u8::from(server.is_ipv4()) << 7;
        input.end(client);
        input.end(server);
        for number in [message.id, question.qtype, question.qclass] {
            input.append(&number.to_be_bytes());
        }
        let hasher = SipHasher13::new_with_keys(one, other);
        Some(ExchangeId(input.hash_with(hasher, question.name.as_bytes()).as_bytes()))
    }
}

/// Size of what is hashed at once in bytes: of the longest addresses and a name of 89 characters.
const LARGEST: usize = 132;

/// The hashed octets that precede the name.
struct Input {
    octets: [u8; LARGEST],
    length: usize,
}

impl Input {
    #[inline(always)]
    fn append(&mut self, octets: &[u8]) {
        if let Some(place) = self.octets.get_mut(self.length..self.length + octets.len()) {
            place.copy_from_slice(octets);
            self.length += octets.len();
        }
    }

    #[inline(always)]
    fn end(&mut self, end: SocketAddr) {
        match end.ip() {
            IpAddr::V4(address) => self.append(&address.octets()),
            IpAddr::V6(address) => self.append(&address.octets()),
        }
        self.append(&end.port().to_be_bytes());
    }

    /// Returns the hash of the octets and of `name`. All at once, that takes a third fewer instructions.
    #[inline(always)]
    fn hash_with(mut self, mut hasher: SipHasher13, name: &[u8]) -> Hash128 {
        if self.length + name.len() <= LARGEST {
            self.append(name);
            return hasher.hash(self.octets.get(..self.length).unwrap_or_default());
        }
        hasher.write(self.octets.get(..self.length).unwrap_or_default());
        hasher.write(name);
        hasher.finish128()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use tap53_dns::{Flow, Transport, build::Build};

    use super::*;
    use crate::{
        pair::{Anomalies, Exchange, Observation, RecordId},
        privacy::{Key, config::PrefixLengths},
    };

    fn flow() -> Flow {
        Flow {
            transport: Transport::Udp,
            client: ([192, 0, 2, 1], 40_000).into(),
            server: ([192, 0, 2, 53], 53).into(),
            tunnel: None,
            ifindex: 7,
        }
    }

    fn id_with(
        key: ExchangeKey,
        flow: Flow,
        sightings: Sightings,
        seen: &Observation,
    ) -> Option<ExchangeId> {
        key.id_of(&Transaction {
            id: RecordId([0; 16]),
            flow,
            exchange: if seen.message.response {
                Exchange::Response(seen)
            } else {
                Exchange::Query(seen)
            },
            query_count: 1,
            latest_query_ns: 0,
            copy_count: 0,
            capture_gap: false,
            related: None,
            anomalies: Anomalies::NONE,
            sightings,
            chain: None,
        })
    }

    fn seen(id: u16, name: &str, qtype: u16, response: bool) -> Observation {
        let message = Build::message(id, response).question(name, qtype).parse();
        Observation { message, ..Observation::default() }
    }

    fn id(flow: Flow, seen: &Observation) -> Option<ExchangeId> {
        id_with(ExchangeKey::Public, flow, Sightings::single(&flow), seen)
    }

    #[test]
    fn nodes_before_and_after_translation_agree() {
        let query = seen(7, "a.test", 1, false);
        let inner = Flow { server: ([10, 1, 2, 2], 5_353).into(), ..flow() };
        let outer = Sightings {
            client: inner.client,
            server: inner.server,
            count: 2,
            ..Sightings::single(&flow())
        };
        let here = id_with(ExchangeKey::Public, flow(), outer, &query);
        assert!(here.is_some());
        assert_eq!(here, id(inner, &query));
        assert_eq!(here, id(inner, &seen(7, "A.Test", 1, true)), "of its response");
        let tunnelled = Flow { ifindex: 9, ..inner };
        assert_eq!(here, id(tunnelled, &query));
    }

    /// A change of it would separate nodes of two versions. Another implementation of SipHash agrees.
    #[test]
    fn the_identifier_is_fixed() {
        let Some(ExchangeId(id)) = id(flow(), &seen(7, "a.test", 1, false)) else {
            panic!("there is a question")
        };
        assert_eq!(HEXLOWER.encode(&id), "70046b38601ca5d7ae303391906df993");
    }

    /// The hash does not depend on the size of the buffer.
    #[test]
    fn names_of_all_lengths_have_the_hash_of_all_octets() {
        let flow = Flow {
            client: ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 40_000).into(),
            server: ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 2], 53).into(),
            ..flow()
        };
        for length in 1..=63 {
            let name = ["a".repeat(length), "b".repeat(30), "c".repeat(40)].join(".");
            let mut hasher = SipHasher13::new_with_keys(0, 0);
            hasher.write(&[Transport::Udp as u8]);
            for end in [flow.client, flow.server] {
                let IpAddr::V6(address) = end.ip() else { panic!("an address of IPv6") };
                hasher.write(&address.octets());
                hasher.write(&end.port().to_be_bytes());
            }
            hasher.write(&[0, 7, 0, 1, 0, 1]);
            for name in [name.as_str(), &name[..length]] {
                let mut hasher = hasher;
                hasher.write(name.as_bytes());
                let expected = ExchangeId(hasher.finish128().as_bytes());
                assert_eq!(id(flow, &seen(7, name, 1, false)), Some(expected), "{name}");
            }
        }
    }

    #[test]
    fn everything_on_the_wire_distinguishes_exchanges() {
        let tcp = Flow { transport: Transport::Tcp, ..flow() };
        let ids: HashSet<_> = [
            id(flow(), &seen(7, "a.test", 1, false)),
            id(flow(), &seen(8, "a.test", 1, false)),
            id(flow(), &seen(7, "b.test", 1, false)),
            id(flow(), &seen(7, "a.test", 28, false)),
            id(tcp, &seen(7, "a.test", 1, false)),
            id(
                Flow { client: ([192, 0, 2, 1], 40_001).into(), ..flow() },
                &seen(7, "a.test", 1, false),
            ),
            id(
                Flow { client: flow().server, server: flow().client, ..flow() },
                &seen(7, "a.test", 1, false),
            ),
            id_with(
                ExchangeKey::Secret([1, 2]),
                flow(),
                Sightings::single(&flow()),
                &seen(7, "a.test", 1, false),
            ),
        ]
        .into_iter()
        .map(|id| id.expect("a question").0)
        .collect();
        assert_eq!(ids.len(), 8);
        let message = Build::message(7, false).parse();
        assert_eq!(id(flow(), &Observation { message, ..Observation::default() }), None);
    }

    #[test]
    fn rules_that_hide_addresses_allow_no_guesses() {
        let with = |client_address| PrivacyConfig { client_address, ..PrivacyConfig::default() };
        let truncated = with(AddressRule::Truncate(PrefixLengths { ipv4: 24, ipv6: 48 }));
        assert!(matches!(ExchangeKey::of(&PrivacyConfig::default()), ExchangeKey::Public));
        for config in [truncated, with(AddressRule::Drop)] {
            assert!(matches!(ExchangeKey::of(&config), ExchangeKey::Missing));
        }
        let [one, other] = [1, 2].map(|last| {
            let mut key = [3; 32];
            key[31] = last;
            Key::from_content(&key).expect("a key").derive("a purpose")
        });
        assert_ne!(one, other);
    }
}
