//! One measurement: load, and what processes take meanwhile.

use std::{collections::BTreeMap, net::IpAddr, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Pid;

use super::{Plan, stage::Stage};
use crate::{
    dnsperf::{Dnsperf, Load, Report},
    usage::{Memory, Usage, cpu_time},
};

/// Time for which load continues after the measured window.
const MARGIN: Duration = Duration::from_millis(500);

/// The CPU time of a process for each query, and its memory under load.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    pub(super) us: f64,
    pub(super) memory: Memory,
}

impl std::iter::Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            us: sum.us + one.us,
            memory: [sum.memory, one.memory].into_iter().sum(),
        })
    }
}

/// The measurements of a load.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    /// Queries a second in the window, as the server's interface counted them.
    pub(super) per_second: f64,
    /// CPU of all clients for each query.
    pub(super) client_us: f64,
    /// Costs of the processes, in their order.
    pub(super) costs: Vec<Cost>,
    /// CPU of the processes for each query by the name of the thread, in µs. Threads that have ended are
    /// missing.
    pub(super) threads: Vec<BTreeMap<String, f64>>,
    /// Counts of the clients, warm-up included.
    pub(super) report: Report,
}

impl Measured {
    /// Latency in µs that this share of the queries stayed below; 0 where none was recorded.
    pub(super) fn latency_us(&self, share: f64) -> f64 {
        let latencies = &self.report.latencies_us;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
        let at = (count(latencies.len() as u64) * share) as usize;
        latencies.get(at).copied().map_or(0.0, f64::from)
    }
}

/// Rate of a load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// Queries a second to all servers together; `None`: as many as they answer.
    pub(super) per_second: Option<u32>,
    pub(super) in_flight: u32,
    pub(super) latencies: bool,
}

/// Puts load on servers, and measures `processes` meanwhile.
pub(super) fn measure(
    stage: &Stage,
    plan: &Plan,
    servers: &[IpAddr],
    rate: Rate,
    processes: &[Pid],
) -> Result<Measured> {
    let time = plan.warm_up + plan.window + MARGIN;
    let questions = stage.questions();
    let load = Load {
        questions: &questions,
        rate: rate.per_second.map(|rate| rate / u32::try_from(servers.len()).unwrap_or(1)),
        in_flight: rate.in_flight,
        time,
        latencies: rate.latencies,
    };
    let clients = servers
        .iter()
        .map(|server| Dnsperf::start(&stage.client, *server, load))
        .collect::<Result<Vec<_>>>()?;
    let all: Vec<Pid> = processes.iter().copied().chain(clients.iter().map(Dnsperf::pid)).collect();
    thread::sleep(plan.warm_up);
    let before = Reading::take(stage, &all)?;
    let threads_before = usages(processes)?;
    thread::sleep(plan.window);
    let threads_after = usages(processes)?;
    let after = Reading::take(stage, &all)?;
    let memory = processes.iter().map(|pid| Memory::of(*pid)).collect::<Result<Vec<_>>>()?;
    let reports =
        clients.into_iter().map(|client| client.report(time)).collect::<Result<Vec<_>>>()?;

    let queries = count(after.queries - before.queries);
    ensure!(queries > 0.0, "no query came in");
    let us_of = |time: Duration| time.as_secs_f64() * 1e6 / queries;
    let pairs = after.cpu.iter().zip(&before.cpu);
    let us: Vec<f64> = pairs.map(|(after, before)| us_of(*after - *before)).collect();
    let (of_processes, of_clients) = us.split_at(processes.len());
    let costs = of_processes.iter().zip(memory).map(|(&us, memory)| Cost { us, memory }).collect();
    Ok(Measured {
        per_second: queries / (after.at - before.at).as_secs_f64(),
        client_us: of_clients.iter().sum(),
        costs,
        threads: threads_after
            .iter()
            .zip(&threads_before)
            .map(|(after, before)| (after - before).threads)
            .map(|threads| threads.into_iter().map(|(name, time)| (name, us_of(time))).collect())
            .collect(),
        report: merge(reports).context("no clients")?,
    })
}

struct Reading {
    at: std::time::Instant,
    queries: u64,
    cpu: Vec<Duration>,
}

impl Reading {
    fn take(stage: &Stage, processes: &[Pid]) -> Result<Self> {
        let queries = stage.received()?;
        let at = std::time::Instant::now();
        let cpu = processes.iter().map(|pid| cpu_time(*pid)).collect::<Result<_>>()?;
        Ok(Self { at, queries, cpu })
    }
}

fn usages(processes: &[Pid]) -> Result<Vec<Usage>> {
    processes.iter().map(|pid| Usage::of(*pid)).collect()
}

fn merge(reports: Vec<Report>) -> Option<Report> {
    let mut merged = reports.into_iter().reduce(|mut sum, one| {
        sum.sent += one.sent;
        sum.completed += one.completed;
        sum.per_second += one.per_second;
        sum.latencies_us.extend(one.latencies_us);
        sum
    })?;
    merged.latencies_us.sort_unstable();
    Some(merged)
}

/// A count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(super) const fn count(count: u64) -> f64 {
    count as f64
}

/// Bytes in MiB.
pub(super) fn mib(bytes: u64) -> f64 {
    count(bytes) / f64::from(1 << 20)
}
