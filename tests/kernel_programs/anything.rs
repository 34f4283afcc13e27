//! Frames that are nearly right.

use super::*;

#[test]
fn whatever_comes_passes_unchanged_and_is_counted_once() -> Result<()> {
    const FRAMES: u64 = 20_000;
    const FRAMES_IN_BUDGET: u64 =
        fragments::SPECULATIVE_PER_SECOND as u64 / Program::ALL.len() as u64;
    let mut programs = Programs::load(Setup::default())?;
    let mut random = Random(0x53);
    let mut memory = StoredContents::default();
    let mut captured = 0;
    let mut seen = [0; 2];
    for number in 0..FRAMES {
        // The reference has no budget.
        if number.is_multiple_of(FRAMES_IN_BUDGET) {
            programs.renew_budget()?;
        }
        let frame = random_frame(&mut random);
        for program in Program::ALL {
            if !program.is_xdp() && !has_network_header(&frame) {
                continue;
            }
            seen[program.direction() as usize] += 1;
            let run = programs.run(program, &frame)?;
            assert_eq!(run.verdict, program.verdict(), "{program:?}: {frame:02x?}");
            assert!(run.frame == frame, "{program:?} changed {frame:02x?}");
            let expected = parse(&frame, programs.features()).is_ok_and(|headers| {
                headers.fragment == Fragment::Whole
                    || fragments::check_fragment(&headers, LOOPBACK, &mut memory).is_ok()
            });
            let records = programs.drain(0)?;
            assert_eq!(records.len(), usize::from(expected), "{program:?}: {frame:02x?}");
            if let Some(record) = records.first() {
                assert!(record.packet == frame);
                captured += 1;
            }
        }
    }
    assert!(captured > FRAMES / 10, "only {captured} captured: hardly a test");
    for direction in Direction::ALL {
        let counters = programs.counters(direction)?;
        assert_eq!(counters.get(Counter::Seen), seen[direction as usize]);
        assert!(counters.balanced(), "{counters:?}");
    }
    Ok(())
}

/// Stores the content of fragmented datagrams without evicting any.
#[derive(Default)]
struct StoredContents(HashMap<DatagramKey, u32>);

impl fragments::DatagramContents for StoredContents {
    fn store(&mut self, datagram: &DatagramKey, content: u32) {
        self.0.insert(*datagram, content);
    }

    fn load(&mut self, datagram: &DatagramKey) -> Option<u32> {
        self.0.get(datagram).copied()
    }

    fn may_speculate(&mut self) -> bool {
        true
    }
}

/// True unless BPF_PROG_TEST_RUN refuses the frame as an skb: it wants the fixed part of an IP header
/// behind the EtherType of one.
fn has_network_header(frame: &[u8]) -> bool {
    match frame[12..14] {
        [0x08, 0x00] => frame.len() >= 14 + 20,
        [0x86, 0xdd] => frame.len() >= 14 + 40,
        _ => true,
    }
}

/// A frame that is nearly right: a good one, cut anywhere, with some bytes replaced.
fn random_frame(random: &mut Random) -> Vec<u8> {
    let body = random.next() as usize % 200;
    let body = random.bytes(body);
    let segment = match random.next() % 3 {
        0 => tcp(40_000, 53, &[1; 12], &body),
        1 => udp(53, 40_000, &body),
        _ => udp(40_000, 53, &body),
    };
    let packet = match random.next() % 4 {
        0 => ipv4(UDP, &segment),
        1 => ipv4_with(&[1; 20], 0, TCP, &segment),
        2 => ipv6(UDP, &segment),
        _ => ipv6(HOP_BY_HOP, &[extension(FRAGMENT, 1), fragment(UDP, 0, true), segment].concat()),
    };
    let tags = [(QINQ, 1), (VLAN, 2), (VLAN, 3)];
    let mut frame = ethernet(&tags[..random.next() as usize % 4], &packet);
    for _ in 0..random.next() % 4 {
        // Mostly among the headers.
        let position = random.next() as usize % frame.len().min(100);
        frame[position] = random.next() as u8;
    }
    if random.next().is_multiple_of(4) {
        // BPF_PROG_TEST_RUN requires bytes after the Ethernet header.
        let length = 15 + random.next() as usize % (frame.len() - 14);
        frame.truncate(length);
    }
    frame
}
