//! Remembers which process uses a socket, in the context of the process: when it connects the socket
//! to a DNS port, and when it sends from a socket that is not connected.
//!
//! A packet is seen too late for that: it may be sent again, or leave a queue, in the context of
//! any process.

use aya_ebpf::{
    bindings::bpf_sock_addr,
    helpers::{bpf_get_current_pid_tgid, bpf_get_socket_cookie, generated::bpf_get_current_comm},
};
use tap53_ebpf::{
    process::{COMMAND_BYTES, Process},
    settings::PortSet,
};

use crate::{capture::in_set, maps::PROCESSES};

/// Remembers the current process as that of the socket, if the address has a DNS port.
///
/// # Safety
/// `address` must be the context of a running program of type `cgroup_sock_addr`.
#[inline(always)]
pub(crate) unsafe fn remember(address: *mut bpf_sock_addr) {
    // SAFETY: the caller guarantees it. The port is in network byte order, in the first two bytes.
    let port = u16::from_be(unsafe { (*address).user_port } as u16);
    if !in_set(PortSet::Dns, port) {
        return;
    }
    // SAFETY: the caller guarantees that it is a context.
    let socket = unsafe { bpf_get_socket_cookie(address.cast()) };
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if let Some(known) = PROCESSES.get_ptr_mut(socket) {
        // SAFETY: the value is a Process, valid while the program runs. Whichever CPU writes writes
        // the same.
        unsafe {
            if (*known).pid != pid {
                (*known).pid = Process::SEVERAL;
            }
        }
        return;
    }
    let mut process = Process { pid, ..Process::default() };
    // SAFETY: it writes as many bytes as `command` has. It only fails without a process.
    unsafe { bpf_get_current_comm(process.command.as_mut_ptr().cast(), COMMAND_BYTES as u32) };
    // It is refused only if other CPUs are replacing every entry; then the process is unknown.
    let _ = PROCESSES.insert(socket, process, 0);
}
