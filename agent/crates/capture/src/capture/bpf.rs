//! The bpf(2) commands for which aya's interface does not suit us.
//!
//! - Links: where a link is refused with EINVAL, aya silently attaches XDP by netlink, and such a
//!   program survives a SIGKILL. Here a link is created or an error returned. aya also identifies
//!   interfaces by name, which may change meanwhile; here the ifindex is used.
//! - Queries: aya opens each program that it lists, which needs CAP_SYS_ADMIN; program ids need
//!   CAP_NET_ADMIN.
//!
//! Each structure is the start of its variant of `union bpf_attr`, linux/bpf.h; the kernel reads
//! missing members as zero.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use aya_obj::generated::{
    BPF_F_BEFORE, XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE, bpf_attach_type, bpf_cmd, bpf_prog_info,
};
use nix::errno::Errno;
use tap53_ebpf::settings::Direction;

/// Maximum number of programs at one TCX hook: `BPF_MPROG_MAX`.
const MAX_PROGRAMS: u32 = 64;

/// The hook to which a link attaches its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttachPoint {
    /// XDP in the driver (kernel 5.9 for links).
    XdpNative,
    /// XDP in the stack (kernel 5.9 for links).
    XdpGeneric,
    /// The head of a TCX chain (kernel 6.6), so that no program ahead of ours can end the chain.
    Tcx(Direction),
}

impl AttachPoint {
    fn attach_type(self) -> bpf_attach_type {
        match self {
            Self::XdpNative | Self::XdpGeneric => bpf_attach_type::BPF_XDP,
            Self::Tcx(Direction::Ingress) => bpf_attach_type::BPF_TCX_INGRESS,
            Self::Tcx(Direction::Egress) => bpf_attach_type::BPF_TCX_EGRESS,
        }
    }

    fn flags(self) -> u32 {
        match self {
            Self::XdpNative => XDP_FLAGS_DRV_MODE,
            Self::XdpGeneric => XDP_FLAGS_SKB_MODE,
            Self::Tcx(_) => BPF_F_BEFORE,
        }
    }
}

/// Attaches a program to an interface while the returned link is open.
pub(super) fn link_create(
    program: BorrowedFd<'_>,
    ifindex: u32,
    hookup: AttachPoint,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct LinkCreate {
        prog_fd: RawFd,
        target_ifindex: u32,
        attach_type: u32,
        flags: u32,
    }
    let mut attributes = LinkCreate {
        prog_fd: program.as_raw_fd(),
        target_ifindex: ifindex,
        attach_type: hookup.attach_type() as u32,
        flags: hookup.flags(),
    };
    // SAFETY: the attributes are those of the command and contain no pointer.
    let fd = unsafe { bpf(bpf_cmd::BPF_LINK_CREATE, &mut attributes)? };
    // SAFETY: the kernel has just created this descriptor for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Detaches a link's program, even if another process holds the link (kernel 5.9).
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct LinkDetach {
        link_fd: RawFd,
    }
    let mut attributes = LinkDetach { link_fd: link.as_raw_fd() };
    // SAFETY: the attributes are those of the command and contain no pointer.
    unsafe { bpf(bpf_cmd::BPF_LINK_DETACH, &mut attributes) }.map(drop)
}

/// Returns the ifindex that a link is attached to, in the interface's current namespace; 0 if the
/// interface is gone or the link was detached (kernel 5.9).
pub(super) fn link_ifindex(link: BorrowedFd<'_>) -> io::Result<u32> {
    #[repr(C)]
    struct GetInfo {
        fd: RawFd,
        info_length: u32,
        info: u64,
    }
    /// `struct bpf_link_info` up to the ifindex, which is the first link-specific member for XDP
    /// and TCX.
    #[repr(C)]
    struct LinkInfo {
        kind: u32,
        id: u32,
        program_id: u32,
        padding: u32,
        ifindex: u32,
        rest: u32,
    }
    const LINK_INFO_BYTES: u32 = 24;
    const _: () = assert!(size_of::<LinkInfo>() == LINK_INFO_BYTES as usize);
    let mut info = LinkInfo { kind: 0, id: 0, program_id: 0, padding: 0, ifindex: 0, rest: 0 };
    let mut get_info = GetInfo {
        fd: link.as_raw_fd(),
        info_length: LINK_INFO_BYTES,
        info: (&raw mut info).expose_provenance() as u64,
    };
    // SAFETY: the attributes are those of the command; `info` points to `info_length` bytes, which
    // live through the call and any of which the kernel may write.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut get_info)? };
    Ok(info.ifindex)
}

/// Returns the ids of the programs of a TCX hook in the order in which they run, or EINVAL if the
/// kernel has no TCX.
pub(super) fn tcx_programs(ifindex: u32, direction: Direction) -> io::Result<Vec<u32>> {
    #[repr(C)]
    struct ProgQuery {
        target_ifindex: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        prog_ids: u64,
        prog_count: u32,
        padding: u32,
        prog_attach_flags: u64,
        link_ids: u64,
        link_attach_flags: u64,
        revision: u64,
    }
    let mut ids = [0u32; MAX_PROGRAMS as usize];
    let mut attributes = ProgQuery {
        target_ifindex: ifindex,
        attach_type: AttachPoint::Tcx(direction).attach_type() as u32,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr().expose_provenance() as u64,
        prog_count: MAX_PROGRAMS,
        padding: 0,
        prog_attach_flags: 0,
        link_ids: 0,
        link_attach_flags: 0,
        revision: 0,
    };
    // SAFETY: the attributes are those of the command; `prog_ids` points to `prog_count` integers,
    // which live through the call.
    unsafe { bpf(bpf_cmd::BPF_PROG_QUERY, &mut attributes)? };
    let count = attributes.prog_count.min(MAX_PROGRAMS);
    Ok(ids[..count as usize].to_vec())
}

/// `struct bpf_prog_info` up to its name; the later members are not requested.
#[repr(C)]
struct ProgramInfo {
    program_type: u32,
    id: u32,
    before_name: [u64; 7],
    name: [u8; 16],
}

const PROGRAM_INFO_BYTES: u32 = 80;
const _: () = assert!(size_of::<ProgramInfo>() == PROGRAM_INFO_BYTES as usize);
const _: () = assert!(
    std::mem::offset_of!(bpf_prog_info, name) == std::mem::offset_of!(ProgramInfo, name)
        && std::mem::offset_of!(bpf_prog_info, id) == std::mem::offset_of!(ProgramInfo, id)
);

/// Returns the name of a loaded program. It needs CAP_SYS_ADMIN, so errors are common.
pub(super) fn program_name(id: u32) -> io::Result<String> {
    #[repr(C)]
    struct GetFdById {
        id: u32,
        next_id: u32,
        open_flags: u32,
    }
    let mut by_id = GetFdById { id, next_id: 0, open_flags: 0 };
    // SAFETY: the attributes are those of the command and contain no pointer.
    let fd = unsafe { bpf(bpf_cmd::BPF_PROG_GET_FD_BY_ID, &mut by_id)? };
    // SAFETY: the kernel has just created this descriptor for this process.
    let program = unsafe { OwnedFd::from_raw_fd(fd) };
    let info = program_info(program.as_fd())?;
    let end = info.name.iter().position(|b| *b == 0).unwrap_or(16);
    Ok(String::from_utf8_lossy(&info.name[..end]).into_owned())
}

/// Returns the kernel's id of a program that this process holds, which needs no privilege.
pub(super) fn program_id(program: BorrowedFd<'_>) -> io::Result<u32> {
    program_info(program).map(|info| info.id)
}

fn program_info(program: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    #[repr(C)]
    struct GetInfo {
        fd: RawFd,
        info_length: u32,
        info: u64,
    }
    let mut info = ProgramInfo { program_type: 0, id: 0, before_name: [0; 7], name: [0; 16] };
    let mut get_info = GetInfo {
        fd: program.as_raw_fd(),
        info_length: PROGRAM_INFO_BYTES,
        info: (&raw mut info).expose_provenance() as u64,
    };
    // SAFETY: the attributes are those of the command; `info` points to `info_length` bytes, which
    // live through the call and any of which the kernel may write.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut get_info)? };
    Ok(info)
}

/// # Safety
///
/// `attributes` must be the start of `union bpf_attr` for `command`, and each pointer in it valid
/// for the command's access.
unsafe fn bpf<T>(command: bpf_cmd, attributes: &mut T) -> io::Result<RawFd> {
    // SAFETY: the kernel accesses at most size_of::<T>() bytes at `attributes`, and memory that it
    // points to, which the caller guarantees to be valid.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_uint,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    let result = Errno::result(result)?;
    RawFd::try_from(result).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Waits until no program that ran at the time of the call runs any more.
///
/// Programs run in RCU read-side sections, and this command waits for a grace period
/// (kernel/sched/membarrier.c, kernel 4.3). It needs no privilege. A kernel with `nohz_full` CPUs
/// refuses it; then the few microseconds of a program's run are not waited for.
pub(super) fn wait_for_running_programs() -> io::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: the command takes no pointer.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    Errno::result(result)?;
    Ok(())
}
