//! `cargo xtask bench`: what a packet and a transaction cost, as ratios within one run.

use anyhow::Result;

use crate::{
    build_ebpf,
    setup::{self, Purpose},
    workspace::{self, Workspace},
};

/// Runs the benchmarks, kernel first, and prints their tables.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    setup::install_missing(workspace, Purpose::Build)?;
    build_ebpf::run(workspace)?;
    for (package, bench) in [
        ("tap53-tests", "kernel_programs"),
        ("tap53-tests", "hooks"),
        ("tap53-tests", "producer"),
        ("tap53-tests", "acknowledgements"),
        ("tap53", "path"),
        ("tap53", "owners"),
    ] {
        let mut cargo = workspace.cargo();
        cargo.args(["bench", "--quiet", "--package", package, "--bench", bench]);
        workspace::run(&mut cargo)?;
    }
    Ok(())
}
