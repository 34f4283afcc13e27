//! `cargo xtask story`: records one lookup of a pod in the laboratory, and shows it in the README.

use anyhow::Result;

use crate::{
    build_ebpf,
    setup::{self, Purpose},
    test,
    workspace::{Workspace, run as run_command},
};

/// Sets up, records and writes.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let runner = test::runner(workspace)?;
    setup::install_missing(workspace, Purpose::Test)?;
    build_ebpf::run(workspace)?;
    run_command(workspace.cargo().args(["build", "--quiet", "--package", "tap53"]))?;
    run_command(
        workspace
            .cargo()
            .args(["test", "--quiet", "--package", "tap53-tests", "--test", "laboratory"])
            .args(&runner)
            .args(["--", "story::", "--nocapture"])
            .env("UPDATE_DOCS", "1"),
    )
}
