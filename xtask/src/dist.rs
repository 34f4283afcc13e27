//! `cargo xtask dist`: what tap53 is installed from, without a compiler.
//!
//! ```text
//!  static program ─▶ tree of files ─┬▶ tap53-V-ARCH.tar.gz
//!                                   ├▶ nfpm ────▶ .deb, .rpm
//!                                   └▶ buildah ─▶ tap53-V-ARCH.oci.tar
//!  deploy/helm ─▶ tap53-V.tgz         Cargo.lock ─▶ tap53-V.cdx.json         SHA256SUMS
//! ```
//!
//! All files are reproducible: times in them are that of the commit, and archives are sorted.

mod chart;
mod checksums;
mod image;
mod packages;
mod program;
mod sbom;
mod tools;
mod tree;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    setup::{self, Purpose},
    workspace::{Workspace, output},
};
pub(crate) use tools::is_nfpm_built;

/// Arguments of `dist`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Directory for the files [default: target/dist]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Package this program instead of building one
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// The release that the files belong to.
pub(crate) struct Release {
    version: String,
    architecture: Architecture,
    /// Time of the commit, in seconds since 1970: the time of everything in the files.
    epoch: u64,
    /// Directory for the files.
    out: PathBuf,
}

/// A processor architecture by the names that each format has for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Architecture {
    /// In Rust's target triples and in names of files.
    rust: &'static str,
    /// In Debian packages and OCI images, as Go has it.
    go: &'static str,
}

impl Architecture {
    /// The machine's own.
    fn of_this_machine() -> Result<Self> {
        match env::consts::ARCH {
            "x86_64" => Ok(Self { rust: "x86_64", go: "amd64" }),
            "aarch64" => Ok(Self { rust: "aarch64", go: "arm64" }),
            other => bail!("packages are for x86_64 and aarch64, not for {other}"),
        }
    }

    fn triple(self) -> String {
        format!("{}-unknown-linux-gnu", self.rust)
    }
}

impl Release {
    fn new(workspace: &Workspace, out: PathBuf) -> Result<Self> {
        // The directory is emptied first: a file of an earlier version must not get a checksum.
        if out.exists() {
            fs::remove_dir_all(&out).with_context(|| format!("empty {}", out.display()))?;
        }
        fs::create_dir_all(&out).with_context(|| format!("create {}", out.display()))?;
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            architecture: Architecture::of_this_machine()?,
            epoch: epoch(workspace)?,
            out: fs::canonicalize(out)?,
        })
    }

    /// Path of a file that is of this architecture, such as `tap53-0.1.0-x86_64.tar.gz`.
    fn file(&self, extension: &str) -> PathBuf {
        self.out.join(format!("tap53-{}-{}.{extension}", self.version, self.architecture.rust))
    }

    /// Path of a file that is of no architecture.
    fn common_file(&self, extension: &str) -> PathBuf {
        self.out.join(format!("tap53-{}.{extension}", self.version))
    }

    /// A GNU tar that writes `file` from names below `directory`, in order and without the machine's users,
    /// times and umask.
    fn tar(&self, file: &Path, directory: &Path) -> Command {
        let mut tar = Command::new("tar");
        tar.args(["--create", "--sort=name", "--format=posix", "--numeric-owner", "--dereference"])
            .args(["--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime"])
            .args(["--owner=0", "--group=0", "--mode=u=rwX,go=rX"])
            .arg(format!("--mtime=@{}", self.epoch))
            .arg("--file")
            .arg(file)
            .arg("--directory")
            .arg(directory);
        tar
    }
}

/// Option of tar for gzip, without the name and the time of what is compressed.
const GZIP: [&str; 2] = ["--use-compress-program", "gzip -n"];

/// Makes all files, and lists them.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    setup::install_missing(workspace, Purpose::Dist)?;
    let out = arguments.out.clone().unwrap_or_else(|| workspace.target.join("dist"));
    let release = Release::new(workspace, out)?;
    let program = match &arguments.program {
        Some(program) => program.clone(),
        None => program::build(workspace, &release)?,
    };
    make(workspace, &release, &program)?;
    sbom::write(workspace, &release)?;
    let files = checksums::write(&release)?;
    println!("\n{} holds:", release.out.display());
    for (name, bytes) in files {
        #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
        let megabytes = bytes as f64 / 1e6;
        println!("  {megabytes:>6.1} MB  {name}");
    }
    Ok(())
}

/// Makes the files that hold the program, and the chart.
fn make(workspace: &Workspace, release: &Release, program: &Path) -> Result<()> {
    let tree = tree::Tree::new(workspace, program)?;
    tree.archive(release)?;
    packages::write(workspace, release, &tree)?;
    image::write(workspace, release, &tree)?;
    chart::write(workspace, release)
}

/// Time of the commit that is checked out, or `SOURCE_DATE_EPOCH` (reproducible-builds.org).
fn epoch(workspace: &Workspace) -> Result<u64> {
    let text = match env::var("SOURCE_DATE_EPOCH") {
        Ok(given) => given,
        Err(_) => output(
            Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(&workspace.root),
        )
        .context("without a git checkout, set SOURCE_DATE_EPOCH to the time of the sources")?,
    };
    text.parse().with_context(|| format!("{text:?} is no number of seconds"))
}
