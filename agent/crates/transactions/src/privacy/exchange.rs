//! The identifier of an exchange, which is the same at every node that sees it.
//!
//! It is a hash of what is on the wire after address translation on the node of the client, and
//! before any on the node of the server. SipHash-1-3 with 128 bits takes some 20 ns, BLAKE3 six
//! times as long. With a public key, whoever sends queries can construct two that share an
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
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::config::{AddressRule, PrivacyConfig};
use crate::pair::Transaction;

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
        let sightings = &transaction.sightings;
        let mut octets = [0; 43];
        let parts = octets.split_at_mut(18);
        write_end(parts.0, sightings.client);
        let (server, rest) = parts.1.split_at_mut(18);
        write_end(server, sightings.server);
        let [id, qtype, qclass] =
            [message.id, question.qtype, question.qclass].map(u16::to_be_bytes);
        rest[..2].copy_from_slice(&id);
        rest[2..4].copy_from_slice(&qtype);
        rest[4..6].copy_from_slice(&qclass);
        rest[6] = transaction.flow.transport as u8;
        let mut hash = SipHasher13::new_with_keys(one, other);
        hash.write(&octets);
        hash.write(question.name.as_bytes());
        Some(ExchangeId(hash.finish128().as_bytes()))
    }
}

/// Writes an address as 16 octets, IPv4 in IPv6 (RFC 4291 §2.5.5.2), and the port.
fn write_end(octets: &mut [u8], end: SocketAddr) {
    let address = match end.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    octets[..16].copy_from_slice(&address.octets());
    octets[16..].copy_from_slice(&end.port().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use tap53_dns::{Flow, Transport, build::Build};

    use super::*;
    use crate::{
        pair::{Anomalies, Exchange, Observation, RecordId, Sightings},
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
        assert_eq!(HEXLOWER.encode(&id), "e0bce59bcf50747d1af9f6d6d588483f");
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
