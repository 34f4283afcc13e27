//! Detects features of this kernel by trying them: distributions backport, so a version says
//! little. Nothing stays attached or loaded.

use std::io;

use tap53_ebpf::settings::Direction;

use super::{Error, bpf, object, privilege::lift_limit_of_locked_memory};
use crate::capture::config::CaptureConfig;

/// Ifindex of `lo` in every network namespace.
const LOOPBACK: u32 = 1;

/// Size of the ring used for the probe, in bytes.
const RING_BYTES: u32 = 128 << 10;

/// Loads the programs like capture, with a small ring, and releases them. Returns true if packets can
/// be captured at XDP, false if the kernel accepts programs for TC alone.
///
/// # Errors
///
/// The same as [`Capture::load`](super::Capture::load).
pub fn load_programs(config: &CaptureConfig) -> Result<bool, Error> {
    lift_limit_of_locked_memory();
    let small =
        CaptureConfig { workers: 1, ring_bytes: RING_BYTES, kernel_log: false, ..config.clone() };
    object::load(&small, None).map(|loaded| loaded.programs.xdp.is_some())
}

/// Returns true if the kernel has TCX, by querying the chain of `lo`.
///
/// # Errors
///
/// Fails if the kernel denies the query, which needs CAP_NET_ADMIN.
pub fn has_tcx() -> io::Result<bool> {
    match bpf::tcx_programs(LOOPBACK, Direction::Ingress) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Checks that the end of running programs can be waited for, which makes the last counts exact.
///
/// # Errors
///
/// Returns the error of membarrier(2), as on kernels with `nohz_full` CPUs.
pub fn wait_for_running_programs() -> io::Result<()> {
    bpf::wait_for_running_programs()
}
