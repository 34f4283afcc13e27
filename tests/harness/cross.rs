//! Builds for another architecture than the machine's.
//!
//! ```text
//!  a rustc that has std for it, else  ─┐
//!  Debian's rustc ─────────────────────┤
//!  std, OpenSSL, zlib: Debian's        ├─▶ cargo build --target ─▶ static program
//!  packages of that architecture       │
//!  Debian's C compiler for it ─────────┘
//! ```

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    agent,
    architecture::Architecture,
    cache,
    debian::{self, Foreign},
    process::run,
};

/// Packages of the other architecture.
const STANDARD_LIBRARY: &str = "libstd-rust-web-dev";
const LIBRARIES: [&str; 2] = ["libssl-dev", "zlib1g-dev"];

/// The version of a package that is downloaded.
#[derive(Clone, Copy)]
enum Version {
    /// Version of the machine's own compiler, which reads no other standard library.
    Installed,
    /// The newest: apt may not offer the installed one any more.
    Newest,
}

/// The compilers and libraries that build for an architecture.
pub struct Toolchain {
    architecture: Architecture,
    rustc: PathBuf,
    /// Directory whose `lib/rustlib` has the standard library; `None` if rustc finds it itself.
    sysroot: Option<PathBuf>,
    /// Root directory of the C libraries.
    libraries: PathBuf,
}

impl Toolchain {
    /// Finds the compilers, and fetches the libraries if they are not in the cache.
    ///
    /// # Errors
    /// When a compiler is missing, or the machine has no Debian packages.
    pub fn new(architecture: Architecture) -> Result<Self> {
        let compiler = architecture.tool("g++");
        ensure!(
            on_path(&compiler).next().is_some(),
            "there is no {compiler}: install g++-{}, as `cargo xtask setup --for dist` does",
            compiler.trim_end_matches("-g++").replace('_', "-")
        );
        let libraries = packages(architecture, &LIBRARIES, Version::Newest)?;
        if let Some(rustc) = rustc_with(architecture) {
            return Ok(Self { architecture, rustc, sysroot: None, libraries });
        }
        let rustc = PathBuf::from("/usr/bin/rustc");
        ensure!(
            rustc.is_file(),
            "no Rust compiler has the standard library for {target}: run `rustup target add \
             {target}`, or install rustc-web, whose library for it is downloaded then",
            target = architecture.triple()
        );
        let sysroot = packages(architecture, &[STANDARD_LIBRARY], Version::Installed)
            .context("if apt has a newer version only, upgrade rustc-web")?
            .join("usr");
        Ok(Self { architecture, rustc, sysroot: Some(sysroot), libraries })
    }

    /// Sets a `cargo build` up for a static program of the architecture; `flags` are for rustc.
    pub fn configure(&self, cargo: &mut Command, flags: &str) {
        let (gnu, triple) = (self.architecture.gnu(), self.architecture.triple());
        let usr = self.libraries.join("usr");
        let library = usr.join("lib").join(&gnu);
        let mut flags = format!("-C target-feature=+crt-static {flags}");
        if let Some(sysroot) = &self.sysroot {
            flags.push_str(&format!(" --sysroot={}", sysroot.display()));
        }
        let compiler = self.architecture.tool("gcc");
        // Debian has some headers of a package in a directory of the architecture.
        let headers = usr.join("include");
        let all_headers = format!("{0}:{0}/{gnu}", headers.display());
        let variable = triple.to_uppercase().replace('-', "_");
        cargo
            .args(["--target", &triple])
            .env("RUSTC", &self.rustc)
            .env("RUSTFLAGS", flags)
            .env(format!("CARGO_TARGET_{variable}_LINKER"), &compiler)
            // librdkafka's script reads CC. Build scripts of the host must not.
            .envs([("CC", compiler.as_str()), ("HOST_CC", "cc")])
            .env("CXX", self.architecture.tool("g++"))
            .env("AR", self.architecture.tool("ar"))
            .envs([("HOST_CXX", "c++"), ("HOST_AR", "ar")])
            .env("C_INCLUDE_PATH", all_headers)
            .env("PKG_CONFIG_ALLOW_CROSS", "1")
            .env("PKG_CONFIG_SYSROOT_DIR", &self.libraries)
            .env("PKG_CONFIG_LIBDIR", library.join("pkgconfig"))
            .env("OPENSSL_STATIC", "1")
            .env("OPENSSL_INCLUDE_DIR", headers)
            .env("OPENSSL_LIB_DIR", library)
            .env("LIBZ_SYS_STATIC", "1");
    }
}

/// Builds the agent as the tests have it, around the kernel programs that `cargo xtask build-ebpf`
/// has built; returns its path. For the machine's own processor, it is built already.
///
/// # Errors
/// When it cannot be built.
pub fn agent(architecture: Architecture) -> Result<PathBuf> {
    if architecture.is_native() {
        return agent::binary();
    }
    build(architecture, &["--package", "tap53"], "tap53")
}

/// Builds an example of a package, with the same kernel programs; returns its path.
///
/// # Errors
/// When it cannot be built.
pub fn example(architecture: Architecture, package: &str, name: &str) -> Result<PathBuf> {
    build(architecture, &["--package", package, "--example", name], &format!("examples/{name}"))
}

/// Builds what `arguments` of cargo select, and returns the path of `file` among the results.
fn build(architecture: Architecture, arguments: &[&str], file: &str) -> Result<PathBuf> {
    // A directory of its own: the cargo that runs this test may hold the lock of the usual one.
    let target = agent::target_directory().join("cross");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--locked", "--target-dir"])
        .arg(&target)
        .args(arguments)
        .args(["--config", "profile.dev.debug=false"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .env("CARGO_INCREMENTAL", "0");
    Toolchain::new(architecture)?.configure(&mut cargo, "");
    run(&mut cargo).with_context(|| format!("cross-build {file}"))?;
    Ok(target.join(architecture.triple()).join("debug").join(file))
}

/// Unpacks packages into a directory of the cache, again when the machine's own get another version.
fn packages(architecture: Architecture, names: &[&str], version: Version) -> Result<PathBuf> {
    let mut key = architecture.debian().to_owned();
    let mut packages = Vec::new();
    for name in names {
        let installed = debian::installed_version(name)
            .with_context(|| format!("cross-building needs Debian's {name}"))?;
        // The colon of an epoch would separate entries of a search path.
        key.push_str(&format!("-{name}-{}", installed.replace(':', "-")));
        packages.push(match version {
            Version::Installed => format!("{name}={installed}"),
            Version::Newest => (*name).to_owned(),
        });
    }
    cache::filled(&key, |directory| {
        let foreign = Foreign::new(architecture)?;
        packages.iter().try_for_each(|package| foreign.unpack(package, directory))
    })
}

/// Finds a rustc that has the standard library for an architecture.
fn rustc_with(architecture: Architecture) -> Option<PathBuf> {
    on_path("rustc").find(|rustc| {
        run(Command::new(rustc).args(["--print", "sysroot"])).is_ok_and(|sysroot| {
            Path::new(sysroot.trim()).join("lib/rustlib").join(architecture.triple()).is_dir()
        })
    })
}

/// Finds the programs of a name, in order of search.
fn on_path(name: &str) -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|directory| directory.join(name));
    found.filter(|file| file.is_file()).collect::<Vec<_>>().into_iter()
}
