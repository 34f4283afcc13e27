//! The images of a cluster's pods, as archives that nodes import.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::{Release, programs::Programs};
use crate::{agent, process::run, scratch};

/// The agent's image, by its name in the chart.
pub const IMAGE: &str = concat!("ghcr.io/tap53/tap53:", env!("CARGO_PKG_VERSION"));
pub(super) const PAUSE: &str = "registry.k8s.io/pause:3.10";
pub(super) const COREDNS: &str = "registry.k8s.io/coredns/coredns:v1.15.0";
/// The image of pods that query.
pub(super) const POD: &str = "tap53.test/pod:1";

/// An archive; dropping it removes what was built for it.
pub(super) struct Archive {
    pub(super) path: PathBuf,
    _directory: Option<TempDir>,
}

/// The images of all pods, with the agent's from `release`, or built if there is none.
pub(super) fn archives(programs: &Programs, release: Option<&Release>) -> Result<Vec<Archive>> {
    let agent = match release {
        Some(release) => Archive { path: release.image.clone(), _directory: None },
        None => of_agent()?,
    };
    Ok(vec![
        of_program(PAUSE, programs.pod(), r#"["/program", "pause"]"#)?,
        of_program(POD, programs.pod(), r#"["/program"]"#)?,
        of_program(COREDNS, &programs.coredns, r#"["/program"]"#)?,
        agent,
    ])
}

/// The image that the last stage of `deploy/Dockerfile` makes of the built agent.
fn of_agent() -> Result<Archive> {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("deploy");
    let context = scratch::directory("context")?;
    // The Dockerfile's first stage creates the image's files in the same directory.
    let root = context.path().join("image");
    let mut install = Command::new("sh");
    run(install.arg(deploy.join("image.sh")).arg(agent::binary()?).arg(&root))
        .context("lay out the image (setcap: package libcap2-bin)")?;
    let text = fs::read_to_string(deploy.join("Dockerfile"))?;
    let last = text.rfind("\nFROM ").context("no stage in deploy/Dockerfile")?;
    let stages = format!("FROM scratch AS build\nCOPY image /image\n{}", &text[last..]);
    build(IMAGE, &stages, context.path())
}

/// An image of one static program.
fn of_program(name: &str, program: &Path, entry: &str) -> Result<Archive> {
    let context = scratch::directory("context")?;
    let copy = context.path().join("program");
    fs::copy(program, &copy)?;
    fs::set_permissions(&copy, Permissions::from_mode(0o755))?;
    build(name, &format!("FROM scratch\nCOPY program /\nENTRYPOINT {entry}\n"), context.path())
}

fn build(name: &str, dockerfile: &str, context: &Path) -> Result<Archive> {
    let directory = scratch::directory("build")?;
    let path = |name: &str| directory.path().join(name);
    fs::write(path("Dockerfile"), dockerfile)?;
    let buildah = || {
        let mut command = Command::new("buildah");
        command.args(["--storage-driver", "vfs", "--root"]).arg(path("storage"));
        command.arg("--runroot").arg(path("run"));
        command
    };
    let mut bud = buildah();
    bud.args(["bud", "--isolation", "chroot", "--quiet", "--tag", name, "--file"]);
    run(bud.arg(path("Dockerfile")).arg(context)).with_context(|| format!("build {name}"))?;
    let target = format!("oci-archive:{}:{name}", path("image.tar").display());
    run(buildah().args(["push", "--quiet", "--disable-compression", name, &target]))?;
    fs::remove_dir_all(path("storage"))?;
    Ok(Archive { path: path("image.tar"), _directory: Some(directory) })
}
