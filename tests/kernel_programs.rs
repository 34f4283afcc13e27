//! The kernel programs, run on crafted frames by BPF_PROG_TEST_RUN: every shape, every reason, every
//! length. What the header rules find in a frame is tested without the kernel, in `tap53-ebpf`; here
//! it is that the programs apply them, copy the right bytes and count right.

#![allow(
    clippy::cast_possible_truncation,
    reason = "small numbers of the tests' own, and random bits to be cut"
)]

#[path = "kernel_programs/anything.rs"]
mod anything;
#[path = "../agent-ebpf/src/headers/frames.rs"]
#[allow(dead_code, reason = "shared with tests that use all of it")]
mod frames;
#[path = "kernel_programs/live.rs"]
mod live;
#[path = "kernel_programs/made_by_kernel.rs"]
mod made_by_kernel;
#[path = "kernel_programs/fragments.rs"]
mod of_fragments;
#[path = "kernel_programs/programs.rs"]
mod programs;
#[path = "kernel_programs/tunnels.rs"]
mod tunnels;

use std::{collections::HashMap, os::fd::AsFd as _, thread, time::Duration};

use anyhow::{Context as _, Result};
use frames::{
    AUTHENTICATION, DESTINATION, FRAGMENT, HOP_BY_HOP, MORE_FRAGMENTS, ROUTING, TCP, UDP,
    authentication, ethernet, ethernet_with, extension, fragment, ipv4, ipv4_with, ipv6, tcp, udp,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use programs::{GENERATION, LOOPBACK, Place, Program, Programs, Setup};
use tap53_ebpf::{
    counter::{Counter, Counters},
    fragments::{self, DatagramKey},
    headers::{self, Fragment, Frame as _, Headers},
    record::{MAX_CAPTURED_LENGTH, RecordHeader, SIZE_CLASSES, flags, hook},
    settings::{Direction, features},
};
use tap53_harness::wait;

const VLAN: u16 = 0x8100;
const QINQ: u16 = 0x88a8;
const DEADLINE: Duration = Duration::from_secs(10);
/// Longest frame that BPF_PROG_TEST_RUN accepts in one buffer: a page without headroom and trailer.
const MAX_LINEAR: usize = 3_400;

/// Bytes that differ from their neighbours, and from what a ring holds by chance.
fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|position| (position * 7 + position / 251 + 1) as u8).collect()
}

fn query(payload_length: usize) -> Vec<u8> {
    ethernet(&[], &ipv4(UDP, &udp(40_000, 53, &payload(payload_length))))
}

/// xorshift64 (Marsaglia 2003): the same sequence in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

/// Runs a frame that must be captured whole; returns its header after checking all of it.
fn capture(programs: &mut Programs, program: Program, frame: &[u8]) -> Result<RecordHeader> {
    let run = programs.run(program, frame)?;
    assert_eq!(run.verdict, program.verdict(), "{program:?}");
    assert!(run.frame == frame, "{program:?} changed the frame");
    let mut records = programs.drain(0)?;
    assert_eq!(records.len(), 1, "{program:?}, {} bytes", frame.len());
    let record = records.remove(0);
    assert!(record.packet == frame, "{program:?} copied other bytes than the frame's");
    let expected = expected_header(program, frame, &record.header, programs.features());
    assert_eq!(record.header, expected, "{program:?}");
    Ok(record.header)
}

/// Parses a frame with the header rules, with every tunnel enabled.
fn parse(frame: &[u8], features: u32) -> Result<Headers, Counter> {
    let sets = programs::port_sets();
    headers::parse(frame, None, features, |set, port| sets.contains(set, port))
}

/// The header that a whole capture of `frame` must have; the time is taken from `actual`.
fn expected_header(
    program: Program,
    frame: &[u8],
    actual: &RecordHeader,
    features: u32,
) -> RecordHeader {
    let found = parse(frame, features).expect("a frame to capture");
    let mut expected_flags = 0;
    match (found.vlan.depth, program.is_xdp()) {
        (0, true) => expected_flags |= flags::VLAN_UNKNOWN,
        (0, false) => {}
        (1, _) => expected_flags |= flags::VLAN_OUTER,
        _ => expected_flags |= flags::VLAN_OUTER | flags::VLAN_INNER,
    }
    expected_flags |= match found.fragment {
        Fragment::Whole => 0,
        Fragment::First => flags::FIRST_FRAGMENT,
        Fragment::Later => flags::LATER_FRAGMENT,
    };
    if found.tunnel_id.is_some() {
        expected_flags |= flags::TUNNEL_ID;
    }
    let length = u32::try_from(frame.len()).expect("frame length");
    let is_skb = program.hook() != hook::XDP;
    RecordHeader {
        captured_at_ns: actual.captured_at_ns,
        packet_length: length,
        captured_length: length,
        ifindex: LOOPBACK,
        flow_hash: found.ring_hash(features & features::FRAGMENTS != 0),
        ring_lost: 0,
        network_offset: found.network_offset,
        transport_offset: found.transport_offset,
        payload_offset: found.payload_offset,
        vlan_outer_tci: found.vlan.outer_tci,
        vlan_inner_tci: found.vlan.inner_tci,
        flags: expected_flags,
        direction: program.direction() as u8,
        hook: program.hook(),
        ip_version: found.ip_version,
        transport: found.transport,
        generation: GENERATION,
        tunnel_id: found.tunnel_id.unwrap_or(0),
        gso_size: 0,
        fragment_offset: found.fragment_offset,
        tunnel: found.tunnel,
        reserved: 0,
        reserved_2: 0,
        // A test run gives an skb a socket of its own, of which the caller knows nothing.
        sender_uid: if is_skb { actual.sender_uid } else { 0 },
        sender_cgroup: if is_skb { actual.sender_cgroup } else { 0 },
        sender_socket: if is_skb { actual.sender_socket } else { 0 },
    }
}

/// Runs a frame that must not be captured, and checks that it is counted in `reason` alone.
fn ignore(programs: &mut Programs, program: Program, frame: &[u8], reason: Counter) -> Result<()> {
    let before = programs.counters(program.direction())?;
    let run = programs.run(program, frame)?;
    assert_eq!(run.verdict, program.verdict(), "{program:?}");
    assert!(run.frame == frame, "{program:?} changed the frame");
    assert_eq!(programs.drain(0)?, [], "{program:?}, {reason:?}");
    let after = programs.counters(program.direction())?;
    for counter in Counter::ALL {
        let expected = u64::from(counter == Counter::Seen || counter == reason);
        let counted = after.get(counter) - before.get(counter);
        assert_eq!(counted, expected, "{program:?}: {} for {reason:?}", counter.name());
    }
    Ok(())
}

#[test]
fn every_shape_of_header_is_captured_by_every_program() -> Result<()> {
    let dns = udp(40_000, 53, &payload(33));
    let chain = [
        extension(DESTINATION, 0),
        extension(ROUTING, 1),
        extension(FRAGMENT, 2),
        fragment(AUTHENTICATION, 0, false),
        authentication(DESTINATION, 4),
        extension(UDP, 3),
        dns.clone(),
    ]
    .concat();
    let longest_chain = [
        (1..headers::MAX_EXTENSION_HEADERS).flat_map(|_| extension(DESTINATION, 0)).collect(),
        extension(UDP, 255),
        dns.clone(),
    ]
    .concat();
    let packets = [
        ipv4(UDP, &dns),
        ipv4(UDP, &udp(53, 40_000, &payload(80))),
        ipv4(UDP, &udp(53, 53, b"")),
        ipv4_with(&[1; 4], 0, UDP, &dns),
        ipv4_with(&[1; 40], 0, UDP, &dns),
        ipv4_with(&[], MORE_FRAGMENTS, UDP, &dns),
        ipv4(TCP, &tcp(40_000, 53, &[], &payload(50))),
        ipv4(TCP, &tcp(53, 40_000, &[1; 12], &payload(50))),
        // A bare acknowledgement counts for stream reassembly.
        ipv4(TCP, &tcp(53, 40_000, &[1; 40], b"")),
        ipv6(UDP, &dns),
        ipv6(TCP, &tcp(40_000, 53, &[1; 12], &payload(50))),
        ipv6(HOP_BY_HOP, &[extension(UDP, 0), dns.clone()].concat()),
        ipv6(ROUTING, &[extension(UDP, 4), dns.clone()].concat()),
        ipv6(AUTHENTICATION, &[authentication(UDP, 4), dns.clone()].concat()),
        ipv6(FRAGMENT, &[fragment(UDP, 0, true), dns.clone()].concat()),
        ipv6(HOP_BY_HOP, &chain),
        ipv6(DESTINATION, &longest_chain),
    ];
    let mut programs = Programs::load(Setup::default())?;
    for packet in &packets {
        for tags in [&[][..], &[(VLAN, 100)], &[(QINQ, 0xe0c8), (VLAN, 7)], &[(0x9100, 1)]] {
            let frame = ethernet(tags, packet);
            for program in Program::ALL {
                capture(&mut programs, program, &frame)?;
            }
        }
    }
    for direction in Direction::ALL {
        let counters = programs.counters(direction)?;
        assert!(counters.balanced(), "{counters:?}");
        assert_eq!(counters.get(Counter::Seen), counters.get(Counter::Captured));
        assert_eq!(counters.get(Counter::Truncated), 0);
    }
    Ok(())
}

#[test]
fn every_reason_not_to_capture_has_its_counter() -> Result<()> {
    let dns = udp(40_000, 53, b"payload");
    let too_many: Vec<u8> =
        (0..=headers::MAX_EXTENSION_HEADERS).flat_map(|_| extension(DESTINATION, 0)).collect();
    let frames = [
        (Counter::NotIp, ethernet_with(&[], 0x0806, &[0; 46])),
        (Counter::NotIp, ethernet_with(&[(VLAN, 1)], 0x88cc, &[0; 46])),
        (Counter::NotDns, ethernet(&[], &ipv4(UDP, &udp(40_000, 443, b"payload")))),
        (Counter::NotDns, ethernet(&[], &ipv6(TCP, &tcp(443, 40_000, &[], b"payload")))),
        (Counter::NotDns, ethernet(&[], &ipv4(1, &[0; 20]))),
        (Counter::UnreadEncapsulation, ethernet_with(&[], 0x8864, &[0; 46])),
        (Counter::UnreadEncapsulation, ethernet_with(&[(VLAN, 1)], 0x8847, &[0; 46])),
        (Counter::UnreadEncapsulation, ethernet(&[], &ipv4(4, &ipv4(UDP, &dns)))),
        (Counter::UnreadEncapsulation, ethernet(&[], &ipv6(41, &ipv6(UDP, &dns)))),
        (Counter::VlanDepth, ethernet(&[(QINQ, 1), (VLAN, 2), (VLAN, 3)], &ipv4(UDP, &dns))),
        (Counter::MalformedHeader, query(12)[..41].to_vec()),
        (Counter::MalformedHeader, ethernet(&[], &[0x41; 40])),
        (Counter::MalformedHeader, ethernet(&[], &ipv4(TCP, &tcp(1, 53, &[1; 8], b"")[..24]))),
        (
            Counter::ExtensionLimit,
            ethernet(&[], &ipv6(DESTINATION, &[too_many, dns.clone()].concat())),
        ),
        (Counter::LaterFragment, ethernet(&[], &ipv4_with(&[], 185, UDP, &dns))),
        (
            Counter::LaterFragment,
            ethernet(&[], &ipv6(FRAGMENT, &[fragment(UDP, 185, false), dns].concat())),
        ),
    ];
    let mut programs = Programs::load(Setup { features: 0, ..Setup::default() })?;
    for (reason, frame) in &frames {
        for program in Program::ALL {
            ignore(&mut programs, program, frame, *reason)?;
        }
    }
    Ok(())
}

#[test]
fn every_payload_length_is_captured_byte_for_byte() -> Result<()> {
    let mut programs = Programs::load(Setup::default())?;
    for length in 12..=4_096 {
        let frame = query(length);
        for program in Program::ALL {
            // Longer frames take several buffers, which only one program accepts. The others see
            // them in `live.rs`.
            if frame.len() <= MAX_LINEAR || program == Program::XdpFrags {
                capture(&mut programs, program, &frame)?;
            }
        }
    }
    Ok(())
}

#[test]
fn the_edges_of_every_size_class_are_captured() -> Result<()> {
    let setup = Setup { ring_bytes: 1 << 22, ..Setup::default() };
    let mut programs = Programs::load(setup)?;
    for class in SIZE_CLASSES {
        let capacity = class as usize - RecordHeader::SIZE;
        for length in capacity - 9..=capacity + 9 {
            // The maximum size of an IP packet, and so of a frame without tags.
            if length <= 14 + 65_535 {
                capture(&mut programs, Program::XdpFrags, &query(length - 42))?;
            }
        }
    }
    // More than one call of bpf_xdp_load_bytes copies.
    for length in 65_530..=65_549 {
        capture(&mut programs, Program::XdpFrags, &query(length - 42))?;
    }
    Ok(())
}

#[test]
fn headers_after_the_first_buffer_are_found() -> Result<()> {
    let mut programs = Programs::load(Setup::default())?;
    let frame = ethernet(
        &[(QINQ, 5), (VLAN, 6)],
        &ipv6(HOP_BY_HOP, &[extension(TCP, 3), tcp(40_000, 53, &[1; 12], &payload(90))].concat()),
    );
    for linear in 14..frame.len() {
        let run = programs
            .run_scattered(Program::XdpFrags, &frame, linear)
            .context("buffers of chosen length need kernel 6.18")?;
        assert_eq!(run.verdict, Program::XdpFrags.verdict());
        let records = programs.drain(0)?;
        assert_eq!(records.len(), 1, "{linear} bytes in the first buffer");
        assert!(records[0].packet == frame, "{linear} bytes in the first buffer");
        let header = &records[0].header;
        assert_eq!(
            *header,
            expected_header(Program::XdpFrags, &frame, header, programs.features())
        );
    }
    let counters = programs.counters(Direction::Ingress)?;
    assert!(counters.balanced(), "{counters:?}");
    Ok(())
}

#[test]
fn packets_beyond_the_snap_length_are_cut_and_marked() -> Result<()> {
    let frame = query(1_000);
    let length = u32::try_from(frame.len())?;
    let mut programs = Programs::load(Setup::default())?;
    let (mut captured_bytes, mut truncated_packets) = (0, 0);
    for snap_length in [1, 41, 42, 128, 129, 320, 321, length - 1, length, length + 1] {
        programs.configure(Setup { snap_length, ..Setup::default() })?;
        let captured = snap_length.min(length);
        for program in Program::ALL {
            programs.run(program, &frame)?;
            let [record] = &programs.drain(0)?[..] else {
                panic!("{program:?}, snap length {snap_length}: not one record");
            };
            assert_eq!(record.header.packet_length, length);
            assert_eq!(record.header.captured_length, captured);
            assert_eq!(record.packet, frame[..captured as usize]);
            assert_eq!(record.header.has(flags::TRUNCATED), captured < length);
        }
        captured_bytes += u64::from(captured);
        truncated_packets += u64::from(captured < length);
        for direction in Direction::ALL {
            let programs_of = Program::count(direction);
            let counters = programs.counters(direction)?;
            assert_eq!(counters.get(Counter::Truncated), programs_of * truncated_packets);
            assert_eq!(counters.get(Counter::BytesCaptured), programs_of * captured_bytes);
        }
    }
    Ok(())
}

#[test]
fn a_full_ring_counts_its_losses_exactly() -> Result<()> {
    const RING_BYTES: u32 = 4_096;
    const SENT: u32 = 100;
    // Each record takes its size class and the ring's own header of 8 bytes. A ring cannot be
    // filled to its last byte.
    const FITTING: u32 = (RING_BYTES - 1) / (SIZE_CLASSES[0] + 8);
    let setup = Setup { ring_bytes: RING_BYTES, ..Setup::default() };
    for program in Program::ALL {
        let mut programs = Programs::load(setup)?;
        programs.run_repeatedly(program, &query(30), SENT)?;
        let records = programs.drain(0)?;
        assert_eq!(records.len(), FITTING as usize);
        assert!(records.iter().all(|record| record.header.ring_lost == 0));

        let lost = SENT - FITTING;
        assert_eq!(programs.lost(0)?, u64::from(lost));
        let counters = programs.counters(program.direction())?;
        assert_eq!(counters.get(Counter::RingFull), u64::from(lost));
        assert_eq!(counters.get(Counter::Captured), u64::from(FITTING));
        assert_eq!(counters.get(Counter::Seen), u64::from(SENT));

        // There is room again, and the next item has the number of lost packets before it.
        programs.run(program, &query(30))?;
        assert_eq!(programs.drain(0)?[0].header.ring_lost, lost);
    }
    Ok(())
}

#[test]
fn a_direction_that_is_off_is_only_counted() -> Result<()> {
    let mut programs = Programs::load(Setup::default())?;
    for directions in 0..=3 {
        programs.configure(Setup { directions, ..Setup::default() })?;
        for program in Program::ALL {
            if directions & (1 << program.direction() as u32) == 0 {
                ignore(&mut programs, program, &query(30), Counter::Disabled)?;
            } else {
                capture(&mut programs, program, &query(30))?;
            }
        }
    }
    Ok(())
}

#[test]
fn settings_are_found_wherever_they_are() -> Result<()> {
    for place in [Place::Far, Place::Both] {
        let mut programs = Programs::load(Setup { place, ..Setup::default() })?;
        for program in Program::ALL {
            capture(&mut programs, program, &query(30))?;
        }
    }
    Ok(())
}

#[test]
fn an_interface_without_settings_is_only_counted() -> Result<()> {
    let elsewhere = Setup { ifindex: 4_097, ..Setup::default() };
    let nowhere = Setup { place: Place::Nowhere, ..Setup::default() };
    for setup in [elsewhere, nowhere] {
        let mut programs = Programs::load(setup)?;
        for program in Program::ALL {
            let run = programs.run(program, &query(30))?;
            assert_eq!(run.verdict, program.verdict());
        }
        assert_eq!(programs.drain(0)?, []);
        for direction in Direction::ALL {
            let seen = Program::count(direction);
            assert_eq!(programs.counters(direction)?, Counters::default());
            let counters = programs.unconfigured_counters(direction)?;
            assert_eq!(counters.get(Counter::Seen), seen);
            assert_eq!(counters.get(Counter::Unconfigured), seen);
            assert!(counters.balanced(), "{counters:?}");
        }
    }
    Ok(())
}

#[test]
fn query_and_response_share_a_ring_and_messages_use_all_rings() -> Result<()> {
    const RINGS: u32 = 5;
    let setup = Setup { ring_count: RINGS, ..Setup::default() };
    let mut programs = Programs::load(setup)?;
    let mut messages_of_ring = [[0; RINGS as usize]; 2];
    for (port, transport) in (1_024..1_224_u16).flat_map(|port| [(port, UDP), (port, TCP)]) {
        let frame = |source: u16, destination: u16| {
            let id = port.to_be_bytes();
            let segment = match transport {
                UDP => udp(source, destination, &id),
                // Its bytes have nothing in common with those of the other direction.
                _ => tcp(source, destination, &[], &source.to_be_bytes()),
            };
            ethernet(&[], &ipv4(transport, &segment))
        };
        let forth = frame(port, 53);
        // After address translation: from another server.
        let mut back = frame(53, port);
        let (source, destination) = back[26..34].split_at_mut(4);
        source.swap_with_slice(destination);
        back[29] ^= 1;
        programs.run(Program::XdpFrags, &forth)?;
        programs.run(Program::TcEgress, &back)?;
        let mut filled = Vec::new();
        for ring in 0..RINGS as usize {
            let records = programs.drain(ring)?;
            if !records.is_empty() {
                assert_eq!(records.len(), 2, "port {port}: query and response are apart");
                let hash = records[0].header.flow_hash;
                assert_eq!(records[1].header.flow_hash, hash);
                assert_eq!(headers::ring_index(hash, RINGS) as usize, ring);
                filled.push(ring);
            }
        }
        let [ring] = filled[..] else {
            panic!("port {port}: in rings {filled:?}");
        };
        messages_of_ring[usize::from(transport == UDP)][ring] += 1;
    }
    let each = messages_of_ring.as_flattened();
    assert!(each.iter().all(|messages| *messages > 20), "{messages_of_ring:?}");
    Ok(())
}

#[test]
fn a_worker_is_woken_when_enough_is_written_and_not_before() -> Result<()> {
    const RECORDS: u32 = 4;
    // The power of two that the fifth record passes, each with the ring's own header.
    const WAKEUP_BYTES: u32 = 1_024;
    const RECORD_BYTES: u32 = SIZE_CLASSES[0] + 8;
    const _: () = assert!(RECORD_BYTES * RECORDS < WAKEUP_BYTES);
    const _: () = assert!(RECORD_BYTES * (RECORDS + 1) > WAKEUP_BYTES);
    for program in [Program::TcIngress, Program::TcIngressOld] {
        let setup = Setup { wakeup_bytes: WAKEUP_BYTES, ..Setup::default() };
        let mut programs = Programs::load(setup)?;
        let waiter = sleeper(&programs, "waiter")?;
        programs.run_repeatedly(program, &query(30), RECORDS)?;
        assert!(sleeping("waiter")?, "{program:?}: woken too early");
        programs.run_repeatedly(program, &query(30), 1)?;
        let woken = waiter.join().expect("the waiter does not panic")?;
        assert!(woken, "{program:?}: not woken");
    }
    Ok(())
}

#[test]
fn a_worker_that_sleeps_is_woken_by_the_next_record_and_by_no_other() -> Result<()> {
    // Far more than the records of this test take.
    let setup = Setup { wakeup_bytes: 1 << 18, ..Setup::default() };
    let mut programs = Programs::load(setup)?;
    for (name, program) in [
        ("sleeper-1", Program::TcIngress),
        ("sleeper-2", Program::TcIngress),
        ("sleeper-3", Program::TcIngressOld),
        ("sleeper-4", Program::TcIngressOld),
    ] {
        let sleeper = sleeper(&programs, name)?;
        programs.run_repeatedly(program, &query(30), 2)?;
        assert!(sleeping(name)?, "{name}: woken without being asked to");
        programs.arm(0)?;
        programs.run_repeatedly(program, &query(30), 1)?;
        assert!(sleeper.join().expect("the waiter does not panic")?, "{name}: not woken");
        assert_eq!(programs.drain(0)?.len(), 3);
    }
    Ok(())
}

/// A thread of this name that sleeps until the first ring wakes it; returns whether it did.
fn sleeper(
    programs: &Programs,
    name: &str,
) -> Result<thread::JoinHandle<Result<bool, nix::errno::Errno>>> {
    let ring = programs.rings[0].as_fd().try_clone_to_owned()?;
    let sleeper = thread::Builder::new().name(name.into()).spawn(move || {
        let mut descriptors = [PollFd::new(ring.as_fd(), PollFlags::POLLIN)];
        poll(&mut descriptors, PollTimeout::try_from(DEADLINE).expect("fits"))
            .map(|ready| ready == 1)
    })?;
    wait::until("the waiter to sleep", DEADLINE, || Ok(sleeping(name)?.then_some(())))?;
    Ok(sleeper)
}

/// True if this process's thread of that name waits for an event.
fn sleeping(name: &str) -> Result<bool> {
    for task in std::fs::read_dir("/proc/self/task")? {
        let stat = std::fs::read_to_string(task?.path().join("stat"))?;
        if let Some((_, state)) = stat.split_once(&format!("({name}) ")) {
            return Ok(state.starts_with('S'));
        }
    }
    Ok(false)
}

#[test]
fn kernel_log_messages_are_optional_and_limited() -> Result<()> {
    for (kernel_log, expected) in [(false, 0..=0), (true, 1..=5)] {
        let setup = Setup { place: Place::Nowhere, kernel_log, ..Setup::default() };
        let mut programs = Programs::load(setup)?;
        for program in Program::ALL {
            programs.run_repeatedly(program, &query(30), 1_000)?;
        }
        let messages = programs.log_messages()?;
        assert!(expected.contains(&messages), "{messages} messages, {kernel_log}");
    }
    Ok(())
}

#[test]
fn times_rise_and_come_from_the_monotonic_clock() -> Result<()> {
    let now_ns = || -> Result<u64> {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
        Ok(u64::try_from(now.tv_sec())? * 1_000_000_000 + u64::try_from(now.tv_nsec())?)
    };
    let mut programs = Programs::load(Setup::default())?;
    let mut before = now_ns()?;
    for program in Program::ALL {
        let at = capture(&mut programs, program, &query(30))?.captured_at_ns;
        let after = now_ns()?;
        assert!((before..=after).contains(&at), "{before} {at} {after}");
        before = at;
    }
    Ok(())
}

#[test]
fn the_verifier_has_little_to_follow() -> Result<()> {
    // A fifth of what it takes (BPF_COMPLEXITY_LIMIT_INSNS): older kernels forget less
    // of what does not matter, and follow more.
    const LIMIT: u32 = 200_000;
    let mut programs = Programs::load(Setup::default())?;
    for program in Program::ALL {
        let followed = programs.verified_instructions(program)?;
        assert!(followed < LIMIT, "{program:?}: {followed} instructions");
    }
    Ok(())
}

#[test]
fn the_longest_packet_fits_the_largest_class() {
    let frame = vec![0; MAX_CAPTURED_LENGTH as usize];
    assert!(frame[..].read::<1>(MAX_CAPTURED_LENGTH - 1).is_some());
    assert!(SIZE_CLASSES[5] as usize >= RecordHeader::SIZE + frame.len());
}
