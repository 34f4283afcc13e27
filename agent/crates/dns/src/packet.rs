//! Decodes a captured packet: its origin, and the datagram or fragment that it carries.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tap53_ebpf::{
    headers,
    record::{self, RecordHeader, Sender, flags},
    settings::Direction,
};
use tap53_reasons::reasons;

use crate::flow::{Flow, Transport, Tunnel, TunnelKind};

reasons! {
    /// Why a captured packet yields no message.
    pub enum PacketLoss {
        /// The ring item's header contradicts its bytes: kernel program and agent are not of one build.
        RecordMismatch = "record_mismatch", Lost, "rebuild with `cargo xtask build-ebpf`; report it";
        /// The IP or UDP lengths contradict the packet.
        MalformedPacket = "malformed_packet", Lost, "look for who sends it; usually hostile";
        /// The snap length cut a TCP segment, a fragment, or a message within its header.
        CutBySnapLength = "cut_by_snap_length", Lost, "raise `capture.snap_length`, or that of the capture file";
        /// The message is too short for a DNS header (12 bytes, RFC 1035 §4.1.1).
        ShorterThanHeader = "shorter_than_header", Lost, "look for another protocol on the port; may be hostile";
        /// The TCP segment carries no payload, such as a handshake or an acknowledgement.
        TcpWithoutPayload = "tcp_without_payload", Ignored;
    }
}

/// Frames of replayed files, packed in one word: the file's index above the frame's number.
pub mod frames {
    const NUMBER_BITS: u32 = 40;
    const MOST_FILES: u64 = 1 << (u64::BITS - NUMBER_BITS);

    /// Packs the number of a frame, from 1 on, and the index of its file. Files beyond 2²⁴ share
    /// the last index.
    #[must_use]
    pub const fn of(file: usize, number: u64) -> u64 {
        let file = if file as u64 >= MOST_FILES { MOST_FILES - 1 } else { file as u64 };
        file << NUMBER_BITS | number & ((1 << NUMBER_BITS) - 1)
    }

    /// Returns the frame's number in its file; 0 in a live capture.
    #[must_use]
    pub const fn number(frame: u64) -> u64 {
        frame & ((1 << NUMBER_BITS) - 1)
    }

    /// Returns the index of its file.
    #[must_use]
    pub const fn file(frame: u64) -> usize {
        (frame >> NUMBER_BITS) as usize
    }
}

/// Origin of a packet: place and time of its capture, and its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Capture time: CLOCK_MONOTONIC nanoseconds, or for a replayed frame nanoseconds since 1970
    /// UTC.
    pub captured_at_ns: u64,
    /// Interface of the hook that captured it.
    pub ifindex: u32,
    /// Ingress or egress of that interface.
    pub direction: Direction,
    /// Packed frame number in a replayed file, see [`frames`]; 0 elsewhere.
    pub frame: u64,
    /// VLAN identifier (12 bits) of the outer tag.
    pub vlan_id: Option<u16>,
    /// VLAN identifier of the inner tag (802.1ad).
    pub vlan_inner_id: Option<u16>,
    /// False if the hook could not see whether the packet was tagged on the wire: without a tag in
    /// the packet, XDP cannot distinguish an untagged packet from one whose tag the device
    /// stripped.
    pub vlan_visible: bool,
    /// The tunnel that contained it; the addresses are the inner ones.
    pub tunnel: Option<Tunnel>,
    /// Sender.
    pub source: IpAddr,
    /// Receiver.
    pub destination: IpAddr,
    /// Identification of the IPv4 packet (RFC 791 §3.1). Two packets of a sender share it only if
    /// it is 0, as in packets that are never fragmented (RFC 6864 §4.1); 0 in IPv6.
    pub identification: u16,
    /// Time to live (RFC 791 §3.1) or hop limit (RFC 8200 §3) at the hook.
    pub hop_limit: u8,
    /// The socket that sent it.
    pub sender: Sender,
}

/// A captured packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The origin of the packet.
    pub origin: Origin,
    /// The content of the packet.
    pub content: Content<'a>,
}

/// The content of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// A complete datagram or segment.
    Datagram(Datagram<'a>),
    /// A fragment of one.
    Fragment(Part<'a>),
}

/// A UDP datagram or TCP segment, its payload trimmed to the length in the headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Sender's port.
    pub source_port: u16,
    /// Receiver's port.
    pub destination_port: u16,
    /// The other fields of its header.
    pub header: TransportHeader,
    /// UDP or TCP payload.
    pub payload: &'a [u8],
    /// Number of bytes after the payload that the snap length cut off; 0 for TCP, whose segments
    /// are captured completely or not at all.
    pub missing: usize,
}

/// The relevant fields of a transport header besides the ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportHeader {
    /// UDP.
    Udp {
        /// Payload size of each datagram in the payload, in bytes; 0 if it is a single datagram.
        gso_size: u16,
    },
    /// TCP (RFC 9293 §3.1).
    Tcp {
        /// Sequence number.
        sequence: u32,
        /// Acknowledgement number, valid with ACK.
        acknowledgement: u32,
        /// FIN, SYN, RST, PSH, ACK, … from the lowest bit on.
        flags: u8,
    },
}

/// An IP fragment (RFC 791 §3.1, RFC 8200 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// Protocol number in the fragment's header: UDP, TCP, or an IPv6 extension header.
    pub protocol: u8,
    /// Identification: 16 bits in IPv4, 32 in IPv6.
    pub identification: u32,
    /// Offset of the data in the datagram, in bytes.
    pub offset: u32,
    /// True if more fragments follow.
    pub more: bool,
    /// The data.
    pub data: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Parses a packet at the offsets that the kernel program found. `frame` is its number in a
    /// replayed file, 0 elsewhere.
    ///
    /// # Errors
    /// Returns the reason why the packet has no content.
    #[inline]
    pub fn parse(header: &RecordHeader, bytes: &'a [u8], frame: u64) -> Result<Self, PacketLoss> {
        Self::parse_whole(header, bytes, frame).map_err(|reason| match reason {
            // The kernel program parsed the headers in the packet, where they may be after the cut.
            PacketLoss::RecordMismatch | PacketLoss::MalformedPacket
                if header.has(flags::TRUNCATED) =>
            {
                PacketLoss::CutBySnapLength
            }
            other => other,
        })
    }

    #[inline]
    fn parse_whole(header: &RecordHeader, bytes: &'a [u8], frame: u64) -> Result<Self, PacketLoss> {
        let direction = Direction::from_u8(header.direction).ok_or(PacketLoss::RecordMismatch)?;
        let network =
            bytes.get(usize::from(header.network_offset)..).ok_or(PacketLoss::RecordMismatch)?;
        let (source, destination, network_length) = addresses(header.ip_version, network)?;
        let network_end = usize::from(header.network_offset) + network_length;
        let tunnel = tunnel(header)?;
        let content = if header.has(flags::FIRST_FRAGMENT) || header.has(flags::LATER_FRAGMENT) {
            Content::Fragment(part(header, bytes, network_end)?)
        } else {
            // The captured part of a message is still useful.
            let cut = match network_end.saturating_sub(bytes.len()) {
                0 => 0,
                cut if header.has(flags::TRUNCATED) && header.transport == headers::UDP => cut,
                _ => return Err(PacketLoss::MalformedPacket),
            };
            let there = bytes.get(..network_end).unwrap_or(bytes);
            let transport = there.get(usize::from(header.transport_offset)..);
            let transport = transport.ok_or(PacketLoss::RecordMismatch)?;
            let mut datagram = Datagram::parse_cut(header.transport, transport, cut)?;
            if let TransportHeader::Udp { gso_size } = &mut datagram.header {
                *gso_size = header.gso_size;
            }
            Content::Datagram(datagram)
        };
        let vlan_id = |flag, tci: u16| header.has(flag).then_some(tci & 0x0fff);
        // Build it in place: moving it copies it field by field.
        Ok(Self {
            origin: Origin {
                captured_at_ns: header.captured_at_ns,
                ifindex: header.ifindex,
                direction,
                frame,
                vlan_id: vlan_id(flags::VLAN_OUTER, header.vlan_outer_tci),
                vlan_inner_id: vlan_id(flags::VLAN_INNER, header.vlan_inner_tci),
                vlan_visible: !header.has(flags::VLAN_UNKNOWN),
                tunnel,
                source,
                destination,
                identification: identification(header.ip_version, network),
                hop_limit: hop_limit(header.ip_version, network),
                sender: header.sender(),
            },
            content,
        })
    }

    /// Returns the flow of a packet, even of an otherwise unreadable one, with its sender as the
    /// client.
    #[must_use]
    pub fn flow(header: &RecordHeader, bytes: &[u8]) -> Option<Flow> {
        let network = bytes.get(usize::from(header.network_offset)..)?;
        let (source, destination, _) = addresses(header.ip_version, network).ok()?;
        let ports = bytes.get(usize::from(header.transport_offset)..)?.first_chunk::<4>()?;
        let transport = match header.transport {
            headers::UDP => Transport::Udp,
            headers::TCP => Transport::Tcp,
            _ => return None,
        };
        if header.has(flags::LATER_FRAGMENT) {
            return None;
        }
        Some(Flow {
            transport,
            client: SocketAddr::new(source, u16::from_be_bytes([ports[0], ports[1]])),
            server: SocketAddr::new(destination, u16::from_be_bytes([ports[2], ports[3]])),
            tunnel: tunnel(header).ok()?,
            ifindex: header.ifindex,
        })
    }
}

impl Origin {
    /// Returns the flow of a datagram with its sender as the client.
    #[must_use]
    pub const fn flow(&self, datagram: &Datagram<'_>) -> Flow {
        Flow {
            transport: datagram.transport(),
            client: SocketAddr::new(self.source, datagram.source_port),
            server: SocketAddr::new(self.destination, datagram.destination_port),
            tunnel: self.tunnel,
            ifindex: self.ifindex,
        }
    }
}

impl<'a> Datagram<'a> {
    /// Parses a datagram or segment of IP protocol `protocol` from its header on.
    ///
    /// # Errors
    /// [`PacketLoss::MalformedPacket`] if the lengths contradict each other.
    #[inline]
    pub fn parse(protocol: u8, bytes: &'a [u8]) -> Result<Self, PacketLoss> {
        Self::parse_cut(protocol, bytes, 0)
    }

    /// Parses like [`parse`](Self::parse), with `cut` bytes after these that were not captured.
    fn parse_cut(protocol: u8, bytes: &'a [u8], cut: usize) -> Result<Self, PacketLoss> {
        let word = |at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        let double = |at: usize| Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        let read = || {
            let (header, payload, missing) = match protocol {
                headers::UDP => {
                    // The UDP length includes its own header of 8 bytes (RFC 768); it is 0 in a GSO
                    // packet of more than 64 KiB and in a jumbogram (RFC 2675 §4).
                    let length = match word(4)? {
                        0 if bytes.len() > usize::from(u16::MAX) => bytes.len(),
                        length => usize::from(length),
                    };
                    let missing = length.saturating_sub(bytes.len());
                    let payload = bytes.get(8..length - missing).filter(|_| missing <= cut)?;
                    (TransportHeader::Udp { gso_size: 0 }, payload, missing)
                }
                headers::TCP => {
                    let [length, flags] = *bytes.get(12..)?.first_chunk()?;
                    let header = TransportHeader::Tcp {
                        sequence: double(4)?,
                        acknowledgement: double(8)?,
                        flags,
                    };
                    // In units of four bytes; a value below 20 bytes points into the fixed part.
                    let length = usize::from(length >> 4) * 4;
                    (header, bytes.get(length..).filter(|_| length >= 20)?, 0)
                }
                _ => return None,
            };
            let (source_port, destination_port) = (word(0)?, word(2)?);
            Some(Self { source_port, destination_port, header, payload, missing })
        };
        read().ok_or(PacketLoss::MalformedPacket)
    }

    /// Parses a datagram that was reassembled from IPv6 fragments, which may begin with extension
    /// headers (RFC 8200 §4): at most as many as a hook follows.
    ///
    /// # Errors
    /// The same as [`parse`](Self::parse).
    pub fn after_extensions(protocol: u8, bytes: &'a [u8]) -> Result<Self, PacketLoss> {
        /// Hop-by-hop, routing and destination options.
        const EXTENSIONS: [u8; 3] = [0, 43, 60];
        let (mut protocol, mut bytes) = (protocol, bytes);
        for _ in 0..headers::MAX_EXTENSION_HEADERS {
            if !EXTENSIONS.contains(&protocol) {
                break;
            }
            let [next, units] = *bytes.first_chunk().ok_or(PacketLoss::MalformedPacket)?;
            let length = (usize::from(units) + 1) * 8;
            bytes = bytes.get(length..).ok_or(PacketLoss::MalformedPacket)?;
            protocol = next;
        }
        Self::parse(protocol, bytes)
    }

    /// Returns the transport protocol.
    #[must_use]
    pub const fn transport(&self) -> Transport {
        match self.header {
            TransportHeader::Udp { .. } => Transport::Udp,
            TransportHeader::Tcp { .. } => Transport::Tcp,
        }
    }
}

/// Time to live of an IPv4 header, hop limit of an IPv6 header.
fn hop_limit(ip_version: u8, network: &[u8]) -> u8 {
    let offset = if ip_version == 4 { 8 } else { 7 };
    network.get(offset).copied().unwrap_or_default()
}

fn identification(ip_version: u8, network: &[u8]) -> u16 {
    match network {
        [_, _, _, _, high, low, ..] if ip_version == 4 => u16::from_be_bytes([*high, *low]),
        _ => 0,
    }
}

fn tunnel(header: &RecordHeader) -> Result<Option<Tunnel>, PacketLoss> {
    let kind = match header.tunnel {
        record::tunnel::NONE => return Ok(None),
        record::tunnel::VXLAN => TunnelKind::Vxlan,
        record::tunnel::GENEVE => TunnelKind::Geneve,
        record::tunnel::GRE => TunnelKind::Gre,
        record::tunnel::IPIP => TunnelKind::Ipip,
        _ => return Err(PacketLoss::RecordMismatch),
    };
    Ok(Some(Tunnel { kind, id: header.has(flags::TUNNEL_ID).then_some(header.tunnel_id) }))
}

/// Parses the header at `fragment_offset`, and the data after it.
fn part<'a>(
    header: &RecordHeader,
    bytes: &'a [u8],
    network_end: usize,
) -> Result<Part<'a>, PacketLoss> {
    let at = usize::from(header.fragment_offset);
    let stated = bytes.get(at..).ok_or(PacketLoss::RecordMismatch)?;
    let (part, data_at) = if header.ip_version == 4 {
        // RFC 791 §3.1: identification, then three flag bits and the offset in 8-byte units.
        let stated = stated.first_chunk::<20>().ok_or(PacketLoss::RecordMismatch)?;
        let position = u16::from_be_bytes([stated[6], stated[7]]);
        let part = Part {
            protocol: stated[9],
            identification: u16::from_be_bytes([stated[4], stated[5]]).into(),
            offset: u32::from(position & 0x1fff) * 8,
            more: position & 0x2000 != 0,
            data: &[],
        };
        (part, at + usize::from(stated[0] & 0x0f) * 4)
    } else {
        // RFC 8200 §4.5: next header, reserved, offset and flags, identification.
        let stated = stated.first_chunk::<8>().ok_or(PacketLoss::RecordMismatch)?;
        let position = u16::from_be_bytes([stated[2], stated[3]]);
        let part = Part {
            protocol: stated[0],
            identification: u32::from_be_bytes([stated[4], stated[5], stated[6], stated[7]]),
            offset: u32::from(position & 0xfff8),
            more: position & 1 != 0,
            data: &[],
        };
        (part, at + 8)
    };
    let data = bytes.get(data_at..network_end).ok_or(PacketLoss::MalformedPacket)?;
    Ok(Part { data, ..part })
}

/// Returns source, destination, and the end of the IP packet, as an offset from its first byte.
#[inline]
fn addresses(ip_version: u8, network: &[u8]) -> Result<(IpAddr, IpAddr, usize), PacketLoss> {
    match ip_version {
        4 => {
            let header = network.first_chunk::<20>().ok_or(PacketLoss::RecordMismatch)?;
            let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
            // A GSO segment may have a total length of zero; the packet then ends with its bytes.
            let end = if total == 0 { network.len() } else { total };
            let address = |at: usize| {
                Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]).into()
            };
            Ok((address(12), address(16), end))
        }
        6 => {
            let header = network.first_chunk::<40>().ok_or(PacketLoss::RecordMismatch)?;
            let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
            // Zero means a jumbogram (RFC 2675 §3), which BIG TCP also uses for its segments.
            let end = if payload == 0 { network.len() } else { 40 + payload };
            let address = |at: usize| {
                let mut octets = [0; 16];
                octets.copy_from_slice(&header[at..at + 16]);
                Ipv6Addr::from(octets).into()
            };
            Ok((address(8), address(24), end))
        }
        _ => Err(PacketLoss::RecordMismatch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns an Ethernet + IPv4 + UDP frame with `payload`, padded to the Ethernet minimum.
    fn frame(payload: &[u8]) -> (RecordHeader, Vec<u8>) {
        let mut bytes = vec![0; 14];
        let udp_length = 8 + u16::try_from(payload.len()).unwrap();
        bytes.extend([0x45, 0]);
        bytes.extend((20 + udp_length).to_be_bytes());
        bytes.extend([0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        bytes.extend(40_000u16.to_be_bytes());
        bytes.extend(53u16.to_be_bytes());
        bytes.extend(udp_length.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(payload);
        bytes.resize(bytes.len().max(60), 0);
        let length = u32::try_from(bytes.len()).unwrap();
        let header = RecordHeader {
            packet_length: length,
            captured_length: length,
            network_offset: 14,
            transport_offset: 34,
            payload_offset: 42,
            ip_version: 4,
            transport: 17,
            ..Default::default()
        };
        (header, bytes)
    }

    #[test]
    fn ethernet_padding_is_not_payload() {
        let (header, bytes) = frame(b"abc");
        let packet = Packet::parse(&header, &bytes, 0).unwrap();
        let Content::Datagram(datagram) = packet.content else { panic!("a fragment") };
        assert_eq!(datagram.payload, b"abc");
        assert_eq!(packet.origin.source, IpAddr::from([192, 0, 2, 1]));
        assert_eq!((datagram.source_port, datagram.destination_port), (40_000, 53));
    }

    #[test]
    fn lengths_that_contradict_the_packet_are_malformed() {
        let (header, mut bytes) = frame(b"abc");
        bytes[39] = 60; // UDP length past the IP packet's end
        assert_eq!(Packet::parse(&header, &bytes, 0), Err(PacketLoss::MalformedPacket));
        bytes[39] = 7; // shorter than its own header
        assert_eq!(Packet::parse(&header, &bytes, 0), Err(PacketLoss::MalformedPacket));
    }

    #[test]
    fn a_payload_cut_by_the_snap_length_is_marked() {
        let (mut header, mut bytes) = frame(&[7; 100]);
        header.captured_length = 80;
        header.flags = flags::TRUNCATED;
        for captured in [0, 13, 30, 40] {
            let cut = Packet::parse(&header, &bytes[..captured], 0);
            assert_eq!(cut, Err(PacketLoss::CutBySnapLength), "{captured} bytes");
        }
        // The captured part of a datagram is kept; that of a segment has no known extent.
        let packet = Packet::parse(&header, &bytes[..80], 0).unwrap();
        let Content::Datagram(datagram) = packet.content else { panic!("a fragment") };
        assert_eq!((datagram.payload, datagram.missing), (&[7; 38][..], 62));
        let tcp = RecordHeader { transport: headers::TCP, ..header };
        assert_eq!(Packet::parse(&tcp, &bytes[..80], 0), Err(PacketLoss::CutBySnapLength));
        // We did not cut it, or it is longer than the IP packet.
        let whole = RecordHeader { flags: 0, ..header };
        assert_eq!(Packet::parse(&whole, &bytes[..80], 0), Err(PacketLoss::MalformedPacket));
        bytes[39] += 1;
        let longer = Packet::parse(&header, &bytes[..80], 0);
        assert_eq!(longer, Err(PacketLoss::CutBySnapLength));
    }

    #[test]
    fn hostile_offsets_are_a_mismatch_not_a_panic() {
        let (header, bytes) = frame(b"abc");
        for offset in [0u16, 59, 60, 61, u16::MAX] {
            for field in 0..3 {
                let mut header = header;
                match field {
                    0 => header.network_offset = offset,
                    1 => header.transport_offset = offset,
                    _ => header.payload_offset = offset,
                }
                let _ = Packet::parse(&header, &bytes, 0);
            }
        }
    }
}
