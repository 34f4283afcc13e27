//! The container image, as an OCI archive that `docker load`, `ctr image import` and `skopeo copy` take.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tap53_harness::cluster::IMAGE;

use super::{Release, tree::Tree};
use crate::workspace::{Workspace, as_root, output, program, run};

/// Labels that registries and scanners show.
const SOURCE: &str = "https://github.com/tap53/tap53";

/// Writes the image: the files that `deploy/image.sh` installs, and the settings of `deploy/Dockerfile`.
/// Needs root, since the program has file capabilities.
pub(super) fn write(workspace: &Workspace, release: &Release, tree: &Tree) -> Result<()> {
    let buildah = program("buildah").context("there is no buildah: `cargo xtask setup`")?;
    let scratch = tempfile::tempdir()?;
    let root = scratch.path().join("root");
    let mut install = as_root("the image has file capabilities")?;
    install
        .arg(format!("STRIP={}", tree.architecture().tool("strip")))
        .arg(workspace.root.join("deploy/image.sh"))
        .arg(tree.program())
        .arg(&root);
    run(&mut install)?;
    let buildah = || -> Result<Command> {
        let mut command = as_root("the image has file capabilities")?;
        command
            .arg(&buildah)
            .args(["--storage-driver", "vfs", "--root"])
            .arg(scratch.path().join("storage"))
            .arg("--runroot")
            .arg(scratch.path().join("run"));
        Ok(command)
    };
    let container = output(buildah()?.args(["from", "--quiet", "scratch"]))?;
    run(buildah()?.args(["copy", "--quiet", &container]).arg(&root).arg("/"))?;
    let mut config = buildah()?;
    config.args(["config", "--user", "65532:65532", "--env", "PATH=/usr/bin"]);
    config.args(["--entrypoint", r#"["/usr/bin/tap53"]"#]);
    config.args(["--cmd", "run --config /etc/tap53/config/tap53.yaml"]);
    config.args(["--arch", tree.architecture().debian()]);
    for (label, value) in [
        ("title", "tap53"),
        ("description", "DNS capture agent: eBPF to Avro records in Kafka"),
        ("source", SOURCE),
        ("licenses", "Apache-2.0 OR MIT"),
        ("version", &release.version),
    ] {
        config.args(["--label", &format!("org.opencontainers.image.{label}={value}")]);
    }
    run(config.arg(&container))?;
    // Into a directory: the times of buildah's own archive are those of the moment.
    let layout = scratch.path().join("layout");
    // The chart's default: nodes that import the archive need no other value.
    let target = format!("oci:{}:{IMAGE}", layout.display());
    run(buildah()?
        .args(["commit", "--quiet", "--format", "oci", "--rm", "--disable-compression=false"])
        .args(["--timestamp", &release.epoch.to_string(), &container, &target]))?;
    name_for_containerd(&layout)?;
    run(release.tar(&release.file(tree.architecture(), "oci.tar"), &layout).args([
        "blobs",
        "index.json",
        "oci-layout",
    ]))?;
    // Its files are root's, so that another user could not remove the directory.
    let mut remove = as_root("the image's files are root's")?;
    run(remove
        .args(["rm", "--recursive", "--force"])
        .args([&root, &layout])
        .args(["storage", "run"].map(|name| scratch.path().join(name))))
}

/// Adds the annotation by which containerd and Docker name the image that they load. Others read the one
/// that buildah has written.
fn name_for_containerd(layout: &Path) -> Result<()> {
    let path = layout.join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path)?)?;
    let annotations = index.pointer_mut("/manifests/0/annotations").and_then(Value::as_object_mut);
    let annotations = annotations.with_context(|| format!("{} names no image", path.display()))?;
    annotations.insert("io.containerd.image.name".to_owned(), IMAGE.into());
    fs::write(&path, index.to_string()).with_context(|| format!("write {}", path.display()))
}
