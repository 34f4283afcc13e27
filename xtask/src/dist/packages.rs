//! The .deb and the .rpm package, by nfpm from one description.

use std::process::Command;

use anyhow::Result;

use super::{Release, tools, tree::Tree};
use crate::workspace::{Workspace, run};

/// Writes both packages, under the names that each format's tools expect.
pub(super) fn write(workspace: &Workspace, release: &Release, tree: &Tree) -> Result<()> {
    let nfpm = tools::nfpm()?;
    let packages = workspace.root.join("deploy/packages");
    for packager in ["deb", "rpm"] {
        let mut command = Command::new(&nfpm);
        command
            .args(["package", "--packager", packager])
            .args(["--config", "nfpm.yaml"])
            .arg("--target")
            .arg(&release.out)
            .current_dir(&packages)
            .env("ROOT", tree.root())
            .env("ARCH", tree.architecture().debian())
            .env("VERSION", &release.version)
            .env("SOURCE_DATE_EPOCH", release.epoch.to_string());
        run(&mut command)?;
    }
    Ok(())
}
