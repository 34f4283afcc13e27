//! `cargo xtask bench`: what a transaction costs, as ratios within one run.

use std::process::Command;

use anyhow::Result;

use crate::{build_ebpf, workspace::{self, Workspace}};

/// Runs the benchmarks, kernel first, and prints their tables.
pub fn run(workspace: &Workspace) -> Result<()> {
    build_ebpf::run(workspace)?;
    workspace::run(Command::new("cargo").args(["bench", "--quiet", "--package", "tap53", "--bench", "path"]))
}
