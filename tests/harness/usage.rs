//! What a process takes: CPU time, and how often its threads wake.

use std::{
    collections::BTreeMap,
    fs,
    ops::Sub,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::unistd::Pid;

/// What the threads of a process that are there have taken since they began.
#[derive(Clone, Debug)]
pub struct Usage {
    /// When this was read.
    pub at: Instant,
    /// CPU time.
    pub cpu: Duration,
    /// Voluntary context switches of each thread, by its number and name: a thread that waits for
    /// something makes one.
    pub waits: BTreeMap<(i32, String), u64>,
}

/// What a process took between two readings.
#[derive(Clone, Debug)]
pub struct Used {
    /// How long that was.
    pub time: Duration,
    /// CPU time.
    pub cpu: Duration,
    /// Waits of each thread.
    pub waits: BTreeMap<(i32, String), u64>,
}

impl Usage {
    /// Reads it.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of(pid: Pid) -> Result<Self> {
        let (mut ns, mut waits) = (0, BTreeMap::new());
        let at = Instant::now();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = task?.path();
            // A thread that has just ended.
            let Ok(times) = fs::read_to_string(path.join("schedstat")) else { continue };
            let Ok(status) = fs::read_to_string(path.join("status")) else { continue };
            ns += times.split_whitespace().next().context("a time")?.parse::<u64>()?;
            let field = |name: &str| {
                let found = status.lines().find_map(|line| line.strip_prefix(name));
                found.map(str::trim).with_context(|| format!("no {name} in {}", path.display()))
            };
            let thread = (field("Pid:")?.parse()?, field("Name:")?.to_owned());
            waits.insert(thread, field("voluntary_ctxt_switches:")?.parse()?);
        }
        Ok(Self { at, cpu: Duration::from_nanos(ns), waits })
    }
}

impl Sub for &Usage {
    type Output = Used;

    fn sub(self, before: &Usage) -> Used {
        let since = |(thread, waits): (&(i32, String), &u64)| {
            let waited = before.waits.get(thread).copied().unwrap_or(0);
            (thread.clone(), waits - waited)
        };
        Used {
            time: self.at - before.at,
            cpu: self.cpu.saturating_sub(before.cpu),
            waits: self.waits.iter().map(since).collect(),
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
