//! The ring item: a fixed header, then the packet's bytes from its link layer on.
//!
//! ```text
//!  0        8        12       16       20       24       28       32
//!  ├────────┼────────┼────────┼────────┼────────┼────────┼────────┤
//!  │captured│packet  │captured│ifindex │flow    │ring    │network │
//!  │_at_ns  │_length │_length │        │_hash   │_lost   │ + trans│
//!  32       34       36       38       40       41       42       43       44
//!  ├────────┼────────┼────────┼────────┼────────┼────────┼────────┼────────┤
//!  │payload │outer   │inner   │flags   │direc-  │hook    │ip      │trans-  │
//!  │_offset │_tci    │_tci    │        │tion    │        │_version│port    │
//!  44       48       52       54       56       57       60       64       72       80
//!  ├────────┼────────┼────────┼────────┼────────┼────────┼────────┼────────┼────────┤
//!  │genera- │tunnel  │gso_size│fragment│tunnel  │reserved│sender  │sender  │sender  │
//!  │tion    │_id     │        │_offset │        │        │_uid    │_cgroup │_socket │
//!  └────────┴────────┴────────┴────────┴────────┴────────┴────────┴────────┴────────┘
//!  80 …  captured_length bytes of packet, then the rest of its size class (stale bytes)
//! ```
//!
//! An item is reserved in one of [`SIZE_CLASSES`], because the verifier requires a constant size at
//! `bpf_ringbuf_reserve` (kernel 5.8); only `captured_length` bytes after the header are valid.

/// A value for the bytes written to a ring, such that the next item passes a multiple of every
/// wake-up threshold: adding any number of bytes changes the highest bit.
pub const WAKE_WITH_NEXT: u64 = u64::MAX >> 1;

/// Fixed part of a ring item, in host byte order: it never leaves the node that wrote it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordHeader {
    /// Capture time: CLOCK_MONOTONIC nanoseconds, `bpf_ktime_get_ns` at the hook.
    pub captured_at_ns: u64,
    /// Length of the packet at the hook in bytes, including the link layer.
    pub packet_length: u32,
    /// Bytes of the packet in this item; less than `packet_length` only with [`flags::TRUNCATED`].
    pub captured_length: u32,
    /// Ifindex of the hook.
    pub ifindex: u32,
    /// Hash that selected the ring: equal for a message over UDP and its response, for both directions
    /// of a TCP connection, or, if fragments are captured, for the fragments of a datagram ([`Headers::ring_hash`](crate::headers::Headers)).
    pub flow_hash: u32,
    /// Number of items that this full ring had lost when this one was reserved; wraps. An increase
    /// between two items of a ring shows that packets are missing between them.
    pub ring_lost: u32,
    /// Offset of the IP header from the first captured byte.
    pub network_offset: u16,
    /// Offset of the UDP or TCP header from the first captured byte.
    pub transport_offset: u16,
    /// Offset of the UDP or TCP payload from the first captured byte.
    pub payload_offset: u16,
    /// Outer VLAN tag control information, valid with [`flags::VLAN_OUTER`].
    pub vlan_outer_tci: u16,
    /// Inner VLAN tag control information, valid with [`flags::VLAN_INNER`].
    pub vlan_inner_tci: u16,
    /// Bits of [`flags`].
    pub flags: u16,
    /// A [`Direction`](crate::settings::Direction) as a number.
    pub direction: u8,
    /// A [`hook`] number.
    pub hook: u8,
    /// 4 or 6.
    pub ip_version: u8,
    /// IP protocol number: 17 UDP, 6 TCP; a [`flags::LATER_FRAGMENT`] may have another one.
    pub transport: u8,
    /// Generation of the interface settings: distinguishes a reused ifindex from its predecessor.
    pub generation: u32,
    /// VXLAN or Geneve network identifier (24 bits), or GRE key, valid with [`flags::TUNNEL_ID`].
    pub tunnel_id: u32,
    /// Payload size of each datagram in a UDP GSO packet, in bytes; 0 if the packet is one
    /// datagram, if the transport is TCP, and if the hook does not know (XDP).
    pub gso_size: u16,
    /// Valid with [`flags::FIRST_FRAGMENT`] or [`flags::LATER_FRAGMENT`]: offset, from the first
    /// captured byte, of the header with the fragment fields. This is the IPv4 header, or the IPv6
    /// Fragment header (RFC 8200 §4.5).
    pub fragment_offset: u16,
    /// A [`tunnel`] number. All offsets and addresses are those of the innermost packet; the VLAN
    /// tags are those of the frame on the wire.
    pub tunnel: u8,
    /// Zero; reserved for later fields without a new layout. Two integers: LLVM fills an array of three
    /// bytes by a call of `memset`, which costs each item some nanoseconds.
    pub reserved: u8,
    /// Always 0, as `reserved`.
    pub reserved_2: u16,
    /// User of the socket that sent the packet, as the user namespace of its network namespace
    /// numbers it; valid where `sender_socket` is not 0.
    pub sender_uid: u32,
    /// Identifier of the cgroup (version 2) in which the sending socket was created: the inode of
    /// its directory. 0 where `sender_socket` is 0.
    pub sender_cgroup: u64,
    /// Cookie of the socket that sent the packet: unique while the machine runs. 0 where the kernel
    /// no longer knows the socket, and where the hook cannot see it (XDP).
    pub sender_socket: u64,
}

const _: () = assert!(size_of::<RecordHeader>() == 80);
const _: () = assert!(align_of::<RecordHeader>() == 8);
const _: () = assert!(core::mem::offset_of!(RecordHeader, generation) == 44);
const _: () = assert!(core::mem::offset_of!(RecordHeader, tunnel) == 56);
const _: () = assert!(core::mem::offset_of!(RecordHeader, sender_uid) == 60);

/// The socket that sent a packet, as far as the kernel still knew it at the hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sender {
    /// See [`RecordHeader::sender_socket`].
    pub socket: u64,
    /// See [`RecordHeader::sender_cgroup`].
    pub cgroup: u64,
    /// See [`RecordHeader::sender_uid`].
    pub uid: u32,
}

impl Sender {
    /// No socket was seen.
    pub const UNKNOWN: Self = Self { socket: 0, cgroup: 0, uid: 0 };

    /// True if a socket was seen.
    #[inline(always)]
    #[must_use]
    pub const fn is_known(&self) -> bool {
        self.socket != 0
    }
}

/// Bits of [`RecordHeader::flags`].
pub mod flags {
    /// The packet was longer than the snap length; the rest was not copied.
    pub const TRUNCATED: u16 = 1 << 0;
    /// `vlan_outer_tci` contains a tag.
    pub const VLAN_OUTER: u16 = 1 << 1;
    /// `vlan_inner_tci` contains a tag.
    pub const VLAN_INNER: u16 = 1 << 2;
    /// First fragment of an IP datagram: it has the transport header, the payload continues
    /// elsewhere.
    pub const FIRST_FRAGMENT: u16 = 1 << 3;
    /// The hook does not know whether the packet was tagged on the wire: XDP does not see a tag
    /// that the device stripped, so "no tag" would claim too much.
    pub const VLAN_UNKNOWN: u16 = 1 << 4;
    /// A later fragment, which has no transport header. `transport` is the protocol number in its
    /// fragment header, `transport_offset` and `payload_offset` are the offset of its data.
    pub const LATER_FRAGMENT: u16 = 1 << 5;
    /// `tunnel_id` contains an identifier.
    pub const TUNNEL_ID: u16 = 1 << 6;
}

/// Numbers of [`RecordHeader::tunnel`].
pub mod tunnel {
    /// The packet is not in a tunnel, or tunnels are not followed.
    pub const NONE: u8 = 0;
    /// VXLAN (RFC 7348).
    pub const VXLAN: u8 = 1;
    /// Geneve (RFC 8926).
    pub const GENEVE: u8 = 2;
    /// GRE (RFC 2784, key of RFC 2890).
    pub const GRE: u8 = 3;
    /// IPv4 or IPv6 in IP (RFC 2003, RFC 4213).
    pub const IPIP: u8 = 4;
}

/// Numbers of [`RecordHeader::hook`].
pub mod hook {
    /// XDP, native or generic (the program does not know which).
    pub const XDP: u8 = 1;
    /// TC ingress.
    pub const TC_INGRESS: u8 = 2;
    /// TC egress.
    pub const TC_EGRESS: u8 = 3;
    /// No hook: a frame of a capture file.
    pub const FILE: u8 = 4;
}

/// Maximum size of a packet in a ring item, in bytes: the largest IP packet plus Ethernet and two
/// tags, which is also the largest GSO segment except for BIG TCP.
pub const MAX_CAPTURED_LENGTH: u32 = 65_535 + 14 + 8;

/// Sizes of ring items in bytes, including the header, smallest first. They fit typical DNS: a
/// query with EDNS (≤ 128 B of packet), a usual response, a response up to the 1,232 B EDNS buffer
/// of DNS Flag Day 2020 or an Ethernet MTU, a 4,096 B EDNS response, a jumbo frame, and any packet.
pub const SIZE_CLASSES: [u32; 6] = [208, 400, 1_664, 4_352, 9_216, 65_664];

const _: () =
    assert!(SIZE_CLASSES[5] as usize >= MAX_CAPTURED_LENGTH as usize + size_of::<RecordHeader>());

impl RecordHeader {
    /// Size of the header in bytes.
    pub const SIZE: usize = size_of::<Self>();

    /// Splits a ring item into its header and the packet's captured bytes.
    ///
    /// Returns `None` if the item is shorter than a header or than the length in its header: object
    /// and agent are of different versions, which the caller counts.
    #[must_use]
    pub fn split(item: &[u8]) -> Option<(Self, &[u8])> {
        if item.len() < Self::SIZE {
            return None;
        }
        // SAFETY: the item has at least SIZE bytes (checked above), every bit pattern is a valid
        // RecordHeader (integers only), and read_unaligned requires no alignment.
        let header: Self = unsafe { core::ptr::read_unaligned(item.as_ptr().cast()) };
        let packet = item[Self::SIZE..].get(..header.captured_length as usize)?;
        Some((header, packet))
    }

    /// Returns the socket that sent the packet.
    #[inline(always)]
    #[must_use]
    pub const fn sender(&self) -> Sender {
        Sender { socket: self.sender_socket, cgroup: self.sender_cgroup, uid: self.sender_uid }
    }

    /// Returns true if `flag`, a bit of [`flags`], is set.
    #[must_use]
    pub const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_refuses_short_items_and_overlong_lengths() {
        let mut item = [0u8; RecordHeader::SIZE + 16];
        item[12..16].copy_from_slice(&16u32.to_ne_bytes());
        let (header, packet) = RecordHeader::split(&item).expect("whole record");
        assert_eq!((header.captured_length, packet.len()), (16, 16));
        item[12..16].copy_from_slice(&17u32.to_ne_bytes());
        assert!(RecordHeader::split(&item).is_none());
        assert!(RecordHeader::split(&item[..RecordHeader::SIZE - 1]).is_none());
    }
}
