//! Compares the memory and CPUs that the configuration needs with the available ones.

use std::{fs, num::NonZero, path::PathBuf, thread};

use tap53_sinks::QUEUE_BYTES;

use super::{Check, outputs::mebibytes};
use crate::config::{Config, SinkConfig};

const AREA: &str = "resources";

pub(super) fn look(config: &Config) -> Vec<Check> {
    let limits = Limits::here();
    vec![memory(config, &limits), cpus(config.capture.workers, &limits)]
}

/// Available memory and CPUs.
#[derive(Clone, Copy, Debug, Default)]
struct Limits {
    /// Available memory of the machine in bytes.
    available: Option<u64>,
    /// Memory limit of the control group in bytes.
    group: Option<u64>,
    /// Number of CPUs that this process may run on.
    cpus: u64,
    /// CPU limit of the control group, in thousandths of a CPU.
    group_cpus: Option<u64>,
}

impl Limits {
    fn here() -> Self {
        let cpus = thread::available_parallelism().map_or(1, NonZero::get) as u64;
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            available: available(&meminfo),
            group: smallest("memory.max", |text| text.trim().parse().ok()),
            cpus,
            group_cpus: smallest("cpu.max", quota),
        }
    }
}

/// Returns `MemAvailable` of `/proc/meminfo` in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// Parses `cpu.max`, microseconds of each period or `max`, into thousandths of a CPU.
fn quota(text: &str) -> Option<u64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    quota.saturating_mul(1_000).checked_div(period)
}

/// Returns the smallest limit of this process's control group and its parents (cgroup v2).
fn smallest(file: &str, read: impl Fn(&str) -> Option<u64>) -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mut directory = PathBuf::from("/sys/fs/cgroup").join(own);
    let mut least = None;
    loop {
        let limit = fs::read_to_string(directory.join(file)).ok().and_then(|text| read(&text));
        least = match (least, limit) {
            (Some(a), Some(b)) => Some(u64::min(a, b)),
            (a, b) => a.or(b),
        };
        if !directory.pop() || !directory.starts_with("/sys/fs/cgroup") {
            return least;
        }
    }
}

/// Checks the memory. Rings are allocated at the start, and charged to the control group; a sink's
/// queue and the table of pending queries grow up to their limits.
fn memory(config: &Config, limits: &Limits) -> Check {
    let capture = &config.capture;
    let rings = u64::from(capture.workers) * u64::from(capture.ring_bytes);
    let queues: u64 = config
        .sinks
        .iter()
        .map(|sink| match sink {
            SinkConfig::Kafka(kafka) => kafka.queue_bytes,
            SinkConfig::Stdout(_) | SinkConfig::File(_) => QUEUE_BYTES,
        })
        .sum();
    let sum = rings + queues;
    let what = format!(
        "memory: {} = {} rings of {} + queues of {}",
        mebibytes(sum),
        capture.workers,
        mebibytes(capture.ring_bytes.into()),
        mebibytes(queues)
    );
    let smaller = format!("capture: {{ring_bytes: {}}}", (capture.ring_bytes / 2).max(128 << 10));
    match (limits.group, limits.available) {
        (Some(limit), _) if sum > limit => Check::fail(
            AREA,
            what,
            format!("more than the control group may use ({})", mebibytes(limit)),
            format!("{smaller}   # or resources: {{limits: {{memory: {}Mi}}}}", (sum >> 20) * 2),
        ),
        (_, Some(available)) if rings > available => Check::fail(
            AREA,
            what,
            format!("more than the available memory of the machine ({})", mebibytes(available)),
            smaller,
        ),
        (Some(limit), _) if sum > limit / 2 => Check::warn(
            AREA,
            what,
            format!("more than half of what the control group may use ({})", mebibytes(limit)),
            format!("{smaller}   # or resources: {{limits: {{memory: {}Mi}}}}", (sum >> 20) * 2),
        ),
        (limit, available) => {
            let of = limit.into_iter().chain(available).min();
            Check::ok(AREA, of.map_or(what.clone(), |of| format!("{what}, of {}", mebibytes(of))))
        }
    }
}

fn cpus(workers: u32, limits: &Limits) -> Check {
    let what = format!("{workers} workers on {} CPUs", limits.cpus);
    if let Some(group) = limits.group_cpus.filter(|group| *group < u64::from(workers) * 1_000) {
        return Check::warn(
            AREA,
            what,
            format!(
                "the control group is limited to {}.{:03} CPUs: when throttled, rings fill up",
                group / 1_000,
                group % 1_000
            ),
            format!(
                "capture: {{workers: {}}}   # or a higher resources.limits.cpu",
                (group / 1_000).max(1)
            ),
        );
    }
    if u64::from(workers) > limits.cpus {
        let fix = "capture: {workers: 0}   # one for each CPU, at most 8";
        return Check::warn(AREA, what, "more workers than CPUs", fix);
    }
    Check::ok(AREA, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Overrides, verdict::Verdict};

    fn config(workers: u32) -> Config {
        let overrides = Overrides { interfaces: vec!["*".to_owned()], ..Overrides::default() };
        let mut config = Config::load(None, &overrides).unwrap();
        config.capture.workers = workers;
        config
    }

    #[test]
    fn rings_beyond_the_limit_are_a_failure_and_beyond_half_a_warning() {
        let verdict = |group_mib: u64| {
            let limits = Limits { group: Some(group_mib << 20), ..Limits::default() };
            memory(&config(4), &limits).verdict
        };
        // Four rings of 8 MiB, and a queue of as much before standard output.
        assert_eq!(verdict(39), Verdict::Fail);
        assert_eq!(verdict(48), Verdict::Warn);
        assert_eq!(verdict(80), Verdict::Ok);
        let machine = Limits { available: Some(16 << 20), ..Limits::default() };
        assert_eq!(memory(&config(4), &machine).verdict, Verdict::Fail);
    }

    #[test]
    fn more_workers_than_cpus_are_a_warning() {
        let limits = Limits { cpus: 4, ..Limits::default() };
        assert_eq!(cpus(4, &limits).verdict, Verdict::Ok);
        assert_eq!(cpus(5, &limits).verdict, Verdict::Warn);
        let throttled = Limits { group_cpus: Some(1_500), ..limits };
        let check = cpus(2, &throttled);
        assert!(check.wrong.unwrap().contains("1.500 CPUs"));
        assert!(check.fix.unwrap().starts_with("capture: {workers: 1}"));
    }

    #[test]
    fn limits_are_read_from_the_kernels_text() {
        assert_eq!(available("MemTotal: 10 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
        assert_eq!(available(""), None);
        assert_eq!(quota("150000 100000\n"), Some(1_500));
        assert_eq!(quota("max 100000\n"), None);
    }
}
