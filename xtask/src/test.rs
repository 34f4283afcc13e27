//! `cargo xtask test`: everything that has to hold before a change lands.

use std::{path::PathBuf, process::Command, time::Instant};

use anyhow::{Context as _, Result};

use crate::{
    build_ebpf,
    setup::{self, Purpose},
    workspace::{Workspace, programs, run as run_command},
};

const CARGO_DENY_VERSION: &str = "0.20.2";

/// Sets up, builds, checks and tests, in the order in which failures are cheapest to find.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    tap53_harness::require_root()?;
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
            .args(["--log-level", "warn", "check", "--hide-inclusion-graph"])
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
    tap53_harness::fastavro::python()?;

    step("tests");
    // One process at a time, and two threads each: the machine's cores are what the tests share
    // with resolver, broker and agent.
    run_command(workspace.cargo().args(["test", "--workspace", "--no-fail-fast"]))?;
    println!("all passed in {} s", started.elapsed().as_secs());
    Ok(())
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
