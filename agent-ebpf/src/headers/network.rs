//! Parses link layer and IP: from an EtherType to the transport header.

use super::{
    Cursor, ETHERNET_LENGTH, FRAGMENT_LENGTH, Fragment, Frame, IPV4_MIN_LENGTH, IPV6_LENGTH,
    MAX_EXTENSION_HEADERS, TCP_MIN_LENGTH, UDP_LENGTH, VLAN_TAG_LENGTH, VlanTags, number, read,
};
use crate::{counter::Counter, settings::features};

/// An IP header, parsed as far as needed to find the ports.
pub(super) struct Network {
    pub(super) version: u8,
    pub(super) offset: u32,
    /// Length of the IP packet in its header, in bytes; 0 in a GSO segment longer than 64 KiB and
    /// in a jumbogram (RFC 2675), whose length does not fit the field.
    stated_length: u32,
    /// UDP, TCP, or GRE if it is followed. In a later fragment of IPv6 it may be another extension
    /// header.
    pub(super) transport: u8,
    /// Offset of that protocol's header; in a later fragment, of its data.
    pub(super) transport_offset: u32,
    pub(super) fragment: Fragment,
    /// In a fragment, offset of the header with the fragment fields.
    pub(super) fragment_offset: u32,
}

impl Cursor {
    /// Returns the position after an Ethernet header.
    ///
    /// `offloaded_tci` is a VLAN tag that the kernel stores beside the packet; it is the outermost
    /// one.
    ///
    /// # Errors
    /// Returns the counter of a packet that is shorter than the header.
    #[inline(always)]
    pub fn ethernet<F: Frame + ?Sized>(
        frame: &F,
        offloaded_tci: Option<u16>,
    ) -> Result<Self, Counter> {
        let mut vlan = VlanTags::default();
        if let Some(tci) = offloaded_tci {
            vlan.depth = 1;
            vlan.outer_tci = tci;
        }
        Ok(Self { vlan, ..Self::inner_ethernet(frame, 0)? })
    }

    /// Returns the position after an Ethernet header at `offset`.
    #[inline(always)]
    pub(super) fn inner_ethernet<F: Frame + ?Sized>(
        frame: &F,
        offset: u32,
    ) -> Result<Self, Counter> {
        Ok(Self {
            ethertype: u16::from_be_bytes(read(frame, offset + ETHERNET_LENGTH - 2)?),
            offset: offset + ETHERNET_LENGTH,
            vlan: VlanTags::default(),
        })
    }

    /// Moves after the VLAN tags at the position, and adds them to the ones found before.
    #[inline(always)]
    pub(super) fn skip_tags<F: Frame + ?Sized>(mut self, frame: &F) -> Result<Self, Counter> {
        for _ in 0..3 {
            if !is_vlan(self.ethertype) {
                return Ok(self);
            }
            let [tci_high, tci_low, type_high, type_low] = read(frame, self.offset)?;
            let tci = u16::from_be_bytes([tci_high, tci_low]);
            match self.vlan.depth {
                0 => self.vlan.outer_tci = tci,
                1 => self.vlan.inner_tci = tci,
                _ => return Err(Counter::VlanDepth),
            }
            self.vlan.depth += 1;
            self.ethertype = u16::from_be_bytes([type_high, type_low]);
            self.offset += VLAN_TAG_LENGTH;
        }
        Err(Counter::VlanDepth)
    }
}

#[inline(always)]
const fn is_vlan(ethertype: u16) -> bool {
    matches!(
        ethertype,
        number::ETHERTYPE_VLAN | number::ETHERTYPE_QINQ | number::ETHERTYPE_QINQ_OLD
    )
}

/// Returns true for protocols that may lead to DNS.
#[inline(always)]
const fn is_followed(protocol: u8, wanted: u32) -> bool {
    match protocol {
        number::UDP | number::TCP => true,
        number::GRE => wanted & features::GRE != 0,
        number::IPV4 | number::IPV6 => wanted & features::IPIP != 0,
        _ => false,
    }
}

/// Returns the counter of an EtherType that is not followed.
#[inline(always)]
pub(super) const fn not_ip(ethertype: u16) -> Counter {
    match ethertype {
        number::ETHERTYPE_PPPOE_SESSION
        | number::ETHERTYPE_MPLS
        | number::ETHERTYPE_MPLS_UPSTREAM => Counter::UnreadEncapsulation,
        _ => Counter::NotIp,
    }
}

/// Returns the counter of a protocol that is not followed.
#[inline(always)]
const fn not_dns(protocol: u8) -> Counter {
    match protocol {
        number::IPV4 | number::IPV6 | number::GRE => Counter::UnreadEncapsulation,
        _ => Counter::NotDns,
    }
}

/// Parses RFC 791 §3.1. Reads the 12 bytes before the addresses.
#[inline(always)]
pub(super) fn ipv4<F: Frame + ?Sized>(
    frame: &F,
    offset: u32,
    wanted: u32,
) -> Result<Network, Counter> {
    let header: [u8; 12] = read(frame, offset)?;
    let header_length = u32::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || header_length < IPV4_MIN_LENGTH {
        return Err(Counter::MalformedHeader);
    }
    let transport = header[9];
    if !is_followed(transport, wanted) {
        return Err(not_dns(transport));
    }
    let field = u16::from_be_bytes([header[6], header[7]]);
    Ok(Network {
        version: 4,
        offset,
        stated_length: u32::from(u16::from_be_bytes([header[2], header[3]])),
        transport,
        transport_offset: offset + header_length,
        fragment: fragment(field & 0x1fff, field & 0x2000),
        fragment_offset: offset,
    })
}

#[inline(always)]
const fn fragment(position: u16, more: u16) -> Fragment {
    match (position, more) {
        (0, 0) => Fragment::Whole,
        (0, _) => Fragment::First,
        _ => Fragment::Later,
    }
}

/// Parses RFC 8200 §3 and §4. Reads the 8 bytes before the addresses, then the extension headers.
#[inline(always)]
pub(super) fn ipv6<F: Frame + ?Sized>(
    frame: &F,
    offset: u32,
    wanted: u32,
) -> Result<Network, Counter> {
    let header: [u8; 8] = read(frame, offset)?;
    if header[0] >> 4 != 6 {
        return Err(Counter::MalformedHeader);
    }
    let payload_length = u32::from(u16::from_be_bytes([header[4], header[5]]));
    let stated_length = match payload_length {
        0 => 0,
        _ => IPV6_LENGTH + payload_length,
    };
    let mut next = header[6];
    let mut next_offset = offset + IPV6_LENGTH;
    // Offset of the header of a first fragment; 0 if there is none.
    let mut first_fragment_offset = 0;
    // The count decides at the end of each iteration, and so by a conditional jump: kernels before
    // 6.7 refuse a loop that is closed by falling through to its first instruction (`check_cfg`),
    // which LLVM often generates otherwise.
    for _ in 0..=MAX_EXTENSION_HEADERS {
        if is_followed(next, wanted) {
            return Ok(Network {
                version: 6,
                offset,
                stated_length,
                transport: next,
                transport_offset: next_offset,
                fragment: if first_fragment_offset == 0 {
                    Fragment::Whole
                } else {
                    Fragment::First
                },
                fragment_offset: first_fragment_offset,
            });
        }
        if !is_extension(next) {
            return Err(not_dns(next));
        }
        let extension: [u8; 4] = read(frame, next_offset)?;
        let [following, units, fragment_high, fragment_low] = extension;
        let length = match next {
            number::FRAGMENT => {
                // A fragment of a fragment: no stack reassembles those.
                if first_fragment_offset != 0 {
                    return Err(Counter::MalformedHeader);
                }
                let field = u16::from_be_bytes([fragment_high, fragment_low]);
                match fragment(field & 0xfff8, field & 1) {
                    // An atomic fragment (RFC 6946).
                    Fragment::Whole => {}
                    Fragment::First => first_fragment_offset = next_offset,
                    Fragment::Later => {
                        // The field names the first header of the datagram's fragmentable part, so
                        // a later fragment of another protocol is recognised, unless options come
                        // first.
                        if !is_followed(following, wanted) && !is_extension(following) {
                            return Err(not_dns(following));
                        }
                        return Ok(Network {
                            version: 6,
                            offset,
                            stated_length,
                            transport: following,
                            transport_offset: next_offset + FRAGMENT_LENGTH,
                            fragment: Fragment::Later,
                            fragment_offset: next_offset,
                        });
                    }
                }
                FRAGMENT_LENGTH
            }
            // RFC 4302 §2.2: in units of four bytes, minus two.
            number::AUTHENTICATION => (u32::from(units) + 2) * 4,
            _ => (u32::from(units) + 1) * 8,
        };
        next_offset = frame.scrub_path(next_offset + length);
        first_fragment_offset = frame.scrub_path(first_fragment_offset);
        next = following;
    }
    Err(Counter::ExtensionLimit)
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

impl Network {
    /// Returns the end of the transport header, which must be within the frame and within the IP
    /// packet: bytes after the IP packet are padding of the link.
    #[inline(always)]
    pub(super) fn payload_offset<F: Frame + ?Sized>(&self, frame: &F) -> Result<u32, Counter> {
        let at = frame.scrub_path(self.transport_offset);
        let transport_length = if self.transport == number::TCP {
            let [data_offset]: [u8; 1] = read(frame, at + 12)?;
            let length = u32::from(data_offset >> 4) * 4;
            if length < TCP_MIN_LENGTH {
                return Err(Counter::MalformedHeader);
            }
            length
        } else {
            UDP_LENGTH
        };
        let end = at + transport_length;
        let [_last]: [u8; 1] = read(frame, end - 1)?;
        if self.stated_length != 0 && end - self.offset > self.stated_length {
            return Err(Counter::MalformedHeader);
        }
        Ok(end)
    }

    /// Returns source and destination address, in the format of
    /// [`Endpoint::address`](super::Endpoint::address).
    #[inline(always)]
    pub(super) fn addresses<F: Frame + ?Sized>(
        &self,
        frame: &F,
    ) -> Result<([u64; 2], [u64; 2]), Counter> {
        let word = |offset: u32| Ok(u64::from_be_bytes(read(frame, offset)?));
        let offset = frame.scrub_path(self.offset);
        if self.version == 4 {
            let both = word(offset + 12)?;
            Ok(([0, both >> 32], [0, both & 0xffff_ffff]))
        } else {
            let at = offset + 8;
            Ok(([word(at)?, word(at + 8)?], [word(at + 16)?, word(at + 24)?]))
        }
    }

    /// Returns the identification of a fragment's datagram: RFC 791 §3.1, RFC 8200 §4.5.
    #[inline(always)]
    pub(super) fn identification<F: Frame + ?Sized>(&self, frame: &F) -> Result<u32, Counter> {
        let at = frame.scrub_path(self.fragment_offset) + 4;
        if self.version == 4 {
            Ok(u32::from(u16::from_be_bytes(read(frame, at)?)))
        } else {
            Ok(u32::from_be_bytes(read(frame, at)?))
        }
    }
}
