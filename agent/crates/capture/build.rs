//! Finds the BPF object that `cargo xtask build-ebpf` has built, and passes its path to the crate,
//! which embeds it.
//!
//! The object is not built here: it needs another compiler and linker than the agent, and a build
//! script that runs cargo for them would hide that.

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Environment variable that overrides the path of the object.
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

/// Returns the target directory of the workspace, where `cargo xtask build-ebpf` writes the object.
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
