//! `cargo xtask warehouse`: the long form of the warehouse's tests, too long for every change.

use anyhow::Result;

use crate::{
    build_ebpf,
    setup::{self, Purpose},
    test,
    workspace::{Workspace, run as run_command},
};

/// Sets up and runs them.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let runner = test::runner(workspace)?;
    setup::install_missing(workspace, Purpose::Test)?;
    build_ebpf::run(workspace)?;
    test::prepare_parts(workspace)?;
    run_command(
        workspace
            .cargo()
            .args(["test", "--quiet", "--package", "tap53-tests", "--test", "warehouse"])
            .args(&runner)
            .args(["--", "--ignored", "--nocapture"]),
    )
}
