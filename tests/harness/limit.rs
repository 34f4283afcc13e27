//! Cgroups that limit what their processes use, of either version.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};

use crate::{cgroups::Cgroup, mount::Mount, scratch::PREFIX};

const ROOT: &str = "/sys/fs/cgroup";

/// A cgroup with a limit; dropping it removes it, once its processes are gone.
pub struct Limit {
    group: Option<Cgroup>,
}

impl Limit {
    /// Limits memory, page cache included. Processes are killed if they use more that cannot be reclaimed.
    ///
    /// # Errors
    /// Without root, or the memory controller.
    pub fn memory(bytes: u64) -> Result<Self> {
        let controller = Path::new(ROOT).join("memory");
        let (parent, file) = if controller.is_dir() {
            (controller, "memory.limit_in_bytes")
        } else {
            (PathBuf::from(ROOT), "memory.max")
        };
        Self::create(&parent, "memory", file, &bytes.to_string())
    }

    /// Limits how often a second the disk of `mount` is written to: a disk that is slow. An fsync(2) takes a
    /// write or two.
    ///
    /// # Errors
    /// Without root, or the controller; or if the file system has no disk.
    pub fn disk_writes(mount: &Mount, writes_per_s: u32) -> Result<Self> {
        let device = device(mount)?;
        let controller = Path::new(ROOT).join("blkio");
        if controller.is_dir() {
            let limit = format!("{device} {writes_per_s}");
            return Self::create(&controller, "disk", "blkio.throttle.write_iops_device", &limit);
        }
        let root = Path::new(ROOT);
        fs::write(root.join("cgroup.subtree_control"), "+io").context("the controller io")?;
        Self::create(root, "disk", "io.max", &format!("{device} wiops={writes_per_s}"))
    }

    fn create(parent: &Path, name: &str, file: &str, limit: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{PREFIX}{}-{name}-{number}", std::process::id()));
        let group = Cgroup::create(path)?;
        group.set(file, limit)?;
        Ok(Self { group: Some(group) })
    }

    /// Makes the process that `command` will start begin its life in the cgroup.
    pub fn hold(&self, command: &mut Command) {
        if let Some(group) = &self.group {
            group.hold(command);
        }
    }
}

/// Major and minor number of the disk.
fn device(mount: &Mount) -> Result<String> {
    use std::os::unix::fs::MetadataExt;
    let number = fs::metadata(mount.path())?.dev();
    Ok(format!("{}:{}", libc::major(number), libc::minor(number)))
}

impl Drop for Limit {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.group.take().map(Cgroup::remove) {
            eprintln!("{error:#}");
        }
    }
}
