//! Finds the BPF object that `cargo xtask build-ebpf` built and hands its path to the crate, which
//! embeds it.
//!
//! The object is not built here: it takes another compiler and linker than the agent does, and a
//! build script that ran cargo for them would hide which.

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Overrides where the object is.
const OVERRIDE: &str = "TAP53_BPF_OBJECT";

fn main() -> ExitCode {
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    println!("cargo::rerun-if-env-changed=CARGO_TARGET_DIR");
    let object = match env::var_os(OVERRIDE) {
        Some(path) => PathBuf::from(path),
        None => target_directory().join("bpf").join("tap53.bpf.o"),
    };
    println!("cargo::rerun-if-changed={}", object.display());
    if !object.is_file() {
        println!(
            "cargo::error=no BPF object at {}: run `cargo xtask build-ebpf` first, or name one \
             with {OVERRIDE}",
            object.display()
        );
        return ExitCode::FAILURE;
    }
    println!("cargo::rustc-env=TAP53_BPF_OBJECT_PATH={}", object.display());
    ExitCode::SUCCESS
}

/// Where `cargo xtask build-ebpf` puts things: the target directory of the workspace.
fn target_directory() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(3)
        .expect("the crate is in agent/crates of the workspace");
    match env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => workspace.join(directory), // an absolute path replaces the base
        None => workspace.join("target"),
    }
}
