//! Computes the hash that selects the ring of a packet.
//!
//! One worker must see the query and the response of an exchange, and both before and after address
//! translation: addresses change there, and over UDP the client's port too (masquerade). So a
//! message over UDP goes by its identifier, which no translation changes. A TCP segment has none;
//! it goes by the client's port.

use super::{Content, Endpoint, Fragment, Headers, UDP};

/// Multicast DNS (RFC 6762 §3).
pub const MULTICAST_DNS_PORT: u16 = 5_353;

/// Multicast DNS and LLMNR (RFC 4795 §2.5).
pub const MULTICAST_PORTS: [u16; 2] = [MULTICAST_DNS_PORT, 5_355];

/// Returns a hash that is equal for both directions of a flow, and for a query to a multicast group
/// and its responses, which come from other addresses but from the same port.
///
/// Its high bits select the ring, so they must depend on every input bit. It has no key: a party
/// that chooses addresses and ports can choose the ring.
#[inline(always)]
#[must_use]
pub fn flow_hash(one_end: &Endpoint, other_end: &Endpoint) -> u32 {
    // A sum does not depend on the order, and unlike XOR does not cancel equal endpoints.
    let sum = endpoint_hash(one_end).wrapping_add(endpoint_hash(other_end));
    (fold(sum ^ (sum >> 32)) >> 32) as u32
}

/// Returns a hash that is equal for a message over UDP and its response, before and after address
/// translation. Like [`flow_hash`] it has no key.
#[inline(always)]
#[must_use]
pub fn message_hash(source: &Endpoint, destination: &Endpoint, id: u16) -> u32 {
    // Only between hosts that speak Multicast DNS in full, a response does not repeat the identifier
    // (RFC 6762 §18.1).
    if source.port == MULTICAST_DNS_PORT && destination.port == MULTICAST_DNS_PORT {
        return flow_hash(source, destination);
    }
    (fold(u64::from(id) << 40 | 1) >> 32) as u32
}

/// Returns a hash that is equal for both directions of a TCP connection, and before and after a
/// translation that keeps the client's port, taken to be the larger one.
#[inline(always)]
#[must_use]
pub fn tcp_hash(source: &Endpoint, destination: &Endpoint) -> u32 {
    let port = if source.port > destination.port { source.port } else { destination.port };
    (fold(u64::from(port) << 40) >> 32) as u32
}

/// Returns a hash that is equal for all fragments of a datagram, from fields that each of them has.
///
/// `protocol` is that of the IPv4 header. It is 0 for IPv6: the headers of the fragments may
/// disagree on it (RFC 8200 §4.5).
#[inline(always)]
#[must_use]
pub fn datagram_hash(
    source: &Endpoint,
    destination: &Endpoint,
    protocol: u8,
    identification: u32,
) -> u32 {
    let addresses = fold(fold(source.address[0]) ^ source.address[1])
        ^ fold(destination.address[0] ^ destination.address[1]);
    let number = u64::from(identification) << 8 | u64::from(protocol);
    (fold(addresses ^ number) >> 32) as u32
}

impl Headers {
    /// Returns the hash that selects the packet's ring: that of its message or connection, or of its
    /// datagram if fragments are captured, since later fragments have neither.
    #[inline(always)]
    #[must_use]
    pub fn ring_hash(&self, fragments_are_joined: bool) -> u32 {
        match self.fragment {
            Fragment::First | Fragment::Later if fragments_are_joined => datagram_hash(
                &self.source,
                &self.destination,
                self.datagram_protocol(),
                self.identification,
            ),
            _ => match (self.content, self.transport) {
                (Content::Dns, UDP) => {
                    message_hash(&self.source, &self.destination, self.message_id)
                }
                (Content::Dns, _) => tcp_hash(&self.source, &self.destination),
                _ => flow_hash(&self.source, &self.destination),
            },
        }
    }

    /// Returns the protocol as far as it identifies datagrams: see [`datagram_hash`].
    #[inline(always)]
    #[must_use]
    pub const fn datagram_protocol(&self) -> u8 {
        if self.ip_version == 4 { self.transport } else { 0 }
    }
}

/// Returns the ring of a flow or a datagram among `ring_count`: it scales the hash, which is
/// cheaper than a remainder.
#[inline(always)]
#[must_use]
pub fn ring_index(flow_hash: u32, ring_count: u32) -> u32 {
    ((u64::from(flow_hash) * u64::from(ring_count)) >> 32) as u32
}

#[inline(always)]
fn endpoint_hash(endpoint: &Endpoint) -> u64 {
    // The port is above the 32 bits of an IPv4 address.
    let port = u64::from(endpoint.port) << 40;
    if endpoint.port == MULTICAST_PORTS[0] || endpoint.port == MULTICAST_PORTS[1] {
        return fold(port);
    }
    fold(fold(endpoint.address[0]) ^ endpoint.address[1] ^ port)
}

/// One round of multiply and fold, with the multiplier of MurmurHash3's 64-bit finaliser.
#[inline(always)]
const fn fold(value: u64) -> u64 {
    let product = value.wrapping_mul(0xff51_afd7_ed55_8ccd);
    product ^ (product >> 32)
}
