//! `cargo xtask build-ebpf`: the kernel programs, from Rust source to an inspected object file.
//!
//! Rust ships no `core` for BPF, so the compiler is the first of:
//! 1. a rustc whose sysroot holds one (Debian: `rustc-web` with `libstd-rust-web-dev-bpf`), which
//!    need not be the rustc that builds the rest;
//! 2. rustup's nightly with `rust-src`, which builds `core` itself.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    inspect,
    strip::strip_debug_sections,
    workspace::{Workspace, output, programs, run as run_command},
};

/// Target of the programs: the kernel runs only programs of its byte order.
pub(crate) const TARGET: &str =
    if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };

/// Codegen settings, joined by the separator of `CARGO_ENCODED_RUSTFLAGS`.
const RUSTFLAGS: &[&str] = &[
    // 32-bit registers and jumps (kernel 5.1): shorter code, less for the verifier to follow.
    "-Ctarget-cpu=v3",
    // BTF is generated from debug information.
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
];

/// A compiler that can build for BPF.
pub(crate) enum Toolchain {
    /// This rustc has a `core` for BPF.
    WithCore(PathBuf),
    /// rustup's nightly can build one.
    NightlyBuildStd,
}

impl Toolchain {
    /// The first one there is.
    pub(crate) fn find() -> Result<Self> {
        for rustc in programs("rustc") {
            if sysroot(&mut Command::new(&rustc))
                .is_ok_and(|sysroot| sysroot.join("lib/rustlib").join(TARGET).is_dir())
            {
                return Ok(Self::WithCore(rustc));
            }
        }
        if sysroot(Command::new("rustup").args(["run", "nightly", "rustc"]))
            .is_ok_and(|sysroot| sysroot.join("lib/rustlib/src/rust/library/core").is_dir())
        {
            return Ok(Self::NightlyBuildStd);
        }
        bail!(
            "no Rust compiler for {TARGET}: run `cargo xtask setup --for build`, or, where there is \
             no Debian package for it, `rustup toolchain install nightly --component rust-src`"
        );
    }

    /// One line for the user.
    fn description(&self) -> Result<String> {
        Ok(match self {
            Self::WithCore(rustc) => format!(
                "{} at {}, which has core for {TARGET}",
                output(Command::new(rustc).arg("--version"))?,
                rustc.display()
            ),
            Self::NightlyBuildStd => format!(
                "{} of rustup, with core built from rust-src",
                output(Command::new("rustup").args(["run", "nightly", "rustc", "--version"]))?
            ),
        })
    }

    /// A cargo command that uses this compiler.
    fn cargo(&self, workspace: &Workspace) -> Command {
        match self {
            Self::WithCore(rustc) => {
                let mut cargo = workspace.cargo();
                cargo.arg("build").env("RUSTC", rustc);
                cargo
            }
            Self::NightlyBuildStd => {
                let mut cargo = Command::new("rustup");
                cargo
                    .args(["run", "nightly", "cargo", "build", "-Zbuild-std=core"])
                    .current_dir(&workspace.root)
                    .env_remove("RUSTC");
                cargo
            }
        }
    }
}

fn sysroot(rustc: &mut Command) -> Result<PathBuf> {
    output(rustc.args(["--print", "sysroot"])).map(PathBuf::from)
}

/// Builds, strips, inspects and stores the object; returns its path.
pub(crate) fn run(workspace: &Workspace) -> Result<PathBuf> {
    let toolchain = Toolchain::find()?;
    println!("compiler  {}", toolchain.description()?);
    let linker = linker(workspace)?;
    println!(
        "linker    {} at {}",
        output(Command::new(&linker).arg("--version"))?,
        linker.display()
    );
    let built = compile(workspace, &toolchain, &linker)?;

    let object = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let object = strip_debug_sections(&object)?;
    let report = inspect::Report::read(&object)?;
    println!("{report}");
    report.verdict()?;
    let path = workspace.bpf_object();
    let changed = write_if_changed(&path, &object)?;
    println!(
        "{} {}, {} KiB",
        if changed { "wrote" } else { "unchanged" },
        path.display(),
        object.len().div_ceil(1024)
    );
    Ok(path)
}

/// bpf-linker, from PATH or from the cache.
pub(crate) fn linker(workspace: &Workspace) -> Result<PathBuf> {
    programs("bpf-linker")
        .chain([workspace.tools().join("bin/bpf-linker")])
        .find(|path| path.is_file())
        .context(
            "bpf-linker is neither on PATH nor in the cache: run `cargo xtask setup --for build`",
        )
}

fn compile(workspace: &Workspace, toolchain: &Toolchain, linker: &Path) -> Result<PathBuf> {
    let mut flags = vec![format!("-Clinker={}", linker.display())];
    flags.extend(RUSTFLAGS.iter().map(ToString::to_string));
    // A separate directory: the cargo that builds the agent, which may be waiting for this build, holds
    // the lock of the target directory.
    let target = workspace.target.join("bpf/cargo");
    let mut cargo = toolchain.cargo(workspace);
    cargo
        .args(["--package", "tap53-ebpf", "--bin", "tap53-ebpf"])
        .args(["--profile", "bpf", "--target", TARGET, "--target-dir"])
        .arg(&target)
        // aya-ebpf and our inline assembly use features that are not stable on BPF.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        // Wrappers know the host's rustc (clippy's driver, caches keyed by it).
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_BUILD_TARGET");
    run_command(&mut cargo)?;
    Ok(target.join(TARGET).join("bpf/tap53-ebpf"))
}

/// Leaves the file's time alone where nothing changed, so that the agent is not built again.
fn write_if_changed(path: &Path, contents: &[u8]) -> Result<bool> {
    if fs::read(path).is_ok_and(|present| present == contents) {
        return Ok(false);
    }
    let write = || {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        // Renamed into place: a build of the agent never sees half a file.
        let partial = path.with_extension("o.partial");
        fs::write(&partial, contents)?;
        fs::rename(&partial, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::{env, time::SystemTime};

    use super::*;

    #[test]
    fn an_equal_object_is_not_written_again() {
        let directory = env::temp_dir().join(format!("tap53-xtask-{}", std::process::id()));
        let path = directory.join("bpf/object.o");
        assert!(write_if_changed(&path, b"one").expect("created"));
        let old = SystemTime::UNIX_EPOCH;
        fs::File::options()
            .append(true)
            .open(&path)
            .and_then(|file| file.set_modified(old))
            .expect("times set");
        assert!(!write_if_changed(&path, b"one").expect("compared"));
        let modified = fs::metadata(&path).and_then(|file| file.modified());
        assert_eq!(modified.expect("present"), old);
        assert!(write_if_changed(&path, b"two").expect("replaced"));
        assert_eq!(fs::read(&path).expect("present"), b"two");
        fs::remove_dir_all(&directory).expect("removed");
    }
}
