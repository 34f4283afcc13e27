//! Resources of this process (proc(5)), under the names of Prometheus' client libraries.

use std::fs;

use nix::unistd::{SysconfVar, sysconf};

/// Resources in use.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Process {
    /// Seconds since 1970 UTC.
    pub(super) started_at_s: f64,
    pub(super) resident_bytes: u64,
    pub(super) open_fds: u64,
    pub(super) cpu_seconds: f64,
}

impl Process {
    /// Reads the resources in use now. A value that cannot be read is 0.
    pub(super) fn read(started_at_s: f64) -> Self {
        let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
        let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages: u64 = field(&statm, 1);
        let ticks_per_s = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The process name before it may contain any character.
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let ticks: u64 = field::<u64>(after_name, 11) + field::<u64>(after_name, 12);
        Self {
            started_at_s,
            resident_bytes: pages * u64::try_from(page).unwrap_or_default(),
            // Without the descriptor that lists them.
            open_fds: fs::read_dir("/proc/self/fd")
                .map_or(0, |fds| (fds.count() as u64).saturating_sub(1)),
            cpu_seconds: ticks as f64 / ticks_per_s as f64,
        }
    }
}

fn field<T: std::str::FromStr + Default>(text: &str, index: usize) -> T {
    text.split_ascii_whitespace()
        .nth(index)
        .and_then(|field| field.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_files() {
        let process = Process::read(1.0);
        assert!(process.resident_bytes > 1 << 20, "{process:?}");
        assert!(process.open_fds >= 3, "{process:?}");
        assert!(process.cpu_seconds < 3600.0, "{process:?}");
    }
}
