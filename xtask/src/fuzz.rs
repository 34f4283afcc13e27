//! `cargo xtask fuzz`: builds the fuzz targets and runs each for some time.
//!
//! Not by cargo-fuzz, which builds every dependency anew, optimised and instrumented: on two cores
//! minutes, and more for itself. Here only the workspace's own crates are instrumented
//! (`tests/fuzz/rustc.sh`); the dependencies are those of the tests, as are the compilers.

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use tap53_harness::process::die_with_parent;

use crate::{
    build_ebpf, progress,
    setup::{self, Purpose},
    workspace::Workspace,
};

/// The targets, as `tests/fuzz/Cargo.toml` lists them, and how many inputs each tries in a brief run:
/// some eight seconds' worth.
const TARGETS: [(&str, u32); 5] = [
    ("message", 1_000),
    ("stream", 11_000),
    ("fragments", 30_000),
    ("frame", 7_500),
    ("replay_file", 13_000),
];

/// Memory limit of a target in MiB: the agent's tables take a fraction of it.
const MEMORY_LIMIT_MIB: u32 = 1_024;
/// Time that one input may take, seconds.
const INPUT_TIMEOUT_S: u32 = 5;
/// Length of an input, bytes: a message over TCP with what frames add, and some.
const INPUT_LIMIT: u32 = 70_000;
/// Lines of a target's output that are shown of one that found something.
const LINES_SHOWN: usize = 30;

/// Arguments of `fuzz`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only this target; may be repeated
    #[arg(long = "target", value_name = "TARGET", value_parser = TARGETS.map(|(name, _)| name))]
    targets: Vec<String>,
    /// Seconds for each target
    #[arg(long, value_name = "SECONDS", default_value_t = 60, conflicts_with = "brief")]
    seconds: u32,
    /// Try a fixed number of inputs from the seeds on, the same ones each time
    #[arg(long)]
    brief: bool,
    /// Number of targets that run at the same time [default: one for each CPU]
    #[arg(long, value_name = "NUMBER")]
    jobs: Option<NonZeroUsize>,
}

impl Arguments {
    /// All targets, briefly. Such a run is repeatable: what it finds is due to a change, and not to
    /// chance.
    pub(crate) const fn brief() -> Self {
        Self { targets: Vec::new(), seconds: 0, brief: true, jobs: None }
    }

    /// Returns the targets that were chosen, all by default.
    fn chosen(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let is_chosen =
            |name: &str| self.targets.is_empty() || self.targets.iter().any(|it| it == name);
        TARGETS.into_iter().filter(move |(name, _)| is_chosen(name))
    }
}

/// Builds the targets, runs them, and fails if one has found something.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    setup::install_missing(workspace, Purpose::Build)?;
    if !workspace.bpf_object().is_file() {
        build_ebpf::run(workspace)?;
    }
    progress::build("fuzz targets", &mut build(workspace))?;
    let targets: Vec<_> = arguments.chosen().collect();
    let jobs = arguments.jobs.map_or_else(available_jobs, NonZeroUsize::get);
    let mut found = Vec::new();
    for group in targets.chunks(jobs) {
        let running = group
            .iter()
            .map(|&(target, inputs)| {
                let effort = match arguments.brief {
                    true => Effort::Inputs(inputs),
                    false => Effort::Seconds(arguments.seconds),
                };
                Running::start(workspace, target, effort)
            })
            .collect::<Result<Vec<_>>>()?;
        for target in running {
            found.extend(target.finish()?);
        }
    }
    ensure!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

fn available_jobs() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

fn build(workspace: &Workspace) -> Command {
    let mut cargo = workspace.cargo();
    cargo
        .args(["build", "--package", "tap53-fuzz", "--features", "libfuzzer", "--bins"])
        .env("RUSTC_WORKSPACE_WRAPPER", workspace.root.join("tests/fuzz/rustc.sh"))
        // Coverage is of whole crates; a second build of parts would not be quicker.
        .env("CARGO_INCREMENTAL", "0");
    cargo
}

/// How much a target tries.
#[derive(Clone, Copy)]
enum Effort {
    /// For this long, from the inputs on that earlier runs found.
    Seconds(u32),
    /// This number of inputs, from the seeds on, in the order of a fixed random number.
    Inputs(u32),
}

/// A target at work.
struct Running {
    target: &'static str,
    child: Child,
    artifacts: PathBuf,
    log: PathBuf,
    started: Instant,
}

impl Running {
    fn start(workspace: &Workspace, target: &'static str, effort: Effort) -> Result<Self> {
        let directory = workspace.target.join("fuzz").join(target);
        let corpus = match effort {
            // What an earlier run covered is where this one begins.
            Effort::Seconds(_) => directory.join("corpus"),
            Effort::Inputs(_) => directory.join("brief"),
        };
        if matches!(effort, Effort::Inputs(_)) && corpus.exists() {
            fs::remove_dir_all(&corpus)
                .with_context(|| format!("cannot remove {}", corpus.display()))?;
        }
        let seeds = directory.join("seeds");
        let artifacts = directory.join("found");
        for directory in [&corpus, &seeds, &artifacts] {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
        }
        let log = directory.join("log");
        let output =
            fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(workspace.target.join("debug").join(target));
        match effort {
            Effort::Seconds(seconds) => command.arg(format!("-max_total_time={seconds}")),
            Effort::Inputs(inputs) => command.arg(format!("-runs={inputs}")).arg("-seed=1"),
        };
        command
            .arg(format!("-rss_limit_mb={MEMORY_LIMIT_MIB}"))
            .arg(format!("-malloc_limit_mb={MEMORY_LIMIT_MIB}"))
            .arg(format!("-timeout={INPUT_TIMEOUT_S}"))
            .arg(format!("-max_len={INPUT_LIMIT}"))
            // Long inputs from the start: the seeds hold whole conversations.
            .args(["-len_control=0", "-print_final_stats=1"])
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .args([&corpus, &seeds])
            .env("TAP53_FUZZ_SEEDS", &seeds)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        die_with_parent(&mut command, Signal::SIGKILL);
        let child = command.spawn().with_context(|| format!("cannot start target {target}"))?;
        Ok(Self { target, child, artifacts, log, started: Instant::now() })
    }

    /// Waits for the end and prints the result; returns the finding, if there is one.
    fn finish(mut self) -> Result<Option<String>> {
        let status = self.child.wait()?;
        let log = fs::read(&self.log)?;
        let log = String::from_utf8_lossy(&log);
        let statistic = Statistics::in_log(&log);
        println!(
            "  {:<12} {:>9} inputs in {} s, {} edges covered, {} MiB{}",
            self.target,
            statistic.inputs,
            self.started.elapsed().as_secs(),
            statistic.edges,
            statistic.memory_mib,
            if status.success() { "" } else { ": FOUND SOMETHING" },
        );
        if status.success() {
            // A target that does not look at its input covers nothing.
            if statistic.inputs == 0 || statistic.edges == 0 {
                bail!("target {} ran, and tried nothing; see {}", self.target, self.log.display());
            }
            return Ok(None);
        }
        Ok(Some(format!(
            "target {} found an input, in {}; from {}:\n{}\n\
             to repeat: {} <input>; once mended, its hexadecimal digits belong into \
             tests/fuzz/src/tests.rs",
            self.target,
            self.artifacts.display(),
            self.log.display(),
            finding(&log).join("\n"),
            self.program().display(),
        )))
    }

    fn program(&self) -> PathBuf {
        let target = self.log.ancestors().nth(3).unwrap_or(Path::new("target"));
        target.join("debug").join(self.target)
    }
}

/// Returns the lines of a log from the panic on, or its last ones if the target did not panic.
fn finding(log: &str) -> Vec<&str> {
    let lines: Vec<&str> = log.lines().collect();
    let panicked = lines.iter().position(|line| line.contains(" panicked at "));
    let start = panicked.unwrap_or(lines.len().saturating_sub(LINES_SHOWN));
    lines.into_iter().skip(start).take(LINES_SHOWN).collect()
}

/// Final statistics of libFuzzer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Statistics {
    inputs: u64,
    edges: u64,
    memory_mib: u64,
}

impl Statistics {
    fn in_log(log: &str) -> Self {
        let last = |key: &str| {
            let line = log.lines().rev().find(|line| line.contains(key))?;
            line.split(key).nth(1)?.split_whitespace().next()?.parse().ok()
        };
        Self {
            inputs: last("stat::number_of_executed_units:").unwrap_or(0),
            edges: last(" cov: ").unwrap_or(0),
            memory_mib: last("stat::peak_rss_mb:").unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_shown_with_what_follows_it() {
        let trace = "  0: main\n".repeat(LINES_SHOWN);
        let log = format!("#1 NEW\nthread 'x' panicked at a.rs:1:2:\nleft: 1\n{trace}end");
        let shown = finding(&log);
        assert_eq!(shown[..2], ["thread 'x' panicked at a.rs:1:2:", "left: 1"]);
        assert_eq!(shown.len(), LINES_SHOWN);
        assert_eq!(finding("killed"), ["killed"]);
    }

    #[test]
    fn the_end_of_libfuzzers_log_is_read() {
        let log = "#2\tINITED cov: 12 ft: 13\n#9000\tDONE   cov: 345 ft: 9 corp: 3/4b\n\
                   stat::number_of_executed_units: 9000\nstat::peak_rss_mb:              71\n";
        let expected = Statistics { inputs: 9_000, edges: 345, memory_mib: 71 };
        assert_eq!(Statistics::in_log(log), expected);
        assert_eq!(Statistics::in_log("killed"), Statistics::default());
    }
}
