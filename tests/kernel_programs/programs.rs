//! The BPF object in the kernel, with rings to read and a way to run single packets.

use std::{env, fs, iter, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, Pod, TestRun as _, TestRunOptions,
    maps::{Array, ArrayOfMaps, HashMap, Map, MapData, PerCpuArray, PerCpuValues, RingBuf},
    programs::{SchedClassifier, Xdp},
};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_RINGBUF;
use tap53_ebpf::{
    counter::Counters,
    record::{MAX_CAPTURED_LENGTH, RecordHeader, WAKE_WITH_NEXT, hook},
    settings::{
        Direction, InterfaceSettings, NearSettings, PortSet, Ports, UNCONFIGURED_SLOT,
        counter_index, features, near_index,
    },
};

/// The loopback device, which is the default of BPF_PROG_TEST_RUN.
pub(crate) const LOOPBACK: u32 = 1;
pub(crate) const GENERATION: u32 = 5_353;
/// The counter slot of the interface.
const SLOT: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    XdpFrags,
    Xdp,
    /// For kernels before 5.18, as the next two with that name are for kernels before 5.12.
    XdpOld,
    TcIngress,
    TcIngressOld,
    TcEgress,
    TcEgressOld,
}

impl Program {
    /// The programs that a kernel from 5.18 on runs.
    pub(crate) const CURRENT: [Self; 4] =
        [Self::XdpFrags, Self::Xdp, Self::TcIngress, Self::TcEgress];

    pub(crate) const ALL: [Self; 7] = [
        Self::XdpFrags,
        Self::Xdp,
        Self::XdpOld,
        Self::TcIngress,
        Self::TcIngressOld,
        Self::TcEgress,
        Self::TcEgressOld,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::XdpFrags => "tap53_xdp_frags",
            Self::Xdp => "tap53_xdp",
            Self::XdpOld => "tap53_xdp_old",
            Self::TcIngress => "tap53_tc_ingress",
            Self::TcIngressOld => "tap53_tc_ingress_old",
            Self::TcEgress => "tap53_tc_egress",
            Self::TcEgressOld => "tap53_tc_egress_old",
        }
    }

    pub(crate) const fn is_xdp(self) -> bool {
        matches!(self, Self::XdpFrags | Self::Xdp | Self::XdpOld)
    }

    /// Returns the number of programs that see the packets of a direction.
    pub(crate) fn count(direction: Direction) -> u64 {
        Self::ALL.into_iter().filter(|program| program.direction() == direction).map(|_| 1).sum()
    }

    pub(crate) const fn direction(self) -> Direction {
        match self {
            Self::TcEgress | Self::TcEgressOld => Direction::Egress,
            _ => Direction::Ingress,
        }
    }

    pub(crate) const fn hook(self) -> u8 {
        match self {
            Self::XdpFrags | Self::Xdp | Self::XdpOld => hook::XDP,
            Self::TcIngress | Self::TcIngressOld => hook::TC_INGRESS,
            Self::TcEgress | Self::TcEgressOld => hook::TC_EGRESS,
        }
    }

    /// XDP_PASS or TC_ACT_UNSPEC: the program must return it for any packet.
    pub(crate) const fn verdict(self) -> u32 {
        if self.is_xdp() { 2 } else { u32::MAX }
    }
}

/// Options for loading the object.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) ring_count: u32,
    pub(crate) ring_bytes: u32,
    pub(crate) wakeup_bytes: u32,
    /// Interface to configure.
    pub(crate) ifindex: u32,
    /// Bits of [`InterfaceSettings::directions`].
    pub(crate) directions: u32,
    pub(crate) snap_length: u32,
    /// Bits of [`features`].
    pub(crate) features: u32,
    /// Place of the settings.
    pub(crate) place: Place,
    pub(crate) kernel_log: bool,
}

/// Maps that may hold an interface's settings.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// `INTERFACES` only.
    Far,
    /// Both `INTERFACES` and `INTERFACES_NEAR`, as the agent does.
    Both,
    /// None of them.
    Nowhere,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            ring_count: 1,
            ring_bytes: 1 << 20,
            // Nobody waits.
            wakeup_bytes: u32::MAX,
            ifindex: LOOPBACK,
            directions: 3,
            snap_length: MAX_CAPTURED_LENGTH,
            features: features::FRAGMENTS,
            place: Place::Both,
            kernel_log: false,
        }
    }
}

/// A record read from a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Captured {
    pub(crate) header: RecordHeader,
    pub(crate) packet: Vec<u8>,
}

/// The result of a program's run.
pub(crate) struct Run {
    pub(crate) verdict: u32,
    /// The packet afterwards.
    pub(crate) frame: Vec<u8>,
}

pub(crate) struct Programs {
    ebpf: Ebpf,
    pub(crate) rings: Vec<RingBuf<MapData>>,
    features: u32,
}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Value<T>(T);

// SAFETY: integers only, without padding (their sizes are asserted where they are defined).
unsafe impl Pod for Value<InterfaceSettings> {}
// SAFETY: as above.
unsafe impl Pod for Value<NearSettings> {}
// SAFETY: as above.
unsafe impl Pod for Value<Counters> {}

impl Programs {
    /// Loads the object that `cargo xtask build-ebpf` wrote. The variants for older kernels are loaded
    /// when they are first used.
    pub(crate) fn load(setup: Setup) -> Result<Self> {
        tap53_harness::require_root()?;
        let object = object_path();
        let object = fs::read(&object).with_context(|| {
            format!("cannot read {}: run `cargo xtask build-ebpf` first", object.display())
        })?;
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("INTERFACES", 16)
            .map_max_entries("COUNTERS", 2 * (SLOT + 1))
            .map_max_entries("RINGS", setup.ring_count)
            .map_max_entries("RING_LOST", setup.ring_count)
            .map_max_entries("RING_WRITTEN", setup.ring_count)
            .override_global("RING_COUNT", &setup.ring_count, true)
            .override_global("WAKEUP_BYTES", &setup.wakeup_bytes, true)
            .override_global("KERNEL_LOG", &u8::from(setup.kernel_log), true)
            .load(&object)?;
        for program in Program::CURRENT {
            load(&mut ebpf, program)?;
        }
        let rings = (0..setup.ring_count)
            .map(|_| new_ring(setup.ring_bytes))
            .collect::<Result<Vec<_>>>()?;
        let mut slots: ArrayOfMaps<_, RingBuf<MapData>> = map_mut(&mut ebpf, "RINGS")?;
        for (index, ring) in (0..).zip(&rings) {
            slots.set(index, ring, 0)?;
        }
        let mut ports: Array<_, u64> = map_mut(&mut ebpf, "PORTS")?;
        for (index, word) in (0..).zip(port_sets().words) {
            ports.set(index, word, 0)?;
        }
        let mut programs = Self { ebpf, rings, features: setup.features };
        if setup.place != Place::Nowhere {
            programs.configure(setup)?;
        }
        Ok(programs)
    }

    /// Sets or changes the settings of the interface.
    pub(crate) fn configure(&mut self, setup: Setup) -> Result<()> {
        self.features = setup.features;
        let settings = InterfaceSettings {
            directions: setup.directions,
            snap_length: setup.snap_length,
            counter_slot: SLOT,
            generation: GENERATION,
            features: setup.features,
        };
        let mut interfaces: HashMap<_, u32, Value<InterfaceSettings>> =
            map_mut(&mut self.ebpf, "INTERFACES")?;
        interfaces.insert(setup.ifindex, Value(settings), 0)?;
        if setup.place == Place::Both {
            let mut near: Array<_, Value<NearSettings>> =
                map_mut(&mut self.ebpf, "INTERFACES_NEAR")?;
            let entry = NearSettings { ifindex: setup.ifindex, settings };
            near.set(near_index(setup.ifindex), Value(entry), 0)?;
        }
        Ok(())
    }

    /// Bits of [`features`] of the interface.
    pub(crate) const fn features(&self) -> u32 {
        self.features
    }

    /// Runs a program once over a frame.
    pub(crate) fn run(&mut self, program: Program, frame: &[u8]) -> Result<Run> {
        self.run_with_context(program, frame, None)
    }

    /// Runs an XDP program over a frame of which only the first `linear` bytes are in the first
    /// buffer (kernel 6.18).
    pub(crate) fn run_scattered(
        &mut self,
        program: Program,
        frame: &[u8],
        linear: usize,
    ) -> Result<Run> {
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index,
        // egress_ifindex.
        let data_end = u32::try_from(linear)?;
        let context = [0, data_end, 0, LOOPBACK, 0, 0].map(u32::to_ne_bytes).concat();
        self.run_with_context(program, frame, Some(&context))
    }

    fn run_with_context(
        &mut self,
        program: Program,
        frame: &[u8],
        context: Option<&[u8]>,
    ) -> Result<Run> {
        let mut after = vec![0; frame.len() + 256];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut after),
            ctx_in: context,
            ..TestRunOptions::default()
        };
        let result = self.test_run(program, options)?;
        after.truncate(result.data_size_out as usize);
        Ok(Run { verdict: result.return_value, frame: after })
    }

    /// Runs a program `times` times over a frame; returns the mean time of a run.
    pub(crate) fn run_repeatedly(
        &mut self,
        program: Program,
        frame: &[u8],
        times: u32,
    ) -> Result<Duration> {
        let options =
            TestRunOptions { data_in: Some(frame), repeat: times, ..TestRunOptions::default() };
        let result = self.test_run(program, options)?;
        ensure!(result.return_value == program.verdict(), "verdict {}", result.return_value);
        Ok(result.duration)
    }

    fn test_run(
        &mut self,
        program: Program,
        options: TestRunOptions<'_>,
    ) -> Result<aya::TestRunResult> {
        let loaded = self.program_mut(program)?;
        let result = if program.is_xdp() {
            <&mut Xdp>::try_from(loaded)?.test_run(options)
        } else {
            <&mut SchedClassifier>::try_from(loaded)?.test_run(options)
        };
        result.with_context(|| format!("BPF_PROG_TEST_RUN of {}", program.name()))
    }

    /// A loaded program, to attach.
    pub(crate) fn program_mut(&mut self, program: Program) -> Result<&mut aya::programs::Program> {
        let is_loaded = self.ebpf.program(program.name()).is_some_and(|it| it.fd().is_ok());
        if !is_loaded {
            load(&mut self.ebpf, program)?;
        }
        self.ebpf.program_mut(program.name()).context(program.name())
    }

    /// Number of instructions that the verifier has processed in a program (since kernel 5.16).
    pub(crate) fn verified_instructions(&mut self, program: Program) -> Result<u32> {
        self.program_mut(program)?
            .info()?
            .verified_instruction_count()
            .context("this kernel does not tell how much it verified")
    }

    /// Everything that a ring holds.
    pub(crate) fn drain(&mut self, ring: usize) -> Result<Vec<Captured>> {
        let mut records = Vec::new();
        while let Some(item) = self.rings[ring].next() {
            let (header, packet) = RecordHeader::split(&item).context("record cut short")?;
            records.push(Captured { header, packet: packet.to_vec() });
        }
        Ok(records)
    }

    /// The counters of the interface, all CPUs together.
    pub(crate) fn counters(&self, direction: Direction) -> Result<Counters> {
        self.counters_of(SLOT, direction)
    }

    /// The counters of interfaces without settings.
    pub(crate) fn unconfigured_counters(&self, direction: Direction) -> Result<Counters> {
        self.counters_of(UNCONFIGURED_SLOT, direction)
    }

    fn counters_of(&self, slot: u32, direction: Direction) -> Result<Counters> {
        let map = self.ebpf.map("COUNTERS").context("no map COUNTERS")?;
        let counters: PerCpuArray<_, Value<Counters>> = map.try_into()?;
        let mut sum = Counters::default();
        for of_cpu in counters.get(&counter_index(slot, direction), 0)?.iter() {
            sum.add(&of_cpu.0);
        }
        Ok(sum)
    }

    /// Renews the budget for fragments of unknown datagrams, which is otherwise for a second of each CPU.
    pub(crate) fn renew_budget(&mut self) -> Result<()> {
        let mut spent: PerCpuArray<_, [u64; 2]> = map_mut(&mut self.ebpf, "SPECULATION")?;
        let cpus = spent.get(&0, 0)?.len();
        Ok(spent.set(0, PerCpuValues::try_from(vec![[0; 2]; cpus])?, 0)?)
    }

    /// Messages sent by aya-log since the last call.
    pub(crate) fn log_messages(&mut self) -> Result<usize> {
        let mut log: RingBuf<_> = map_mut(&mut self.ebpf, "AYA_LOGS")?;
        Ok(iter::from_fn(|| log.next().map(drop)).count())
    }

    /// Has the next record of a ring wake who waits for it, as a worker does before it sleeps.
    pub(crate) fn arm(&mut self, ring: u32) -> Result<()> {
        let mut written: Array<_, u64> = map_mut(&mut self.ebpf, "RING_WRITTEN")?;
        Ok(written.set(ring, WAKE_WITH_NEXT, 0)?)
    }

    /// Records that a ring lost.
    pub(crate) fn lost(&self, ring: u32) -> Result<u64> {
        let map = self.ebpf.map("RING_LOST").context("no map RING_LOST")?;
        let lost: Array<_, u64> = map.try_into()?;
        Ok(lost.get(&ring, 0)?)
    }
}

fn load(ebpf: &mut Ebpf, program: Program) -> Result<()> {
    let loaded = ebpf.program_mut(program.name()).context(program.name())?;
    if program.is_xdp() {
        <&mut Xdp>::try_from(loaded)?.load()?;
    } else {
        <&mut SchedClassifier>::try_from(loaded)?.load()?;
    }
    Ok(())
}

/// The ports of the programs: the agent's defaults.
pub(crate) fn port_sets() -> Ports {
    let mut sets = Ports::default();
    sets.insert(PortSet::Dns, 53);
    sets.insert(PortSet::Vxlan, 4789);
    sets.insert(PortSet::Geneve, 6081);
    sets
}

fn object_path() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    target.join("bpf/tap53.bpf.o")
}

fn new_ring(bytes: u32) -> Result<RingBuf<MapData>> {
    let definition = aya_obj::Map::new_from_params(BPF_MAP_TYPE_RINGBUF as u32, 0, 0, bytes, 0);
    let map = MapData::create(definition, "tap53_test_ring", None)?;
    Ok(RingBuf::try_from(Map::RingBuf(map))?)
}

fn map_mut<'a, M>(ebpf: &'a mut Ebpf, name: &str) -> Result<M>
where
    M: TryFrom<&'a mut Map>,
    M::Error: std::error::Error + Send + Sync + 'static,
{
    let map = ebpf.map_mut(name).with_context(|| format!("no map {name}"))?;
    M::try_from(map).with_context(|| format!("map {name} is of another type"))
}
