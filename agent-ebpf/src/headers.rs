//! Finds the headers of a packet, and decides whether it may be DNS.
//!
//! [`parse`] is a pure function that runs in the kernel over XDP buffers and skbs and, in tests,
//! over slices. It reads through [`Frame`], so it cannot read past the packet, and it returns as
//! soon as a packet is known not to be DNS: the cost of most packets is an EtherType, a protocol
//! number and two ports.
//!
//! ```text
//!  Ethernet ─ 0…2 VLAN tags ─┬─ IPv4 with options ────────────┬─ UDP ─ payload
//!                            └─ IPv6 ─ 0…8 extension headers ─┼─ TCP ─ payload
//!                                                             └─ tunnel ─ again from the left
//! ```
//!
//! Tunnels and fragments are followed if requested ([`features`]). In a tunnel all fields except
//! for the VLAN tags are those of the inner packet; a tunnel in a tunnel is not followed.
//! [`fragments`](crate::fragments) decides whether to capture a fragment.
//!
//! The UDP length is ignored: every packet to a DNS port is captured, and the agent decides how
//! much of it is payload and how much is padding.
//!
//! All functions are `inline(always)`: a BPF program is verified as one function, and the verifier
//! follows bounds better without calls.

mod hash;
mod network;
mod tunnel;

use crate::{
    counter::Counter,
    record,
    settings::{PortSet, features},
};

pub use hash::{
    MULTICAST_DNS_PORT, MULTICAST_PORTS, datagram_hash, flow_hash, message_hash, ring_index,
    tcp_hash,
};
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

    /// MPLS, unicast and multicast (RFC 5332 §2).
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

/// Maximum number of IPv6 extension headers that are followed. RFC 8200 §4.1 recommends an order
/// with up to six before the upper layer.
pub const MAX_EXTENSION_HEADERS: u32 = 8;

/// Maximum of every offset: all of its bits may be set. Offsets are stored in 16 bits, and the
/// verifier allows as much in a packet pointer (`MAX_PACKET_OFF`).
pub const MAX_OFFSET: u32 = 0x7fff;

/// Maximum length of the headers that are followed, from Ethernet to the end of the longest TCP
/// header.
const MAX_HEADERS_LENGTH: u32 =
    ETHERNET_LENGTH + 2 * VLAN_TAG_LENGTH + IPV6_LENGTH + MAX_EXTENSION_HEADERS * 256 * 8 + 60;

/// Maximum start offset of a packet, so that no offset after it exceeds [`MAX_OFFSET`].
const MAX_START_OFFSET: u32 = MAX_OFFSET - MAX_HEADERS_LENGTH;

/// A packet from its link layer on, independent of the access to its bytes.
pub trait Frame {
    /// Returns the `N` bytes at `offset`; `None` if any of them is past the end.
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;

    /// Returns `offset`, which is at most [`MAX_OFFSET`]. The verifier follows each path through a
    /// loop to its end; in the kernel this function makes it forget which path led to an offset, so
    /// that it follows the later code once.
    fn scrub_path(&self, offset: u32) -> u32 {
        offset
    }

    /// Returns true if the packet has bytes that only another frame type can read.
    fn continues_elsewhere(&self) -> bool {
        false
    }
}

impl Frame for [u8] {
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let start = usize::try_from(offset).ok()?;
        self.get(start..start.checked_add(N)?)?.try_into().ok()
    }
}

/// An endpoint of a flow. IPv4 addresses are in the low 32 bits of the second word.
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
    /// EtherType of the header: IPv4, IPv6 or a VLAN tag. Those of IP also stand for packets
    /// without a link layer.
    pub ethertype: u16,
    /// Offset of that header from the first byte of the frame. A too large one is refused.
    pub offset: u32,
    /// Tags found so far.
    pub vlan: VlanTags,
}

/// The part of an IP datagram in a packet.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// The complete datagram.
    Whole,
    /// The first fragment of a datagram.
    First,
    /// A fragment without a transport header.
    Later,
}

/// The content of a packet. [`parse`] reports complete packets only if they carry DNS.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// It is to or from a DNS port.
    Dns,
    /// A first fragment to and from other ports.
    Other,
    /// A first fragment of a tunnel's packet.
    Tunnel,
    /// A later fragment: its content depends on the first one.
    Unknown,
}

/// The headers that [`parse`] has found in a packet. Offsets count from the first byte of the
/// frame. In a tunnel all fields except for `vlan` are those of the inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// VLAN tags of the frame on the wire, including those that the kernel stores beside the
    /// packet.
    pub vlan: VlanTags,
    /// 4 or 6.
    pub ip_version: u8,
    /// [`UDP`] or [`TCP`]. For a later fragment the protocol in its header, which may be an IPv6
    /// extension header.
    pub transport: u8,
    /// The part of a datagram.
    pub fragment: Fragment,
    /// The content of the datagram.
    pub content: Content,
    /// Offset of the IP header.
    pub network_offset: u16,
    /// Offset of the UDP or TCP header; in a later fragment, of its data.
    pub transport_offset: u16,
    /// Offset of the byte after the UDP or TCP header; `transport_offset` if there is none.
    pub payload_offset: u16,
    /// In a fragment, offset of the header with the fragment fields: the IPv4 header or the IPv6
    /// Fragment header. 0 otherwise.
    pub fragment_offset: u16,
    /// In a fragment, the identification of its datagram. 0 otherwise.
    pub identification: u32,
    /// Sender. A later fragment has no ports: they are 0.
    pub source: Endpoint,
    /// Receiver.
    pub destination: Endpoint,
    /// A number of [`record::tunnel`].
    pub tunnel: u8,
    /// Network identifier of VXLAN and Geneve, or GRE key.
    pub tunnel_id: Option<u32>,
    /// Identifier of the first DNS message (RFC 1035 §4.1.1) in a datagram over UDP; 0 elsewhere, and
    /// if the packet ends before it.
    pub message_id: u16,
}

/// The result of [`outer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outer {
    /// A packet without a tunnel.
    Packet(Headers),
    /// A tunnel's packet, to be passed to [`inner`].
    Tunnel(Inner),
}

/// Finds the headers of a packet to or from a DNS port in an Ethernet frame.
///
/// `offloaded_tci` is a VLAN tag that the kernel stores beside the packet; it is the outermost one.
/// `wanted` contains bits of [`features`]. `in_set` returns whether a port belongs to a set. For
/// [`PortSet::Dns`] it is called with the destination port first, then with the source port.
///
/// # Errors
/// Returns the counter of the reason why the packet is not captured.
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

/// Parses like [`parse`], from a known position in the frame on: after another link layer than
/// Ethernet, or without one.
///
/// # Errors
/// The same as [`parse`].
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

/// The first half of [`parse_from`]: up to the tunnel, if there is one. `start` must be near the
/// start of the frame.
///
/// # Errors
/// The same as [`parse`].
#[inline(always)]
pub fn outer<F, P>(frame: &F, start: Cursor, wanted: u32, in_set: &P) -> Result<Outer, Counter>
where
    F: Frame + ?Sized,
    P: Fn(PortSet, u16) -> bool,
{
    let start = start.skip_tags(frame)?;
    let mut network = match start.ethertype {
        number::ETHERTYPE_IPV4 => network::ipv4(frame, start.offset, wanted)?,
        number::ETHERTYPE_IPV6 => network::ipv6(frame, start.offset, wanted)?,
        other => return Err(network::not_ip(other)),
    };
    // Scrub it here and where offsets are used later: LLVM may keep an offset and another number in
    // one register, where older verifiers (6.1, 6.12) lose its bound.
    network.transport_offset = frame.scrub_path(network.transport_offset);
    let kind = tunnel::of_protocol(network.transport);
    if kind != record::tunnel::NONE {
        if !matches!(network.fragment, Fragment::Whole) {
            return Err(Counter::TunnelFragment);
        }
        let tunnel = tunnel::inner(frame, kind, &network, start.vlan)?;
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
            // Later fragments need the content of their datagram.
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
    let message_id = match (content, network.transport) {
        (Content::Dns, number::UDP) => message_id(frame, network.transport_offset)?,
        _ => 0,
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
        message_id,
    }))
}

/// Returns the identifier of the message in a datagram; 0 if the packet ends before it.
#[inline(always)]
fn message_id<F: Frame + ?Sized>(frame: &F, transport_offset: u32) -> Result<u16, Counter> {
    match frame.read(frame.scrub_path(transport_offset) + UDP_LENGTH) {
        Some(id) => Ok(u16::from_be_bytes(id)),
        // The caller reads it from all buffers.
        None if frame.continues_elsewhere() => Err(Counter::MalformedHeader),
        None => Ok(0),
    }
}

/// The second half of [`parse_from`]: the packet in a tunnel.
///
/// # Errors
/// The same as [`parse`].
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
        // It does not happen: no tunnel was requested.
        Outer::Tunnel(_) => Err(Counter::NotDns),
    }
}

/// Returns the bytes at `offset`, or the counter of a truncated header.
#[inline(always)]
fn read<F: Frame + ?Sized, const N: usize>(frame: &F, offset: u32) -> Result<[u8; N], Counter> {
    frame.read(offset).ok_or(Counter::MalformedHeader)
}

/// Converts the offset of a header to 16 bits, which suffice, as asserted at [`MAX_OFFSET`].
#[allow(clippy::cast_possible_truncation)]
#[inline(always)]
const fn header_offset(offset: u32) -> u16 {
    offset as u16
}

#[cfg(test)]
mod tests;
