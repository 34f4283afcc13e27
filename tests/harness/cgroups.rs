//! Cgroups of version 2 that are named as container runtimes name them.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

use crate::scratch;

/// The tree of cgroups at a directory of its own, since the machine may have it anywhere, and a part
/// of it that belongs to this test. Dropping it removes that part.
pub struct Cgroups {
    part: PathBuf,
    root: TempDir,
}

impl Cgroups {
    /// Mounts the tree.
    ///
    /// # Errors
    /// Without root, or cgroups of version 2.
    pub fn mount() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let root = scratch::directory("cgroups")?;
        mount(Some("none"), root.path(), Some("cgroup2"), MsFlags::empty(), None::<&str>)
            .context("mount cgroups of version 2")?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{}-containers-{number}", scratch::PREFIX, std::process::id());
        let part = root.path().join(name);
        let cgroups = Self { part, root };
        fs::create_dir(&cgroups.part).context("create a cgroup")?;
        Ok(cgroups)
    }

    /// Returns the mount point of the tree.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Creates the cgroup at a path of this test's part.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn create(&self, path: &str) -> Result<Cgroup> {
        Cgroup::create(self.part.join(path))
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.part) {
            eprintln!("cannot remove cgroup {}: {error}", self.part.display());
        }
        if let Err(error) = umount2(self.root.path(), MntFlags::MNT_DETACH) {
            eprintln!("cannot unmount {}: {error}", self.root.path().display());
        }
    }
}

/// Removes a cgroup and those below it.
fn remove(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

/// A cgroup.
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Creates the cgroup at a path of a mounted tree, and those above it.
    pub(crate) fn create(path: PathBuf) -> Result<Self> {
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { path })
    }

    /// Writes a value to one of the cgroup's files.
    pub(crate) fn set(&self, file: &str, value: &str) -> Result<()> {
        let path = self.path.join(file);
        fs::write(&path, value).with_context(|| format!("write {value} to {}", path.display()))
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

    /// Removes it, once its processes are gone.
    ///
    /// # Errors
    /// When there are any.
    pub fn remove(self) -> Result<()> {
        remove(&self.path).with_context(|| format!("remove {}", self.path.display()))
    }
}
