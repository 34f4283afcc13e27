//! Temporary names that contain their process, so that leftovers of a killed one can be removed.

use std::{env, ffi::OsStr, fs, path::Path, process};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

/// Names are `tap53-<pid>-…`: unique on the machine, and telling whose they are.
pub(crate) const PREFIX: &str = "tap53-";

/// A temporary directory; dropping it removes it.
///
/// # Errors
/// When it cannot be created.
pub fn directory(purpose: &str) -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix(&format!("{PREFIX}{}-{purpose}-", process::id()))
        .tempdir()
        .context("cannot make a temporary directory")
}

/// Makes a JVM unpack its libraries to `directory`. It removes them when it ends, and not when it is
/// killed.
pub(crate) fn jvm_option(directory: &Path) -> String {
    format!("-Djava.io.tmpdir={}", directory.display())
}

/// True if `name` is of a process that no longer exists.
pub(crate) fn is_stale(name: &OsStr) -> bool {
    let owner = name
        .to_str()
        .and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
    owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

/// Removes directories that killed processes left.
pub(crate) fn sweep() {
    for entry in fs::read_dir(env::temp_dir()).into_iter().flatten().flatten() {
        if is_stale(&entry.file_name()) {
            // Another process may sweep at the same time.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_ended_processes_are_stale() {
        let own = format!("{PREFIX}{}-unbound-x1", process::id());
        assert!(!is_stale(OsStr::new(&own)));
        // Above the largest process number (PID_MAX_LIMIT is 2^22).
        assert!(is_stale(OsStr::new("tap53-4194305-0")));
        for other in ["tap53", "tap53-demo", "tap5-4194305-0", "systemd-4194305-0"] {
            assert!(!is_stale(OsStr::new(other)), "{other}");
        }
    }
}
