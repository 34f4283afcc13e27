//! The program: static, so that it runs on every distribution.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::Release;
use crate::{
    build_ebpf,
    workspace::{Workspace, output, run},
};

/// Builds the kernel programs and a static release of the agent.
///
/// Static with glibc: since 2.34 its resolver for files and DNS is in the archive, and OpenSSL and zlib
/// have static libraries in Debian's packages.
pub(super) fn build(workspace: &Workspace, release: &Release) -> Result<PathBuf> {
    build_ebpf::run(workspace)?;
    let triple = release.architecture.triple();
    println!("building the agent for {triple} (13 minutes on two cores when nothing is built yet)");
    let libraries = library_directory()?;
    let mut cargo = workspace.cargo();
    cargo
        .args(["build", "--release", "--locked", "--package", "tap53", "--target", &triple])
        .env("RUSTFLAGS", flags(workspace)?)
        .env("CARGO_INCREMENTAL", "0")
        .envs([("OPENSSL_STATIC", "1"), ("OPENSSL_INCLUDE_DIR", "/usr/include")])
        .env("OPENSSL_LIB_DIR", &libraries)
        .env("LIBZ_SYS_STATIC", "1");
    run(&mut cargo)?;
    let program = workspace.target.join(&triple).join("release/tap53");
    require_static(&program)?;
    Ok(program)
}

/// Flags of rustc: everything static, and no paths of this machine in the program, which would make it
/// depend on where it was built.
fn flags(workspace: &Workspace) -> Result<String> {
    let cargo_home = match env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => env::home_dir().context("no home directory: set CARGO_HOME")?.join(".cargo"),
    };
    Ok(format!(
        "-C target-feature=+crt-static --remap-path-prefix={}=/tap53 --remap-path-prefix={}=/cargo",
        workspace.root.display(),
        cargo_home.display(),
    ))
}

/// Directory of the static libraries of OpenSSL.
fn library_directory() -> Result<PathBuf> {
    let printed = output(Command::new("cc").arg("-print-file-name=libssl.a"))?;
    let library = Path::new(&printed);
    ensure!(
        library.is_absolute(),
        "there is no libssl.a: install libssl-dev, as `cargo xtask setup --for build` does"
    );
    Ok(library.parent().context("libssl.a has no directory")?.to_owned())
}

/// Fails if a program needs shared libraries.
fn require_static(program: &Path) -> Result<()> {
    let libraries = tap53_harness::guest::libraries(program)?;
    ensure!(libraries.is_empty(), "{} needs {libraries:?}", program.display());
    Ok(())
}
