//! Packets in tunnels.

use super::{
    frames::{ETHERNET_IN_TUNNEL, GENEVE_PORT, VXLAN_PORT, geneve, gre, in_every_tunnel, vxlan},
    *,
};

fn in_set(set: PortSet, port: u16) -> bool {
    match set {
        PortSet::Dns => port == 53,
        PortSet::Vxlan => port == VXLAN_PORT,
        PortSet::Geneve => port == GENEVE_PORT,
    }
}

fn looked_into(frame: &[u8]) -> Result<Headers, Counter> {
    parse(frame, None, ALL, in_set)
}

#[test]
fn the_packet_in_every_tunnel_is_found() {
    let query = query();
    let segment = tcp(CLIENT_PORT, 53, &[1; 12], b"x");
    for (protocol, inner) in [(UDP, &query), (TCP, &segment)] {
        for (carrier, payload, tunnel) in in_every_tunnel(protocol, inner) {
            for outer in [ipv4(carrier, &payload), ipv6(carrier, &payload)] {
                let frame = ethernet(&[(VLAN, 100)], &outer);
                let headers = looked_into(&frame).expect("captured");
                assert_eq!((headers.tunnel, headers.tunnel_id), tunnel);
                assert_eq!((headers.transport, headers.content), (protocol, Content::Dns));
                // The inner segment is the end of the frame.
                let transport = usize::from(headers.transport_offset);
                assert_eq!(&frame[transport..], &inner[..]);
                assert_eq!(frame[usize::from(headers.network_offset)] >> 4, headers.ip_version);
                assert_eq!((headers.source.port, headers.destination.port), (CLIENT_PORT, 53));
                assert_eq!((headers.vlan.depth, headers.vlan.outer_tci), (1, 100), "on the wire");
                // If tunnels are not followed, it is what the outer packet is.
                let outcome = parse(&*frame, None, features::FRAGMENTS, in_set);
                let reason = match carrier {
                    UDP => Counter::NotDns,
                    _ => Counter::UnreadEncapsulation,
                };
                assert_eq!(outcome, Err(reason));
                for length in 0..usize::from(headers.payload_offset) {
                    assert_eq!(looked_into(&frame[..length]), Err(Counter::MalformedHeader));
                }
            }
        }
    }
}

#[test]
fn a_fragment_in_a_tunnel_is_one() {
    let inner = ethernet(&[], &ipv4_with(&[], 185, UDP, &query()));
    let frame = ethernet(&[], &ipv4(UDP, &vxlan(3, &inner)));
    let headers = looked_into(&frame).expect("captured");
    assert_eq!((headers.fragment, headers.tunnel_id), (Fragment::Later, Some(3)));
    assert_eq!(headers.fragment_offset, headers.network_offset);
}

#[test]
fn fragments_of_a_tunnels_packet_are_recognised() {
    let inner = ethernet(&[], &ipv4(UDP, &query()));
    let first = ethernet(&[], &ipv4_with(&[], MORE_FRAGMENTS, UDP, &vxlan(3, &inner)));
    assert_eq!(looked_into(&first).expect("to remember").content, Content::Tunnel);
    let unjoined = parse(&*first, None, features::VXLAN, in_set);
    assert_eq!(unjoined, Err(Counter::TunnelFragment));
    for field in [MORE_FRAGMENTS, 185] {
        let frame = ethernet(&[], &ipv4_with(&[], field, GRE, &gre(0, 0, 0x0800, &[0; 40])));
        assert_eq!(looked_into(&frame), Err(Counter::TunnelFragment));
    }
}

#[test]
fn unsupported_tunnels_have_their_counters() {
    let packet = ipv4(UDP, &query());
    let frame = ethernet(&[], &packet);
    let arp = ethernet_with(&[], 0x0806, &[0; 46]);
    let mut without_identifier = vxlan(3, &frame);
    without_identifier[8] = 0;
    let mut next_version = geneve(3, 0, ETHERNET_IN_TUNNEL, &frame);
    next_version[8] = 0x40;
    let twice = ethernet(&[], &ipv4(UDP, &vxlan(3, &frame)));
    let tags = [(QINQ, 1), (VLAN, 2), (VLAN, 3)];
    for (carrier, payload, reason) in [
        (UDP, without_identifier, Counter::UnknownTunnel),
        (UDP, next_version, Counter::UnknownTunnel),
        // PPTP, and the routing of RFC 1701.
        (GRE, gre(0x2001, 5, 0x880b, &packet), Counter::UnknownTunnel),
        (GRE, gre(0x4000, 5, 0x0800, &packet), Counter::UnknownTunnel),
        (GRE, gre(0, 0, 0x88be, &frame), Counter::NotIp),
        (UDP, geneve(3, 0, 0x894f, &frame), Counter::NotIp),
        (UDP, vxlan(3, &arp), Counter::NotIp),
        (UDP, vxlan(3, &twice), Counter::NotDns),
        (UDP, vxlan(3, &ethernet(&[], &ipv4(UDP, &udp(1, 2, b"")))), Counter::NotDns),
        (UDP, vxlan(3, &ethernet(&tags, &packet)), Counter::VlanDepth),
    ] {
        assert_eq!(looked_into(&ethernet(&[], &ipv4(carrier, &payload))), Err(reason));
    }
}

#[test]
fn an_outer_packet_to_a_dns_port_is_not_followed() {
    let inner = ethernet(&[], &ipv4(UDP, &query()));
    let mut payload = vxlan(3, &inner);
    payload[0..2].copy_from_slice(&53_u16.to_be_bytes());
    let headers = looked_into(&ethernet(&[], &ipv4(UDP, &payload))).expect("captured");
    assert_eq!((headers.tunnel, headers.destination.port), (0, VXLAN_PORT));
}

#[test]
fn a_tunnel_after_too_long_headers_is_refused() {
    let inner = ethernet(&[], &ipv4(UDP, &query()));
    let behind = |count: u8, units: u8| {
        let mut payload = Vec::new();
        for position in 1..=count {
            payload.extend(extension(if position == count { UDP } else { DESTINATION }, units));
        }
        payload.extend(vxlan(3, &inner));
        looked_into(&ethernet(&[(QINQ, 1), (VLAN, 2)], &ipv6(DESTINATION, &payload)))
    };
    assert_eq!(behind(8, 255), Err(Counter::ExtensionLimit));
    assert_eq!(behind(8, 240).map(|headers| headers.tunnel), Ok(record::tunnel::VXLAN));
}
