//! Measures the cost of the kernel programs per packet with BPF_PROG_TEST_RUN, compared with an empty
//! program.
//!
//! Absolute times differ between machines, and drift on one. So programs and packets alternate in short
//! batches, the median batch counts, and the table has each cost as a ratio to that of a DNS packet of the
//! same run.
//!
//! BPF_PROG_TEST_RUN gives an skb a socket, so the rows of TC include reading it, like those of packets
//! that leave a socket of this node. A packet that arrives from elsewhere has none, and costs less.

#[path = "programs.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod programs;

use std::time::Instant;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, TestRun as _, TestRunOptions,
    programs::{SchedClassifier, Xdp},
};
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    write::{Object, Symbol, SymbolSection},
};
use programs::{Program, Programs, Setup};

const BATCHES: usize = 41;
/// Few enough that a batch of the longest packet measured fits the ring.
const RUNS_PER_BATCH: u32 = 2_000;
const RING_BYTES: u32 = 8 << 20;
/// The row of the reference where the interface is switched off and the programs still attached.
const SWITCHED_OFF: &str = "DNS query, switched off";
/// The packet that the others are compared with.
const REFERENCE: &str = "DNS query, 80 bytes";
const KINDS: [&str; 2] = ["xdp", "tc"];

fn main() -> Result<()> {
    let started = Instant::now();
    let programs = Programs::load(setup())?;
    let loaded_in = started.elapsed();
    let mut bench = Bench { programs, empty: load_empty_programs()? };
    let table = bench.measure()?;
    table.print();
    print!("loaded in {} ms, instructions verified:", loaded_in.as_millis());
    for program in Program::CURRENT {
        print!(" {}", bench.programs.verified_instructions(program)?);
    }
    println!();
    Ok(())
}

fn setup() -> Setup {
    Setup { ring_bytes: RING_BYTES, ..Setup::default() }
}

/// Median nanoseconds a run.
struct Table {
    /// Cost of an empty program in nanoseconds, by kind.
    empty_ns: [f64; 2],
    /// Costs in nanoseconds by packet, then by program.
    rows: Vec<(&'static str, [f64; 4])>,
}

struct Bench {
    programs: Programs,
    empty: Ebpf,
}

impl Bench {
    fn measure(&mut self) -> Result<Table> {
        let packets = packets();
        let mut batches_ns = vec![[const { Vec::new() }; 4]; packets.len()];
        let mut off_ns = [const { Vec::new() }; 4];
        let mut empty_ns = [const { Vec::new() }; 2];
        for _ in 0..BATCHES {
            for (of_kind, kind) in empty_ns.iter_mut().zip(KINDS) {
                of_kind.push(self.run_empty(kind, &packets[0].1)?);
            }
            for ((_, frame), of_packet) in packets.iter().zip(&mut batches_ns) {
                for (program, of_program) in Program::CURRENT.into_iter().zip(of_packet) {
                    let took = self.programs.run_repeatedly(program, frame, RUNS_PER_BATCH)?;
                    of_program.push(took.as_secs_f64() * 1e9);
                    while self.programs.rings[0].next().is_some() {}
                }
            }
            self.programs.configure(Setup { directions: 0, ..setup() })?;
            let reference = packets.iter().find(|(packet, _)| *packet == REFERENCE);
            let (_, frame) = reference.context("the reference is among the packets")?;
            for (program, of_program) in Program::CURRENT.into_iter().zip(&mut off_ns) {
                let took = self.programs.run_repeatedly(program, frame, RUNS_PER_BATCH)?;
                of_program.push(took.as_secs_f64() * 1e9);
            }
            self.programs.configure(setup())?;
        }
        let off_row = (SWITCHED_OFF, off_ns.map(median));
        Ok(Table {
            empty_ns: empty_ns.map(median),
            rows: packets
                .iter()
                .zip(batches_ns)
                .map(|((packet, _), of_packet)| (*packet, of_packet.map(median)))
                .chain([off_row])
                .collect(),
        })
    }

    /// Mean nanoseconds of a run of an empty program.
    fn run_empty(&mut self, kind: &str, frame: &[u8]) -> Result<f64> {
        let options = TestRunOptions {
            data_in: Some(frame),
            repeat: RUNS_PER_BATCH,
            ..TestRunOptions::default()
        };
        let program = self.empty.program_mut(kind).context("no empty program")?;
        let result = if kind == "xdp" {
            <&mut Xdp>::try_from(program)?.test_run(options)?
        } else {
            <&mut SchedClassifier>::try_from(program)?.test_run(options)?
        };
        Ok(result.duration.as_secs_f64() * 1e9)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl Table {
    /// Returns the cost of a packet above that of an empty program of the same kind, by program.
    fn added_ns(&self, of_packet: &[f64; 4]) -> [f64; 4] {
        let mut added = *of_packet;
        for (added, program) in added.iter_mut().zip(Program::CURRENT) {
            *added -= self.empty_ns[usize::from(!program.is_xdp())];
        }
        added
    }

    fn print(&self) {
        let [xdp_ns, tc_ns] = self.empty_ns;
        println!("kernel programs: cost per packet over an empty program, as a ratio to that of a");
        println!("{REFERENCE}, and in ns (an empty program: XDP {xdp_ns:.0}, TC {tc_ns:.0})");
        print!("{:<24}", "");
        for program in Program::CURRENT {
            print!("{:>14}", program.name().trim_start_matches("tap53_"));
        }
        println!();
        let reference = self.rows.iter().find(|(packet, _)| *packet == REFERENCE);
        let reference = reference.map_or([f64::NAN; 4], |(_, ns)| self.added_ns(ns));
        for (packet, of_packet) in &self.rows {
            print!("{packet:<24}");
            for (added_ns, reference_ns) in self.added_ns(of_packet).iter().zip(reference) {
                print!("{:>14}", format!("{:.2} ({added_ns:.0})", added_ns / reference_ns));
            }
            println!();
        }
    }
}

/// Frames by description.
fn packets() -> Vec<(&'static str, Vec<u8>)> {
    let mut arp = vec![0xff; 60];
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    vec![
        ("ARP", arp),
        ("TCP, port 443", ipv4(6, 443, 1_000)),
        ("UDP, port 443", ipv4(17, 443, 1_000)),
        ("UDP over IPv6, 443", ipv6(443, 1_000)),
        (REFERENCE, ipv4(17, 53, 80)),
        ("the same over IPv6", ipv6(53, 80)),
        ("DNS answer, 300 bytes", ipv4(17, 53, 300)),
        ("DNS answer, 1232 bytes", ipv4(17, 53, 1_232)),
    ]
}

/// An IPv4 packet to a port, `length` bytes with its Ethernet header.
fn ipv4(protocol: u8, port: u16, length: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00, 0x45, 0];
    frame.extend((length - 14).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    transport(frame, port, length)
}

fn ipv6(port: u16, length: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd, 0x60, 0, 0, 0];
    frame.extend((length - 54).to_be_bytes());
    frame.extend([17, 64]);
    frame.extend([0x20; 32]);
    transport(frame, port, length)
}

/// The ports; as TCP, a header without options.
fn transport(mut frame: Vec<u8>, port: u16, length: u16) -> Vec<u8> {
    frame.extend(40_000_u16.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.resize(length.into(), 0x50);
    frame
}

/// Programs that only return: what BPF_PROG_TEST_RUN itself costs.
fn load_empty_programs() -> Result<Ebpf> {
    // r0 = 2 (XDP_PASS); exit
    const RETURN: [u8; 16] = [0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    for (kind, section) in KINDS.into_iter().zip(["xdp", "classifier"]) {
        let id = object.add_section(Vec::new(), section.into(), SectionKind::Text);
        object.append_section_data(id, &RETURN, 8);
        object.add_symbol(Symbol {
            name: kind.into(),
            value: 0,
            size: RETURN.len() as u64,
            kind: SymbolKind::Text,
            scope: SymbolScope::Linkage,
            weak: false,
            section: SymbolSection::Section(id),
            flags: SymbolFlags::None,
        });
    }
    let license = object.add_section(Vec::new(), "license".into(), SectionKind::Data);
    object.append_section_data(license, b"GPL\0", 1);
    let mut ebpf = Ebpf::load(&object.write()?)?;
    <&mut Xdp>::try_from(ebpf.program_mut("xdp").context("just made")?)?.load()?;
    <&mut SchedClassifier>::try_from(ebpf.program_mut("tc").context("just made")?)?.load()?;
    Ok(ebpf)
}
