//! Tests every branch of [`super::parse`], over slices.

#![allow(
    clippy::cast_possible_truncation,
    reason = "small numbers of the tests' own, and random bits to be cut"
)]

#[path = "frames.rs"]
mod frames;
mod tunnels;

use std::{cell::Cell, collections::HashSet};

use frames::{
    AUTHENTICATION, CLIENT4, CLIENT6, DESTINATION, FRAGMENT, GRE, HOP_BY_HOP, MORE_FRAGMENTS,
    ROUTING, SERVER4, SERVER6, TCP, UDP, authentication, ethernet, ethernet_with, extension,
    fragment, gre, ipv4, ipv4_with, ipv6, tcp, udp,
};

use super::*;

const CLIENT_PORT: u16 = 40_000;
const VLAN: u16 = 0x8100;
const QINQ: u16 = 0x88a8;
const QINQ_OLD: u16 = 0x9100;

fn parsed(frame: &[u8]) -> Result<Headers, Counter> {
    parse(frame, None, features::FRAGMENTS, dns_only)
}

const ALL: u32 =
    features::FRAGMENTS | features::VXLAN | features::GENEVE | features::GRE | features::IPIP;

/// The port sets of a configuration without tunnels.
fn dns_only(set: PortSet, port: u16) -> bool {
    set == PortSet::Dns && port == 53
}

fn query() -> Vec<u8> {
    udp(CLIENT_PORT, 53, b"payload")
}

/// Returns version, network, transport and payload offsets.
fn offsets(frame: &[u8]) -> (u8, u16, u16, u16) {
    let headers = parsed(frame).expect("captured");
    (headers.ip_version, headers.network_offset, headers.transport_offset, headers.payload_offset)
}

#[test]
fn a_udp_query_over_ipv4_is_found_with_its_flow() {
    let headers = parsed(&ethernet(&[], &ipv4(UDP, &query()))).expect("captured");
    assert_eq!(
        headers,
        Headers {
            vlan: VlanTags::default(),
            ip_version: 4,
            transport: UDP,
            fragment: Fragment::Whole,
            content: Content::Dns,
            network_offset: 14,
            transport_offset: 34,
            payload_offset: 42,
            fragment_offset: 0,
            identification: 0,
            source: Endpoint {
                address: [0, u64::from(u32::from_be_bytes(CLIENT4))],
                port: CLIENT_PORT,
            },
            destination: Endpoint {
                address: [0, u64::from(u32::from_be_bytes(SERVER4))],
                port: 53,
            },
            tunnel: record::tunnel::NONE,
            tunnel_id: None,
            message_id: u16::from_be_bytes(*b"pa"),
        }
    );
}

#[test]
fn a_tcp_segment_over_ipv6_is_found_with_its_flow() {
    let segment = tcp(53, CLIENT_PORT, &[1; 12], b"");
    let headers = parsed(&ethernet(&[], &ipv6(TCP, &segment))).expect("captured");
    let words = |address: [u8; 16]| {
        let value = u128::from_be_bytes(address);
        [(value >> 64) as u64, value as u64]
    };
    assert_eq!((headers.ip_version, headers.transport), (6, TCP));
    assert_eq!(headers.payload_offset, 14 + 40 + 20 + 12);
    assert_eq!(headers.source.address, words(CLIENT6));
    assert_eq!(headers.destination.address, words(SERVER6));
    assert_eq!((headers.source.port, headers.destination.port), (53, CLIENT_PORT));
}

#[test]
fn ipv4_options_move_the_transport_header() {
    for words in 0..=10 {
        let packet = ipv4_with(&vec![1; words * 4], 0, UDP, &query());
        let transport = 34 + words as u16 * 4;
        assert_eq!(offsets(&ethernet(&[], &packet)), (4, 14, transport, transport + 8));
    }
}

#[test]
fn tcp_options_move_the_payload() {
    for words in 0..=10 {
        let segment = tcp(CLIENT_PORT, 53, &vec![1; words * 4], b"x");
        let expected = 34 + 20 + words as u16 * 4;
        assert_eq!(offsets(&ethernet(&[], &ipv4(TCP, &segment))).3, expected);
    }
}

#[test]
fn every_kind_of_extension_header_is_followed() {
    for (kind, header) in [
        (HOP_BY_HOP, extension(UDP, 0)),
        (ROUTING, extension(UDP, 2)),
        (DESTINATION, extension(UDP, 255)),
        (AUTHENTICATION, authentication(UDP, 4)),
        (FRAGMENT, fragment(UDP, 0, false)),
    ] {
        let packet = ipv6(kind, &[header.clone(), query()].concat());
        let transport = 54 + header.len() as u16;
        assert_eq!(offsets(&ethernet(&[], &packet)), (6, 14, transport, transport + 8), "{kind}");
    }
}

/// Returns `count` extension headers of maximum length, then a query.
fn chain(count: u32) -> Vec<u8> {
    let mut payload = Vec::new();
    for position in 1..=count {
        let next = if position == count { UDP } else { DESTINATION };
        payload.extend(extension(next, 255));
    }
    payload.extend(query());
    ethernet(&[(QINQ, 1), (VLAN, 2)], &ipv6(DESTINATION, &payload))
}

#[test]
fn the_longest_chain_of_extension_headers_is_followed_and_a_longer_one_is_not() {
    let transport = 22 + 40 + MAX_EXTENSION_HEADERS as u16 * 2048;
    assert_eq!(offsets(&chain(MAX_EXTENSION_HEADERS)), (6, 22, transport, transport + 8));
    assert_eq!(parsed(&chain(MAX_EXTENSION_HEADERS + 1)), Err(Counter::ExtensionLimit));
}

#[test]
fn tags_of_every_kind_are_read_outermost_first() {
    for (tags, expected) in [
        (vec![(VLAN, 100)], (1, 100, 0)),
        (vec![(QINQ, 0xe064)], (1, 0xe064, 0)),
        (vec![(QINQ, 200), (VLAN, 0x2005)], (2, 200, 0x2005)),
        (vec![(QINQ_OLD, 7), (QINQ_OLD, 8)], (2, 7, 8)),
    ] {
        let headers = parsed(&ethernet(&tags, &ipv4(UDP, &query()))).expect("captured");
        let vlan = headers.vlan;
        assert_eq!((vlan.depth, vlan.outer_tci, vlan.inner_tci), expected);
        assert_eq!(usize::from(headers.network_offset), 14 + 4 * tags.len());
    }
}

#[test]
fn an_offloaded_tag_is_the_outermost() {
    let with_tag = |tags: &[(u16, u16)]| {
        let frame = ethernet(tags, &ipv4(UDP, &query()));
        parse(&*frame, Some(300), 0, dns_only)
    };
    let vlan = with_tag(&[]).expect("captured").vlan;
    assert_eq!((vlan.depth, vlan.outer_tci), (1, 300));
    let vlan = with_tag(&[(VLAN, 5)]).expect("captured").vlan;
    assert_eq!((vlan.depth, vlan.outer_tci, vlan.inner_tci), (2, 300, 5));
    assert_eq!(with_tag(&[(VLAN, 5), (VLAN, 6)]), Err(Counter::VlanDepth));
}

#[test]
fn a_third_tag_is_too_many() {
    let frame = ethernet(&[(QINQ, 1), (VLAN, 2), (VLAN, 3)], &ipv4(UDP, &query()));
    assert_eq!(parsed(&frame), Err(Counter::VlanDepth));
}

#[test]
fn frames_without_ip_are_ignored() {
    for ethertype in [0x0806, 0x88cc, 46, 0x8863] {
        let frame = ethernet_with(&[], ethertype, &[0; 46]);
        assert_eq!(parsed(&frame), Err(Counter::NotIp), "{ethertype:#x}");
        let tagged = ethernet_with(&[(VLAN, 1)], ethertype, &[0; 46]);
        assert_eq!(parsed(&tagged), Err(Counter::NotIp), "{ethertype:#x}");
    }
}

#[test]
fn encapsulations_that_may_hold_dns_and_are_not_read_have_a_reason_of_their_own() {
    const IPV4: u8 = 4;
    const IPV6: u8 = 41;
    let inner = [ipv4(UDP, &query()), ipv6(UDP, &query())];
    for (ethertype, header) in [
        (0x8864, &[0x11, 0, 0, 1, 0, 60, 0, 0x21][..]),
        (0x8847, &[0, 1, 1, 64]),
        (0x8848, &[0; 4]),
    ] {
        for tags in [&[][..], &[(VLAN, 1)]] {
            let frame = ethernet_with(tags, ethertype, &[header, &inner[0]].concat());
            assert_eq!(parsed(&frame), Err(Counter::UnreadEncapsulation), "{ethertype:#x}");
        }
    }
    for (protocol, payload) in
        [(IPV4, inner[0].clone()), (IPV6, inner[1].clone()), (GRE, gre(0, 0, 0x0800, &inner[0]))]
    {
        for packet in [
            ipv4(protocol, &payload),
            ipv6(protocol, &payload),
            ipv6(DESTINATION, &[extension(protocol, 0), payload.clone()].concat()),
            ipv6(FRAGMENT, &[fragment(protocol, 185, false), payload.clone()].concat()),
        ] {
            assert_eq!(
                parsed(&ethernet(&[], &packet)),
                Err(Counter::UnreadEncapsulation),
                "{protocol}"
            );
        }
    }
}

#[test]
fn other_protocols_are_left_alone() {
    const ICMP: u8 = 1;
    const ICMP6: u8 = 58;
    const ESP: u8 = 50;
    const NO_NEXT_HEADER: u8 = 59;
    for packet in [
        ipv4(ICMP, &[0; 8]),
        ipv4(ESP, &[0; 8]),
        ipv6(ICMP6, &[0; 8]),
        ipv6(ESP, &[0; 8]),
        ipv6(NO_NEXT_HEADER, &[]),
        ipv6(HOP_BY_HOP, &[extension(ICMP6, 0), vec![0; 8]].concat()),
        // A later fragment, but not of UDP or TCP.
        ipv4_with(&[], 185, ICMP, &[0; 8]),
        ipv6(FRAGMENT, &[fragment(ICMP6, 185, false), vec![0; 8]].concat()),
    ] {
        assert_eq!(parsed(&ethernet(&[], &packet)), Err(Counter::NotDns));
    }
}

#[test]
fn other_ports_are_left_alone_and_either_port_suffices() {
    let outcome = |source, destination| {
        parsed(&ethernet(&[], &ipv4(UDP, &udp(source, destination, b"")))).map(drop)
    };
    assert_eq!(outcome(CLIENT_PORT, 443), Err(Counter::NotDns));
    assert_eq!(outcome(53, CLIENT_PORT), Ok(()));
    assert_eq!(outcome(CLIENT_PORT, 53), Ok(()));
    assert_eq!(outcome(53, 53), Ok(()));
}

#[test]
fn the_destination_port_is_checked_first() {
    let calls = Cell::new(0);
    let frame = ethernet(&[], &ipv4(UDP, &query()));
    let outcome = parse(&*frame, None, 0, |set, port| {
        calls.set(calls.get() + 1);
        dns_only(set, port)
    });
    assert!(outcome.is_ok());
    assert_eq!(calls.get(), 1);
}

/// Returns fragment, content, offset of the fragment's header, identification.
fn part(frame: &[u8]) -> (Fragment, Content, u16, u32) {
    let headers = parsed(frame).expect("captured");
    (headers.fragment, headers.content, headers.fragment_offset, headers.identification)
}

#[test]
fn first_fragments_determine_the_content_of_their_datagram() {
    let other = udp(1, 2, b"x");
    for (segment, content) in [(query(), Content::Dns), (other, Content::Other)] {
        let v4 = ethernet(&[], &ipv4_with(&[], MORE_FRAGMENTS, UDP, &segment));
        assert_eq!(part(&v4), (Fragment::First, content, 14, 0x5353));
        let payload = [extension(FRAGMENT, 0), fragment(UDP, 0, true), segment].concat();
        let v6 = ethernet(&[], &ipv6(HOP_BY_HOP, &payload));
        assert_eq!(part(&v6), (Fragment::First, content, 62, 1));
    }
}

#[test]
fn dont_fragment_and_atomic_fragments_are_whole() {
    const DONT_FRAGMENT: u16 = 0x4000;
    let v4 = ethernet(&[], &ipv4_with(&[], DONT_FRAGMENT, UDP, &query()));
    assert_eq!(part(&v4), (Fragment::Whole, Content::Dns, 0, 0));
    let payload = [fragment(UDP, 0, false), query()].concat();
    let v6 = ethernet(&[], &ipv6(FRAGMENT, &payload));
    assert_eq!(part(&v6), (Fragment::Whole, Content::Dns, 0, 0));
}

/// Packets without ports that may belong to DNS, with their protocol and the offset of their data.
fn later_fragments() -> Vec<(Vec<u8>, u8, u16)> {
    vec![
        (ipv4_with(&[], 1, UDP, &query()), UDP, 34),
        (ipv4_with(&[1; 8], MORE_FRAGMENTS | 0x1fff, TCP, &query()), TCP, 42),
        (ipv6(FRAGMENT, &[fragment(UDP, 1, false), query()].concat()), UDP, 62),
        (ipv6(FRAGMENT, &[fragment(TCP, 0x1fff, true), query()].concat()), TCP, 62),
        // The options come first in the datagram; the header after them is in the first fragment.
        (ipv6(FRAGMENT, &[fragment(DESTINATION, 1, true), query()].concat()), DESTINATION, 62),
    ]
}

#[test]
fn later_fragments_are_found_without_ports() {
    for (packet, protocol, data) in later_fragments() {
        let headers = parsed(&ethernet(&[], &packet)).expect("captured");
        assert_eq!((headers.fragment, headers.content), (Fragment::Later, Content::Unknown));
        assert_eq!((headers.source.port, headers.destination.port), (0, 0));
        assert_eq!((headers.transport, headers.transport_offset), (protocol, data));
        assert_eq!(headers.payload_offset, data);
        assert_ne!(headers.source.address, [0, 0]);
    }
}

#[test]
fn where_fragments_are_not_joined_later_ones_have_their_own_counter() {
    for (packet, ..) in later_fragments() {
        let outcome = parse(&*ethernet(&[], &packet), None, 0, dns_only);
        assert_eq!(outcome, Err(Counter::LaterFragment));
    }
    let first = |segment: &[u8]| {
        parse(&*ethernet(&[], &ipv4_with(&[], MORE_FRAGMENTS, UDP, segment)), None, 0, dns_only)
    };
    assert_eq!(first(&query()).expect("captured").fragment, Fragment::First);
    assert_eq!(first(&udp(1, 2, b"x")), Err(Counter::NotDns));
}

#[test]
fn a_later_fragment_without_data_and_a_fragment_of_a_fragment_are_malformed() {
    let twice = [fragment(FRAGMENT, 0, true), fragment(UDP, 0, true), query()].concat();
    for packet in [
        ipv4_with(&[], 1, UDP, b""),
        ipv6(FRAGMENT, &fragment(UDP, 1, false)),
        ipv6(FRAGMENT, &twice),
    ] {
        assert_eq!(parsed(&ethernet(&[], &packet)), Err(Counter::MalformedHeader));
    }
}

#[test]
fn a_packet_is_found_after_any_link_layer() {
    for (ethertype, packet) in [(0x0800, ipv4(UDP, &query())), (0x86dd, ipv6(UDP, &query()))] {
        for offset in [0, 4, 16, 20, 16_000] {
            let frame = [vec![0xff; offset as usize], packet.clone()].concat();
            let start = Cursor { ethertype, offset, vlan: VlanTags::default() };
            let headers = parse_from(&*frame, start, 0, dns_only).expect("captured");
            assert_eq!(u32::from(headers.network_offset), offset);
        }
    }
    // Linux cooked capture: the tag's EtherType is in the link header.
    let frame = [&[0xff; 16][..], &[0x20, 5, 0x08, 0], &ipv4(UDP, &query())].concat();
    let start = Cursor { ethertype: VLAN, offset: 16, vlan: VlanTags::default() };
    let headers = parse_from(&*frame, start, 0, dns_only).expect("captured");
    assert_eq!((headers.vlan.depth, headers.vlan.outer_tci), (1, 0x2005));
    let start = Cursor { offset: 20_000, ..start };
    assert_eq!(parse_from(&*frame, start, 0, dns_only), Err(Counter::MalformedHeader));
}

#[test]
fn every_cut_within_the_headers_is_malformed() {
    for (frame, headers) in [
        (ethernet(&[], &ipv4(UDP, &query())), 42),
        (ethernet(&[(VLAN, 1)], &ipv4_with(&[1; 40], 0, UDP, &query())), 86),
        (ethernet(&[], &ipv4(TCP, &tcp(1, 53, &[1; 40], b""))), 94),
        (ethernet(&[(QINQ, 1), (VLAN, 1)], &ipv6(UDP, &query())), 70),
        (ethernet(&[], &ipv6(AUTHENTICATION, &[authentication(UDP, 4), query()].concat())), 86),
    ] {
        for length in 0..headers {
            assert_eq!(
                parsed(&frame[..length]),
                Err(Counter::MalformedHeader),
                "{length} of {headers}"
            );
        }
        assert!(parsed(&frame[..headers]).is_ok(), "{headers}");
    }
}

/// Returns a frame with one byte replaced.
fn with_byte(mut frame: Vec<u8>, offset: usize, byte: u8) -> Vec<u8> {
    frame[offset] = byte;
    frame
}

#[test]
fn headers_that_contradict_themselves_are_malformed() {
    let v4 = || ethernet(&[], &ipv4(UDP, &query()));
    let v6 = || ethernet(&[], &ipv6(UDP, &query()));
    let over_tcp = || ethernet(&[], &ipv4(TCP, &tcp(1, 53, &[], b"")));
    for (name, frame) in [
        ("version 6 in IPv4", with_byte(v4(), 14, 0x65)),
        ("IPv4 header of 16 bytes", with_byte(v4(), 14, 0x44)),
        ("version 4 in IPv6", with_byte(v6(), 14, 0x40)),
        ("TCP header of 16 bytes", with_byte(over_tcp(), 34 + 12, 0x40)),
        ("TCP header past the end", with_byte(over_tcp(), 34 + 12, 0x60)),
        ("UDP header past the IPv4 packet", with_byte(v4(), 17, 27)),
        ("UDP header past the IPv6 packet", with_byte(v6(), 19, 7)),
    ] {
        assert_eq!(parsed(&frame), Err(Counter::MalformedHeader), "{name}");
    }
    assert!(parsed(&with_byte(v4(), 17, 28)).is_ok(), "just within");
    assert!(parsed(&with_byte(v6(), 19, 8)).is_ok(), "just within");
}

#[test]
fn a_stated_length_of_zero_is_a_packet_beyond_64_kib() {
    let v4 = with_byte(ethernet(&[], &ipv4(TCP, &tcp(1, 53, &[], b""))), 17, 0);
    assert!(parsed(&v4).is_ok());
    let v6 = with_byte(ethernet(&[], &ipv6(TCP, &tcp(1, 53, &[], b""))), 19, 0);
    assert!(parsed(&v6).is_ok());
}

#[test]
fn a_wrong_udp_length_is_left_to_the_agent() {
    for (high, low) in [(0, 0), (0, 7), (0xff, 0xff)] {
        let frame = ethernet(&[], &ipv4(UDP, &query()));
        let frame = with_byte(with_byte(frame, 34 + 4, high), 34 + 5, low);
        assert!(parsed(&frame).is_ok());
    }
}

#[test]
fn padding_after_the_packet_changes_nothing() {
    let frame = ethernet(&[], &ipv4(UDP, &udp(1, 53, b"")));
    let padded = [frame.clone(), vec![0; 18]].concat();
    assert_eq!(parsed(&padded), parsed(&frame));
}

#[test]
fn random_frames_never_escape() {
    let mut state = 53_u64;
    let mut random = || {
        // xorshift64 (Marsaglia 2003)
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..200_000 {
        let length = (random() % 120) as usize;
        let mut frame: Vec<u8> = (0..length).map(|_| random() as u8).collect();
        if length > 24 {
            let choice = random() as usize;
            let ethertype = [0x0800_u16, 0x86dd, VLAN, QINQ][choice & 3];
            frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
            frame[14] = [0x45, 0x60, 0x4f, 0x46][choice >> 2 & 3];
            frame[20] = [UDP, FRAGMENT, AUTHENTICATION, DESTINATION][choice >> 4 & 3];
        }
        if length > 60 {
            // A tunnel that may have an inner packet.
            frame[23] = [UDP, TCP, GRE, random() as u8][random() as usize & 3];
            frame[44..46].copy_from_slice(&[0x65, 0x58]);
        }
        let some_ports = |set: PortSet, port: u16| port.is_multiple_of(set as u16 + 2);
        for features in [0, ALL, features::FRAGMENTS | features::GENEVE] {
            let _ = parse(&*frame, None, features, some_ports);
        }
        if let Ok(headers) = parse(&*frame, None, 0, |_, _| true) {
            assert!(usize::from(headers.payload_offset) <= frame.len());
            assert!(headers.network_offset < headers.transport_offset);
            assert!(headers.transport_offset < headers.payload_offset);
        }
    }
}

fn endpoint(address: u64, port: u16) -> Endpoint {
    Endpoint { address: [0, address], port }
}

#[test]
fn both_directions_of_a_flow_share_a_hash() {
    let forth = ethernet(&[], &ipv6(UDP, &udp(CLIENT_PORT, 53, b"")));
    let forth = parsed(&forth).expect("captured");
    assert_eq!(
        flow_hash(&forth.source, &forth.destination),
        flow_hash(&forth.destination, &forth.source)
    );
}

#[test]
fn a_query_to_a_group_and_its_responses_share_a_hash() {
    let (asker, group, responder) = (1, 0xe000_00fc, 2);
    for port in MULTICAST_PORTS {
        let query = flow_hash(&endpoint(asker, 40_000), &endpoint(group, port));
        let answer = flow_hash(&endpoint(responder, port), &endpoint(asker, 40_000));
        assert_eq!(query, answer);
        // Not all of many clients use the same ring.
        assert_ne!(query, flow_hash(&endpoint(asker, 40_001), &endpoint(group, port)));
        let query = flow_hash(&endpoint(asker, port), &endpoint(group, port));
        assert_eq!(query, flow_hash(&endpoint(responder, port), &endpoint(group, port)));
        assert_eq!(query, flow_hash(&endpoint(responder, port), &endpoint(asker, port)));
    }
}

#[test]
fn a_message_keeps_its_ring_through_address_translation() {
    let hash = |source: Endpoint, destination: Endpoint, transport, id| {
        let frame = ethernet(&[], &ipv4(UDP, &query()));
        let headers = parsed(&frame).expect("captured");
        Headers { transport, source, destination, message_id: id, ..headers }.ring_hash(false)
    };
    let [client, masqueraded] = [endpoint(1, 40_000), endpoint(9, 61_234)];
    let [service, backend] = [endpoint(2, 53), endpoint(3, 5_353)];
    let query = hash(client, service, UDP, 7);
    for (source, destination) in [
        (client, backend),
        (masqueraded, backend),
        (masqueraded, service),
        (backend, masqueraded),
        (backend, client),
        (service, client),
    ] {
        assert_eq!(hash(source, destination, UDP, 7), query);
        assert_ne!(hash(source, destination, UDP, 8), query);
    }
    let segment = hash(client, service, TCP, 0);
    assert_eq!(hash(client, backend, TCP, 0), segment);
    assert_eq!(hash(backend, client, TCP, 0), segment);
    assert_ne!(hash(endpoint(1, 40_001), backend, TCP, 0), segment);
}

#[test]
fn messages_and_connections_spread_evenly_over_rings() {
    for ring_count in [2_u32, 3, 8] {
        for step in [1_u16, 2, 256] {
            let mut of_ring = vec![[0_u32; 2]; ring_count as usize];
            let count = 65_536_u32 / u32::from(step);
            for number in 0..count {
                let value = number as u16 * step;
                let ends = [endpoint(1, value), endpoint(2, 53)];
                let by_id = message_hash(&endpoint(1, 40_000), &ends[1], value);
                of_ring[ring_index(by_id, ring_count) as usize][0] += 1;
                of_ring[ring_index(tcp_hash(&ends[0], &ends[1]), ring_count) as usize][1] += 1;
            }
            let even = count / ring_count;
            for counts in &of_ring {
                assert!(
                    counts.iter().all(|count| count.abs_diff(even) <= even / 5 + 2),
                    "{ring_count} rings, step {step}: {of_ring:?}"
                );
            }
        }
    }
}

#[test]
fn the_identifier_of_a_message_that_ends_early_is_zero() {
    for payload in [&b""[..], b"x"] {
        let headers = parsed(&ethernet(&[], &ipv4(UDP, &udp(CLIENT_PORT, 53, payload))));
        assert_eq!(headers.map(|headers| headers.message_id), Ok(0));
    }
}

#[test]
fn every_part_of_a_flow_changes_its_hash() {
    let base = flow_hash(&endpoint(1, 40_000), &endpoint(2, 53));
    let other_word = Endpoint { address: [1, 1], port: 40_000 };
    for changed in [
        flow_hash(&endpoint(3, 40_000), &endpoint(2, 53)),
        flow_hash(&endpoint(1, 40_001), &endpoint(2, 53)),
        flow_hash(&other_word, &endpoint(2, 53)),
        // This is not the same flow with the ports exchanged.
        flow_hash(&endpoint(1, 53), &endpoint(2, 40_000)),
    ] {
        assert_ne!(changed, base);
    }
}

#[test]
fn flows_spread_evenly_over_rings() {
    for ring_count in [2_u32, 3, 8] {
        for step in [(0_u64, 1_u16), (1, 0), (256, 0), (65_536, 7)] {
            let mut flows_of_ring = vec![0_u32; ring_count as usize];
            let mut hashes = HashSet::new();
            let flow_count = 20_000_u32;
            for number in 0..flow_count {
                let address = 0x0a00_0001 + u64::from(number) * step.0;
                let port = 1024_u16.wrapping_add((number as u16).wrapping_mul(step.1));
                let hash = flow_hash(&endpoint(address, port), &endpoint(0xc0a8_0035, 53));
                hashes.insert(hash);
                flows_of_ring[ring_index(hash, ring_count) as usize] += 1;
            }
            let even = flow_count / ring_count;
            for flows in &flows_of_ring {
                assert!(
                    flows.abs_diff(even) < even / 10,
                    "{ring_count} rings, step {step:?}: {flows_of_ring:?}"
                );
            }
            assert!(hashes.len() > 19_900, "step {step:?}: {}", hashes.len());
        }
    }
}

#[test]
fn ring_indexes_stay_in_range() {
    for ring_count in 1..=64 {
        assert_eq!(ring_index(0, ring_count), 0);
        assert_eq!(ring_index(u32::MAX, ring_count), ring_count - 1);
    }
}
