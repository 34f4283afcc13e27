//! The Helm chart, packed as `helm package` does, but with equal bytes each time.

use anyhow::Result;

use super::{GZIP, Release};
use crate::workspace::{Workspace, run};

/// Writes the chart's archive.
pub(super) fn write(workspace: &Workspace, release: &Release) -> Result<()> {
    let file = release.common_file(".tgz");
    run(release.tar(&file, &workspace.root.join("deploy/helm")).args(GZIP).arg("tap53"))
}
