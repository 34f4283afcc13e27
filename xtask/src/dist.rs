//! `cargo xtask dist`: what tap53 is installed from, without a compiler.
//!
//! ```text
//!  static program ─▶ tree of files ─┬▶ tap53-V-ARCH.tar.gz
//!                                   ├▶ nfpm ────▶ .deb, .rpm
//!                                   └▶ buildah ─▶ tap53-V-ARCH.oci.tar ─▶ tap53-V.oci.tar
//!  deploy/helm ─▶ tap53-V.tgz         Cargo.lock ─▶ tap53-V.cdx.json         SHA256SUMS
//! ```
//!
//! All but the last row exists for each architecture; the image without one in its name has all of them.
//! All files are reproducible: times in them are that of the commit, and archives are sorted.

mod chart;
mod checksums;
mod image;
mod index;
mod packages;
mod program;
mod sbom;
mod tools;
mod tree;

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use tap53_harness::architecture::Architecture;

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
    /// Architecture to build for, as Debian names it: amd64 or arm64; with several, also an image of
    /// all of them [default: the machine's]
    #[arg(long = "architecture", value_name = "NAME", value_parser = parse_architecture)]
    architectures: Vec<Architecture>,
    /// Package this program, of whichever architecture, instead of building one; can be repeated
    #[arg(long = "program", value_name = "FILE", conflicts_with = "architectures")]
    programs: Vec<PathBuf>,
}

fn parse_architecture(name: &str) -> Result<Architecture, String> {
    let found = Architecture::ALL
        .into_iter()
        .find(|architecture| [architecture.debian(), architecture.rust()].contains(&name));
    found.ok_or_else(|| "only amd64 and arm64 are packaged".to_owned())
}

/// The release that the files belong to.
pub(crate) struct Release {
    version: String,
    /// Time of the commit, in seconds since 1970: the time of everything in the files.
    epoch: u64,
    /// Directory for the files.
    out: PathBuf,
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
            epoch: epoch(workspace)?,
            out: fs::canonicalize(out)?,
        })
    }

    /// Path of a file that is of an architecture, such as `tap53-0.2.0-x86_64.tar.gz`.
    fn file(&self, architecture: Architecture, extension: &str) -> PathBuf {
        self.common_file(&format!("-{}.{extension}", architecture.rust()))
    }

    /// Path of a file that is of no architecture, or of all.
    fn common_file(&self, end: &str) -> PathBuf {
        self.out.join(format!("tap53-{}{end}", self.version))
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
    let programs = programs(workspace, arguments)?;
    let out = arguments.out.clone().unwrap_or_else(|| workspace.target.join("dist"));
    let release = Release::new(workspace, out)?;
    for (architecture, program) in &programs {
        let tree = tree::Tree::new(workspace, *architecture, program)?;
        tree.archive(&release)?;
        packages::write(workspace, &release, &tree)?;
        image::write(workspace, &release, &tree)?;
        sbom::write(workspace, &release, *architecture)?;
    }
    if programs.len() > 1 {
        index::write(&release, programs.keys().copied())?;
    }
    chart::write(workspace, &release)?;
    let files = checksums::write(&release)?;
    println!("\n{} holds:", release.out.display());
    for (name, bytes) in files {
        #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
        let megabytes = bytes as f64 / 1e6;
        println!("  {megabytes:>6.1} MB  {name}");
    }
    Ok(())
}

/// The program for each architecture, which is built now unless the arguments name it.
fn programs(
    workspace: &Workspace,
    arguments: &Arguments,
) -> Result<BTreeMap<Architecture, PathBuf>> {
    let mut programs = BTreeMap::new();
    for program in &arguments.programs {
        let architecture = program::architecture(program)?;
        if let Some(other) = programs.insert(architecture, program.clone()) {
            bail!("{} and {} are of one architecture", other.display(), program.display());
        }
    }
    if programs.is_empty() {
        let mut architectures = arguments.architectures.clone();
        if architectures.is_empty() {
            architectures.push(Architecture::of_this_machine()?);
        }
        for architecture in architectures {
            programs.insert(architecture, program::build(workspace, architecture)?);
        }
    }
    Ok(programs)
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
