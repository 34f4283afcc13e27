//! The kernel programs on a veth pair: what BPF_PROG_TEST_RUN cannot make. Tags that travel beside
//! the packet, jumbo frames from a driver, segments longer than the MTU, and company at the hook.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::Command,
    thread,
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode,
    tc::{NlOptions, TcAttachOptions},
};
use nix::net::if_::if_nametoindex;
use tap53_ebpf::{
    counter::Counter,
    record::{flags, hook},
    settings::Direction,
};
use tap53_harness::{
    frames::FrameSocket,
    namespace::{CLIENT_END, Namespace, SERVER_END, join},
    process::run,
    wait,
};

use crate::{
    DEADLINE, QINQ, VLAN,
    frames::{UDP, ethernet, ipv4, udp},
    payload,
    programs::{Captured, Program, Programs, Setup},
};

/// Two namespaces joined by `c0` and `s0`.
pub(crate) struct Stage {
    pub(crate) client: Namespace,
    pub(crate) server: Namespace,
}

impl Stage {
    pub(crate) fn new(mtu_bytes: u32) -> Result<Self> {
        let (client, server) = (Namespace::new()?, Namespace::new()?);
        join((&client, CLIENT_END), (&server, SERVER_END), mtu_bytes)?;
        Ok(Self { client, server })
    }

    /// Sends frames from the client's end, as they are.
    fn send(&self, interface: &str, frames: &[Vec<u8>]) -> Result<()> {
        let socket = FrameSocket::open(&self.client, interface)?;
        frames.iter().try_for_each(|frame| socket.send(frame))
    }
}

/// Loads the programs with settings for an interface of a namespace.
fn load(namespace: &Namespace, interface: &str) -> Result<Programs> {
    load_with(namespace, interface, Setup::default())
}

/// Does the same as [`load`], with other settings.
pub(crate) fn load_with(namespace: &Namespace, interface: &str, setup: Setup) -> Result<Programs> {
    let ifindex = namespace.enter(|| Ok(if_nametoindex(interface)?))?;
    Programs::load(Setup { ifindex, ring_bytes: 1 << 23, ..setup })
}

pub(crate) fn attach_xdp(
    programs: &mut Programs,
    program: Program,
    namespace: &Namespace,
    interface: &str,
) -> Result<()> {
    let loaded: &mut Xdp = programs.program_mut(program)?.try_into()?;
    namespace.enter(|| {
        loaded.attach(interface, XdpMode::Driver)?;
        Ok(())
    })
}

/// Way of attaching a TC program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tc {
    /// A TCX link (kernel 6.6).
    Tcx,
    /// A filter of the clsact qdisc.
    Clsact,
}

pub(crate) fn attach_tc(
    programs: &mut Programs,
    program: Program,
    namespace: &Namespace,
    interface: &str,
    how: Tc,
) -> Result<()> {
    let attach_type = match program.direction() {
        Direction::Ingress => TcAttachType::Ingress,
        Direction::Egress => TcAttachType::Egress,
    };
    let options = match how {
        Tc::Tcx => TcAttachOptions::TcxOrder(LinkOrder::first()),
        Tc::Clsact => TcAttachOptions::Netlink(NlOptions::default()),
    };
    if how == Tc::Clsact && !namespace.tc(&["qdisc", "show", "dev", interface])?.contains("clsact")
    {
        namespace.tc(&["qdisc", "add", "dev", interface, "clsact"])?;
    }
    let loaded: &mut SchedClassifier = programs.program_mut(program)?.try_into()?;
    namespace.enter(|| {
        let link = loaded.attach_with_options(interface, attach_type, options)?;
        if how == Tc::Clsact {
            // Dropped, it would remove a filter by ifindex, and in another namespace. This filter
            // goes with its interface.
            std::mem::forget(loaded.take_link(link)?);
        }
        Ok(())
    })
}

/// Waits for so many records.
pub(crate) fn records(programs: &mut Programs, count: usize) -> Result<Vec<Captured>> {
    let mut records = Vec::new();
    wait::until("records in the ring", DEADLINE, || {
        records.extend(programs.drain(0)?);
        Ok((records.len() >= count).then_some(()))
    })
    .with_context(|| format!("{} of {count} records came", records.len()))?;
    ensure!(records.len() == count, "{} records instead of {count}", records.len());
    Ok(records)
}

fn query(tags: &[(u16, u16)]) -> Vec<u8> {
    ethernet(tags, &ipv4(UDP, &udp(40_000, 53, &payload(40))))
}

/// Tags as a ring item has them: outer, inner.
fn tags_of(record: &Captured) -> (Option<u16>, Option<u16>) {
    let header = &record.header;
    (
        header.has(flags::VLAN_OUTER).then_some(header.vlan_outer_tci),
        header.has(flags::VLAN_INNER).then_some(header.vlan_inner_tci),
    )
}

#[test]
fn tags_are_found_beside_the_packet_on_the_way_in() -> Result<()> {
    for how in [Tc::Tcx, Tc::Clsact] {
        let stage = Stage::new(1_500)?;
        let mut programs = load(&stage.server, "s0")?;
        attach_tc(&mut programs, Program::TcIngress, &stage.server, "s0", how)?;
        let tagged = [query(&[]), query(&[(VLAN, 100)]), query(&[(QINQ, 0x6007), (VLAN, 0x2008)])];
        stage.send("c0", &tagged)?;
        let records = records(&mut programs, 3)?;
        assert_eq!(tags_of(&records[0]), (None, None));
        assert_eq!(tags_of(&records[1]), (Some(100), None));
        assert_eq!(tags_of(&records[2]), (Some(0x6007), Some(0x2008)));
        for record in &records {
            assert!(!record.header.has(flags::VLAN_UNKNOWN));
            assert_eq!(record.header.hook, hook::TC_INGRESS);
        }
        // The kernel has taken the outer tag out of the packet.
        assert!(records[0].packet == query(&[]), "{how:?}");
        assert!(records[1].packet == query(&[]), "{how:?}");
        assert!(records[2].packet == query(&[(VLAN, 0x2008)]), "{how:?}");
    }
    Ok(())
}

#[test]
fn tags_are_found_in_the_packet_on_the_way_out() -> Result<()> {
    let stage = Stage::new(1_500)?;
    let mut programs = load(&stage.client, "c0")?;
    attach_tc(&mut programs, Program::TcEgress, &stage.client, "c0", Tc::Tcx)?;
    let frames = [query(&[(VLAN, 100)]), query(&[(QINQ, 7), (VLAN, 8)])];
    stage.send("c0", &frames)?;
    let records = records(&mut programs, 2)?;
    assert_eq!(tags_of(&records[0]), (Some(100), None));
    assert_eq!(tags_of(&records[1]), (Some(7), Some(8)));
    for (record, frame) in records.iter().zip(&frames) {
        assert!(record.packet == *frame);
        assert_eq!(record.header.hook, hook::TC_EGRESS);
    }
    Ok(())
}

#[test]
fn xdp_finds_vlan_tags_and_reports_when_it_cannot() -> Result<()> {
    let stage = Stage::new(1_500)?;
    let mut programs = load(&stage.server, "s0")?;
    attach_xdp(&mut programs, Program::XdpFrags, &stage.server, "s0")?;
    stage.send("c0", &[query(&[]), query(&[(VLAN, 100)])])?;
    let records = records(&mut programs, 2)?;
    assert_eq!(tags_of(&records[0]), (None, None));
    assert!(records[0].header.has(flags::VLAN_UNKNOWN));
    assert_eq!(tags_of(&records[1]), (Some(100), None));
    assert!(!records[1].header.has(flags::VLAN_UNKNOWN));
    assert!(records[1].packet == query(&[(VLAN, 100)]));
    Ok(())
}

#[test]
fn jumbo_frames_are_captured_byte_for_byte_at_every_hook() -> Result<()> {
    const MTU: u32 = 9_000;
    let frames: Vec<_> = (3_000..MTU as usize - 28)
        .step_by(61)
        .map(|length| ethernet(&[], &ipv4(UDP, &udp(40_000, 53, &payload(length)))))
        .collect();
    let check = |programs: &mut Programs, name: &str| -> Result<()> {
        let records = records(programs, frames.len())?;
        for (record, frame) in records.iter().zip(&frames) {
            assert!(record.packet == *frame, "{name}, {} bytes", frame.len());
            assert!(!record.header.has(flags::TRUNCATED));
        }
        Ok(())
    };
    let stage = Stage::new(MTU)?;
    let mut egress = load(&stage.client, "c0")?;
    attach_tc(&mut egress, Program::TcEgress, &stage.client, "c0", Tc::Tcx)?;
    let mut xdp = load(&stage.server, "s0")?;
    attach_xdp(&mut xdp, Program::XdpFrags, &stage.server, "s0")?;
    let mut ingress = load(&stage.server, "s0")?;
    attach_tc(&mut ingress, Program::TcIngress, &stage.server, "s0", Tc::Tcx)?;
    stage.send("c0", &frames)?;
    check(&mut egress, "TC egress")?;
    check(&mut xdp, "native XDP")?;
    check(&mut ingress, "TC ingress")
}

#[test]
fn a_driver_refuses_the_program_without_frags_at_a_jumbo_mtu() -> Result<()> {
    let stage = Stage::new(9_000)?;
    let mut programs = load(&stage.server, "s0")?;
    let refusal = attach_xdp(&mut programs, Program::Xdp, &stage.server, "s0")
        .expect_err("refused")
        .downcast::<ProgramError>()?;
    let error = match &refusal {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        ProgramError::XdpError(error) => std::error::Error::source(error).and_then(|cause| {
            cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error)
        }),
        _ => None,
    };
    assert_eq!(error, Some(libc::ERANGE), "{refusal:?}");
    Ok(())
}

#[test]
fn segments_longer_than_the_mtu_are_captured_whole() -> Result<()> {
    const STREAM_BYTES: usize = 400_000;
    let stage = Stage::new(1_500)?;
    let mut programs = load(&stage.client, "c0")?;
    attach_tc(&mut programs, Program::TcEgress, &stage.client, "c0", Tc::Tcx)?;
    let sent = payload(STREAM_BYTES);

    let address = (SERVER_END.ipv4, 53);
    let listener = stage.server.enter(|| Ok(TcpListener::bind(address)?))?;
    let mut client = stage.client.enter(|| Ok(TcpStream::connect(address)?))?;
    let (mut server, _) = listener.accept()?;
    let reader = thread::spawn(move || {
        let mut received = Vec::new();
        server.read_to_end(&mut received).map(|_| received)
    });
    // While the rings are drained, since both rounds together may not fit.
    let writer = thread::spawn({
        let sent = sent.clone();
        move || client.write_all(&sent)
    });

    // A busy machine sends parts again, cut otherwise: what counts is where a byte belongs. The
    // handshake's SYN says where the stream begins.
    let mut segments = Vec::new();
    let mut begin = None;
    let mut longest = 0;
    let stream = wait::until("the whole stream", DEADLINE, || {
        for Captured { header, packet } in programs.drain(0)? {
            assert!(!header.has(flags::TRUNCATED));
            longest = longest.max(packet.len());
            let segment = &packet[usize::from(header.transport_offset)..];
            let sequence = u32::from_be_bytes(segment[4..8].try_into()?);
            const SYN: u8 = 2;
            if segment[13] & SYN != 0 {
                begin = Some(sequence.wrapping_add(1));
            }
            segments.push((sequence, packet[usize::from(header.payload_offset)..].to_vec()));
        }
        let Some(begin) = begin else { return Ok(None) };
        let mut stream = vec![None; STREAM_BYTES];
        for (sequence, data) in &segments {
            let place = usize::try_from(sequence.wrapping_sub(begin))?;
            for (byte, place) in data.iter().zip(stream.iter_mut().skip(place)) {
                *place = Some(*byte);
            }
        }
        Ok(stream.into_iter().collect::<Option<Vec<u8>>>())
    })
    .with_context(|| format!("{:?}", programs.counters(Direction::Egress)))?;
    writer.join().expect("the writer does not panic")?;
    assert!(reader.join().expect("the reader does not panic")? == sent);
    assert!(longest > 1_514, "no segment was longer than the MTU: {longest}");
    assert!(stream == sent, "the segments do not make up the stream");
    Ok(())
}

#[test]
fn the_next_program_at_the_hook_sees_every_packet() -> Result<()> {
    const PACKETS: usize = 50;
    for (ours, next) in [(Tc::Tcx, Tc::Tcx), (Tc::Tcx, Tc::Clsact), (Tc::Clsact, Tc::Clsact)] {
        let stage = Stage::new(1_500)?;
        let mut behind = load(&stage.server, "s0")?;
        attach_tc(&mut behind, Program::TcIngress, &stage.server, "s0", next)?;
        let mut programs = load(&stage.server, "s0")?;
        attach_tc(&mut programs, Program::TcIngress, &stage.server, "s0", ours)?;
        let mut frames = vec![query(&[]); PACKETS];
        frames.extend((0..PACKETS).map(|_| ethernet(&[], &ipv4(UDP, &udp(1, 2, b"not DNS")))));
        stage.send("c0", &frames)?;
        for programs in [&mut programs, &mut behind] {
            records(programs, PACKETS)?;
            wait::until("all packets to be seen", DEADLINE, || {
                let seen = programs.counters(Direction::Ingress)?.get(Counter::Seen);
                Ok((seen == 2 * PACKETS as u64).then_some(()))
            })
            .with_context(|| format!("{ours:?} before {next:?}"))?;
        }
        // And the network stack after both.
        let received = stage.server.packets("s0")?.received;
        assert_eq!(received, 2 * PACKETS as u64, "{ours:?} before {next:?}");
    }
    Ok(())
}

#[test]
fn nothing_stays_when_the_programs_are_dropped() -> Result<()> {
    let stage = Stage::new(1_500)?;
    let mut programs = load(&stage.server, "s0")?;
    attach_xdp(&mut programs, Program::XdpFrags, &stage.server, "s0")?;
    attach_tc(&mut programs, Program::TcEgress, &stage.server, "s0", Tc::Tcx)?;
    let shown = || run(Command::new("ip").args(["-n", stage.server.name(), "link", "show", "s0"]));
    assert!(shown()?.contains("xdp"), "not attached");
    drop(programs);
    wait::until("the link to go", DEADLINE, || Ok((!shown()?.contains("xdp")).then_some(())))
}
