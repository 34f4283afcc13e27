//! SHA256SUMS, which one signature covers all files by.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};

use super::Release;
use crate::workspace::output;

/// Writes the checksums, and returns the names and sizes of all files.
pub(super) fn write(release: &Release) -> Result<Vec<(String, u64)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(&release.out)? {
        let entry = entry?;
        let name = entry.file_name().into_string().ok().context("a name is not UTF-8")?;
        files.push((name, entry.metadata()?.len()));
    }
    files.sort();
    let names = files.iter().map(|(name, _)| name);
    let sums = output(Command::new("sha256sum").args(names).current_dir(&release.out))?;
    fs::write(release.out.join("SHA256SUMS"), sums + "\n")?;
    Ok(files)
}
