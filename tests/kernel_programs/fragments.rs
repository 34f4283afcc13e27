//! Fragments: which are captured, and in which ring.

use anyhow::Result;
use tap53_ebpf::{
    counter::Counter, fragments::SPECULATIVE_PER_SECOND, headers, record::flags,
    settings::Direction,
};

use crate::{
    capture,
    frames::{FRAGMENT, MORE_FRAGMENTS, UDP, ethernet, fragment, ipv4_with, ipv6, udp},
    ignore, payload,
    programs::{Program, Programs, Setup},
};

/// Returns the fragments of a datagram, first to last, over IPv4 with a unique identification.
fn over_ipv4(identification: u16, datagram: &[u8]) -> Vec<Vec<u8>> {
    parts(datagram, |offset, more, part| {
        let field = offset | if more { MORE_FRAGMENTS } else { 0 };
        let mut packet = ipv4_with(&[], field, UDP, part);
        packet[4..6].copy_from_slice(&identification.to_be_bytes());
        ethernet(&[], &packet)
    })
}

/// The same over IPv6.
fn over_ipv6(identification: u16, datagram: &[u8]) -> Vec<Vec<u8>> {
    parts(datagram, |offset, more, part| {
        let mut header = fragment(UDP, offset, more);
        header[6..8].copy_from_slice(&identification.to_be_bytes());
        ethernet(&[], &ipv6(FRAGMENT, &[&header, part].concat()))
    })
}

fn parts(datagram: &[u8], frame: impl Fn(u16, bool, &[u8]) -> Vec<u8>) -> Vec<Vec<u8>> {
    const PART: usize = 64;
    let chunks = datagram.chunks(PART);
    let last = chunks.len() - 1;
    (0..).zip(chunks).map(|(n, part)| frame(n * 8, usize::from(n) < last, part)).collect()
}

#[test]
fn fragments_of_dns_are_captured_in_every_order() -> Result<()> {
    let mut programs = Programs::load(Setup::default())?;
    let mut number = 0;
    for program in Program::ALL {
        for make in [over_ipv4, over_ipv6] {
            for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
                number += 1;
                let fragments = make(number, &udp(40_000, 53, &payload(150)));
                for position in order {
                    let header = capture(&mut programs, program, &fragments[position])?;
                    assert_eq!(header.has(flags::FIRST_FRAGMENT), position == 0);
                    assert_eq!(header.has(flags::LATER_FRAGMENT), position > 0);
                }
            }
        }
    }
    for direction in Direction::ALL {
        assert!(programs.counters(direction)?.balanced());
    }
    Ok(())
}

#[test]
fn fragments_of_other_datagrams_are_left_alone_once_the_first_has_passed() -> Result<()> {
    let mut programs = Programs::load(Setup::default())?;
    let mut number = 0;
    for program in Program::ALL {
        for make in [over_ipv4, over_ipv6] {
            number += 1;
            let fragments = make(number, &udp(40_000, 443, &payload(150)));
            // Before the first fragment, its ports are unknown.
            capture(&mut programs, program, &fragments[1])?;
            for fragment in &fragments {
                ignore(&mut programs, program, fragment, Counter::NotDns)?;
            }
        }
    }
    Ok(())
}

#[test]
fn unknown_fragments_are_captured_within_a_budget_and_counted_beyond() -> Result<()> {
    const SENT: u32 = 3 * SPECULATIVE_PER_SECOND;
    let later = over_ipv4(1, &udp(40_000, 443, &payload(150))).remove(1);
    for program in Program::ALL {
        let mut programs = Programs::load(Setup::default())?;
        programs.run_repeatedly(program, &later, SENT)?;
        let records = u64::try_from(programs.drain(0)?.len())?;
        let counters = programs.counters(program.direction())?;
        assert_eq!(counters.get(Counter::Captured), records);
        assert_eq!(counters.get(Counter::LaterFragment), u64::from(SENT) - records);
        // A budget for each second that was begun: the runs take milliseconds, in one or in two.
        let budget = u64::from(SPECULATIVE_PER_SECOND);
        assert!((budget..=2 * budget).contains(&records), "{program:?}: {records}");
        // Known ones are not of the budget.
        let known = over_ipv4(2, &udp(40_000, 53, &payload(150)));
        for fragment in &known {
            capture(&mut programs, program, fragment)?;
        }
    }
    Ok(())
}

#[test]
fn the_fragments_of_a_datagram_share_a_ring() -> Result<()> {
    const RINGS: u32 = 4;
    let mut programs = Programs::load(Setup { ring_count: RINGS, ..Setup::default() })?;
    let mut used = [0; RINGS as usize];
    for number in 0..100 {
        for make in [over_ipv4, over_ipv6] {
            for fragment in make(number, &udp(40_000, 53, &payload(150))) {
                programs.run(Program::TcEgress, &fragment)?;
            }
            let mut filled = Vec::new();
            for ring in 0..RINGS as usize {
                let records = programs.drain(ring)?;
                if let Some(record) = records.first() {
                    assert_eq!(records.len(), 3, "datagram {number} is split");
                    let index = headers::ring_index(record.header.flow_hash, RINGS);
                    assert_eq!(index as usize, ring);
                    filled.push(ring);
                }
            }
            assert_eq!(filled.len(), 1, "datagram {number}");
            used[filled[0]] += 1;
        }
    }
    assert!(used.iter().all(|datagrams| *datagrams > 20), "{used:?}");
    Ok(())
}

#[test]
fn where_fragments_are_not_joined_later_ones_are_counted() -> Result<()> {
    let mut programs = Programs::load(Setup { features: 0, ..Setup::default() })?;
    for program in Program::ALL {
        let fragments = over_ipv4(1, &udp(40_000, 53, &payload(150)));
        let header = capture(&mut programs, program, &fragments[0])?;
        assert!(header.has(flags::FIRST_FRAGMENT));
        ignore(&mut programs, program, &fragments[1], Counter::LaterFragment)?;
    }
    Ok(())
}
