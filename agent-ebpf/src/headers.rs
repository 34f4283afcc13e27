//! Where the headers of a packet are, and whether it may be DNS.
//!
//! [`parse`] is one pure function that runs in the kernel over XDP buffers and skbs and, in tests,
//! over slices. It reads through [`Frame`], so it cannot read past the packet, and it gives up as
//! soon as it knows that a packet is not DNS: what most packets cost is an EtherType, a protocol
//! number and two ports.
//!
//! ```text
//!  Ethernet ─ 0…2 VLAN tags ─┬─ IPv4 with options ────────────┬─ UDP ─ payload
//!                            └─ IPv6 ─ 0…8 extension headers ─┴─ TCP ─ payload
//! ```
//!
//! The UDP length is not looked at: whatever reaches a DNS port is captured, and the agent decides
//! how much of it is payload and how much is padding.
//!
//! Everything here is `inline(always)`: a BPF program is verified as one function, and the
//! verifier follows bounds better without calls.

use crate::counter::Counter;

mod number {
    //! Protocol numbers of the IANA registries "EtherTypes" and "Protocol Numbers".
    pub(super) const ETHERTYPE_IPV4: u16 = 0x0800;
    pub(super) const ETHERTYPE_IPV6: u16 = 0x86dd;
    /// IEEE 802.1Q customer tag.
    pub(super) const ETHERTYPE_VLAN: u16 = 0x8100;
    /// IEEE 802.1ad service tag.
    pub(super) const ETHERTYPE_QINQ: u16 = 0x88a8;
    /// Service tag of switches older than 802.1ad.
    pub(super) const ETHERTYPE_QINQ_OLD: u16 = 0x9100;

    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const TCP: u8 = 6;
    pub(super) const UDP: u8 = 17;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION: u8 = 60;
}

/// IP protocol number of TCP, as in [`Headers::transport`].
pub const TCP: u8 = number::TCP;
/// IP protocol number of UDP, as in [`Headers::transport`].
pub const UDP: u8 = number::UDP;

const ETHERNET_LENGTH: u32 = 14;
const VLAN_TAG_LENGTH: u32 = 4;
const IPV4_MIN_LENGTH: u32 = 20;
const IPV6_LENGTH: u32 = 40;
const UDP_LENGTH: u32 = 8;
const TCP_MIN_LENGTH: u32 = 20;

/// IPv6 extension headers followed, at most. RFC 8200 §4.1 recommends an order in which six can
/// stand before the upper layer.
pub const MAX_EXTENSION_HEADERS: u32 = 8;

/// Bound of every offset here: all bits of it may be set. Offsets are stored in 16 bits, and the
/// verifier allows as much in a packet pointer (`MAX_PACKET_OFF`).
pub const MAX_OFFSET: u32 = 0x7fff;

const _: () = assert!(
    ETHERNET_LENGTH + 2 * VLAN_TAG_LENGTH + IPV6_LENGTH + MAX_EXTENSION_HEADERS * 256 * 8 + 60
        <= MAX_OFFSET
);

/// A packet from its link layer on, however the bytes are reached.
pub trait Frame {
    /// The `N` bytes at `offset`; `None` if any of them lies past the end.
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;

    /// `offset` itself, which is at most [`MAX_OFFSET`]. The verifier follows each way through a
    /// loop to its end; in the kernel it is made to forget by which way an offset came about, so
    /// that it follows the rest once.
    fn forget_path(&self, offset: u32) -> u32 {
        offset
    }
}

impl Frame for [u8] {
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let start = usize::try_from(offset).ok()?;
        self.get(start..start.checked_add(N)?)?.try_into().ok()
    }
}

/// One end of a flow. IPv4 addresses stand in the low 32 bits of the second word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Address in network order of value: first word, second word.
    pub address: [u64; 2],
    /// UDP or TCP port.
    pub port: u16,
}

/// VLAN tags, outermost first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VlanTags {
    /// Number of tags: 0 to 2.
    pub depth: u8,
    /// Tag control information of the outer tag, valid if `depth > 0`.
    pub outer_tci: u16,
    /// Tag control information of the inner tag, valid if `depth > 1`.
    pub inner_tci: u16,
}

/// What [`parse`] found in a packet to or from a DNS port. Offsets count from the first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// VLAN tags, those that travel beside the packet included.
    pub vlan: VlanTags,
    /// 4 or 6.
    pub ip_version: u8,
    /// [`UDP`] or [`TCP`].
    pub transport: u8,
    /// First fragment of a datagram that goes on in other packets.
    pub first_fragment: bool,
    /// Offset of the IP header.
    pub network_offset: u16,
    /// Offset of the UDP or TCP header.
    pub transport_offset: u16,
    /// Offset of the byte after the UDP or TCP header.
    pub payload_offset: u16,
    /// Sender.
    pub source: Endpoint,
    /// Receiver.
    pub destination: Endpoint,
}

/// An IP header, read as far as it is needed to find the ports.
struct Network {
    version: u8,
    offset: u32,
    /// Bytes of the IP packet as its header states them; 0 in a GSO segment longer than 64 KiB
    /// and in a jumbogram (RFC 2675), whose length field cannot hold it.
    stated_length: u32,
    transport: u8,
    transport_offset: u32,
    first_fragment: bool,
}

/// Finds the headers of a packet to or from a DNS port.
///
/// `offloaded_tci` is a VLAN tag that the kernel keeps beside the packet; it is the outermost one.
/// `is_dns_port` is asked with the destination port first, then the source port.
///
/// # Errors
/// The counter to count the packet in: why it is not captured.
#[inline(always)]
pub fn parse<F, P>(
    frame: &F,
    offloaded_tci: Option<u16>,
    is_dns_port: P,
) -> Result<Headers, Counter>
where
    F: Frame + ?Sized,
    P: Fn(u16) -> bool,
{
    let mut vlan = VlanTags::default();
    if let Some(tci) = offloaded_tci {
        vlan.depth = 1;
        vlan.outer_tci = tci;
    }
    let (ethertype, network_offset) = link_layer(frame, &mut vlan)?;
    let network = match ethertype {
        number::ETHERTYPE_IPV4 => ipv4(frame, network_offset)?,
        number::ETHERTYPE_IPV6 => ipv6(frame, network_offset)?,
        _ => return Err(Counter::NotIp),
    };
    let [source_high, source_low, destination_high, destination_low] =
        read(frame, network.transport_offset)?;
    let source_port = u16::from_be_bytes([source_high, source_low]);
    let destination_port = u16::from_be_bytes([destination_high, destination_low]);
    if !is_dns_port(destination_port) && !is_dns_port(source_port) {
        return Err(Counter::NotDns);
    }
    let payload_offset = payload_offset(frame, &network)?;
    let (source, destination) = addresses(frame, &network)?;
    Ok(Headers {
        vlan,
        ip_version: network.version,
        transport: network.transport,
        first_fragment: network.first_fragment,
        network_offset: header_offset(network.offset),
        transport_offset: header_offset(network.transport_offset),
        payload_offset: header_offset(payload_offset),
        source: Endpoint { address: source, port: source_port },
        destination: Endpoint { address: destination, port: destination_port },
    })
}

/// A hash that is equal for both directions of a flow.
///
/// Rings are chosen by its high bits, so these must depend on every input bit. Not keyed: who
/// chooses addresses and ports can choose the ring.
#[inline(always)]
#[must_use]
pub fn flow_hash(one_end: &Endpoint, other_end: &Endpoint) -> u32 {
    // A sum, because it does not depend on the order, and unlike XOR does not cancel equal ends.
    let sum = endpoint_hash(one_end).wrapping_add(endpoint_hash(other_end));
    (fold(sum ^ (sum >> 32)) >> 32) as u32
}

/// Ring of a flow among `ring_count`: scales the hash, which is cheaper than a remainder.
#[inline(always)]
#[must_use]
pub fn ring_index(flow_hash: u32, ring_count: u32) -> u32 {
    ((u64::from(flow_hash) * u64::from(ring_count)) >> 32) as u32
}

#[inline(always)]
fn endpoint_hash(endpoint: &Endpoint) -> u64 {
    // The port stands above the 32 bits of an IPv4 address.
    let port = u64::from(endpoint.port) << 40;
    fold(fold(endpoint.address[0]) ^ endpoint.address[1] ^ port)
}

/// One round of multiply and fold, with the multiplier of MurmurHash3's 64-bit finaliser.
#[inline(always)]
const fn fold(value: u64) -> u64 {
    let product = value.wrapping_mul(0xff51_afd7_ed55_8ccd);
    product ^ (product >> 32)
}

/// The bytes at `offset`, or the reason that there are none.
#[inline(always)]
fn read<F: Frame + ?Sized, const N: usize>(frame: &F, offset: u32) -> Result<[u8; N], Counter> {
    frame.read(offset).ok_or(Counter::MalformedHeader)
}

/// Skips the Ethernet header and the tags: the EtherType behind them and the offset of its header.
#[inline(always)]
fn link_layer<F: Frame + ?Sized>(frame: &F, vlan: &mut VlanTags) -> Result<(u16, u32), Counter> {
    let mut ethertype = u16::from_be_bytes(read(frame, ETHERNET_LENGTH - 2)?);
    let mut offset = ETHERNET_LENGTH;
    for _ in 0..3 {
        if !is_vlan(ethertype) {
            return Ok((ethertype, offset));
        }
        let [tci_high, tci_low, type_high, type_low] = read(frame, offset)?;
        let tci = u16::from_be_bytes([tci_high, tci_low]);
        match vlan.depth {
            0 => vlan.outer_tci = tci,
            1 => vlan.inner_tci = tci,
            _ => return Err(Counter::VlanDepth),
        }
        vlan.depth += 1;
        ethertype = u16::from_be_bytes([type_high, type_low]);
        offset += VLAN_TAG_LENGTH;
    }
    Err(Counter::VlanDepth)
}

#[inline(always)]
const fn is_vlan(ethertype: u16) -> bool {
    matches!(
        ethertype,
        number::ETHERTYPE_VLAN | number::ETHERTYPE_QINQ | number::ETHERTYPE_QINQ_OLD
    )
}

/// RFC 791 §3.1. Reads the 12 bytes before the addresses.
#[inline(always)]
fn ipv4<F: Frame + ?Sized>(frame: &F, offset: u32) -> Result<Network, Counter> {
    let header: [u8; 12] = read(frame, offset)?;
    let header_length = u32::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || header_length < IPV4_MIN_LENGTH {
        return Err(Counter::MalformedHeader);
    }
    let transport = header[9];
    if transport != number::UDP && transport != number::TCP {
        return Err(Counter::NotDns);
    }
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    if fragment & 0x1fff != 0 {
        return Err(Counter::LaterFragment);
    }
    Ok(Network {
        version: 4,
        offset,
        stated_length: u32::from(u16::from_be_bytes([header[2], header[3]])),
        transport,
        transport_offset: offset + header_length,
        first_fragment: fragment & 0x2000 != 0,
    })
}

/// RFC 8200 §3 and §4. Reads the 8 bytes before the addresses, then the extension headers.
#[inline(always)]
fn ipv6<F: Frame + ?Sized>(frame: &F, offset: u32) -> Result<Network, Counter> {
    let header: [u8; 8] = read(frame, offset)?;
    if header[0] >> 4 != 6 {
        return Err(Counter::MalformedHeader);
    }
    let payload_length = u32::from(u16::from_be_bytes([header[4], header[5]]));
    let mut next = header[6];
    let mut next_offset = offset + IPV6_LENGTH;
    let mut first_fragment = false;
    let mut followed = 0;
    while next != number::UDP && next != number::TCP {
        if !is_extension(next) {
            return Err(Counter::NotDns);
        }
        if followed == MAX_EXTENSION_HEADERS {
            return Err(Counter::ExtensionLimit);
        }
        followed += 1;
        let extension: [u8; 4] = read(frame, next_offset)?;
        let [following, units, fragment_high, fragment_low] = extension;
        let length = match next {
            number::FRAGMENT => {
                let fragment = u16::from_be_bytes([fragment_high, fragment_low]);
                if fragment & 0xfff8 != 0 {
                    return Err(later_ipv6_fragment(following));
                }
                // "More fragments"; without it this is an atomic fragment: whole (RFC 6946).
                first_fragment = fragment & 1 != 0;
                8
            }
            // RFC 4302 §2.2: in units of four bytes, minus two.
            number::AUTHENTICATION => (u32::from(units) + 2) * 4,
            _ => (u32::from(units) + 1) * 8,
        };
        next_offset = frame.forget_path(next_offset + length);
        next = following;
    }
    Ok(Network {
        version: 6,
        offset,
        stated_length: match payload_length {
            0 => 0,
            _ => IPV6_LENGTH + payload_length,
        },
        transport: next,
        transport_offset: next_offset,
        first_fragment,
    })
}

/// A fragment header names the first header of the datagram's fragmentable part, so a later
/// fragment of something else than UDP or TCP can be told, unless options come first.
#[inline(always)]
const fn later_ipv6_fragment(first_header: u8) -> Counter {
    if first_header == number::UDP || first_header == number::TCP || is_extension(first_header) {
        Counter::LaterFragment
    } else {
        Counter::NotDns
    }
}

#[inline(always)]
const fn is_extension(next_header: u8) -> bool {
    matches!(
        next_header,
        number::HOP_BY_HOP
            | number::ROUTING
            | number::FRAGMENT
            | number::AUTHENTICATION
            | number::DESTINATION
    )
}

/// End of the transport header, which must lie within the frame and within the IP packet: what
/// follows the IP packet is padding of the link.
#[inline(always)]
fn payload_offset<F: Frame + ?Sized>(frame: &F, network: &Network) -> Result<u32, Counter> {
    let transport_length = if network.transport == number::TCP {
        let [data_offset]: [u8; 1] = read(frame, network.transport_offset + 12)?;
        let length = u32::from(data_offset >> 4) * 4;
        if length < TCP_MIN_LENGTH {
            return Err(Counter::MalformedHeader);
        }
        length
    } else {
        UDP_LENGTH
    };
    let end = network.transport_offset + transport_length;
    let [_last]: [u8; 1] = read(frame, end - 1)?;
    if network.stated_length != 0 && end - network.offset > network.stated_length {
        return Err(Counter::MalformedHeader);
    }
    Ok(end)
}

/// Source and destination addresses, as in [`Endpoint::address`].
#[inline(always)]
fn addresses<F: Frame + ?Sized>(
    frame: &F,
    network: &Network,
) -> Result<([u64; 2], [u64; 2]), Counter> {
    let word = |offset: u32| Ok(u64::from_be_bytes(read(frame, offset)?));
    if network.version == 4 {
        let both = word(network.offset + 12)?;
        Ok(([0, both >> 32], [0, both & 0xffff_ffff]))
    } else {
        let at = network.offset + 8;
        Ok(([word(at)?, word(at + 8)?], [word(at + 16)?, word(at + 24)?]))
    }
}

/// Offsets of headers fit 16 bits, as asserted at [`MAX_OFFSET`].
#[allow(clippy::cast_possible_truncation)]
#[inline(always)]
const fn header_offset(offset: u32) -> u16 {
    offset as u16
}

#[cfg(test)]
mod tests;
