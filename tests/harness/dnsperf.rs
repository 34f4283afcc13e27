//! Load from dnsperf, an independent client that counts its queries and responses.

use std::{
    fs::File,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::{sys::signal::Signal, unistd::Pid};
use tempfile::TempDir;

use crate::{
    namespace::Namespace,
    process::{die_with_parent, spawn_on_lasting_thread},
    scratch, wait,
};

/// Deadline for dnsperf after its last query; longer than it waits for responses.
const END_DEADLINE: Duration = Duration::from_secs(20);

/// The queries to send.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    /// File of questions in dnsperf's format, sent in turn.
    pub questions: &'a Path,
    /// Queries a second; `None`: as many as are answered.
    pub rate: Option<u32>,
    /// Queries without a response at most.
    pub in_flight: u32,
    /// Duration of the load.
    pub time: Duration,
    /// Set to record the latency of each query, which costs the client some CPU.
    pub latencies: bool,
}

/// A running dnsperf; dropping it kills it.
pub struct Dnsperf {
    child: Child,
    directory: TempDir,
}

/// The counts of dnsperf.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Queries sent.
    pub sent: u64,
    /// Queries that got a response.
    pub completed: u64,
    /// Responses a second.
    pub per_second: f64,
    /// Latencies in microseconds, smallest first; empty unless they are recorded.
    pub latencies_us: Vec<u32>,
}

impl Dnsperf {
    /// Starts it in `namespace`, against port 53 of `server`.
    ///
    /// # Errors
    /// When dnsperf is not installed.
    pub fn start(namespace: &Namespace, server: IpAddr, load: Load<'_>) -> Result<Self> {
        let directory = scratch::directory("dnsperf")?;
        let mut command = namespace.command("dnsperf");
        command.args(["-s", &server.to_string(), "-q", &load.in_flight.to_string()]);
        command.args(["-l", &load.time.as_secs_f64().to_string(), "-d"]).arg(load.questions);
        if let Some(rate) = load.rate {
            command.args(["-Q", &rate.to_string()]);
        }
        if load.latencies {
            command.arg("-v");
        }
        // To files: a pipe would have to be read while others are measured.
        command.stdin(Stdio::null());
        command.stdout(File::create(output(&directory))?);
        command.stderr(File::create(directory.path().join("errors"))?);
        die_with_parent(&mut command, Signal::SIGKILL);
        let child = spawn_on_lasting_thread(command).context("start dnsperf (package dnsperf)")?;
        Ok(Self { child, directory })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    /// Waits until it has ended, which it does by itself, and reads its report.
    ///
    /// # Errors
    /// When it fails, or still runs 20 s after it should have ended.
    pub fn report(mut self, time: Duration) -> Result<Report> {
        let child = &mut self.child;
        let status = wait::until("dnsperf to end", time + END_DEADLINE, || Ok(child.try_wait()?))?;
        let text = std::fs::read_to_string(output(&self.directory))?;
        ensure!(status.success(), "dnsperf: {status}: {text}");
        parse(&text)
    }
}

impl Drop for Dnsperf {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn output(directory: &TempDir) -> PathBuf {
    directory.path().join("output")
}

fn parse(text: &str) -> Result<Report> {
    let value = |label: &str| {
        let rest = text.lines().find_map(|line| line.trim().strip_prefix(label));
        rest.and_then(|rest| rest.split_whitespace().next())
            .with_context(|| format!("no {label:?} in dnsperf's report"))
    };
    let mut latencies_us: Vec<u32> = text.lines().filter_map(latency_us).collect();
    latencies_us.sort_unstable();
    Ok(Report {
        sent: value("Queries sent:")?.parse()?,
        completed: value("Queries completed:")?.parse()?,
        per_second: value("Queries per second:")?.parse()?,
        latencies_us,
    })
}

/// Parses the latency in microseconds of a line such as `> NOERROR www.example A 0.000184`.
fn latency_us(line: &str) -> Option<u32> {
    let (seconds, fraction) = line.strip_prefix("> ")?.rsplit_once(' ')?.1.split_once('.')?;
    Some(seconds.parse::<u32>().ok()? * 1_000_000 + fraction.parse::<u32>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let text = "> NOERROR www.example A 0.000184\n> NOERROR a.example A 1.000003\n\n  Queries \
                    sent:         3\n  Queries completed:    2 (66.67%)\n  Queries per second:   \
                    4.5\n";
        let latencies_us = vec![184, 1_000_003];
        let report = Report { sent: 3, completed: 2, per_second: 4.5, latencies_us };
        assert_eq!(parse(text).expect("a report"), report);
        assert!(parse("Queries sent: 3").is_err());
    }
}
