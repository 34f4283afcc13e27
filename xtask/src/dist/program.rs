//! The program: static, so that it runs on every distribution.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use object::Object as _;
use tap53_harness::{architecture::Architecture, cross::Toolchain, guest};

use crate::{
    build_ebpf,
    workspace::{Workspace, output, run},
};

/// Builds the kernel programs and a static release of the agent.
///
/// Static with glibc: since 2.34 its resolver for files and DNS is in the archive, and OpenSSL and zlib
/// have static libraries in Debian's packages.
pub(super) fn build(workspace: &Workspace, architecture: Architecture) -> Result<PathBuf> {
    build_ebpf::run(workspace)?;
    let triple = architecture.triple();
    println!("building the agent for {triple} (13 minutes on two cores when nothing is built yet)");
    let mut cargo = workspace.cargo();
    cargo
        .args(["build", "--release", "--locked", "--package", "tap53"])
        .env("CARGO_INCREMENTAL", "0");
    let flags = flags(workspace)?;
    if architecture.is_native() {
        cargo
            .args(["--target", &triple])
            .env("RUSTFLAGS", format!("-C target-feature=+crt-static {flags}"))
            .envs([("OPENSSL_STATIC", "1"), ("OPENSSL_INCLUDE_DIR", "/usr/include")])
            .env("OPENSSL_LIB_DIR", library_directory()?)
            .env("LIBZ_SYS_STATIC", "1");
    } else {
        Toolchain::new(architecture)?.configure(&mut cargo, &flags);
    }
    run(&mut cargo)?;
    let program = workspace.target.join(&triple).join("release/tap53");
    ensure!(guest::is_static(&program)?, "{} needs shared libraries", program.display());
    Ok(program)
}

/// Returns the architecture of a program, from its header.
pub(super) fn architecture(program: &Path) -> Result<Architecture> {
    let bytes = fs::read(program).with_context(|| format!("read {}", program.display()))?;
    let file = object::File::parse(&*bytes)
        .with_context(|| format!("{} is no program", program.display()))?;
    match file.architecture() {
        object::Architecture::X86_64 => Ok(Architecture::X86_64),
        object::Architecture::Aarch64 => Ok(Architecture::Aarch64),
        other => bail!("{} is for {other:?}, which is not packaged", program.display()),
    }
}

/// Flags of rustc: no paths of this machine in the program, which would make it depend on where it was
/// built.
fn flags(workspace: &Workspace) -> Result<String> {
    let cargo_home = match env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => env::home_dir().context("no home directory: set CARGO_HOME")?.join(".cargo"),
    };
    Ok(format!(
        "--remap-path-prefix={}=/tap53 --remap-path-prefix={}=/cargo",
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
