//! A cgroup that limits memory, of either version.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};

use crate::scratch::PREFIX;

/// A cgroup; dropping it removes it, once its processes are gone.
pub struct MemoryLimit {
    path: PathBuf,
}

impl MemoryLimit {
    /// Creates a control group with a memory limit, page cache included. Its processes are killed if they
    /// use more that cannot be reclaimed.
    ///
    /// # Errors
    /// Without root, or the memory controller.
    pub fn new(bytes: u64) -> Result<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let (parent, limit) = if root.join("memory").is_dir() {
            (root.join("memory"), "memory.limit_in_bytes")
        } else {
            (root.to_owned(), "memory.max")
        };
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{PREFIX}{}-memory-{number}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("make cgroup {}", path.display()))?;
        let group = Self { path };
        fs::write(group.path.join(limit), bytes.to_string()).context("limit memory")?;
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

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.path) {
            eprintln!("cannot remove cgroup {}: {error}", self.path.display());
        }
    }
}
