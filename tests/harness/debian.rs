//! Files of Debian packages that are not installed: some would change how other programs behave, and
//! others are of another architecture.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::{architecture::Architecture, cache, process::run, scratch};

/// The keys of all releases that Debian supports, of the package `debian-archive-keyring`.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The packages that apt offers.
pub(crate) enum Apt {
    /// Packages of this machine's release.
    Host,
    /// The security updates of another release, by the directory with their lists.
    Release(PathBuf),
}

impl Apt {
    /// The security updates of a release by its code name, whose lists are fetched once from where
    /// this machine has its own.
    ///
    /// # Errors
    /// When this machine has no security updates from Debian, or their mirror lacks the release.
    pub(crate) fn release(codename: &str) -> Result<Self> {
        let fill = |directory: &Path| {
            let mirror = security_mirror()?;
            fs::write(
                directory.join("debian.sources"),
                format!(
                    "Types: deb\nTargets: Packages\nURIs: {mirror}\nSuites: {codename}-security\n\
                     Components: main\nSigned-By: {KEYRING}\n"
                ),
            )?;
            for needed in ["parts", "lists/partial", "archives/partial"] {
                fs::create_dir_all(directory.join(needed))?;
            }
            let apt = Self::Release(directory.to_owned());
            run(apt.command("apt-get").args(["update", "-q", "--error-on=any"])).map(drop)
        };
        Ok(Self::Release(cache::filled(&format!("apt-{codename}"), fill)?))
    }

    /// A program of apt that looks at these packages.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        if let Self::Release(directory) = self {
            for (option, below) in [
                ("Dir::Etc::SourceList", "debian.sources"),
                ("Dir::Etc::SourceParts", "parts"),
                ("Dir::State::Lists", "lists"),
                ("Dir::Cache", ""),
            ] {
                command.arg("-o").arg(format!("{option}={}", directory.join(below).display()));
            }
            // The user to whom apt switches may not enter a home directory.
            command.args(["-o", "APT::Sandbox::User=root"]);
        }
        command
    }

    /// The names of packages that match a regular expression.
    ///
    /// # Errors
    /// When there is no apt.
    pub(crate) fn names(&self, pattern: &str) -> Result<Vec<String>> {
        let found = run(self.command("apt-cache").args(["search", "--names-only", pattern]))?;
        Ok(found
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .map(str::to_owned)
            .collect())
    }

    /// Downloads a package and unpacks its files into a directory.
    ///
    /// # Errors
    /// When apt knows no such package, or cannot download it.
    pub(crate) fn unpack(&self, package: &str, directory: &Path) -> Result<()> {
        download(&mut self.command("apt-get"), package, directory)
    }
}

/// Returns the URL of the mirror of this machine's security updates.
fn security_mirror() -> Result<String> {
    let known = run(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Created-By: Packages",
        "Label: Debian-Security",
    ]))?;
    let first = known.lines().next().context(
        "apt has no lists of Debian's security updates here: run `apt-get update` on Debian",
    )?;
    Ok(first.to_owned())
}

/// Downloads a package of this machine's release and unpacks its files into a directory.
///
/// # Errors
/// When apt knows no such package, or cannot download it.
pub(crate) fn unpack(package: &str, directory: &Path) -> Result<()> {
    Apt::Host.unpack(package, directory)
}

/// Returns the version of an installed package.
///
/// # Errors
/// When it is not installed, or there is no dpkg.
pub(crate) fn installed_version(package: &str) -> Result<String> {
    let printed = run(Command::new("dpkg-query").args(["-W", "-f=${Version}", package]))?;
    Ok(printed.trim().to_owned())
}

/// Packages of another architecture, from the machine's own sources.
///
/// apt has its state below a temporary directory. The machine's own apt does not learn about the
/// architecture, which would make it fetch twice the lists from then on.
pub(crate) struct Foreign(TempDir);

impl Foreign {
    /// Fetches the lists of packages.
    ///
    /// # Errors
    /// When apt cannot fetch them.
    pub(crate) fn new(architecture: Architecture) -> Result<Self> {
        let directory = scratch::directory("packages")?;
        let path = directory.path();
        for below in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(path.join(below))?;
        }
        // Nothing is installed: dependencies include what the machine has itself.
        fs::write(path.join("state/status"), "")?;
        let configuration = format!(
            "APT::Architecture \"{name}\";\n\
             APT::Architectures {{ \"{name}\"; }};\n\
             Dir::State \"{path}/state\";\n\
             Dir::State::status \"{path}/state/status\";\n\
             Dir::Cache \"{path}/cache\";\n\
             Acquire::Languages \"none\";\n\
             Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n",
            name = architecture.debian(),
            path = path.display(),
        );
        fs::write(path.join("apt.conf"), configuration)?;
        let packages = Self(directory);
        run(packages.apt_get().args(["update", "-q"]))?;
        Ok(packages)
    }

    /// Downloads a package, `name` or `name=version`, and unpacks its files into a directory.
    ///
    /// # Errors
    /// When there is no such package, or it cannot be downloaded.
    pub(crate) fn unpack(&self, package: &str, directory: &Path) -> Result<()> {
        download(&mut self.apt_get(), package, directory)
    }

    /// Unpacks packages with all that they depend on.
    ///
    /// # Errors
    /// When there is no such package, or one cannot be downloaded.
    pub(crate) fn unpack_all(&self, packages: &[&str], directory: &Path) -> Result<()> {
        run(self
            .apt_get()
            .args(["install", "-q", "--yes", "--no-install-recommends", "--download-only"])
            .args(packages))?;
        unpack_archives(&self.0.path().join("cache/archives"), directory)
    }

    fn apt_get(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.env("APT_CONFIG", self.0.path().join("apt.conf"));
        command
    }
}

fn download(apt_get: &mut Command, package: &str, directory: &Path) -> Result<()> {
    // apt downloads into the current directory.
    let downloads = scratch::directory("package")?;
    run(apt_get.args(["download", "-q", package]).current_dir(downloads.path()))?;
    unpack_archives(downloads.path(), directory)
}

/// Unpacks each package of a directory.
fn unpack_archives(archives: &Path, directory: &Path) -> Result<()> {
    let mut unpacked = 0;
    for entry in fs::read_dir(archives)? {
        let archive = entry?.path();
        if archive.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg-deb").arg("-x").arg(archive).arg(directory))?;
            unpacked += 1;
        }
    }
    (unpacked > 0).then_some(()).context("apt-get downloaded nothing")
}
