//! The image of all architectures: an OCI archive with an index, from which each node takes its own image.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tap53_harness::architecture::Architecture;

use super::Release;
use crate::workspace::{output, run};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Writes the archive, from those of the architectures.
pub(super) fn write(
    release: &Release,
    architectures: impl Iterator<Item = Architecture>,
) -> Result<()> {
    let layout = tempfile::tempdir()?;
    let mut manifests = Vec::new();
    let mut annotations = Value::Null;
    for architecture in architectures {
        // Blobs are named by their digests: those of several images do not meet.
        let archive = release.file(architecture, "oci.tar");
        run(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(layout.path()))?;
        let mut manifest = the_manifest(layout.path())?;
        annotations = manifest["annotations"].take();
        manifests.push(json!({
            "mediaType": manifest["mediaType"],
            "digest": manifest["digest"],
            "size": manifest["size"],
            "platform": {"architecture": architecture.debian(), "os": "linux"},
        }));
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    let (digest, size) = store(layout.path(), &index.to_string())?;
    let entry =
        json!({"mediaType": INDEX, "digest": digest, "size": size, "annotations": annotations});
    let root = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
    fs::write(layout.path().join("index.json"), root.to_string())?;
    run(release.tar(&release.common_file(".oci.tar"), layout.path()).args([
        "blobs",
        "index.json",
        "oci-layout",
    ]))
}

/// Returns the entry of the one image in a layout.
fn the_manifest(layout: &Path) -> Result<Value> {
    let mut index: Value = serde_json::from_slice(&fs::read(layout.join("index.json"))?)?;
    let entries = index["manifests"].as_array_mut().context("an index has manifests")?;
    entries.pop().context("an image has a manifest")
}

/// Adds a blob; returns its digest and its size.
fn store(layout: &Path, text: &str) -> Result<(String, usize)> {
    let blobs: PathBuf = layout.join("blobs/sha256");
    let unnamed = layout.join("unnamed");
    fs::write(&unnamed, text)?;
    let sum = output(Command::new("sha256sum").arg(&unnamed))?;
    let sum = sum.split_whitespace().next().context("a digest")?;
    fs::rename(&unnamed, blobs.join(sum))?;
    Ok((format!("sha256:{sum}"), text.len()))
}
