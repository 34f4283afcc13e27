//! Programs in Go that the measurements run: see `programs/`.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{agent::target_directory, kube::go};

const NAMES: [&str; 5] = ["gateway", "collector", "producers", "watches", "cluster"];

/// The programs, built.
#[derive(Clone, Debug)]
pub struct Programs {
    directory: PathBuf,
}

impl Programs {
    /// Builds what has changed; the first time takes two or three minutes.
    ///
    /// # Errors
    /// When there is no Go new enough, a module cannot be fetched, or one does not compile.
    pub fn build() -> Result<Self> {
        let directory = target_directory().join("system");
        fs::create_dir_all(&directory)
            .with_context(|| format!("create {}", directory.display()))?;
        let lock = File::create(directory.join(".lock"))?;
        lock.lock().context("wait for another process that builds the same")?;
        let go = go()?;
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("harness/system/programs");
        for name in NAMES {
            go.build(&sources, &format!("./{name}"), &directory.join(name), "-s -w")?;
        }
        Ok(Self { directory })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}
