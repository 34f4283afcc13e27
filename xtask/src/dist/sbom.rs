//! The bill of materials, CycloneDX 1.5 in JSON: every crate in the program, with its licence.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};
use tap53_harness::architecture::Architecture;

use super::{Release, tools};
use crate::workspace::{Workspace, output, run};

/// Writes the bill of materials.
pub(super) fn write(
    workspace: &Workspace,
    release: &Release,
    architecture: Architecture,
) -> Result<()> {
    let mut cargo = Command::new(tools::cyclonedx(workspace)?);
    // As cargo calls its subcommands. It writes beside the manifest of each crate.
    let name = "dist.cdx";
    cargo
        .args(["cyclonedx", "--manifest-path", "agent/Cargo.toml", "--format", "json"])
        .args(["--spec-version", "1.5", "--override-filename", name, "--quiet"])
        .args(["--target", &architecture.triple()])
        .env("SOURCE_DATE_EPOCH", release.epoch.to_string())
        .current_dir(&workspace.root);
    run(&mut cargo)?;
    let written = workspace.root.join("agent").join(format!("{name}.json"));
    let bill =
        fs::read_to_string(&written).with_context(|| format!("read {}", written.display()))?;
    // References to our own crates hold their path. It must not depend on where they were built.
    let bill = bill.replace(&*workspace.root.to_string_lossy(), "/tap53");
    fs::write(release.file(architecture, "cdx.json"), bill)?;
    remove_all(workspace, name)
}

/// Removes the files beside the manifests.
fn remove_all(workspace: &Workspace, name: &str) -> Result<()> {
    let listed = output(
        Command::new("git")
            .args(["ls-files", "--others", "--", &format!("*{name}.json")])
            .current_dir(&workspace.root),
    )?;
    for path in listed.lines() {
        fs::remove_file(workspace.root.join(path))?;
    }
    Ok(())
}
