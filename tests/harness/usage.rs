//! Measures the CPU time of a process, and how often its threads wake.

use std::{
    collections::BTreeMap,
    fs,
    ops::Sub,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::unistd::Pid;

/// Resources that the current threads of a process have used since their start.
#[derive(Clone, Debug)]
pub struct Usage {
    /// When this was read.
    pub at: Instant,
    /// CPU time.
    pub cpu: Duration,
    /// Voluntary context switches of each thread, by its number and name: a thread that waits for
    /// something makes one.
    pub waits: BTreeMap<(i32, String), u64>,
    /// CPU time of each thread, by its number and name.
    pub threads: BTreeMap<(i32, String), Duration>,
}

/// Resources that a process has used between two readings.
#[derive(Clone, Debug)]
pub struct Used {
    /// Time between the readings.
    pub time: Duration,
    /// CPU time.
    pub cpu: Duration,
    /// Waits of each thread.
    pub waits: BTreeMap<(i32, String), u64>,
    /// CPU time of the threads of each name.
    pub threads: BTreeMap<String, Duration>,
}

impl Usage {
    /// Reads it.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of(pid: Pid) -> Result<Self> {
        let (mut waits, mut threads) = (BTreeMap::new(), BTreeMap::new());
        let at = Instant::now();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = task?.path();
            // A thread that has just ended.
            let Ok(times) = fs::read_to_string(path.join("schedstat")) else { continue };
            let Ok(status) = fs::read_to_string(path.join("status")) else { continue };
            let ns = times.split_whitespace().next().context("a time")?.parse()?;
            let field = |name: &str| {
                let found = status.lines().find_map(|line| line.strip_prefix(name));
                found.map(str::trim).with_context(|| format!("no {name} in {}", path.display()))
            };
            let thread = (field("Pid:")?.parse()?, field("Name:")?.to_owned());
            threads.insert(thread.clone(), Duration::from_nanos(ns));
            waits.insert(thread, field("voluntary_ctxt_switches:")?.parse()?);
        }
        Ok(Self { at, cpu: threads.values().sum(), waits, threads })
    }
}

impl Sub for &Usage {
    type Output = Used;

    fn sub(self, before: &Usage) -> Used {
        let since = |(thread, waits): (&(i32, String), &u64)| {
            let waited = before.waits.get(thread).copied().unwrap_or(0);
            (thread.clone(), waits - waited)
        };
        let mut threads = BTreeMap::new();
        for (thread, cpu) in &self.threads {
            let used = cpu.saturating_sub(before.threads.get(thread).copied().unwrap_or_default());
            *threads.entry(thread.1.clone()).or_default() += used;
        }
        Used {
            time: self.at - before.at,
            cpu: self.cpu.saturating_sub(before.cpu),
            waits: self.waits.iter().map(since).collect(),
            threads,
        }
    }
}

impl Used {
    /// CPU milliseconds a second.
    #[must_use]
    pub fn cpu_ms_per_s(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e3 / self.time.as_secs_f64()
    }

    /// Waits of all threads a second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub fn waits_per_s(&self) -> f64 {
        self.waits.values().sum::<u64>() as f64 / self.time.as_secs_f64()
    }
}

/// CPU time that a process has taken, with all threads that it ever had: its CPU clock
/// (clock_getcpuclockid(3)), in which the scheduler adds up run times in nanoseconds.
///
/// # Errors
/// When there is no such process.
pub fn cpu_time(pid: Pid) -> Result<Duration> {
    let clock = nix::time::clock_getcpuclockid(pid).with_context(|| format!("process {pid}"))?;
    let time = nix::time::clock_gettime(clock).with_context(|| format!("process {pid}"))?;
    Ok(time.into())
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident: also pages of its files and of the kernel's rings.
    pub resident: u64,
    /// Anonymous memory, which it does not share.
    pub anonymous: u64,
}

impl Memory {
    /// Reads it from /proc/PID/status.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of(pid: Pid) -> Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/status"))
            .with_context(|| format!("process {pid}"))?;
        let bytes = |name: &str| -> Result<u64> {
            let value = text.lines().find_map(|line| line.strip_prefix(name));
            let kib = value.and_then(|value| value.trim().strip_suffix(" kB"));
            let kib: u64 = kib.with_context(|| format!("no {name} of process {pid}"))?.parse()?;
            Ok(kib << 10)
        };
        Ok(Self { resident: bytes("VmRSS:")?, anonymous: bytes("RssAnon:")? })
    }
}

impl std::iter::Sum for Memory {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            resident: sum.resident + one.resident,
            anonymous: sum.anonymous + one.anonymous,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_and_memory_are_counted_also_of_threads_that_have_ended() {
        let own = Pid::this();
        let (cpu, memory) = (cpu_time(own).expect("own"), Memory::of(own).expect("own"));
        let kept = std::thread::spawn(|| vec![1u8; 64 << 20]).join().expect("no panic");
        assert!(cpu_time(own).expect("own") > cpu);
        let more = Memory::of(own).expect("own").anonymous.saturating_sub(memory.anonymous);
        assert!(more >= (kept.len() as u64) / 2, "{more}");
        assert!(Memory::of(Pid::from_raw(4_194_305)).is_err());
    }
}
