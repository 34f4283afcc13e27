//! What the kernel programs cost per packet, by BPF_PROG_TEST_RUN, beside an empty program.
//!
//! Absolute times differ between machines, and drift on one. So the programs and packets take turns
//! in short batches, the median batch counts, and the table gives each cost as a ratio to that of a
//! DNS packet, all taken in the same run.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, Pod, TestRun as _, TestRunOptions,
    maps::{Array, ArrayOfMaps, Map, MapData, RingBuf},
    programs::{SchedClassifier, Xdp},
};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_RINGBUF;
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    write::{Object, Symbol, SymbolSection},
};
use tap53_ebpf::{
    record::MAX_CAPTURED_LENGTH,
    settings::{InterfaceSettings, NearSettings, near_index, port_bit},
};

const BATCHES: usize = 41;
/// Few enough that a batch of the longest packet measured fits the ring.
const RUNS_PER_BATCH: u32 = 5_000;
const RING_BYTES: u32 = 16 << 20;
/// The loopback device, which BPF_PROG_TEST_RUN names unless told otherwise.
const LOOPBACK: u32 = 1;
/// The packet that the others are compared with.
const REFERENCE: &str = "DNS query, 80 bytes";

/// Measures the object at `path` and prints the table.
pub(crate) fn run(path: &Path) -> Result<()> {
    let object = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut bench = Bench::load(&object)
        .context("cannot load the kernel programs: benchmarks of the kernel side need root")?;
    let rows = bench.measure()?;
    print_table(&rows);
    Ok(())
}

/// Programs measured, in the columns of the table.
const PROGRAMS: [&str; 4] = [
    "tap53_xdp",
    "tap53_xdp_frags",
    "tap53_tc_ingress",
    "tap53_tc_egress",
];

struct Row {
    packet: &'static str,
    /// Nanoseconds by program, the cost of an empty program of the same type taken off.
    added_ns: [f64; 4],
}

struct Bench {
    programs: Ebpf,
    empty: Ebpf,
    ring: RingBuf<MapData>,
}

/// The settings, as a type of this crate that may be given to aya.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct NearValue(NearSettings);

// SAFETY: NearSettings is integers only, without padding (its size is asserted).
unsafe impl Pod for NearValue {}

impl Bench {
    fn load(object: &[u8]) -> Result<Self> {
        let mut programs = EbpfLoader::new()
            .map_max_entries("COUNTERS", 4)
            // Never within a batch: what is measured is the way without wake-up.
            .override_global("WAKEUP_BYTES", &u32::MAX, true)
            .load(object)?;
        let mut empty = Ebpf::load(&empty_programs()?)?;
        for (ebpf, names) in [(&mut programs, &PROGRAMS[..]), (&mut empty, &["xdp", "tc"])] {
            for name in names {
                load_program(ebpf, name)?;
            }
        }

        let definition = aya_obj::Map::new_from_params(
            BPF_MAP_TYPE_RINGBUF as u32,
            0,
            0,
            RING_BYTES,
            0,
        );
        let ring = Map::RingBuf(MapData::create(definition, "bench_ring", None)?);
        let ring = RingBuf::try_from(ring)?;
        let mut rings: ArrayOfMaps<_, RingBuf<MapData>> = map_mut(&mut programs, "RINGS")?;
        rings.set(0, &ring, 0)?;
        let mut ports: Array<_, u64> = map_mut(&mut programs, "PORTS")?;
        let (word, bit) = port_bit(53);
        ports.set(word, bit, 0)?;
        let mut near: Array<_, NearValue> = map_mut(&mut programs, "INTERFACES_NEAR")?;
        let settings = InterfaceSettings {
            directions: 3,
            snap_length: MAX_CAPTURED_LENGTH,
            counter_slot: 1,
            generation: 1,
        };
        near.set(near_index(LOOPBACK), NearValue(NearSettings { ifindex: LOOPBACK, settings }), 0)?;
        Ok(Self {
            programs,
            empty,
            ring,
        })
    }

    fn measure(&mut self) -> Result<Vec<Row>> {
        let packets = packets();
        let mut batches_ns = vec![[const { Vec::new() }; 4]; packets.len()];
        let mut empty_ns = [const { Vec::new() }; 2];
        for _ in 0..BATCHES {
            for (of_kind, name) in empty_ns.iter_mut().zip(["xdp", "tc"]) {
                of_kind.push(run_batch(&mut self.empty, name, &packets[0].1)?);
            }
            for ((_, frame), of_packet) in packets.iter().zip(&mut batches_ns) {
                for (name, of_program) in PROGRAMS.iter().zip(of_packet) {
                    of_program.push(run_batch(&mut self.programs, name, frame)?);
                    while self.ring.next().is_some() {}
                }
            }
        }
        let [empty_xdp, empty_tc] = empty_ns.map(median);
        println!("an empty program: XDP {empty_xdp:.0} ns, TC {empty_tc:.0} ns");
        let empty = [empty_xdp, empty_xdp, empty_tc, empty_tc];
        Ok(packets
            .iter()
            .zip(batches_ns)
            .map(|((packet, _), of_packet)| {
                let mut added_ns = of_packet.map(median);
                for (added, empty) in added_ns.iter_mut().zip(empty) {
                    *added -= empty;
                }
                Row { packet, added_ns }
            })
            .collect())
    }
}

fn map_mut<'a, M>(ebpf: &'a mut Ebpf, name: &str) -> Result<M>
where
    M: TryFrom<&'a mut Map>,
    M::Error: std::error::Error + Send + Sync + 'static,
{
    let map = ebpf
        .map_mut(name)
        .with_context(|| format!("no map {name}"))?;
    M::try_from(map).with_context(|| format!("map {name} is of another type"))
}

fn load_program(ebpf: &mut Ebpf, name: &str) -> Result<()> {
    let program = ebpf
        .program_mut(name)
        .with_context(|| format!("no program {name}"))?;
    if name.contains("xdp") {
        <&mut Xdp>::try_from(program)?.load()?;
    } else {
        <&mut SchedClassifier>::try_from(program)?.load()?;
    }
    Ok(())
}

/// Mean nanoseconds of a run in one batch.
fn run_batch(ebpf: &mut Ebpf, name: &str, frame: &[u8]) -> Result<f64> {
    let options = TestRunOptions {
        data_in: Some(frame),
        repeat: RUNS_PER_BATCH,
        ..TestRunOptions::default()
    };
    let program = ebpf
        .program_mut(name)
        .with_context(|| format!("no program {name}"))?;
    let result = if name.contains("xdp") {
        <&mut Xdp>::try_from(program)?.test_run(options)?
    } else {
        <&mut SchedClassifier>::try_from(program)?.test_run(options)?
    };
    Ok(result.duration.as_secs_f64() * 1e9)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn print_table(rows: &[Row]) {
    println!("added cost per packet, as a ratio to a {REFERENCE} (ns in brackets)");
    print!("{:<24}", "");
    for program in PROGRAMS {
        print!("{:>20}", program.trim_start_matches("tap53_"));
    }
    println!();
    let reference = rows.iter().find(|row| row.packet == REFERENCE);
    for row in rows {
        print!("{:<24}", row.packet);
        for (column, added_ns) in row.added_ns.iter().enumerate() {
            let ratio = reference.map_or(f64::NAN, |of| added_ns / of.added_ns[column]);
            print!("{:>20}", format!("{ratio:.2} ({added_ns:.0})"));
        }
        println!();
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

/// An object with programs that only return: what BPF_PROG_TEST_RUN itself costs.
fn empty_programs() -> Result<Vec<u8>> {
    // r0 = 2 (XDP_PASS); exit
    const RETURN: [u8; 16] = [0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
    let endianness = if cfg!(target_endian = "big") {
        Endianness::Big
    } else {
        Endianness::Little
    };
    ensure!(endianness == Endianness::Little, "only for little-endian machines");
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, endianness);
    for (name, section) in [("xdp", "xdp"), ("tc", "classifier")] {
        let id = object.add_section(Vec::new(), section.into(), SectionKind::Text);
        object.append_section_data(id, &RETURN, 8);
        object.add_symbol(Symbol {
            name: name.into(),
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
    Ok(object.write()?)
}
