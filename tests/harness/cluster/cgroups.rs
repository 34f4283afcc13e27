//! A node's cgroups: a directory in every tree of the machine, below which its kubelet works.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{scratch, wait};

/// Processes that were killed are gone after milliseconds.
const REMOVE_DEADLINE: Duration = Duration::from_secs(20);

/// Directories of one name; dropping it removes them.
pub(super) struct Cgroups {
    name: String,
    directories: Vec<PathBuf>,
}

impl Cgroups {
    /// Creates the directories.
    pub(super) fn create(node: &str) -> Result<Self> {
        let name = format!("{}{}-{node}", scratch::PREFIX, std::process::id());
        let mut cgroups = Self { name, directories: Vec::new() };
        for root in trees()? {
            let directory = root.join(&cgroups.name);
            fs::create_dir_all(&directory)
                .with_context(|| format!("create {}", directory.display()))?;
            // A new directory of version 1 has no CPUs, and takes no process until it has.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let from = root.join(file);
                if from.exists() {
                    fs::write(directory.join(file), fs::read(from)?)?;
                }
            }
            cgroups.directories.push(directory);
        }
        Ok(cgroups)
    }

    /// The path in each tree.
    pub(super) fn path(&self) -> String {
        format!("/{}", self.name)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for directory in &self.directories {
            let removed = wait::until("a cgroup's processes to end", REMOVE_DEADLINE, || {
                Ok(remove(directory).is_ok().then_some(()))
            });
            if let Err(error) = removed {
                eprintln!("cannot remove cgroup {}: {error:#}", directory.display());
            }
        }
    }
}

/// Removes what processes that no longer exist have left.
pub(super) fn sweep() {
    for root in trees().unwrap_or_default() {
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            if scratch::is_stale(&entry.file_name()) {
                // Another process may sweep at the same time.
                let _ = remove(&entry.path());
            }
        }
    }
}

/// The mount points of trees of both versions.
fn trees() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let trees = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (point, kind) = (words.next()?, words.next()?);
        // Tests mount trees elsewhere too.
        let is_tree = matches!(kind, "cgroup" | "cgroup2") && point.starts_with("/sys/fs/cgroup");
        is_tree.then(|| PathBuf::from(point))
    });
    Ok(trees.collect())
}

/// Removes a cgroup and those below it.
fn remove(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}
