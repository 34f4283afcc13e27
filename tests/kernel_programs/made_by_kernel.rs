//! Fragments and tunnels that the kernel creates, on a veth pair.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::Result;
use tap53_ebpf::{
    counter::Counter,
    record::{flags, tunnel},
    settings::{Direction, features},
};
use tap53_harness::{
    namespace::{CLIENT_END, SERVER_END},
    wait,
};

use crate::{
    DEADLINE,
    live::{Stage, Tc, attach_tc, attach_xdp, load_with, records},
    payload,
    programs::{Program, Setup},
};

/// Sends datagrams from the server's port 53 to the client.
fn answer(stage: &Stage, from: IpAddr, to: IpAddr, lengths: &[usize]) -> Result<()> {
    let socket = stage.server.enter(|| Ok(UdpSocket::bind(SocketAddr::new(from, 53))?))?;
    for length in lengths {
        socket.send_to(&payload(*length), SocketAddr::new(to, 40_000))?;
    }
    Ok(())
}

#[test]
fn all_fragments_of_large_answers_are_captured_at_both_ends() -> Result<()> {
    const MTU: u32 = 1_280;
    const LENGTHS: [usize; 3] = [1_500, 4_000, 20_000];
    for (from, to, header) in [
        (IpAddr::V4(SERVER_END.ipv4), IpAddr::V4(CLIENT_END.ipv4), 20),
        (IpAddr::V6(SERVER_END.ipv6), IpAddr::V6(CLIENT_END.ipv6), 48),
    ] {
        let stage = Stage::new(MTU)?;
        let mut egress = load_with(&stage.server, "s0", Setup::default())?;
        attach_tc(&mut egress, Program::TcEgress, &stage.server, "s0", Tc::Tcx)?;
        let mut ingress = load_with(&stage.client, "c0", Setup::default())?;
        attach_xdp(&mut ingress, Program::XdpFrags, &stage.client, "c0")?;
        answer(&stage, from, to, &LENGTHS)?;
        // All but the last carry as much as fits, in units of eight bytes.
        let part = (MTU as usize - header) / 8 * 8;
        let expected: usize = LENGTHS.iter().map(|length| (length + 8).div_ceil(part)).sum();
        for programs in [&mut egress, &mut ingress] {
            let records = records(programs, expected)?;
            let first = records.iter().filter(|record| record.header.has(flags::FIRST_FRAGMENT));
            assert_eq!(first.count(), LENGTHS.len());
            let later = records.iter().filter(|record| record.header.has(flags::LATER_FRAGMENT));
            assert_eq!(later.count(), expected - LENGTHS.len());
        }
    }
    Ok(())
}

#[test]
fn packets_of_a_vxlan_device_are_decapsulated_at_the_outer_interface() -> Result<()> {
    let stage = Stage::new(1_500)?;
    for (namespace, own, peer, address) in [
        (&stage.server, SERVER_END, CLIENT_END, "192.0.2.2/24"),
        (&stage.client, CLIENT_END, SERVER_END, "192.0.2.1/24"),
    ] {
        let (local, remote) = (own.ipv4.to_string(), peer.ipv4.to_string());
        #[rustfmt::skip]
        namespace.ip(&[
            "link", "add", "vx0", "type", "vxlan", "id", "4242", "dstport", "4789",
            "local", &local, "remote", &remote, "dev", own.interface,
        ])?;
        namespace.ip(&["address", "add", address, "dev", "vx0"])?;
        namespace.ip(&["link", "set", "vx0", "up"])?;
    }
    let setup = Setup { features: features::FRAGMENTS | features::VXLAN, ..Setup::default() };
    let mut egress = load_with(&stage.server, "s0", setup)?;
    attach_tc(&mut egress, Program::TcEgress, &stage.server, "s0", Tc::Tcx)?;
    let mut ingress = load_with(&stage.client, "c0", setup)?;
    attach_tc(&mut ingress, Program::TcIngress, &stage.client, "c0", Tc::Tcx)?;
    answer(&stage, IpAddr::from([192, 0, 2, 2]), IpAddr::from([192, 0, 2, 1]), &[100, 1_300])?;
    for programs in [&mut egress, &mut ingress] {
        for record in records(programs, 2)? {
            assert_eq!(record.header.tunnel, tunnel::VXLAN);
            assert_eq!(
                (record.header.has(flags::TUNNEL_ID), record.header.tunnel_id),
                (true, 4242)
            );
            let source = usize::from(record.header.network_offset) + 12;
            assert_eq!(record.packet[source..source + 4], [192, 0, 2, 2]);
        }
    }
    // ARP inside, and other packets of the devices.
    wait::until("the counters to add up", DEADLINE, || {
        let counters = ingress.counters(Direction::Ingress)?;
        Ok((counters.balanced() && counters.get(Counter::NotIp) > 0).then_some(()))
    })
}
