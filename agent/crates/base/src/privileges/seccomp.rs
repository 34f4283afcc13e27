//! Refuses threads the system calls that they never need (seccomp(2)).
//!
//! | threads | refused |
//! |---|---|
//! | capture | nothing: it loads programs and speaks netlink |
//! | all others | [`NEVER`], and bpf(2) except for reading and writing elements of maps |
//! | workers, and those of sinks that block | also [`NOT_AT_WORK`]: sockets, and executing programs |
//!
//! - **A list of refused calls, not of allowed ones.** A call that a new libc or librdkafka uses
//!   must not end the agent, so an unknown call is allowed. A refused call fails with EPERM, as it
//!   does in a container, and kills no process: an exploit in a worker is kept from the usual next
//!   steps, and a mistake in the list costs an error in the log.
//! - **Threads other than workers may execute programs**: a kubeconfig can name one that prints
//!   credentials.
//! - **It costs nothing per packet.** The kernel keeps a bitmap of the calls that are always
//!   allowed (5.11) and runs no filter for them: the lookup costs some 100 ns per call, and a
//!   worker makes a few calls per batch. SPEC_ALLOW keeps kernels before 5.16 from disabling
//!   speculation for the thread, which would cost more.
//! - **Written by hand**: one instruction per call, and two that keep out the other ABIs of the
//!   processor, in which the calls have other numbers. `seccompiler` supports neither those for x32
//!   nor SPEC_ALLOW.

use std::io;

use libc::{c_long, sock_filter, sock_fprog};

/// System calls that only the capture thread needs: they load code into the kernel, read other
/// processes, change namespaces, mounts and clocks, or circumvent other filters.
const NEVER: &[c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mknodat,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    libc::SYS_kexec_file_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// System calls that neither workers nor the threads of blocking sinks need: their descriptors are
/// open, and they communicate only with other threads.
const NOT_AT_WORK: &[c_long] = &[
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_capset,
    libc::SYS_connect,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_listen,
    libc::SYS_setgid,
    libc::SYS_setgroups,
    libc::SYS_setregid,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_setreuid,
    libc::SYS_setuid,
    libc::SYS_socket,
    libc::SYS_socketpair,
];

/// Commands of bpf(2) that threads other than capture need, to read and to write an element of a
/// map: a worker requests a wake-up from the kernel programs before it sleeps. linux/bpf.h.
const BPF_MAP_LOOKUP_ELEM: u32 = 1;
const BPF_MAP_UPDATE_ELEM: u32 = 2;

/// The ABI that this program is built for, or `None` if the filter does not know it; linux/audit.h.
const AUDIT_ARCH: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xc000_003e)
} else if cfg!(target_arch = "aarch64") {
    Some(0xc000_00b7)
} else if cfg!(target_arch = "riscv64") {
    Some(0xc000_00f3)
} else {
    None
};

/// Calls of the x32 ABI on x86-64 have this bit set.
const X32_BIT: u32 = 0x4000_0000;

/// Offsets in `struct seccomp_data`. Arguments are little-endian on every [`AUDIT_ARCH`].
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

/// Bits of linux/bpf_common.h.
const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

/// The set of calls that a thread may not make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    /// For every thread except capture.
    Common,
    /// For workers, and for threads of sinks that block.
    Work,
}

impl Filter {
    /// Returns the name for the log.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Common => "common",
            Self::Work => "work",
        }
    }

    /// Installs the filter on this thread, and on those that it starts. It cannot be removed.
    ///
    /// # Errors
    /// Returns the kernel's error, such as EINVAL if it has no seccomp, or an error of this
    /// function if it does not know the processor.
    pub(super) fn apply(self) -> io::Result<()> {
        let architecture = AUDIT_ARCH.ok_or_else(|| io::Error::other("not on this processor"))?;
        let mut program = self.program(architecture);
        let length = program.len().try_into().map_err(io::Error::other)?;
        let program = sock_fprog { len: length, filter: program.as_mut_ptr() };
        // SAFETY: the kernel copies the program, whose length is that of the vector that it points
        // into. The vector lives until after the call, and the kernel writes to nothing.
        let result = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
                &raw const program,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn refused(self) -> impl Iterator<Item = u32> {
        let more = if self == Self::Work { NOT_AT_WORK } else { &[] };
        // Numbers of system calls are small and not negative.
        NEVER.iter().chain(more).filter_map(|number| u32::try_from(*number).ok())
    }

    fn program(self, architecture: u32) -> Vec<sock_filter> {
        let instruction = |code, k, jt, jf| sock_filter { code, jt, jf, k };
        let refuse = instruction(RETURN, REFUSE, 0, 0);
        let mut program = vec![
            instruction(LOAD, ARCHITECTURE, 0, 0),
            instruction(JUMP_IF_EQUAL, architecture, 1, 0),
            refuse,
            instruction(LOAD, NUMBER, 0, 0),
            instruction(JUMP_IF_AT_LEAST, X32_BIT, 0, 1),
            refuse,
        ];
        for number in self.refused() {
            program.extend([instruction(JUMP_IF_EQUAL, number, 0, 1), refuse]);
        }
        let bpf = u32::try_from(libc::SYS_bpf).unwrap_or(u32::MAX);
        program.extend([
            instruction(JUMP_IF_EQUAL, bpf, 0, 4),
            instruction(LOAD, FIRST_ARGUMENT, 0, 0),
            instruction(JUMP_IF_EQUAL, BPF_MAP_LOOKUP_ELEM, 2, 0),
            instruction(JUMP_IF_EQUAL, BPF_MAP_UPDATE_ELEM, 1, 0),
            refuse,
            instruction(RETURN, ALLOW, 0, 0),
        ]);
        program
    }
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, ptr, thread};

    use nix::{errno::Errno, sys::prctl};

    use super::*;

    /// Runs `look` in a thread with a filter, which ends with that thread.
    fn under<T: Send>(filter: Filter, look: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                prctl::set_no_new_privs().unwrap();
                filter.apply().unwrap();
                look()
            });
            thread.join().unwrap()
        })
    }

    /// Returns the error of a call with arguments that every call refuses.
    fn errno(number: c_long, first: usize) -> Errno {
        // SAFETY: whatever the call is, it gets a null pointer or a length of zero.
        let result = unsafe { libc::syscall(number, first, ptr::null::<u8>(), 0, 0, 0, 0) };
        if result == -1 { Errno::last() } else { Errno::UnknownErrno }
    }

    #[test]
    fn refused_calls_fail_and_kill_no_process() {
        for filter in [Filter::Common, Filter::Work] {
            under(filter, || {
                for number in [libc::SYS_ptrace, libc::SYS_unshare, libc::SYS_setns] {
                    // Without the filter, root is allowed the call or gets EINVAL.
                    assert_eq!(errno(number, usize::MAX), Errno::EPERM, "{number}");
                }
                assert_eq!(errno(libc::SYS_mount, 0), Errno::EPERM);
            });
        }
    }

    #[test]
    fn a_worker_neither_executes_nor_opens_sockets_and_others_do() {
        let program = c"/bin/true".as_ptr() as usize;
        under(Filter::Work, move || {
            assert_eq!(errno(libc::SYS_execve, program), Errno::EPERM);
            assert!(UdpSocket::bind("127.0.0.1:0").is_err());
            // Threads that it starts have the same filter.
            let inner = thread::spawn(|| UdpSocket::bind("127.0.0.1:0").is_err());
            assert!(inner.join().unwrap());
        });
        under(Filter::Common, || {
            assert!(UdpSocket::bind("127.0.0.1:0").is_ok());
            assert_eq!(errno(libc::SYS_execve, 0), Errno::EFAULT, "a name that is none");
        });
    }

    #[test]
    fn elements_of_maps_are_all_that_bpf_is_left_for() {
        under(Filter::Work, || {
            // The descriptor is no map: bpf(2) refuses it, and the filter does not.
            for command in [BPF_MAP_LOOKUP_ELEM, BPF_MAP_UPDATE_ELEM] {
                assert_ne!(errno(libc::SYS_bpf, command as usize), Errno::EPERM, "{command}");
            }
            // Creating and deleting, loading, attaching and freezing.
            for command in [0, 3, 5, 22, 28, 36] {
                assert_eq!(errno(libc::SYS_bpf, command), Errno::EPERM, "{command}");
            }
        });
    }

    #[test]
    fn files_threads_memory_and_time_are_left() {
        under(Filter::Work, || {
            let mut file = tempfile::tempfile().unwrap();
            io::Write::write_all(&mut file, &[1; 100]).unwrap();
            file.sync_all().unwrap();
            drop(vec![1_u8; 64 << 20]);
            assert!(thread::spawn(std::time::Instant::now).join().is_ok());
        });
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_other_abis_of_the_processor_are_no_way_around() {
        under(Filter::Common, || {
            // getpid(2) of x32: the filter refuses it before the kernel looks it up.
            assert_eq!(errno(c_long::from(X32_BIT) | libc::SYS_getpid, 0), Errno::EPERM);
        });
    }
}
