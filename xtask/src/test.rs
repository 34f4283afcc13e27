//! `cargo xtask test`: everything that has to hold before a change lands.

use std::{path::PathBuf, process::Command, time::Instant};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use serde_json::Value;

use crate::{
    build_ebpf, docs, fuzz,
    setup::{self, Purpose},
    workspace::{Workspace, output, program, programs, run as run_command},
};

const CARGO_DENY_VERSION: &str = "0.20.2";

/// Variable and value of the seed of the property tests, so that a run that fails does so because of the
/// change at hand. `cargo test` draws another seed for each run.
const SEED: (&str, &str) = ("PROPTEST_RNG_SEED", "53");

/// Arguments of `test`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Tests to run
    #[arg(value_enum, default_value_t = Tier::All)]
    tier: Tier,
    /// Only tests whose names contain this; skips the checks of format, lints and dependencies
    #[arg(long)]
    filter: Option<String>,
}

/// Tiers of tests, by their needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Tier {
    /// Tests inside the crates: no root, no network namespaces, no other programs.
    Unit,
    /// Tests on real parts: the kernel, unbound, Kafka, kube-apiserver. As root.
    Integration,
    /// Format, lints, dependencies, the manual, both kinds of tests, and the fuzz targets. As root.
    All,
}

impl Tier {
    fn has_integration_tests(self) -> bool {
        self != Self::Unit
    }
}

/// Test programs that mostly wait for brokers, and how many of their tests run at once. Of the others, as
/// many as there are CPUs do.
const WAITING: [(&str, usize); 1] = [("delivery", 4)];

/// Packages whose own tests need root or other programs. All others are tested by themselves.
const NOT_UNIT_TESTED: [&str; 3] = ["tap53-tests", "tap53-fuzz", "tap53-librdkafka"];

/// Sets up, builds, checks and tests, in the order in which failures are cheapest to find.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let &Arguments { tier, ref filter } = arguments;
    let started = Instant::now();
    let runner = if tier.has_integration_tests() { runner(workspace)? } else { Vec::new() };
    step("set up");
    let purpose = if tier.has_integration_tests() { Purpose::Test } else { Purpose::Build };
    setup::install_missing(workspace, purpose)?;

    let checks = tier == Tier::All && filter.is_none();
    if checks {
        step("format");
        run_command(workspace.cargo().args(["fmt", "--all", "--check"]))?;
    }
    step("kernel programs");
    build_ebpf::run(workspace)?;
    if checks {
        check(workspace)?;
    }
    let filter = filter.as_deref();
    if tier.has_integration_tests() {
        prepare_parts(workspace)?;
    }
    step("tests");
    match tier {
        Tier::Unit => unit_tests(workspace, filter)?,
        Tier::Integration => integration_tests(workspace, &runner, filter)?,
        Tier::All => all_tests(workspace, &runner, filter)?,
    }
    if checks {
        step("fuzz targets, briefly");
        fuzz::run(workspace, &fuzz::Arguments::brief())?;
    }
    println!("all passed in {} s", started.elapsed().as_secs());
    Ok(())
}

/// The manual, dependencies and lints.
fn check(workspace: &Workspace) -> Result<()> {
    step("manual");
    docs::run(workspace)?;
    step("dependencies");
    run_command(
        Command::new(cargo_deny(workspace)?)
            .args(["--log-level", "error", "check", "--hide-inclusion-graph"])
            .args(["bans", "licenses", "sources"])
            .current_dir(&workspace.root),
    )?;
    step("lints");
    run_command(
        workspace
            .cargo()
            .args(["clippy", "--workspace", "--all-targets"])
            .args(["--quiet", "--", "-D", "warnings"]),
    )
}

/// Builds the agent, and fetches parts that the tests would otherwise fetch while their deadlines run.
pub(crate) fn prepare_parts(workspace: &Workspace) -> Result<()> {
    step("agent");
    run_command(workspace.cargo().args(["build", "--quiet", "--package", "tap53"]))?;
    step("broker, readers and lake");
    tap53_harness::kafka::jars()?;
    tap53_harness::registry::distribution()?;
    tap53_harness::python::python()?;
    tap53_harness::lake::jars()?;
    tap53_harness::lake::environment()?;
    tap53_harness::spark::Spark::get()?;
    tap53_harness::spark::iceberg()?;
    tap53_harness::cluster::prepare()?;
    tap53_harness::laboratory::program()?;
    step("gateway and collector");
    tap53_harness::system::Programs::build()?;
    Ok(())
}

fn unit_tests(workspace: &Workspace, filter: Option<&str>) -> Result<()> {
    let others = NOT_UNIT_TESTED.iter().flat_map(|package| ["--exclude", package]);
    let mut cargo = cargo_with_seed(workspace);
    cargo
        .args(["test", "--workspace"])
        .args(others)
        .args(["--lib", "--bins", "--no-fail-fast"])
        .args(filter);
    run_command(&mut cargo)
}

fn integration_tests(workspace: &Workspace, runner: &[String], filter: Option<&str>) -> Result<()> {
    test_programs(workspace, &[], runner, filter)
}

fn all_tests(workspace: &Workspace, runner: &[String], filter: Option<&str>) -> Result<()> {
    // Documentation tests run apart and first: there are few, and the run should not close on them.
    run_command(workspace.cargo().args(["test", "--workspace", "--doc", "--quiet"]))?;
    test_programs(workspace, &["--lib", "--bins"], runner, filter)
}

/// Runs all test programs and what `others` names, also after a failure.
fn test_programs(
    workspace: &Workspace,
    others: &[&str],
    runner: &[String],
    filter: Option<&str>,
) -> Result<()> {
    let cargo = || {
        let mut cargo = cargo_with_seed(workspace);
        cargo.args(["test", "--workspace", "--no-fail-fast"]).args(runner);
        cargo
    };
    let is_waiting = |name: &String| WAITING.iter().any(|(waiting, _)| name == waiting);
    let busy = names_of_test_programs(workspace)?.into_iter().filter(|name| !is_waiting(name));
    let busy = busy.flat_map(|name| ["--test".to_owned(), name]);
    let mut outcome = run_command(cargo().args(others).args(busy).args(filter));
    for (name, threads) in WAITING {
        let threads = format!("--test-threads={threads}");
        let waiting =
            run_command(cargo().args(["--test", name]).args(filter).args(["--", &threads]));
        outcome = outcome.and(waiting);
    }
    outcome
}

/// Names of the test programs of all packages: cargo takes no exception from all.
fn names_of_test_programs(workspace: &Workspace) -> Result<Vec<String>> {
    let arguments = ["metadata", "--no-deps", "--format-version=1"];
    let metadata: Value = serde_json::from_str(&output(workspace.cargo().args(arguments))?)?;
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    let targets = packages.iter().filter_map(|package| package["targets"].as_array()).flatten();
    let tests = targets.filter(|target| target["kind"][0] == "test");
    let names: Vec<_> = tests.filter_map(|test| test["name"].as_str().map(str::to_owned)).collect();
    ensure!(!names.is_empty(), "cargo metadata names no test programs");
    Ok(names)
}

fn cargo_with_seed(workspace: &Workspace) -> Command {
    let mut cargo = workspace.cargo();
    let (variable, seed) = SEED;
    if std::env::var_os(variable).is_none() {
        cargo.env(variable, seed);
    }
    cargo
}

/// Arguments that make cargo run the test programs by sudo where we are not root: network namespaces
/// and BPF need it, and building does not.
pub(crate) fn runner(workspace: &Workspace) -> Result<Vec<String>> {
    let Err(not_root) = tap53_harness::require_root() else {
        return Ok(Vec::new());
    };
    if program("sudo").is_none() {
        return Err(not_root.context("neither root nor sudo is to be had"));
    }
    println!("the test programs need root: cargo will run them by sudo");
    let cache = workspace.cache.display();
    let runner = format!("target.'cfg(unix)'.runner = ['sudo', '-E', 'TAP53_CACHE={cache}']");
    Ok(vec!["--config".to_owned(), runner])
}

fn step(name: &str) {
    println!("\n── {name}");
}

/// cargo-deny, from PATH or from the cache, where it is built once.
fn cargo_deny(workspace: &Workspace) -> Result<PathBuf> {
    let cached = workspace.tools().join("bin/cargo-deny");
    let found = programs("cargo-deny").chain([cached.clone()]).find(|path| path.is_file());
    if let Some(path) = found {
        return Ok(path);
    }
    println!("building cargo-deny {CARGO_DENY_VERSION} into the cache (some minutes, once)");
    let mut cargo = workspace.cargo();
    cargo
        .args(["install", "cargo-deny", "--version", CARGO_DENY_VERSION, "--locked", "--quiet"])
        .args(["--no-default-features", "--root"])
        .arg(workspace.tools())
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR");
    run_command(&mut cargo).context("cannot build cargo-deny")?;
    Ok(cached)
}
