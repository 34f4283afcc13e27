//! The processes that use sockets: programs at the root of the cgroup tree, and the map that they
//! fill.

use std::{fs::File, path::Path, sync::Arc};

use aya::{
    Ebpf, Pod,
    maps::{HashMap, MapData},
    programs::{CgroupAttachMode, CgroupSockAddr, cgroup_sock_addr::CgroupSockAddrLink},
};
use tap53_ebpf::process::Process;

use super::{
    Error,
    object::{missing, take},
};

/// Number of sockets whose process is remembered. A record may be written five seconds after its
/// query (`pair.timeout_ms`), so it suffices for 13,000 new sockets a second; some 6 MB.
pub(super) const SOCKETS: u32 = 65_536;

/// Name of the map.
pub(super) const MAP: &str = "PROCESSES";

const PROGRAMS: [&str; 4] =
    ["tap53_connect4", "tap53_connect6", "tap53_sendmsg4", "tap53_sendmsg6"];

/// Wraps [`Process`] as a map value of aya.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct ProcessValue(Process);

// SAFETY: Process is repr(C), of integers only and without padding.
unsafe impl Pod for ProcessValue {}

/// The processes by their socket. Cheap to clone, for the workers.
#[derive(Clone)]
pub struct Processes(Arc<HashMap<MapData, u64, ProcessValue>>);

impl Processes {
    /// Returns the process that uses the socket with this cookie; `None` if it is not known, or if
    /// several processes use the socket. It takes one system call.
    #[must_use]
    pub fn of(&self, socket: u64) -> Option<Process> {
        let ProcessValue(process) = self.0.get(&socket, 0).ok()?;
        (process.pid != Process::SEVERAL).then_some(process)
    }
}

/// The map, and the attached programs: dropping them detaches them.
pub(super) struct Followed {
    pub(super) processes: Processes,
    _links: Vec<CgroupSockAddrLink>,
}

/// Loads the programs, and attaches them to the cgroup tree at `root`.
pub(super) fn follow(ebpf: &mut Ebpf, root: &Path) -> Result<Followed, Error> {
    let directory = File::open(root)
        .map_err(|cause| Error::kernel(format!("cgroup {}", root.display()), cause))?;
    let links = PROGRAMS.into_iter().map(|name| attach(ebpf, name, &directory));
    let links = links.collect::<Result<_, _>>()?;
    Ok(Followed { processes: Processes(Arc::new(take(ebpf, MAP)?)), _links: links })
}

fn attach(ebpf: &mut Ebpf, name: &str, cgroup: &File) -> Result<CgroupSockAddrLink, Error> {
    let program = ebpf.program_mut(name).ok_or_else(|| missing("program", name))?;
    let attached = <&mut CgroupSockAddr>::try_from(program).and_then(|program| {
        program.load()?;
        // A link always allows others at the same cgroup, and the kernel takes no flag for it.
        let link = program.attach(cgroup, CgroupAttachMode::Single)?;
        program.take_link(link)
    });
    attached.map_err(|error| Error::program(name, &error))
}
