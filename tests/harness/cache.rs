//! Third-party artefacts, fetched once and kept outside the build directory.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// `$TAP53_CACHE`, or `~/.cache/tap53`.
///
/// # Errors
/// When `TAP53_CACHE` is not set and there is no home directory.
pub fn directory() -> Result<PathBuf> {
    if let Some(path) = env::var_os("TAP53_CACHE") {
        return Ok(path.into());
    }
    let home = env::home_dir().context("no home directory: set TAP53_CACHE to a directory")?;
    Ok(home.join(".cache/tap53"))
}

/// The directory `name` in the cache, filled by `fill` when it is not there yet.
///
/// `fill` is given an empty directory, which takes its final name only when `fill` succeeded, so that
/// an interrupted fetch leaves nothing half done. Where two processes fill at once, the first wins.
///
/// # Errors
/// Those of `fill`, and of the file system.
pub fn filled(name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let cache = directory()?;
    let target = cache.join(name);
    if target.is_dir() {
        return Ok(target);
    }
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    let partial = tempfile::Builder::new()
        .prefix(&format!(".{name}-"))
        .tempdir_in(&cache)
        .with_context(|| format!("create a directory in {}", cache.display()))?;
    fill(partial.path()).with_context(|| format!("fill {}", target.display()))?;
    match fs::rename(partial.path(), &target) {
        Ok(()) => {
            // It has its final name now: nothing left to delete.
            let _ = partial.keep();
        }
        Err(_) if target.is_dir() => {}
        Err(error) => {
            return Err(error).with_context(|| format!("rename to {}", target.display()));
        }
    }
    Ok(target)
}
