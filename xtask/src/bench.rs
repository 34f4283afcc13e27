//! `cargo xtask bench`: measures the cost of a packet and of a transaction, and of the whole system compared
//! with the one that it replaces, as ratios within one run.

mod system;

use anyhow::Result;

use crate::{
    build_ebpf,
    setup::{self, Purpose},
    workspace::{self, Workspace},
};

/// Arguments of `bench`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Measure the whole system, and write the tables in docs/performance.md (some twenty minutes)
    #[arg(long)]
    system: bool,
    #[command(flatten)]
    of_system: system::Options,
}

/// Runs the benchmarks.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    if arguments.system {
        return system::run(workspace, &arguments.of_system);
    }
    parts(workspace)
}

/// Measures the parts, kernel first, and prints their tables.
fn parts(workspace: &Workspace) -> Result<()> {
    setup::install_missing(workspace, Purpose::Build)?;
    build_ebpf::run(workspace)?;
    // `query` runs the program.
    workspace::run(workspace.cargo().args([
        "build",
        "--quiet",
        "--release",
        "--package",
        "tap53",
    ]))?;
    let program = workspace.target.join("release/tap53");
    for (package, bench) in [
        ("tap53-tests", "kernel_programs"),
        ("tap53-tests", "hooks"),
        ("tap53-tests", "producer"),
        ("tap53-tests", "acknowledgements"),
        ("tap53-tests", "query"),
        ("tap53", "path"),
        ("tap53", "owners"),
    ] {
        let mut cargo = workspace.cargo();
        cargo.args(["bench", "--quiet", "--package", package, "--bench", bench]);
        cargo.env("TAP53_BIN", &program);
        workspace::run(&mut cargo)?;
    }
    Ok(())
}
