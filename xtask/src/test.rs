//! `cargo xtask test`: everything that has to hold before a change lands.

use std::{path::PathBuf, process::Command, time::Instant};

use anyhow::{Context as _, Result};

use crate::{
    build_ebpf, fuzz,
    setup::{self, Purpose},
    workspace::{Workspace, program, programs, run as run_command},
};

/// For each target: enough to run over what the tests hold to be well, not to find what is rare.
const FUZZ_SECONDS: u32 = 8;

const CARGO_DENY_VERSION: &str = "0.20.2";

/// Sets up, builds, checks and tests, in the order in which failures are cheapest to find.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let runner = runner(workspace)?;
    let started = Instant::now();
    step("set up");
    setup::install_missing(workspace, Purpose::Test)?;

    step("format");
    run_command(workspace.cargo().args(["fmt", "--all", "--check"]))?;

    step("kernel programs");
    build_ebpf::run(workspace)?;

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
    )?;

    step("agent");
    run_command(workspace.cargo().args(["build", "--quiet", "--package", "tap53"]))?;

    // Parts of other people that the tests would otherwise fetch while a test's clock runs.
    step("broker and readers");
    tap53_harness::kafka::jars()?;
    tap53_harness::registry::distribution()?;
    tap53_harness::python::python()?;
    tap53_harness::kube::programs()?;

    step("tests");
    // Apart and first: mostly there are none, and the run should not close on that.
    run_command(workspace.cargo().args(["test", "--workspace", "--doc", "--quiet"]))?;
    run_command(
        workspace
            .cargo()
            .args(["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"])
            .args(runner),
    )?;

    step("fuzz targets, briefly");
    fuzz::run(workspace, &fuzz::Arguments::all_for(FUZZ_SECONDS))?;
    println!("all passed in {} s", started.elapsed().as_secs());
    Ok(())
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
