//! A cgroup that limits how often a disk is written to, of either version: a disk that is slow.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{mount::Mount, scratch::PREFIX};

/// A cgroup; dropping it removes it, once its processes are gone.
pub struct DiskLimit {
    path: PathBuf,
}

impl DiskLimit {
    /// Creates a control group whose processes may write to the disk of `mount` `writes_per_s` times a
    /// second. An fsync(2) takes a write or two.
    ///
    /// # Errors
    /// Without root, or the controller; or if the file system has no disk.
    pub fn new(mount: &Mount, writes_per_s: u32) -> Result<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let device = device(mount)?;
        let (parent, file, limit) = if root.join("blkio").is_dir() {
            let limit = format!("{device} {writes_per_s}");
            (root.join("blkio"), "blkio.throttle.write_iops_device", limit)
        } else {
            fs::write(root.join("cgroup.subtree_control"), "+io").context("the controller io")?;
            (root.to_owned(), "io.max", format!("{device} wiops={writes_per_s}"))
        };
        let name = device.replace(':', "-");
        let path = parent.join(format!("{PREFIX}{}-disk-{name}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("make cgroup {}", path.display()))?;
        let group = Self { path };
        fs::write(group.path.join(file), limit).context("limit writes")?;
        Ok(group)
    }

    /// Makes the process that `command` will start begin its life in it.
    pub fn hold(&self, command: &mut Command) {
        let processes = self.path.join("cgroup.procs");
        // SAFETY: between fork and exec it opens and writes one file. The path was made before;
        // what `fs::write` allocates for its C string fits on the stack, and the harness forks from
        // a thread that holds no lock of the allocator.
        unsafe {
            command.pre_exec(move || fs::write(&processes, "0"));
        }
    }
}

/// Major and minor number of the disk.
fn device(mount: &Mount) -> Result<String> {
    use std::os::unix::fs::MetadataExt;
    let number = fs::metadata(mount.path())?.dev();
    Ok(format!("{}:{}", libc::major(number), libc::minor(number)))
}

impl Drop for DiskLimit {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.path) {
            eprintln!("cannot remove cgroup {}: {error}", self.path.display());
        }
    }
}
