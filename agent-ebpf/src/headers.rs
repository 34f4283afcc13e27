//! Where the headers of a packet are, and whether it may be DNS.
//!
//! [`parse`] is one pure function that runs in the kernel over XDP buffers and skbs and, in tests,
//! over slices. It reads through [`Frame`], so it cannot read past the packet, and it gives up as
//! soon as it knows that a packet is not DNS: what most packets cost is an EtherType, a protocol
//! number and two ports.
//!
//! ```text
//!  Ethernet ─ 0…2 VLAN tags ─┬─ IPv4 with options ────────────┬─ UDP ─ payload
//!                            └─ IPv6 ─ 0…8 extension headers ─┼─ TCP ─ payload
//!                                                             └─ tunnel ─ once more from the left
//! ```
//!
//! Tunnels and fragments are followed if asked for ([`features`]). In a tunnel everything but the
//! VLAN tags is told of the inner packet; a tunnel in a tunnel is not followed. Whether a fragment is
//! worth capturing is for [`fragments`](crate::fragments) to say.
//!
//! The UDP length is not looked at: whatever reaches a DNS port is captured, and the agent decides
//! how much of it is payload and how much is padding.
//!
//! Everything here is `inline(always)`: a BPF program is verified as one function, and the
//! verifier follows bounds better without calls.

mod hash;
mod network;
mod tunnel;

use crate::{
    counter::Counter,
    record,
    settings::{PortSet, features},
};

pub use hash::{MULTICAST_DNS_PORT, MULTICAST_PORTS, datagram_hash, flow_hash, ring_index};
pub use tunnel::Inner;

mod number {
    //! Protocol numbers of the IANA registries "EtherTypes" and "Protocol Numbers".
    pub(super) const ETHERTYPE_IPV4: u16 = 0x0800;
    pub(super) const ETHERTYPE_IPV6: u16 = 0x86dd;
    /// IEEE 802.1Q customer tag.
    pub(super) const ETHERTYPE_VLAN: u16 = 0x8100;
    /// IEEE 802.1ad service tag.
    pub(super) const ETHERTYPE_QINQ: u16 = 0x88a8;
    /// Transparent Ethernet Bridging: an Ethernet frame (RFC 7637 §3.2, RFC 8926 §3.4).
    pub(super) const ETHERTYPE_ETHERNET: u16 = 0x6558;
    /// Service tag of switches older than 802.1ad.
    pub(super) const ETHERTYPE_QINQ_OLD: u16 = 0x9100;

    /// MPLS, to one and to many (RFC 5332 §2).
    pub(super) const ETHERTYPE_MPLS: u16 = 0x8847;
    pub(super) const ETHERTYPE_MPLS_UPSTREAM: u16 = 0x8848;
    /// The session stage of PPPoE (RFC 2516 §4).
    pub(super) const ETHERTYPE_PPPOE_SESSION: u16 = 0x8864;

    pub(super) const HOP_BY_HOP: u8 = 0;
    /// IPv4 in IP (RFC 2003).
    pub(super) const IPV4: u8 = 4;
    pub(super) const TCP: u8 = 6;
    pub(super) const UDP: u8 = 17;
    /// IPv6 in IP (RFC 4213).
    pub(super) const IPV6: u8 = 41;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const GRE: u8 = 47;
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
/// IPv6 Fragment header.
const FRAGMENT_LENGTH: u32 = 8;
const UDP_LENGTH: u32 = 8;
const TCP_MIN_LENGTH: u32 = 20;

/// IPv6 extension headers followed, at most. RFC 8200 §4.1 recommends an order in which six can
/// stand before the upper layer.
pub const MAX_EXTENSION_HEADERS: u32 = 8;

/// Bound of every offset here: all bits of it may be set. Offsets are stored in 16 bits, and the
/// verifier allows as much in a packet pointer (`MAX_PACKET_OFF`).
pub const MAX_OFFSET: u32 = 0x7fff;

/// Longest chain of headers that is followed, from Ethernet to the end of the longest TCP header.
const MAX_HEADERS_LENGTH: u32 =
    ETHERNET_LENGTH + 2 * VLAN_TAG_LENGTH + IPV6_LENGTH + MAX_EXTENSION_HEADERS * 256 * 8 + 60;

/// Where a packet may begin at most, so that [`MAX_OFFSET`] is kept whatever follows.
const MAX_START_OFFSET: u32 = MAX_OFFSET - MAX_HEADERS_LENGTH;

/// A packet from its link layer on, however the bytes are reached.
pub trait Frame {
    /// The `N` bytes at `offset`; `None` if any of them lies past the end.
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;

    /// `offset` itself, which is at most [`MAX_OFFSET`]. The verifier follows each way through a
    /// loop to its end; in the kernel it is made to forget by which way an offset came about, so
    /// that it follows the rest once.
    fn scrub_path(&self, offset: u32) -> u32 {
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

/// The position at which parsing begins: a header whose EtherType is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// What begins there: IPv4, IPv6 or a VLAN tag. The EtherTypes of IP also stand for packets
    /// without a link layer.
    pub ethertype: u16,
    /// Offset of that header from the first byte of the frame. Too large a one is refused.
    pub offset: u32,
    /// Tags found so far.
    pub vlan: VlanTags,
}

/// Which part of an IP datagram a packet is.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// All of it.
    Whole,
    /// The first part of one that goes on in other packets.
    First,
    /// A part without a transport header.
    Later,
}

/// What a packet carries. Of whole packets, [`parse`] reports those that carry DNS only.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// It goes to or from a DNS port.
    Dns,
    /// A first fragment that goes to and from other ports.
    Other,
    /// A first fragment of a tunnel's packet.
    Tunnel,
    /// A later fragment: the first one knows.
    Unknown,
}

/// What [`parse`] found in a packet. Offsets count from the first byte of the frame; in a tunnel
/// they are, as everything but `vlan`, those of the inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// VLAN tags of the frame on the wire, those that travel beside the packet included.
    pub vlan: VlanTags,
    /// 4 or 6.
    pub ip_version: u8,
    /// [`UDP`] or [`TCP`]. Of a later fragment what its header states, perhaps an IPv6 extension
    /// header.
    pub transport: u8,
    /// Which part of a datagram this is.
    pub fragment: Fragment,
    /// What the datagram carries.
    pub content: Content,
    /// Offset of the IP header.
    pub network_offset: u16,
    /// Offset of the UDP or TCP header; of a later fragment, its part of the datagram.
    pub transport_offset: u16,
    /// Offset of the byte after the UDP or TCP header; where none was read, `transport_offset`.
    pub payload_offset: u16,
    /// Of a fragment: offset of the header that says so, the IPv4 header or the IPv6 Fragment
    /// header. 0 otherwise.
    pub fragment_offset: u16,
    /// Of a fragment: its datagram's number. 0 otherwise.
    pub identification: u32,
    /// Sender. A later fragment has no ports: they are 0.
    pub source: Endpoint,
    /// Receiver.
    pub destination: Endpoint,
    /// A number of [`record::tunnel`].
    pub tunnel: u8,
    /// Network identifier of VXLAN and Geneve, or GRE key.
    pub tunnel_id: Option<u32>,
}

/// What [`outer`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outer {
    /// A packet that goes no deeper.
    Packet(Headers),
    /// A tunnel's packet, to go on with in [`inner`].
    Tunnel(Inner),
}

/// Finds the headers of a packet to or from a DNS port in an Ethernet frame.
///
/// `offloaded_tci` is a VLAN tag that the kernel keeps beside the packet; it is the outermost one.
/// `wanted` are bits of [`features`]. `in_set` is asked whether a port belongs to a set, about
/// [`PortSet::Dns`] with the destination port first, then the source port.
///
/// # Errors
/// The counter to count the packet in: why it is not captured.
#[inline(always)]
pub fn parse<F, P>(
    frame: &F,
    offloaded_tci: Option<u16>,
    wanted: u32,
    in_set: P,
) -> Result<Headers, Counter>
where
    F: Frame + ?Sized,
    P: Fn(PortSet, u16) -> bool,
{
    parse_from(frame, Cursor::ethernet(frame, offloaded_tci)?, wanted, in_set)
}

/// As [`parse`], from a place in the frame on that the caller knows: behind another link layer than
/// Ethernet, or behind none.
///
/// # Errors
/// As [`parse`].
#[inline(always)]
pub fn parse_from<F, P>(
    frame: &F,
    start: Cursor,
    wanted: u32,
    in_set: P,
) -> Result<Headers, Counter>
where
    F: Frame + ?Sized,
    P: Fn(PortSet, u16) -> bool,
{
    if start.offset > MAX_START_OFFSET {
        return Err(Counter::MalformedHeader);
    }
    match outer(frame, start, wanted, &in_set)? {
        Outer::Packet(headers) => Ok(headers),
        Outer::Tunnel(tunnel) => inner(frame, &tunnel, wanted, &in_set),
    }
}

/// The first half of [`parse_from`]: up to the tunnel, if it is one. `start` must be near the
/// beginning of the frame.
///
/// # Errors
/// As [`parse`].
#[inline(always)]
pub fn outer<F, P>(frame: &F, start: Cursor, wanted: u32, in_set: &P) -> Result<Outer, Counter>
where
    F: Frame + ?Sized,
    P: Fn(PortSet, u16) -> bool,
{
    let start = start.behind_tags(frame)?;
    let mut network = match start.ethertype {
        number::ETHERTYPE_IPV4 => network::ipv4(frame, start.offset, wanted)?,
        number::ETHERTYPE_IPV6 => network::ipv6(frame, start.offset, wanted)?,
        other => return Err(network::not_ip(other)),
    };
    // Here and where offsets are used later: LLVM may carry one together with another number in a
    // register, where older verifiers (6.1, 6.12) lose its bound.
    network.transport_offset = frame.scrub_path(network.transport_offset);
    if network.transport == number::GRE {
        if !matches!(network.fragment, Fragment::Whole) {
            return Err(Counter::TunnelFragment);
        }
        let tunnel = tunnel::inner(frame, record::tunnel::GRE, &network, start.vlan)?;
        return Ok(Outer::Tunnel(tunnel));
    }
    let (mut source_port, mut destination_port) = (0, 0);
    let content = if matches!(network.fragment, Fragment::Later) {
        if wanted & features::FRAGMENTS == 0 {
            return Err(Counter::LaterFragment);
        }
        let [_first]: [u8; 1] = read(frame, network.transport_offset)?;
        Content::Unknown
    } else {
        let [source_high, source_low, destination_high, destination_low] =
            read(frame, network.transport_offset)?;
        source_port = u16::from_be_bytes([source_high, source_low]);
        destination_port = u16::from_be_bytes([destination_high, destination_low]);
        if in_set(PortSet::Dns, destination_port) || in_set(PortSet::Dns, source_port) {
            Content::Dns
        } else {
            let kind = match network.transport {
                number::UDP => tunnel::of_udp_port(destination_port, wanted, in_set),
                _ => record::tunnel::NONE,
            };
            let is_whole = matches!(network.fragment, Fragment::Whole);
            let is_tunnel = kind != record::tunnel::NONE;
            if is_whole && is_tunnel {
                let tunnel = tunnel::inner(frame, kind, &network, start.vlan)?;
                return Ok(Outer::Tunnel(tunnel));
            }
            // Later fragments may ask what their datagram was.
            match (is_tunnel, !is_whole && wanted & features::FRAGMENTS != 0) {
                (true, true) => Content::Tunnel,
                (true, false) => return Err(Counter::TunnelFragment),
                (false, true) => Content::Other,
                (false, false) => return Err(Counter::NotDns),
            }
        }
    };
    let payload_offset = match content {
        Content::Dns => network.payload_offset(frame)?,
        _ => network.transport_offset,
    };
    let (fragment_offset, identification) = match network.fragment {
        Fragment::Whole => (0, 0),
        _ => (network.fragment_offset, network.identification(frame)?),
    };
    let (source, destination) = network.addresses(frame)?;
    Ok(Outer::Packet(Headers {
        vlan: start.vlan,
        ip_version: network.version,
        transport: network.transport,
        fragment: network.fragment,
        content,
        network_offset: header_offset(network.offset),
        transport_offset: header_offset(network.transport_offset),
        payload_offset: header_offset(payload_offset),
        fragment_offset: header_offset(fragment_offset),
        identification,
        source: Endpoint { address: source, port: source_port },
        destination: Endpoint { address: destination, port: destination_port },
        tunnel: record::tunnel::NONE,
        tunnel_id: None,
    }))
}

/// The second half of [`parse_from`]: the packet in a tunnel.
///
/// # Errors
/// As [`parse`].
#[inline(always)]
pub fn inner<F, P>(frame: &F, tunnel: &Inner, wanted: u32, in_set: &P) -> Result<Headers, Counter>
where
    F: Frame + ?Sized,
    P: Fn(PortSet, u16) -> bool,
{
    let start = tunnel.start(frame)?;
    match outer(frame, start, wanted & features::FRAGMENTS, in_set)? {
        Outer::Packet(headers) => Ok(Headers {
            vlan: tunnel.vlan,
            tunnel: tunnel.kind,
            tunnel_id: tunnel.has_id.then_some(tunnel.id),
            ..headers
        }),
        // Does not happen: no tunnel was asked for.
        Outer::Tunnel(_) => Err(Counter::NotDns),
    }
}

/// The bytes at `offset`, or the reason that there are none.
#[inline(always)]
fn read<F: Frame + ?Sized, const N: usize>(frame: &F, offset: u32) -> Result<[u8; N], Counter> {
    frame.read(offset).ok_or(Counter::MalformedHeader)
}

/// Offsets of headers fit 16 bits, as asserted at [`MAX_OFFSET`].
#[allow(clippy::cast_possible_truncation)]
#[inline(always)]
const fn header_offset(offset: u32) -> u16 {
    offset as u16
}

#[cfg(test)]
mod tests;
