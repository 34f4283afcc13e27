//! `cargo xtask sample`: makes the records of the manual, `docs/sample`, by the agent's own programs.
//!
//! ```text
//!  seed ─▶ make_sample.py ─▶ captures ─▶ tap53 replay ─▶ names of pods ─▶ Avro ─▶ tap53 query ─▶ Parquet
//! ```

use std::{fs, process::Command};

use anyhow::{Context as _, Result};
use tap53_harness::python;

use crate::workspace::{Workspace, run as run_command};

/// Builds the agent, and writes both files.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    run_command(workspace.cargo().args(["build", "--quiet", "--package", "tap53"]))?;
    let tap53 = workspace.target.join("debug/tap53");
    let directory = workspace.root.join("docs/sample");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    run_command(
        Command::new(python::python()?)
            .arg(workspace.root.join("tests/harness/python/make_sample.py"))
            .args([&tap53, &directory])
            // The packages that write the files iterate over sets: the same order makes the same files.
            .env("PYTHONHASHSEED", "0")
            .env("PYTHONDONTWRITEBYTECODE", "1"),
    )?;
    run_command(
        Command::new(tap53)
            .arg("query")
            .arg(directory.join("dns_transactions.avro"))
            .args(["-o", "parquet", "--output"])
            .arg(directory.join("dns_transactions.parquet")),
    )
}
