//! Files of Debian packages that are not installed: some would change how other programs behave.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{cache, process::run, scratch};

/// The keys of all releases that Debian supports, of the package `debian-archive-keyring`.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The packages that apt offers.
pub(crate) enum Apt {
    /// Those of this machine's release.
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
        // apt downloads into the current directory.
        let downloads = scratch::directory("package")?;
        let mut download = self.command("apt-get");
        run(download.args(["download", "-q", package]).current_dir(downloads.path()))?;
        let archive =
            fs::read_dir(downloads.path())?.next().context("apt-get downloaded nothing")??;
        run(Command::new("dpkg-deb").arg("-x").arg(archive.path()).arg(directory))?;
        Ok(())
    }
}

/// Where this machine has its security updates from.
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
