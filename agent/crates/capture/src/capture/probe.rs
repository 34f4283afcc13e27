//! Features of this kernel, found by trying them (R8): distributions backport, and a version tells
//! little. Nothing stays attached or loaded.

use std::io;

use tap53_ebpf::settings::Direction;

use super::{Error, bpf, object};
use crate::capture::config::CaptureConfig;

/// Number of `lo` in every network namespace.
const LOOPBACK: u32 = 1;

/// Bytes of the ring to try with.
const RING_BYTES: u32 = 128 << 10;

/// Loads the programs with a small ring, as capture would, and lets go of them.
///
/// # Errors
///
/// As [`Capture::load`](super::Capture::load).
pub fn load_programs(config: &CaptureConfig) -> Result<(), Error> {
    let small =
        CaptureConfig { workers: 1, ring_bytes: RING_BYTES, kernel_log: false, ..config.clone() };
    object::load(&small).map(drop)
}

/// Whether the kernel has TCX, by asking for the chain of `lo`.
///
/// # Errors
///
/// If it does not let us ask, which takes CAP_NET_ADMIN.
pub fn has_tcx() -> io::Result<bool> {
    match bpf::tcx_programs(LOOPBACK, Direction::Ingress) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the end of programs that run can be waited for, which makes the last counts exact.
///
/// # Errors
///
/// What membarrier(2) says, as on kernels with `nohz_full` CPUs.
pub fn wait_for_running_programs() -> io::Result<()> {
    bpf::wait_for_running_programs()
}
