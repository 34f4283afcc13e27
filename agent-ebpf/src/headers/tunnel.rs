//! Parses tunnels: from the outer packet's transport header to the inner packet.
//!
//! ```text
//!  UDP ─┬─ VXLAN  (8) ───────────────────────┬─ Ethernet ─ tags ─ IP
//!       └─ Geneve (8 + 0…252 of options) ────┤
//!  GRE (4 + 4 checksum + 4 key + 4 sequence) ┼─ IP
//!  nothing (IPIP) ───────────────────────────┘
//! ```
//!
//! VXLAN always contains Ethernet. Only the fields that lead to the inner packet and the identifier
//! of its network are read.

use super::{
    Cursor, Frame, MAX_START_OFFSET, UDP_LENGTH, VlanTags, network::Network, number, read,
};
use crate::{
    counter::Counter,
    record::tunnel,
    settings::{PortSet, features},
};

/// The start of the packet in a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// A number of [`tunnel`].
    pub kind: u8,
    /// True unless it is IPIP, or GRE without a key.
    pub has_id: bool,
    /// Network identifier of VXLAN and Geneve, or GRE key; 0 if there is none. It is no `Option`,
    /// of which LLVM would copy undefined bytes, which the verifier refuses.
    pub id: u32,
    /// EtherType of the content: IPv4, IPv6 or Ethernet.
    pub ethertype: u16,
    /// Offset of the content.
    pub offset: u32,
    /// Tags of the outer packet.
    pub vlan: VlanTags,
}

/// Returns the kind of the tunnel at a UDP destination port, if that kind is followed; the source
/// port of a tunnel packet has no meaning (RFC 7348 §5, RFC 8926 §3.3).
#[inline(always)]
pub(super) fn of_udp_port<P>(port: u16, wanted: u32, in_set: &P) -> u8
where
    P: Fn(PortSet, u16) -> bool,
{
    if wanted & features::VXLAN != 0 && in_set(PortSet::Vxlan, port) {
        tunnel::VXLAN
    } else if wanted & features::GENEVE != 0 && in_set(PortSet::Geneve, port) {
        tunnel::GENEVE
    } else {
        tunnel::NONE
    }
}

/// Returns the kind of the tunnel that an IP protocol is; it is followed if the protocol was.
#[inline(always)]
pub(super) const fn of_protocol(protocol: u8) -> u8 {
    match protocol {
        number::GRE => tunnel::GRE,
        number::IPV4 | number::IPV6 => tunnel::IPIP,
        _ => tunnel::NONE,
    }
}

/// Parses the tunnel header of a complete packet.
#[inline(always)]
pub(super) fn inner<F: Frame + ?Sized>(
    frame: &F,
    kind: u8,
    outer: &Network,
    vlan: VlanTags,
) -> Result<Inner, Counter> {
    let at = frame.scrub_path(outer.transport_offset);
    let (has_id, id, ethertype, offset) = match kind {
        tunnel::VXLAN => vxlan(frame, at + UDP_LENGTH)?,
        tunnel::GENEVE => geneve(frame, at + UDP_LENGTH)?,
        tunnel::IPIP if outer.transport == number::IPV4 => (false, 0, number::ETHERTYPE_IPV4, at),
        tunnel::IPIP => (false, 0, number::ETHERTYPE_IPV6, at),
        _ => gre(frame, at)?,
    };
    if !matches!(
        ethertype,
        number::ETHERTYPE_IPV4 | number::ETHERTYPE_IPV6 | number::ETHERTYPE_ETHERNET
    ) {
        return Err(super::network::not_ip(ethertype));
    }
    // The offsets of the inner packet's headers might not fit a ring item.
    if offset > MAX_START_OFFSET {
        return Err(Counter::ExtensionLimit);
    }
    Ok(Inner { kind, has_id, id, ethertype, offset, vlan })
}

impl Inner {
    /// Returns the position of the inner packet's own layers.
    #[inline(always)]
    pub(super) fn start<F: Frame + ?Sized>(&self, frame: &F) -> Result<Cursor, Counter> {
        match self.ethertype {
            number::ETHERTYPE_ETHERNET => Cursor::inner_ethernet(frame, self.offset),
            ethertype => Ok(Cursor { ethertype, offset: self.offset, vlan: VlanTags::default() }),
        }
    }
}

/// True if there is an identifier, then the identifier, EtherType and offset of the content.
type TunnelHeader = (bool, u32, u16, u32);

/// Parses RFC 7348 §5: flags, 24 bits reserved, identifier, 8 bits reserved.
#[inline(always)]
fn vxlan<F: Frame + ?Sized>(frame: &F, at: u32) -> Result<TunnelHeader, Counter> {
    const IDENTIFIER_IS_VALID: u8 = 0x08;
    let [flags, _, _, _, high, middle, low, _]: [u8; 8] = read(frame, at)?;
    if flags & IDENTIFIER_IS_VALID == 0 {
        return Err(Counter::UnknownTunnel);
    }
    let id = u32::from_be_bytes([0, high, middle, low]);
    Ok((true, id, number::ETHERTYPE_ETHERNET, at + 8))
}

/// Parses RFC 8926 §3.4: version, length of the options in four bytes, flags, protocol, identifier,
/// 8 bits reserved.
#[inline(always)]
fn geneve<F: Frame + ?Sized>(frame: &F, at: u32) -> Result<TunnelHeader, Counter> {
    let [version_and_length, _, type_high, type_low, high, middle, low, _]: [u8; 8] =
        read(frame, at)?;
    if version_and_length >> 6 != 0 {
        return Err(Counter::UnknownTunnel);
    }
    let options_length = u32::from(version_and_length & 0x3f) * 4;
    let id = u32::from_be_bytes([0, high, middle, low]);
    Ok((true, id, u16::from_be_bytes([type_high, type_low]), at + 8 + options_length))
}

/// Parses RFC 2784 §2 with the fields of RFC 2890 §2: flags and version, protocol, then the fields
/// that the flags announce.
#[inline(always)]
fn gre<F: Frame + ?Sized>(frame: &F, at: u32) -> Result<TunnelHeader, Counter> {
    const CHECKSUM: u16 = 0x8000;
    const KEY: u16 = 0x2000;
    const SEQUENCE: u16 = 0x1000;
    /// Source routes of RFC 1701, for which RFC 2784 §2.2 requires to discard the packet, and the
    /// version, which is 1 in PPTP (RFC 2637 §4.1).
    const UNKNOWN: u16 = 0x4c07;
    let [flags_high, flags_low, type_high, type_low] = read(frame, at)?;
    let flags = u16::from_be_bytes([flags_high, flags_low]);
    if flags & UNKNOWN != 0 {
        return Err(Counter::UnknownTunnel);
    }
    let mut offset = at + 4;
    if flags & CHECKSUM != 0 {
        offset += 4;
    }
    let mut key = 0;
    if flags & KEY != 0 {
        key = u32::from_be_bytes(read(frame, offset)?);
        offset += 4;
    }
    if flags & SEQUENCE != 0 {
        offset += 4;
    }
    Ok((flags & KEY != 0, key, u16::from_be_bytes([type_high, type_low]), offset))
}
