//! A captured packet: addresses, ports and the transport payload.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tap53_ebpf::{
    record::{RecordHeader, flags},
    settings::Direction,
};

/// Why a captured packet yields no message.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PacketLoss {
    /// The ring item's header contradicts its bytes: object and agent are not of one build.
    RecordMismatch,
    /// The IP or UDP lengths contradict the packet.
    MalformedPacket,
    /// The snap length cut the message.
    CutBySnapLength,
    /// The first fragment of a datagram; the rest is not joined to it.
    FirstFragment,
    /// A UDP datagram or TCP message too short for a DNS header (12 bytes, RFC 1035 §4.1.1).
    ShorterThanHeader,
    /// A TCP segment that carries no payload: no message is missing.
    TcpWithoutPayload,
    /// A TCP segment that does not hold whole messages; streams are not joined.
    TcpPartialMessage,
}

impl PacketLoss {
    /// All reasons, in index order.
    pub const ALL: [Self; 7] = [
        Self::RecordMismatch,
        Self::MalformedPacket,
        Self::CutBySnapLength,
        Self::FirstFragment,
        Self::ShorterThanHeader,
        Self::TcpWithoutPayload,
        Self::TcpPartialMessage,
    ];

    /// True where nothing is missing: a TCP handshake or acknowledgement carries no message.
    #[must_use]
    pub const fn is_ignored(self) -> bool {
        matches!(self, Self::TcpWithoutPayload)
    }

    /// Name in the ledger and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RecordMismatch => "record_mismatch",
            Self::MalformedPacket => "malformed_packet",
            Self::CutBySnapLength => "cut_by_snap_length",
            Self::FirstFragment => "first_fragment",
            Self::ShorterThanHeader => "shorter_than_header",
            Self::TcpWithoutPayload => "tcp_without_payload",
            Self::TcpPartialMessage => "tcp_partial_message",
        }
    }
}

/// Transport protocol of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// IP protocol 17.
    Udp,
    /// IP protocol 6.
    Tcp,
}

/// Sender and receiver of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// UDP or TCP.
    pub transport: Transport,
    /// Sender.
    pub source: SocketAddr,
    /// Receiver.
    pub destination: SocketAddr,
}

/// A captured packet, its payload trimmed to what the transport header says is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Packet<'a> {
    /// CLOCK_MONOTONIC nanoseconds.
    pub captured_at_ns: u64,
    /// Interface whose hook saw it.
    pub ifindex: u32,
    /// Ingress or egress of that interface.
    pub direction: Direction,
    /// UDP or TCP.
    pub transport: Transport,
    /// Sender.
    pub source: IpAddr,
    /// Receiver.
    pub destination: IpAddr,
    /// Sender's port.
    pub source_port: u16,
    /// Receiver's port.
    pub destination_port: u16,
    /// VLAN identifier (12 bits) of the outer tag.
    pub vlan_id: Option<u16>,
    /// VLAN identifier of the inner tag (802.1ad).
    pub vlan_inner_id: Option<u16>,
    /// False where the hook could not see whether the wire carried a tag: without one in the
    /// packet, XDP cannot tell an untagged packet from one whose tag the device stripped.
    pub vlan_visible: bool,
    /// UDP or TCP payload.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads a packet at the offsets that the kernel program found.
    ///
    /// # Errors
    /// The reason why there is no payload to read.
    pub fn parse(header: &RecordHeader, bytes: &'a [u8]) -> Result<Self, PacketLoss> {
        Self::parse_whole(header, bytes).map_err(|reason| match reason {
            // The kernel program read the headers in the packet, where they may lie behind the cut.
            PacketLoss::RecordMismatch if header.has(flags::TRUNCATED) => {
                PacketLoss::CutBySnapLength
            }
            other => other,
        })
    }

    fn parse_whole(header: &RecordHeader, bytes: &'a [u8]) -> Result<Self, PacketLoss> {
        let direction = Direction::from_u8(header.direction).ok_or(PacketLoss::RecordMismatch)?;
        let network =
            bytes.get(usize::from(header.network_offset)..).ok_or(PacketLoss::RecordMismatch)?;
        let (source, destination, network_end) = addresses(header.ip_version, network)?;
        let network_end = usize::from(header.network_offset) + network_end;
        let transport_offset = usize::from(header.transport_offset);
        let ports = bytes.get(transport_offset..transport_offset + 8);
        let ports = ports.ok_or(PacketLoss::RecordMismatch)?;
        let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);

        let transport = match header.transport {
            17 => Transport::Udp,
            6 => Transport::Tcp,
            _ => return Err(PacketLoss::RecordMismatch),
        };
        if header.has(flags::FIRST_FRAGMENT) {
            return Err(PacketLoss::FirstFragment);
        }
        let payload_end = match transport {
            Transport::Udp => {
                // The UDP length counts its own header of 8 bytes (RFC 768).
                let datagram_end = transport_offset + usize::from(port(4));
                if port(4) < 8 || datagram_end > network_end {
                    return Err(PacketLoss::MalformedPacket);
                }
                datagram_end
            }
            Transport::Tcp => network_end,
        };
        if payload_end > bytes.len() {
            return Err(if header.has(flags::TRUNCATED) {
                PacketLoss::CutBySnapLength
            } else {
                PacketLoss::MalformedPacket
            });
        }
        let payload = bytes
            .get(usize::from(header.payload_offset)..payload_end)
            .ok_or(PacketLoss::MalformedPacket)?;
        let vlan_id = |flag, tci: u16| header.has(flag).then_some(tci & 0x0fff);
        Ok(Self {
            captured_at_ns: header.captured_at_ns,
            ifindex: header.ifindex,
            direction,
            transport,
            source,
            destination,
            source_port: port(0),
            destination_port: port(2),
            vlan_id: vlan_id(flags::VLAN_OUTER, header.vlan_outer_tci),
            vlan_inner_id: vlan_id(flags::VLAN_INNER, header.vlan_inner_tci),
            vlan_visible: !header.has(flags::VLAN_UNKNOWN),
            payload,
        })
    }

    /// Who sent a packet to whom, also of one that cannot be read further.
    #[must_use]
    pub fn endpoints(header: &RecordHeader, bytes: &[u8]) -> Option<Endpoints> {
        let network = bytes.get(usize::from(header.network_offset)..)?;
        let (source, destination, _) = addresses(header.ip_version, network).ok()?;
        let ports = bytes.get(usize::from(header.transport_offset)..)?.first_chunk::<4>()?;
        Some(Endpoints {
            transport: match header.transport {
                17 => Transport::Udp,
                6 => Transport::Tcp,
                _ => return None,
            },
            source: SocketAddr::new(source, u16::from_be_bytes([ports[0], ports[1]])),
            destination: SocketAddr::new(destination, u16::from_be_bytes([ports[2], ports[3]])),
        })
    }
}

/// Source, destination, and where the IP packet ends, counted from its first byte.
fn addresses(ip_version: u8, network: &[u8]) -> Result<(IpAddr, IpAddr, usize), PacketLoss> {
    match ip_version {
        4 => {
            let header = network.first_chunk::<20>().ok_or(PacketLoss::RecordMismatch)?;
            let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
            // A GSO segment can leave its total length zero; the packet then ends where it ends.
            let end = if total == 0 { network.len() } else { total };
            let address = |at: usize| {
                Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]).into()
            };
            Ok((address(12), address(16), end))
        }
        6 => {
            let header = network.first_chunk::<40>().ok_or(PacketLoss::RecordMismatch)?;
            let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
            // Zero means a jumbogram (RFC 2675 §3), which is also how BIG TCP marks its segments.
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

    /// An Ethernet + IPv4 + UDP frame with `payload`, padded to the Ethernet minimum.
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
        let packet = Packet::parse(&header, &bytes).unwrap();
        assert_eq!(packet.payload, b"abc");
        assert_eq!(packet.source, IpAddr::from([192, 0, 2, 1]));
        assert_eq!((packet.source_port, packet.destination_port), (40_000, 53));
    }

    #[test]
    fn lengths_that_contradict_the_packet_are_malformed() {
        let (header, mut bytes) = frame(b"abc");
        bytes[39] = 60; // UDP length past the IP packet's end
        assert_eq!(Packet::parse(&header, &bytes), Err(PacketLoss::MalformedPacket));
        bytes[39] = 7; // shorter than its own header
        assert_eq!(Packet::parse(&header, &bytes), Err(PacketLoss::MalformedPacket));
    }

    #[test]
    fn a_cut_payload_says_that_the_snap_length_cut_it() {
        let (mut header, bytes) = frame(&[7; 100]);
        header.captured_length = 80;
        header.flags = flags::TRUNCATED;
        for captured in [0, 13, 30, 40, 80] {
            let cut = Packet::parse(&header, &bytes[..captured]);
            assert_eq!(cut, Err(PacketLoss::CutBySnapLength), "{captured} bytes");
        }
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
                let _ = Packet::parse(&header, &bytes);
            }
        }
    }
}
