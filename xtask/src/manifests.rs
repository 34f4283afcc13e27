//! `cargo xtask manifests`: writes `deploy/manifests/tap53.yaml`, the chart's objects as they are.

use std::fs;

use anyhow::{Context as _, Result};
use tap53_harness::kube;

/// Renders the chart and writes what is new.
pub(crate) fn run() -> Result<()> {
    let path = kube::manifests();
    let rendered = kube::rendered_manifests()?;
    let shown = path.display();
    if fs::read_to_string(&path).is_ok_and(|present| present == rendered) {
        println!("{shown} is as the chart has it");
        return Ok(());
    }
    fs::write(&path, rendered).with_context(|| format!("cannot write {shown}"))?;
    println!("wrote {shown}");
    Ok(())
}
