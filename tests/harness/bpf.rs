//! Reads the kernel's BPF objects by system call, without the agent's libraries.

use std::{
    collections::BTreeSet,
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
};

use anyhow::{Context, Result, bail};
use nix::{net::if_::if_nametoindex, unistd::Pid};

use crate::namespace::Namespace;

// Commands, types and flags of linux/bpf.h and linux/if_link.h.
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_MAP_GET_FD_BY_ID: libc::c_long = 14;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_GET_FD_BY_ID: libc::c_long = 30;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
const BPF_F_BEFORE: u32 = 1 << 3;
const BPF_F_AFTER: u32 = 1 << 4;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// Kind of a BPF object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Program.
    Program,
    /// Map.
    Map,
    /// Link: what keeps a program attached.
    Link,
}

/// A BPF object by its kernel id. Ids are not reused soon, so they can be looked up later.
pub type Object = (Kind, u32);

/// The BPF objects that a process holds open, from its `fdinfo` (kernel 4.12; links 5.8).
///
/// # Errors
/// When the process is gone.
pub fn held_by(pid: Pid) -> Result<BTreeSet<Object>> {
    let directory = format!("/proc/{pid}/fdinfo");
    let mut objects = BTreeSet::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("read {directory}"))? {
        // A descriptor may be closed meanwhile.
        let Ok(text) = fs::read_to_string(entry?.path()) else {
            continue;
        };
        let value = |key: &str| {
            text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u32>().ok())
        };
        // A link's fdinfo also names its program: the process holds the link only.
        let object = value("link_id:")
            .map(|id| (Kind::Link, id))
            .or_else(|| value("prog_id:").map(|id| (Kind::Program, id)))
            .or_else(|| value("map_id:").map(|id| (Kind::Map, id)));
        objects.extend(object);
    }
    Ok(objects)
}

/// True while the kernel has the object.
///
/// # Errors
/// When the kernel denies it.
pub fn exists((kind, id): Object) -> Result<bool> {
    let command = match kind {
        Kind::Program => BPF_PROG_GET_FD_BY_ID,
        Kind::Map => BPF_MAP_GET_FD_BY_ID,
        Kind::Link => BPF_LINK_GET_FD_BY_ID,
    };
    // First field of the union's member for *_GET_FD_BY_ID: the id; then next_id and open_flags.
    let mut attributes = [0u32; 4];
    attributes[0] = id;
    match bpf(command, &attributes) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("look up BPF {kind:?} {id}")),
    }
}

/// Mode of an XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// Runs in the driver.
    Native,
    /// Runs in the network stack.
    Generic,
}

/// Verdicts of programs, linux/bpf.h and linux/pkt_cls.h.
pub mod verdict {
    /// Ends a TC chain: to the stack.
    pub const TC_OK: i32 = 0;
    /// Ends a TC chain: dropped.
    pub const TC_SHOT: i32 = 2;
    /// On to the next program of a TC chain.
    pub const TC_NEXT: i32 = -1;
    /// Dropped.
    pub const XDP_DROP: i32 = 1;
    /// Passes the packet to the network stack.
    pub const XDP_PASS: i32 = 2;
}

/// A link that a test holds. It is detached when it is dropped, not only closed: a process that
/// another thread forks just then has a copy of the descriptor until it executes its program, and the
/// kernel keeps the link as long as the copy.
struct HeldLink(OwnedFd);

impl Drop for HeldLink {
    fn drop(&mut self) {
        // Fails if the interface is gone, which detached the program.
        let _ = detach(self.0.as_fd());
    }
}

/// Somebody else's XDP program on an interface, which passes every packet; held until dropped.
pub struct XdpHolder {
    _link: HeldLink,
}

impl XdpHolder {
    /// Attaches to `interface` of `namespace` by a link (kernel 5.9).
    ///
    /// # Errors
    /// When the kernel refuses the program or the mode.
    pub fn attach(namespace: &Namespace, interface: &str, mode: XdpMode) -> Result<Self> {
        Self::attach_with(namespace, interface, mode, verdict::XDP_PASS)
    }

    /// Does the same as [`attach`](Self::attach), with another verdict.
    ///
    /// # Errors
    /// See [`attach`](Self::attach).
    pub fn attach_with(
        namespace: &Namespace,
        interface: &str,
        mode: XdpMode,
        verdict: i32,
    ) -> Result<Self> {
        let program = load_program(BPF_PROG_TYPE_XDP, verdict).context("load the holder")?;
        namespace.enter(|| {
            let create = [
                program.as_raw_fd().cast_unsigned(),
                if_nametoindex(interface)?,
                BPF_XDP,
                match mode {
                    XdpMode::Native => XDP_FLAGS_DRV_MODE,
                    XdpMode::Generic => XDP_FLAGS_SKB_MODE,
                },
                0,
                0,
            ];
            let link = bpf(BPF_LINK_CREATE, &create)
                .with_context(|| format!("attach the holder to {interface}"))?;
            Ok(Self { _link: HeldLink(link) })
        })
    }
}

/// Position in a TCX chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Ahead of all that are there.
    First,
    /// Behind all that are there.
    Last,
}

/// Somebody else's program in a TCX chain, with one verdict for every packet; held until dropped.
pub struct TcxHolder {
    _link: HeldLink,
    id: u32,
}

impl TcxHolder {
    /// Attaches to `interface` of `namespace`, to what arrives or to what leaves (kernel 6.6).
    ///
    /// # Errors
    /// When the kernel has no TCX.
    pub fn attach(
        namespace: &Namespace,
        interface: &str,
        egress: bool,
        place: Place,
        verdict: i32,
    ) -> Result<Self> {
        let program = load_program(BPF_PROG_TYPE_SCHED_CLS, verdict).context("load the holder")?;
        Self::link(&program, namespace, interface, egress, place)
    }

    /// Attaches a program that delivers each IPv4 packet that arrives at `interface` into the namespace
    /// of the peer of `device`, as CNIs do by `bpf_redirect_peer` (kernel 5.10).
    ///
    /// # Errors
    /// When there is no such interface, or the kernel has no TCX.
    pub fn deliver_to_peer(namespace: &Namespace, interface: &str, device: &str) -> Result<Self> {
        const LOAD_PROTOCOL: u64 = 0x0010_1661;
        const SKIP_UNLESS_IPV4: u64 = 0x0008_0004_0655;
        const SET_R1: u64 = 0x01b7;
        const SET_R2_ZERO: u64 = 0x02b7;
        const CALL_REDIRECT_PEER: u64 = 155 << 32 | 0x85;
        const EXIT: u64 = 0x95;
        const SET_R0_NEXT: u64 = 0xffff_ffff_0000_00b7;
        let index = namespace.enter(|| Ok(if_nametoindex(device)?))?;
        let instructions = [
            LOAD_PROTOCOL,
            SKIP_UNLESS_IPV4,
            u64::from(index) << 32 | SET_R1,
            SET_R2_ZERO,
            CALL_REDIRECT_PEER,
            EXIT,
            SET_R0_NEXT,
            EXIT,
        ];
        let program =
            load_instructions(BPF_PROG_TYPE_SCHED_CLS, &instructions).context("load a redirect")?;
        Self::link(&program, namespace, interface, false, Place::First)
    }

    fn link(
        program: &OwnedFd,
        namespace: &Namespace,
        interface: &str,
        egress: bool,
        place: Place,
    ) -> Result<Self> {
        let id = id_in_fdinfo(program, "prog_id:")?;
        namespace.enter(|| {
            let create = [
                program.as_raw_fd().cast_unsigned(),
                if_nametoindex(interface)?,
                if egress { BPF_TCX_EGRESS } else { BPF_TCX_INGRESS },
                match place {
                    Place::First => BPF_F_BEFORE,
                    Place::Last => BPF_F_AFTER,
                },
                0,
                0,
            ];
            let link = bpf(BPF_LINK_CREATE, &create)
                .with_context(|| format!("attach the holder to {interface}"))?;
            Ok(Self { _link: HeldLink(link), id })
        })
    }

    /// The kernel's number for the program.
    #[must_use]
    pub fn program_id(&self) -> u32 {
        self.id
    }
}

fn id_in_fdinfo(fd: &OwnedFd, key: &str) -> Result<u32> {
    let path = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
        .with_context(|| format!("no {key} in {path}"))
}

/// Makes bpf(2) fail with EPERM in the process that `command` starts, as container runtimes do.
pub fn deny(command: &mut Command) {
    const fn instruction(code: u32, k: u32, jump_false: u8) -> libc::sock_filter {
        #[expect(clippy::cast_possible_truncation, reason = "codes have 16 bits")]
        libc::sock_filter { code: code as u16, jt: 0, jf: jump_false, k }
    }
    #[expect(clippy::cast_possible_truncation, reason = "a small number")]
    const BPF_CALL: u32 = libc::SYS_bpf as u32;
    static FILTER: [libc::sock_filter; 4] = [
        // The number of the system call is first in seccomp_data.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, BPF_CALL, 1),
        instruction(
            libc::BPF_RET | libc::BPF_K,
            libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned(),
            0,
        ),
        instruction(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0),
    ];
    let install = || {
        let program =
            libc::sock_fprog { len: 4, filter: std::ptr::from_ref(&FILTER[0]).cast_mut() };
        // SAFETY: the program is a live value, and its filter a static of the length given.
        let result = unsafe {
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: the closure runs between fork and exec, only makes a system call, and allocates
    // nothing.
    unsafe { command.pre_exec(install) };
}

/// Loads an XDP program that passes every packet, which shows whether BPF is available.
///
/// # Errors
/// The kernel's error: EPERM without the privilege, ENOSYS without BPF.
pub fn load_passing_program() -> io::Result<OwnedFd> {
    load_program(BPF_PROG_TYPE_XDP, verdict::XDP_PASS)
}

/// Loads a program that has one verdict for every packet.
fn load_program(program_type: u32, verdict: i32) -> io::Result<OwnedFd> {
    // r0 = verdict; exit.
    load_instructions(program_type, &[u64::from(verdict.cast_unsigned()) << 32 | 0xb7, 0x95])
}

fn load_instructions(program_type: u32, instructions: &[u64]) -> io::Result<OwnedFd> {
    let licence = c"GPL";
    let instruction_count = u32::try_from(instructions.len()).map_err(io::Error::other)?;
    let load = ProgramLoad {
        program_type,
        instruction_count,
        instructions: instructions.as_ptr() as u64,
        licence: licence.as_ptr() as u64,
        rest: [0; 8],
    };
    bpf(BPF_PROG_LOAD, &load)
}

/// Head of `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
struct ProgramLoad {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    licence: u64,
    /// log_level … prog_name and what follows: all zero.
    rest: [u64; 8],
}

/// bpf(2) for the commands above, all of which return a new descriptor.
fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are a live value of the size given, laid out as the command's member of
    // `union bpf_attr`; the kernel only reads them, and the buffers that they point to outlive the
    // call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>())
    };
    let Ok(descriptor @ 0..) = i32::try_from(result) else {
        return Err(io::Error::last_os_error());
    };
    // SAFETY: the command succeeded, so this is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Fails unless nothing is attached to `interface`: no XDP, no TC filter, no clsact or TCX program.
///
/// # Errors
/// If something is attached; the message names it.
pub fn require_bare(namespace: &Namespace, interface: &str) -> Result<()> {
    let link = namespace.link(interface)?;
    if !link["xdp"].is_null() {
        bail!("{interface} still has XDP: {}", link["xdp"]);
    }
    let disciplines = namespace.tc(&["qdisc", "show", "dev", interface])?;
    if disciplines.contains("clsact") || disciplines.contains("ingress") {
        bail!("{interface} still has a clsact qdisc: {disciplines}");
    }
    Ok(())
}

/// Detaches what a link attaches, as an administrator may who is not the link's owner (kernel 5.9).
///
/// # Errors
/// When there is no such link.
pub fn detach_link(id: u32) -> Result<()> {
    let link = bpf(BPF_LINK_GET_FD_BY_ID, &[id, 0, 0, 0])
        .with_context(|| format!("open BPF link {id}"))?;
    detach(link.as_fd()).with_context(|| format!("detach BPF link {id}"))
}

/// Detaches a link's program while descriptors of the link are open (kernel 5.9).
fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    const BPF_LINK_DETACH: libc::c_long = 34;
    let attributes = [link.as_raw_fd()];
    // SAFETY: the attributes are a live value of the size given, and the command only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_LINK_DETACH,
            std::ptr::from_ref(&attributes),
            size_of_val(&attributes),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
