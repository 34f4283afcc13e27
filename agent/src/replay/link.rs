//! Link types: the start of the network packet in a frame, and the metadata of the link layer.

use tap53_ebpf::{
    counter::Counter,
    headers::{Cursor, VlanTags},
    settings::Direction,
};

use super::Frame;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// A supported link type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkType {
    Ethernet,
    /// An address family before the packet, in the byte order of the capturing host, which may differ
    /// from the file's, or in network order. The family's value shows which.
    Loopback,
    /// IPv4 or IPv6 from the first byte on.
    Raw,
    /// "Cooked" capture of Linux, as on its interface `any`.
    LinuxCooked,
    /// Version 2 of it, which has the interface's index.
    LinuxCooked2,
}

/// The supported link types, for messages about others.
pub(super) const READ_LINK_TYPES: &str = "Ethernet, Linux cooked, raw IP and BSD loopback";

/// Metadata of a frame's link layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Start of the network packet; `None` for an Ethernet header, or without a network packet.
    pub(super) start: Option<Cursor>,
    /// Direction of the frame.
    pub(super) direction: Option<Direction>,
    /// Index of the interface on the host that captured it.
    pub(super) ifindex: Option<u32>,
}

impl Link {
    /// Parses the link layer of a frame.
    ///
    /// # Errors
    /// The counter of the reason if it cannot be parsed.
    pub fn of(frame: &Frame<'_>) -> Result<Self, Counter> {
        let link_type = LinkType::of(frame.link_type).ok_or(Counter::UnsupportedLinkType)?;
        link_type.read(frame.bytes).ok_or(Counter::MalformedHeader)
    }
}

impl LinkType {
    /// Returns the link type with a number of draft-ietf-opsawg-pcaplinktype.
    pub(super) const fn of(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Ethernet),
            // Null and loop.
            0 | 108 => Some(Self::Loopback),
            // Raw as LINKTYPE and as the BSDs number it, IPv4, IPv6.
            101 | 12 | 14 | 228 | 229 => Some(Self::Raw),
            113 => Some(Self::LinuxCooked),
            276 => Some(Self::LinuxCooked2),
            _ => None,
        }
    }

    /// Reads the link layer of a frame; `None` if the frame is shorter.
    pub(super) fn read(self, frame: &[u8]) -> Option<Link> {
        match self {
            Self::Ethernet => Some(Link::default()),
            Self::Raw => {
                let ethertype = match frame.first()? >> 4 {
                    4 => ETHERTYPE_IPV4,
                    6 => ETHERTYPE_IPV6,
                    _ => return Some(Link::beginning(0, 0)),
                };
                Some(Link::beginning(ethertype, 0))
            }
            Self::Loopback => {
                let family = u32::from_be_bytes(*frame.first_chunk()?);
                // No family is above 255, so a greater value has the other byte order.
                let family = if family > 255 { family.swap_bytes() } else { family };
                let ethertype = match family {
                    2 => ETHERTYPE_IPV4,
                    // IPv6 on NetBSD and OpenBSD, Linux, FreeBSD, macOS.
                    24 | 10 | 28 | 30 => ETHERTYPE_IPV6,
                    _ => 0,
                };
                Some(Link::beginning(ethertype, 4))
            }
            Self::LinuxCooked => {
                let header: &[u8; 16] = frame.first_chunk()?;
                let [_, packet_type, .., type_high, type_low] = *header;
                let ethertype = u16::from_be_bytes([type_high, type_low]);
                let direction = direction(packet_type);
                Some(Link { direction, ..Link::beginning(ethertype, 16) })
            }
            Self::LinuxCooked2 => {
                let header: &[u8; 20] = frame.first_chunk()?;
                let [type_high, type_low, _, _, i0, i1, i2, i3, _, _, packet_type, ..] = *header;
                let ethertype = u16::from_be_bytes([type_high, type_low]);
                Some(Link {
                    direction: direction(packet_type),
                    ifindex: Some(u32::from_be_bytes([i0, i1, i2, i3])),
                    ..Link::beginning(ethertype, 20)
                })
            }
        }
    }
}

impl Link {
    const fn beginning(ethertype: u16, offset: u32) -> Self {
        let vlan = VlanTags { depth: 0, outer_tci: 0, inner_tci: 0 };
        Self { start: Some(Cursor { ethertype, offset, vlan }), direction: None, ifindex: None }
    }
}

/// Returns the direction from the lower byte of `sll_pkttype`, packet(7); `None` for packets to other
/// hosts, which can pass in either direction.
const fn direction(packet_type: u8) -> Option<Direction> {
    match packet_type {
        // To this host, to all, to a group.
        0..=2 => Some(Direction::Ingress),
        4 => Some(Direction::Egress),
        _ => None,
    }
}

/// Returns the name of a link type, for messages about unsupported ones.
pub(super) fn describe(number: u32) -> String {
    let name = match number {
        0 => "BSD loopback",
        1 => "Ethernet",
        6 => "Token Ring",
        9 => "PPP",
        10 => "FDDI",
        50 => "PPP in HDLC framing",
        51 => "PPPoE",
        104 => "Cisco HDLC",
        105 => "IEEE 802.11",
        117 => "OpenBSD pflog",
        119 => "Prism and IEEE 802.11",
        127 => "Radiotap and IEEE 802.11",
        147..=162 => "reserved for private use",
        187 | 201 => "Bluetooth HCI",
        189 | 220 => "Linux USB",
        192 => "PPI",
        195 | 230 => "IEEE 802.15.4",
        227 => "Linux SocketCAN",
        239 => "Linux netfilter log",
        240 => "Hilscher netANALYZER",
        247 => "InfiniBand",
        252 => "Wireshark exported PDUs",
        253 => "Linux netlink",
        _ => return number.to_string(),
    };
    format!("{number} ({name})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(number: u32, frame: &[u8]) -> Option<(u16, u32, Option<Direction>, Option<u32>)> {
        let link = LinkType::of(number)?.read(frame)?;
        let start = link.start?;
        Some((start.ethertype, start.offset, link.direction, link.ifindex))
    }

    #[test]
    fn each_link_type_gives_the_start_of_its_packet() {
        let (ingress, egress) = (Some(Direction::Ingress), Some(Direction::Egress));
        let cooked = |packet_type: u8| [&[0, packet_type][..], &[0; 12], &[0x86, 0xdd]].concat();
        let cooked2 = |packet_type: u8| {
            [&[8, 0, 0, 0, 0, 0, 1, 2, 0, 1][..], &[packet_type], &[0; 9]].concat()
        };
        for (number, frame, expected) in [
            (101, vec![0x45], (0x0800, 0, None, None)),
            (12, vec![0x60], (0x86dd, 0, None, None)),
            (228, vec![0x10], (0, 0, None, None)),
            (0, vec![2, 0, 0, 0], (0x0800, 4, None, None)),
            (0, vec![0, 0, 0, 30], (0x86dd, 4, None, None)),
            (108, vec![0, 0, 0, 2], (0x0800, 4, None, None)),
            (113, cooked(0), (0x86dd, 16, ingress, None)),
            (113, cooked(4), (0x86dd, 16, egress, None)),
            (113, cooked(3), (0x86dd, 16, None, None)),
            (276, cooked2(4), (0x0800, 20, egress, Some(258))),
        ] {
            assert_eq!(read(number, &frame), Some(expected), "link type {number}");
            assert_eq!(read(number, &frame[..frame.len() - 1]), None, "link type {number}, cut");
        }
        assert_eq!(LinkType::of(105), None);
        assert_eq!(describe(105), "105 (IEEE 802.11)");
        assert_eq!(describe(9_999), "9999");
    }
}
