//! Loading the BPF object: globals, map sizes, rings, programs.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::{Program, ProgramError, ProgramFd, SchedClassifier, Xdp},
};
use aya_log::EbpfLogger;
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_RINGBUF;
use tap53_ebpf::{
    counter::Counters,
    settings::{Direction, InterfaceSettings, PORT_WORDS, port_bit},
};

use super::{Error, MAX_ATTACHMENTS, RingLost};
use crate::config::CaptureConfig;

/// The BPF object that `cargo xtask build-ebpf` built, an ELF file.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("TAP53_BPF_OBJECT_PATH"));

/// Part of a ring whose filling wakes its worker ahead of the worker's own interval: an eighth
/// leaves seven for the time that waking takes.
const WAKEUP_DIVISOR: u32 = 8;

/// XDP programs, best first: with frags (kernel 5.18) also packets of several buffers are seen,
/// without frags drivers attach that refuse such programs.
const XDP_PROGRAMS: [&str; 2] = ["tap53_xdp_frags", "tap53_xdp"];

/// TC programs by direction.
pub(super) const TC_PROGRAMS: [&str; 2] = ["tap53_tc_ingress", "tap53_tc_egress"];

/// [`InterfaceSettings`] as aya wants map values.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct SettingsValue(pub(super) InterfaceSettings);

// SAFETY: InterfaceSettings is repr(C), made of integers, and has no padding (16 bytes, asserted
// where it is defined).
unsafe impl Pod for SettingsValue {}

/// [`Counters`] as aya wants map values.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct CountersValue(pub(super) Counters);

// SAFETY: Counters is repr(C) and one array of integers.
unsafe impl Pod for CountersValue {}

/// A worker's ring.
pub struct Ring {
    /// Number of the worker, from 0.
    pub index: u32,
    /// The ring: to be drained by `next`, and polled as a descriptor.
    pub buffer: RingBuf<MapData>,
}

/// Messages of the kernel programs on rare conditions. Readable as a descriptor; [`Self::flush`]
/// writes them to the logger that was the global one of crate `log` when capture was loaded.
pub struct KernelLog(EbpfLogger<&'static dyn log::Log>);

impl KernelLog {
    /// Writes the messages that have arrived to the log.
    pub fn flush(&mut self) {
        self.0.flush();
    }
}

impl AsFd for KernelLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for KernelLog {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// The loaded programs.
pub(super) struct Programs {
    /// Those of [`XDP_PROGRAMS`] that the kernel takes; at least one.
    pub(super) xdp: Vec<ProgramFd>,
    /// By direction.
    pub(super) tc: [ProgramFd; 2],
}

/// The object in the kernel. aya's own view of it is not kept: descriptors hold it up.
pub(super) struct Loaded {
    pub(super) programs: Programs,
    pub(super) settings: HashMap<MapData, u32, SettingsValue>,
    pub(super) counters: PerCpuArray<MapData, CountersValue>,
    pub(super) ring_lost: RingLost,
    pub(super) rings: Vec<Ring>,
    pub(super) kernel_log: Option<KernelLog>,
}

pub(super) fn load(config: &CaptureConfig) -> Result<Loaded, Error> {
    let mut ebpf = EbpfLoader::new()
        .map_max_entries("INTERFACES", MAX_ATTACHMENTS)
        // Slot 0 belongs to interfaces without settings; each slot has two directions.
        .map_max_entries("COUNTERS", 2 * (MAX_ATTACHMENTS + 1))
        .map_max_entries("RINGS", config.workers)
        .map_max_entries("RING_LOST", config.workers)
        .map_max_entries("RING_WOKEN", config.workers)
        .override_global("RING_COUNT", &config.workers, true)
        .override_global("WAKEUP_BYTES", &(config.ring_bytes / WAKEUP_DIVISOR), true)
        .override_global("KERNEL_LOG", &u8::from(config.kernel_log), true)
        .load(OBJECT)
        .map_err(|error| Error::load(&error))?;
    fill_ports(&mut ebpf, &config.ports)?;
    // The rings before the programs: a program that finds no ring counts the packet as lost.
    let rings = make_rings(&mut ebpf, config)?;
    let kernel_log = if config.kernel_log {
        let log = EbpfLogger::init(&mut ebpf).map_err(|error| Error::Object {
            reason: format!("kernel log: {error}"),
        })?;
        Some(KernelLog(log))
    } else {
        None
    };
    Ok(Loaded {
        programs: Programs {
            xdp: load_xdp(&mut ebpf)?,
            tc: [
                load_tc(&mut ebpf, Direction::Ingress)?,
                load_tc(&mut ebpf, Direction::Egress)?,
            ],
        },
        settings: take(&mut ebpf, "INTERFACES")?,
        counters: take(&mut ebpf, "COUNTERS")?,
        ring_lost: RingLost::new(take(&mut ebpf, "RING_LOST")?),
        rings,
        kernel_log,
    })
}

fn take<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> Result<T, Error> {
    let map = ebpf.take_map(name).ok_or_else(|| missing("map", name))?;
    T::try_from(map).map_err(|error| Error::map(name, &error))
}

fn missing(what: &str, name: &str) -> Error {
    Error::Object {
        reason: format!("has no {what} {name}: it was not built for this agent"),
    }
}

fn fill_ports(ebpf: &mut Ebpf, ports: &[u16]) -> Result<(), Error> {
    const NAME: &str = "PORTS";
    let mut words = [0; PORT_WORDS as usize];
    for port in ports {
        let (word, bit) = port_bit(*port);
        words[word as usize] |= bit;
    }
    let mut map: Array<_, u64> = take(ebpf, NAME)?;
    for (index, word) in (0..PORT_WORDS).zip(words) {
        if word != 0 {
            map.set(index, word, 0)
                .map_err(|error| Error::map(NAME, &error))?;
        }
    }
    Ok(())
}

/// Makes the rings and puts them into their slots. Rings as inner maps: kernel 5.8.
fn make_rings(ebpf: &mut Ebpf, config: &CaptureConfig) -> Result<Vec<Ring>, Error> {
    const NAME: &str = "RINGS";
    let failed = |error: MapError| Error::map(NAME, &error);
    let mut slots: ArrayOfMaps<_, RingBuf<MapData>> = take(ebpf, NAME)?;
    let mut rings = Vec::with_capacity(config.workers as usize);
    for index in 0..config.workers {
        let definition =
            aya_obj::Map::new_from_params(BPF_MAP_TYPE_RINGBUF as u32, 0, 0, config.ring_bytes, 0);
        let map = MapData::create(definition, "tap53_ring", None).map_err(failed)?;
        let buffer = RingBuf::try_from(Map::RingBuf(map)).map_err(failed)?;
        slots.set(index, &buffer, 0).map_err(failed)?;
        rings.push(Ring { index, buffer });
    }
    Ok(rings)
}

fn load_xdp(ebpf: &mut Ebpf) -> Result<Vec<ProgramFd>, Error> {
    let mut loaded = Vec::new();
    let mut refusal = None;
    for name in XDP_PROGRAMS {
        let program: &mut Xdp = program(ebpf, name)?;
        match program
            .load()
            .and_then(|()| program.fd()?.try_clone().map_err(ProgramError::from))
        {
            Ok(fd) => loaded.push(fd),
            Err(error) => {
                let error = Error::program(name, &error);
                tracing::debug!(%error, "not loaded");
                refusal = Some(error);
            }
        }
    }
    match refusal {
        Some(error) if loaded.is_empty() => Err(error),
        _ => Ok(loaded),
    }
}

fn load_tc(ebpf: &mut Ebpf, direction: Direction) -> Result<ProgramFd, Error> {
    let name = TC_PROGRAMS[direction as usize];
    let program: &mut SchedClassifier = program(ebpf, name)?;
    program
        .load()
        .and_then(|()| program.fd()?.try_clone().map_err(ProgramError::from))
        .map_err(|error| Error::program(name, &error))
}

fn program<'e, T>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut T, Error>
where
    &'e mut T: TryFrom<&'e mut Program, Error = ProgramError>,
{
    let program = ebpf
        .program_mut(name)
        .ok_or_else(|| missing("program", name))?;
    program
        .try_into()
        .map_err(|error| Error::program(name, &error))
}
