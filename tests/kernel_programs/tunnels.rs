//! Packets in tunnels, and fragments of tunnels' packets.

use anyhow::Result;
use tap53_ebpf::{
    counter::Counter,
    record::flags,
    settings::{Direction, features},
};

use crate::{
    MAX_LINEAR, QINQ, VLAN, capture, expected_header,
    frames::{
        GRE, MORE_FRAGMENTS, TCP, UDP, ethernet, gre, in_every_tunnel, ipv4, ipv4_with, ipv6, tcp,
        udp, vxlan,
    },
    ignore, payload,
    programs::{Program, Programs, Setup},
};

const ALL: u32 =
    features::FRAGMENTS | features::VXLAN | features::GENEVE | features::GRE | features::IPIP;

fn looking_into_tunnels() -> Setup {
    Setup { features: ALL, ..Setup::default() }
}

#[test]
fn every_tunnel_is_looked_into_by_every_program() -> Result<()> {
    let mut programs = Programs::load(looking_into_tunnels())?;
    let query = udp(40_000, 53, &payload(33));
    let segment = tcp(53, 40_000, &[1; 12], &payload(50));
    for (protocol, inner) in [(UDP, &query), (TCP, &segment)] {
        for (carrier, payload, (kind, id)) in in_every_tunnel(protocol, inner) {
            for outer in [ipv4(carrier, &payload), ipv6(carrier, &payload)] {
                for tags in [&[][..], &[(VLAN, 100)], &[(QINQ, 5), (VLAN, 7)]] {
                    let frame = ethernet(tags, &outer);
                    for program in Program::ALL {
                        let header = capture(&mut programs, program, &frame)?;
                        assert_eq!(header.tunnel, kind);
                        assert_eq!(header.has(flags::TUNNEL_ID), id.is_some());
                        assert_eq!(header.tunnel_id, id.unwrap_or(0));
                        assert_eq!(header.transport, protocol);
                    }
                }
            }
        }
    }
    for direction in Direction::ALL {
        let counters = programs.counters(direction)?;
        assert!(counters.balanced(), "{counters:?}");
    }
    Ok(())
}

#[test]
fn tunnels_are_not_decapsulated_by_default() -> Result<()> {
    let mut programs = Programs::load(Setup::default())?;
    let query = udp(40_000, 53, &payload(33));
    for (carrier, payload, _) in in_every_tunnel(UDP, &query) {
        let frame = ethernet(&[], &ipv4(carrier, &payload));
        // A port is ignored if its tunnel is disabled; a protocol is not.
        let reason = if carrier == UDP { Counter::NotDns } else { Counter::UnreadEncapsulation };
        for program in Program::ALL {
            ignore(&mut programs, program, &frame, reason)?;
        }
    }
    Ok(())
}

#[test]
fn inner_headers_after_the_first_buffer_are_found() -> Result<()> {
    let mut programs = Programs::load(looking_into_tunnels())?;
    let inner = ethernet(&[(VLAN, 9)], &ipv6(UDP, &udp(40_000, 53, &payload(20))));
    let frame = ethernet(&[], &ipv4(UDP, &vxlan(0x00ab_cdef, &inner)));
    assert!(frame.len() < MAX_LINEAR);
    for linear in 14..frame.len() {
        programs.run_scattered(Program::XdpFrags, &frame, linear)?;
        let records = programs.drain(0)?;
        assert_eq!(records.len(), 1, "{linear} bytes in the first buffer");
        let header = &records[0].header;
        assert_eq!(*header, expected_header(Program::XdpFrags, &frame, header, ALL));
    }
    Ok(())
}

#[test]
fn fragments_of_a_tunnels_packet_have_their_own_counter() -> Result<()> {
    let mut programs = Programs::load(looking_into_tunnels())?;
    let inner = ethernet(&[], &ipv4(UDP, &udp(40_000, 53, &payload(200))));
    let over_vxlan = vxlan(3, &inner);
    let over_gre = gre(0, 0, 0x6558, &inner);
    for program in Program::ALL {
        for (carrier, datagram) in [(UDP, &over_vxlan), (GRE, &over_gre)] {
            let (first, later) = datagram.split_at(80);
            // The first fragment gives the later one its ports.
            for (field, part) in [(MORE_FRAGMENTS, first), (10, later)] {
                let frame = ethernet(&[], &ipv4_with(&[], field, carrier, part));
                ignore(&mut programs, program, &frame, Counter::TunnelFragment)?;
            }
        }
        let unknown = ethernet(&[], &ipv4(GRE, &gre(1, 0, 0x880b, &inner)));
        ignore(&mut programs, program, &unknown, Counter::UnknownTunnel)?;
    }
    Ok(())
}
