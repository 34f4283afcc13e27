//! The kernel's clocks.

use nix::time::{ClockId, clock_gettime};

/// Returns CLOCK_MONOTONIC in nanoseconds, the clock of `bpf_ktime_get_ns`.
pub fn monotonic_ns() -> u64 {
    u64::try_from(clock_ns(ClockId::CLOCK_MONOTONIC)).unwrap_or(0)
}

/// Returns the nanoseconds to add to CLOCK_MONOTONIC to get UTC.
pub fn utc_offset_ns() -> i64 {
    clock_ns(ClockId::CLOCK_REALTIME) - clock_ns(ClockId::CLOCK_MONOTONIC)
}

fn clock_ns(clock: ClockId) -> i64 {
    // Linux has both clocks, so reading them does not fail.
    clock_gettime(clock).map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}
