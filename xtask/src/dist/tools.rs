//! Programs that make packages, built once into the cache.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tap53_harness::{cache, kube};

use crate::workspace::{Workspace, programs, run};

const NFPM: &str = include_str!("../../../deploy/packages/go.mod");
const NFPM_MODULE: &str = "github.com/goreleaser/nfpm/v2";
const CYCLONEDX_VERSION: &str = "0.5.9";

/// nfpm, in the version of `deploy/packages/go.mod`.
pub(super) fn nfpm() -> Result<PathBuf> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/packages");
    let version = nfpm_version()?;
    let directory = cache::filled(&nfpm_cache(version), |target| {
        println!("building nfpm {version} into the cache (half a minute, once)");
        let package = format!("{NFPM_MODULE}/cmd/nfpm");
        kube::go()?.build(&sources, &package, &target.join("nfpm"), "-s -w")
    })?;
    Ok(directory.join("nfpm"))
}

/// True if [`nfpm`] has nothing to build.
pub(crate) fn is_nfpm_built() -> Result<bool> {
    Ok(cache::directory()?.join(nfpm_cache(nfpm_version()?)).is_dir())
}

fn nfpm_cache(version: &str) -> String {
    format!("nfpm-{version}")
}

fn nfpm_version() -> Result<&'static str> {
    NFPM.lines()
        .find_map(|line| line.trim().strip_prefix(NFPM_MODULE)?.split_whitespace().next())
        .filter(|version| version.starts_with('v'))
        .context("go.mod names no version of nfpm")
}

/// cargo-cyclonedx, from PATH or from the cache.
pub(super) fn cyclonedx(workspace: &Workspace) -> Result<PathBuf> {
    let cached = workspace.tools().join("bin/cargo-cyclonedx");
    let found = programs("cargo-cyclonedx").chain([cached.clone()]).find(|path| path.is_file());
    if let Some(path) = found {
        return Ok(path);
    }
    println!("building cargo-cyclonedx {CYCLONEDX_VERSION} into the cache (a minute or two, once)");
    let mut cargo = workspace.cargo();
    cargo
        .args(["install", "cargo-cyclonedx", "--version", CYCLONEDX_VERSION, "--locked", "--quiet"])
        .arg("--root")
        .arg(workspace.tools())
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR");
    run(&mut cargo).context("cannot build cargo-cyclonedx")?;
    Ok(cached)
}
