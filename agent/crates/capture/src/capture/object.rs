//! Loads the BPF object: globals, map sizes, rings, programs.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    path::Path,
};

use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, ArrayOfMaps, Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::{Program, ProgramError, ProgramFd, SchedClassifier, Xdp},
};
use aya_log::EbpfLogger;
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_RINGBUF;
use object::{Object as _, ObjectSection as _};
use tap53_ebpf::{
    INTERFACE,
    counter::Counters,
    settings::{Direction, PORT_WORDS, Ports},
};

use super::{
    Error, RingLost,
    processes::{self, Followed},
    settings::Settings,
};
use crate::{
    capture::config::{CaptureConfig, HookChoice},
    ring::Doorbells,
};

/// The BPF object that `cargo xtask build-ebpf` has built, an ELF file.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("TAP53_BPF_OBJECT_PATH"));

/// Fraction of a ring whose filling wakes its worker before the worker's own interval is over: an
/// eighth leaves seven for the latency of the wake-up.
const WAKEUP_DIVISOR: u32 = 8;

/// XDP programs, best first: with frags (kernel 5.18), which drivers require for an MTU above a
/// page, without, and for kernels before 5.18. Whether a driver supports frags only shows when the
/// program is attached; no driver refuses a program because it supports them, so that one of them is
/// enough.
const XDP_PROGRAMS: [&str; 3] = ["tap53_xdp_frags", "tap53_xdp", "tap53_xdp_old"];

/// TC programs by direction.
pub(super) const TC_PROGRAMS: [&str; 2] = ["tap53_tc_ingress", "tap53_tc_egress"];

/// Their variants for kernels before 5.12.
const OLD_TC_PROGRAMS: [&str; 2] = ["tap53_tc_ingress_old", "tap53_tc_egress_old"];

/// Wraps [`Counters`] as a map value of aya.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct CountersValue(pub(super) Counters);

// SAFETY: Counters is repr(C) and one array of integers.
unsafe impl Pod for CountersValue {}

/// A worker's ring.
pub struct Ring {
    /// Number of the worker, from 0.
    pub index: u32,
    /// The ring, drained by `next` and polled by its descriptor.
    pub buffer: RingBuf<MapData>,
}

/// Messages of the kernel programs on rare conditions. Readable as a descriptor; [`Self::flush`]
/// writes them to the logger that was the global one of the crate `log` when capture was loaded.
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
    /// The first of [`XDP_PROGRAMS`] that the kernel accepts; `None` if it accepts none, or if the
    /// configuration uses none.
    pub(super) xdp: Option<ProgramFd>,
    /// TC programs by direction.
    pub(super) tc: [ProgramFd; 2],
}

/// The loaded object. aya's own view of it is dropped: the descriptors keep it in the kernel.
pub(super) struct Loaded {
    pub(super) programs: Programs,
    pub(super) settings: Settings,
    pub(super) counters: PerCpuArray<MapData, CountersValue>,
    pub(super) ring_lost: RingLost,
    pub(super) doorbells: Doorbells,
    pub(super) rings: Vec<Ring>,
    pub(super) kernel_log: Option<KernelLog>,
    /// The processes of sockets, if they are to be known and can be.
    pub(super) processes: Option<Followed>,
}

/// Returns an error if the object was built from other sources of the interface than this agent.
fn check_interface(object: &[u8]) -> Result<(), Error> {
    let built_from = interface_of(object);
    if built_from == Some(INTERFACE) {
        return Ok(());
    }
    let built_from = built_from.map_or("an unknown version".into(), |it| format!("{it:016x}"));
    Err(Error::Object {
        reason: format!(
            "the kernel programs were built for another agent (interface {built_from}, this agent's \
             is {INTERFACE:016x}): run `cargo xtask build-ebpf`, then build the agent again"
        ),
    })
}

/// Returns the interface that an object was built from; `None` if it does not say.
fn interface_of(object: &[u8]) -> Option<u64> {
    let file = object::File::parse(object).ok()?;
    let section = file.section_by_name("interface")?;
    Some(u64::from_le_bytes(section.data().ok()?.try_into().ok()?))
}

/// Loads the object. The processes that use sockets are followed if `cgroups`, the tree of all
/// cgroups, is there.
pub(super) fn load(config: &CaptureConfig, cgroups: Option<&Path>) -> Result<Loaded, Error> {
    check_interface(OBJECT)?;
    let entries = [
        ("INTERFACES", config.max_interfaces),
        // Slot 0 is for interfaces without settings; each slot has two directions.
        ("COUNTERS", 2 * (config.max_interfaces + 1)),
        ("RINGS", config.workers),
        ("RING_LOST", config.workers),
        ("RING_WRITTEN", config.workers),
        (processes::MAP, if cgroups.is_some() { processes::SOCKETS } else { 1 }),
    ];
    let wakeup_bytes = config.ring_bytes / WAKEUP_DIVISOR;
    let kernel_log = u8::from(config.kernel_log);
    let mut loader = EbpfLoader::new();
    for (name, entries) in entries {
        loader.map_max_entries(name, entries);
    }
    let mut ebpf = loader
        .override_global("RING_COUNT", &config.workers, true)
        .override_global("WAKEUP_BYTES", &wakeup_bytes, true)
        .override_global("KERNEL_LOG", &kernel_log, true)
        .load(OBJECT)
        .map_err(|error| Error::load(&error))?;
    // aya sizes the maps that exist and does not report those that are missing.
    if let Some((name, _)) = entries.iter().find(|(name, _)| ebpf.map(name).is_none()) {
        return Err(missing("map", name));
    }
    fill_ports(&mut ebpf, &config.port_sets())?;
    // Create the rings before the programs: a program without a ring counts packets as lost.
    let rings = create_rings(&mut ebpf, config)?;
    let kernel_log = if config.kernel_log {
        let log = EbpfLogger::init(&mut ebpf)
            .map_err(|error| Error::Object { reason: format!("kernel log: {error}") })?;
        Some(KernelLog(log))
    } else {
        None
    };
    Ok(Loaded {
        programs: Programs {
            xdp: load_xdp(&mut ebpf, config.hook)?,
            tc: [load_tc(&mut ebpf, Direction::Ingress)?, load_tc(&mut ebpf, Direction::Egress)?],
        },
        settings: Settings::take(&mut ebpf)?,
        counters: take(&mut ebpf, "COUNTERS")?,
        ring_lost: RingLost::new(take(&mut ebpf, "RING_LOST")?),
        doorbells: Doorbells::new(take(&mut ebpf, "RING_WRITTEN")?),
        rings,
        kernel_log,
        processes: cgroups.and_then(|cgroups| follow_processes(&mut ebpf, cgroups)),
    })
}

/// Follows the processes that use sockets. A kernel that cannot do it is logged: the records are
/// complete but for two fields.
fn follow_processes(ebpf: &mut Ebpf, cgroups: &Path) -> Option<Followed> {
    let followed = processes::follow(ebpf, cgroups);
    followed
        .inspect_err(|error| {
            tracing::warn!(
                event = "processes_unavailable",
                %error,
                "records do not name the processes of clients"
            );
        })
        .ok()
}

/// Borrows a map of the object and leaves it there: programs that are not loaded yet refer to the
/// maps' descriptors by number.
fn borrow<'e, T>(ebpf: &'e mut Ebpf, name: &str) -> Result<T, Error>
where
    T: TryFrom<&'e mut Map, Error = MapError>,
{
    let map = ebpf.map_mut(name).ok_or_else(|| missing("map", name))?;
    T::try_from(map).map_err(|error| Error::map(name, &error))
}

/// Takes a map out of the object, after the programs are loaded.
pub(super) fn take<T: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &str,
) -> Result<T, Error> {
    let map = ebpf.take_map(name).ok_or_else(|| missing("map", name))?;
    T::try_from(map).map_err(|error| Error::map(name, &error))
}

pub(super) fn missing(what: &str, name: &str) -> Error {
    Error::Object { reason: format!("has no {what} {name}: it was not built for this agent") }
}

fn fill_ports(ebpf: &mut Ebpf, ports: &Ports) -> Result<(), Error> {
    const NAME: &str = "PORTS";
    let mut map: Array<&mut MapData, u64> = borrow(ebpf, NAME)?;
    for (index, word) in (0..PORT_WORDS).zip(ports.words) {
        if word != 0 {
            map.set(index, word, 0).map_err(|error| Error::map(NAME, &error))?;
        }
    }
    Ok(())
}

/// Creates the rings and inserts them into their slots. Rings as inner maps: kernel 5.8.
fn create_rings(ebpf: &mut Ebpf, config: &CaptureConfig) -> Result<Vec<Ring>, Error> {
    const NAME: &str = "RINGS";
    let failed = |error: MapError| Error::map(NAME, &error);
    let mut slots: ArrayOfMaps<&mut MapData, RingBuf<MapData>> = borrow(ebpf, NAME)?;
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

/// Loads the XDP program. A kernel that accepts none is captured on at TC, unless XDP is asked for.
fn load_xdp(ebpf: &mut Ebpf, hook: HookChoice) -> Result<Option<ProgramFd>, Error> {
    if hook == HookChoice::Tc {
        return Ok(None);
    }
    match load_first::<Xdp>(ebpf, &XDP_PROGRAMS, Xdp::load) {
        Ok(program) => Ok(Some(program)),
        Err(error) if !error.is_lack_of_feature() => Err(error),
        Err(error) if hook == HookChoice::Xdp => Err(Error::NoXdp { reason: error.to_string() }),
        Err(error) => {
            tracing::warn!(
                event = "xdp_unavailable",
                %error,
                "this kernel accepts no XDP program: arriving packets are captured at TC"
            );
            Ok(None)
        }
    }
}

fn load_tc(ebpf: &mut Ebpf, direction: Direction) -> Result<ProgramFd, Error> {
    let names = [TC_PROGRAMS, OLD_TC_PROGRAMS].map(|names| names[direction as usize]);
    load_first::<SchedClassifier>(ebpf, &names, SchedClassifier::load)
}

/// Loads the first of several variants of a program that the kernel accepts.
fn load_first<T>(
    ebpf: &mut Ebpf,
    names: &[&str],
    load: impl Fn(&mut T) -> Result<(), ProgramError>,
) -> Result<ProgramFd, Error>
where
    for<'p> &'p mut T: TryFrom<&'p mut Program, Error = ProgramError>,
{
    let mut result = Err(missing("program", "for this hook"));
    for name in names {
        result = load_program(ebpf, name, &load);
        match &result {
            Err(error) if error.is_lack_of_feature() => tracing::debug!(
                event = "program_refused",
                program = name,
                %error,
                "the kernel lacks what a program needs: trying the next one"
            ),
            _ => break,
        }
    }
    result
}

fn load_program<T>(
    ebpf: &mut Ebpf,
    name: &str,
    load: impl FnOnce(&mut T) -> Result<(), ProgramError>,
) -> Result<ProgramFd, Error>
where
    for<'p> &'p mut T: TryFrom<&'p mut Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or_else(|| missing("program", name))?;
    <&mut T>::try_from(program)
        .and_then(load)
        .and_then(|()| Ok(program.fd()?.try_clone()?))
        .map_err(|error| Error::program(name, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_of_another_interface_is_refused() {
        check_interface(OBJECT).expect("`cargo xtask build-ebpf` has built it");
        let section = INTERFACE.to_le_bytes();
        let at = OBJECT.windows(8).position(|bytes| bytes == section).expect("the section");
        let mut other = OBJECT.to_vec();
        other[at] ^= 1;
        let refused = check_interface(&other).expect_err("another interface").to_string();
        assert!(refused.contains(&format!("interface {:016x}", INTERFACE ^ 1)), "{refused}");
        assert!(refused.contains("cargo xtask build-ebpf"), "{refused}");
        let refused = check_interface(b"no object").expect_err("no object").to_string();
        assert!(refused.contains("unknown version"), "{refused}");
    }
}
