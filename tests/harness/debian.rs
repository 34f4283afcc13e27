//! Files of Debian packages that are not installed: some would change how other programs behave.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::{process::run, scratch};

/// Downloads a package and unpacks its files into a directory.
///
/// # Errors
/// When apt knows no such package, or cannot download it.
pub(crate) fn unpack(package: &str, directory: &Path) -> Result<()> {
    // apt downloads into the current directory.
    let downloads = scratch::directory("package")?;
    run(Command::new("apt-get").args(["download", "-q", package]).current_dir(downloads.path()))?;
    let archive =
        fs::read_dir(downloads.path())?.next().context("apt-get downloaded nothing")??;
    run(Command::new("dpkg-deb").arg("-x").arg(archive.path()).arg(directory))?;
    Ok(())
}
