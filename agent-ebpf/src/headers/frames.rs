//! Builds frames for tests from the inside out. The tests of the kernel programs use it too.

pub(crate) const CLIENT4: [u8; 4] = [192, 0, 2, 1];
pub(crate) const SERVER4: [u8; 4] = [198, 51, 100, 53];
pub(crate) const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
pub(crate) const SERVER6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0x53];

pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const GRE: u8 = 47;
pub(crate) const AUTHENTICATION: u8 = 51;
pub(crate) const DESTINATION: u8 = 60;

/// "More fragments" in the IPv4 fragment field.
pub(crate) const MORE_FRAGMENTS: u16 = 0x2000;

pub(crate) fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).expect("UDP length");
    let mut segment = Vec::new();
    segment.extend(source.to_be_bytes());
    segment.extend(destination.to_be_bytes());
    segment.extend(length.to_be_bytes());
    segment.extend([0, 0]);
    segment.extend(payload);
    segment
}

/// Builds a TCP segment; `options` must be a multiple of four bytes.
pub(crate) fn tcp(source: u16, destination: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let words = u8::try_from(5 + options.len() / 4).expect("TCP options");
    let mut segment = Vec::new();
    segment.extend(source.to_be_bytes());
    segment.extend(destination.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 2, words << 4, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(options);
    segment.extend(payload);
    segment
}

pub(crate) fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_with(&[], 0, protocol, payload)
}

/// Builds an IPv4 packet. `options` must be a multiple of four bytes; `fragment` is the field of
/// flags and offset.
pub(crate) fn ipv4_with(options: &[u8], fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let words = u8::try_from(5 + options.len() / 4).expect("IPv4 options");
    let length = u16::try_from(20 + options.len() + payload.len()).expect("IPv4 length");
    let mut packet = vec![0x40 | words, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0x53, 0x53]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(CLIENT4);
    packet.extend(SERVER4);
    packet.extend(options);
    packet.extend(payload);
    packet
}

/// Builds an IPv6 packet; `payload` begins with the extension headers, if any.
pub(crate) fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("IPv6 payload length");
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([next_header, 64]);
    packet.extend(CLIENT6);
    packet.extend(SERVER6);
    packet.extend(payload);
    packet
}

/// Builds a hop-by-hop, routing or destination header of `8 * (units + 1)` bytes.
pub(crate) fn extension(next_header: u8, units: u8) -> Vec<u8> {
    let mut header = vec![0; 8 * (usize::from(units) + 1)];
    header[0] = next_header;
    header[1] = units;
    header
}

/// Builds an authentication header of `4 * (units + 2)` bytes.
pub(crate) fn authentication(next_header: u8, units: u8) -> Vec<u8> {
    let mut header = vec![0; 4 * (usize::from(units) + 2)];
    header[0] = next_header;
    header[1] = units;
    header
}

/// Builds an IPv6 fragment header; `offset` in units of eight bytes.
pub(crate) fn fragment(next_header: u8, offset: u16, more: bool) -> Vec<u8> {
    let mut header = vec![next_header, 0];
    header.extend((offset << 3 | u16::from(more)).to_be_bytes());
    header.extend([0, 0, 0, 1]);
    header
}

/// Builds a frame with an IP packet; tags are EtherType and control information.
pub(crate) fn ethernet(tags: &[(u16, u16)], packet: &[u8]) -> Vec<u8> {
    let ethertype: u16 = match packet.first().map(|byte| byte >> 4) {
        Some(6) => 0x86dd,
        _ => 0x0800,
    };
    ethernet_with(tags, ethertype, packet)
}

pub(crate) fn ethernet_with(tags: &[(u16, u16)], ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 0x53, 2, 0, 0, 0, 0, 1];
    for (tag_type, tci) in tags {
        frame.extend(tag_type.to_be_bytes());
        frame.extend(tci.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    frame
}

pub(crate) const IPV4_IN_IP: u8 = 4;
pub(crate) const IPV6_IN_IP: u8 = 41;
pub(crate) const VXLAN_PORT: u16 = 4789;
pub(crate) const GENEVE_PORT: u16 = 6081;
/// Transparent Ethernet Bridging.
pub(crate) const ETHERNET_IN_TUNNEL: u16 = 0x6558;

/// Builds VXLAN with its UDP header, and an Ethernet frame in it.
pub(crate) fn vxlan(network: u32, frame: &[u8]) -> Vec<u8> {
    let mut tunnel = vec![0x08, 0, 0, 0];
    tunnel.extend((network << 8).to_be_bytes());
    tunnel.extend(frame);
    udp(50_000, VXLAN_PORT, &tunnel)
}

/// Builds Geneve with its UDP header and a number of options of four bytes each.
pub(crate) fn geneve(network: u32, options: u8, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut tunnel = vec![options, 0];
    tunnel.extend(ethertype.to_be_bytes());
    tunnel.extend((network << 8).to_be_bytes());
    tunnel.extend(vec![0xee; usize::from(options) * 4]);
    tunnel.extend(payload);
    udp(50_000, GENEVE_PORT, &tunnel)
}

/// Builds GRE with the fields that its flags announce; each contains the key.
pub(crate) fn gre(flags: u16, key: u32, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut tunnel = Vec::new();
    tunnel.extend(flags.to_be_bytes());
    tunnel.extend(ethertype.to_be_bytes());
    for flag in [0x8000, 0x2000, 0x1000] {
        if flags & flag != 0 {
            tunnel.extend(key.to_be_bytes());
        }
    }
    tunnel.extend(payload);
    tunnel
}

/// The tunnel fields of a ring item: its number and its identifier.
pub(crate) type Tunnel = (u8, Option<u32>);

/// Builds every tunnel around every kind of inner packet of `segment`, in both versions of IP, with
/// and without inner tags. Returns protocol and payload of the outer IP packet, and the tunnel
/// fields of the ring item.
pub(crate) fn in_every_tunnel(protocol: u8, segment: &[u8]) -> Vec<(u8, Vec<u8>, Tunnel)> {
    let mut all = Vec::new();
    for packet in [ipv4(protocol, segment), ipv6(protocol, segment)] {
        let ethertype = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
        let carrier = if packet[0] >> 4 == 4 { IPV4_IN_IP } else { IPV6_IN_IP };
        all.push((carrier, packet.clone(), (4, None)));
        for tags in [&[][..], &[(0x8100, 9)], &[(0x88a8, 8), (0x8100, 9)]] {
            let frame = ethernet(tags, &packet);
            all.push((UDP, vxlan(0x12_3456, &frame), (1, Some(0x12_3456))));
            for options in [0, 1, 63] {
                let tunnel = geneve(77, options, ETHERNET_IN_TUNNEL, &frame);
                all.push((UDP, tunnel, (2, Some(77))));
            }
            all.push((GRE, gre(0x2000, 5, ETHERNET_IN_TUNNEL, &frame), (3, Some(5))));
        }
        all.push((UDP, geneve(78, 2, ethertype, &packet), (2, Some(78))));
        for flags in [0, 0x8000, 0x1000, 0x9000] {
            all.push((GRE, gre(flags, 6, ethertype, &packet), (3, None)));
            all.push((GRE, gre(flags | 0x2000, 6, ethertype, &packet), (3, Some(6))));
        }
    }
    all
}
