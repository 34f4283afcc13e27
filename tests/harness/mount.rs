//! File systems of the test's own: small ones that fill up, and one whose disk is a file that can be
//! copied, as it would be found after the power was cut.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::{process::run, scratch};

/// A mounted file system; dropping it unmounts it and removes its image.
pub struct Mount {
    point: PathBuf,
    image: Option<PathBuf>,
    // Dropped after the file system is unmounted.
    _directory: TempDir,
}

impl Mount {
    /// A tmpfs of this size.
    ///
    /// # Errors
    /// Without root.
    pub fn tmpfs(bytes: u64) -> Result<Self> {
        let directory = scratch::directory("mount")?;
        let point = mount_point(directory.path())?;
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes},mode=0755"), "tap53-test"])
            .arg(&point))?;
        Ok(Self { point, image: None, _directory: directory })
    }

    /// An ext4 on a file of this size.
    ///
    /// # Errors
    /// Without root, loop devices or mkfs.ext4.
    pub fn ext4(bytes: u64) -> Result<Self> {
        let directory = scratch::directory("mount")?;
        let image = directory.path().join("image");
        File::create(&image)?.set_len(bytes)?;
        run(Command::new("mkfs.ext4").arg("-q").arg(&image)).context("package e2fsprogs")?;
        Self::image(directory, image)
    }

    fn image(directory: TempDir, image: PathBuf) -> Result<Self> {
        let point = mount_point(directory.path())?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&point))?;
        Ok(Self { point, image: Some(image), _directory: directory })
    }

    /// The file system as it is on its disk at this moment, mounted: what has not got there is
    /// missing. As after a power cut, its journal is replayed.
    ///
    /// # Errors
    /// When this one is not on a file.
    pub fn after_power_cut(&self) -> Result<Self> {
        let image = self.image.as_ref().context("not on a file")?;
        let directory = scratch::directory("mount")?;
        let copy = directory.path().join("image");
        run(Command::new("cp").arg("--sparse=always").arg(image).arg(&copy))?;
        Self::image(directory, copy)
    }

    /// Returns the mount point.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.point
    }
}

fn mount_point(directory: &Path) -> Result<PathBuf> {
    let point = directory.join("point");
    fs::create_dir(&point)?;
    Ok(point)
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a process of a failed test may still be in it.
        if let Err(error) = run(Command::new("umount").arg("--lazy").arg(&self.point)) {
            eprintln!("{error:#}");
        }
    }
}
