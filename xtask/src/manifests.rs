//! `cargo xtask manifests`: writes what is generated in `deploy/`: the chart's objects as they are, and
//! the connectors that the schemas give.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use tap53_harness::{kube, lake::connectors};

/// Renders everything and writes the files that have changed.
pub(crate) fn run() -> Result<()> {
    for (path, text) in connectors::files()? {
        write_new(&path, &text)?;
    }
    for (source, copy) in kube::copied_files() {
        let text = fs::read_to_string(&source)
            .with_context(|| format!("cannot read {}", source.display()))?;
        write_new(&copy, &text)?;
    }
    write_new(&kube::manifests(), &kube::rendered_manifests()?)
}

fn write_new(path: &Path, text: &str) -> Result<()> {
    let shown = path.display();
    if fs::read_to_string(path).is_ok_and(|present| present == text) {
        println!("{shown} is up to date");
        return Ok(());
    }
    fs::write(path, text).with_context(|| format!("cannot write {shown}"))?;
    println!("wrote {shown}");
    Ok(())
}
