//! Other kernels than the machine's own, and other processors: Debian's kernels, booted in QEMU
//! without hardware support.
//!
//! ```text
//!  apt ─▶ kernel package ─▶ cache: vmlinuz, modules ─┐
//!  programs with their libraries, files, an init ─────┴▶ initramfs ─▶ qemu ─▶ its console
//! ```
//!
//! The programs are the machine's own, or those of Debian packages for another processor.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::{
    architecture::Architecture,
    cache,
    debian::{Apt, Foreign},
    process::{Process, run},
    scratch,
};

/// Emulation is some thirty times slower than the machine, tests share it, and older verifiers follow
/// more.
const DEADLINE: Duration = Duration::from_secs(240);

/// Packages of the guest's programs where they are not the machine's own.
const USERLAND: [&str; 2] = ["busybox-static", "iproute2"];

/// A kernel of Debian's for clouds, which brings every driver that QEMU's plainest machine needs.
pub struct Kernel {
    /// Version as the kernel itself reports it.
    pub release: String,
    architecture: Architecture,
    directory: PathBuf,
}

impl Kernel {
    /// The newest kernel of a series such as `6.1`, fetched once: of this machine's release of
    /// Debian, or else of the release that has the series.
    ///
    /// # Errors
    /// When no release of Debian has the series, or its packages cannot be fetched.
    pub fn of_series(series: &str, modules: &[&str], architecture: Architecture) -> Result<Self> {
        let own = Architecture::of_this_machine()?.debian();
        let (apt, release) = offered(series, own)?;
        // Debian builds all architectures from one source, in one version.
        let version = release.strip_suffix(own).context("a release ends with its architecture")?;
        let release = format!("{version}{}", architecture.debian());
        let directory = cache::filled(&format!("linux-{release}"), |directory| {
            fetch(&apt, &release, modules, architecture, directory)
        })?;
        Ok(Self { release, architecture, directory })
    }

    /// Boots with `root` as the initial file system, and with some more kernel parameters, until its
    /// init ends; returns what the console showed.
    ///
    /// # Errors
    /// When QEMU cannot be started, or the guest does not end.
    pub fn boot(&self, root: &Root, parameters: &str) -> Result<String> {
        let archive = root.archive(&self.directory.join("modules"))?;
        let program = format!("qemu-system-{}", self.architecture.rust());
        let (machine, console) = match self.architecture {
            Architecture::X86_64 => (&["-cpu", "max"][..], "ttyS0"),
            // The oldest processor of servers: without the atomic instructions of ARMv8.1, for which
            // the kernel compiles loops. Pointer authentication of newer ones is slow to emulate.
            Architecture::Aarch64 => (&["-machine", "virt", "-cpu", "cortex-a72"][..], "ttyAMA0"),
        };
        let mut qemu = Command::new(&program);
        qemu.args(machine)
            .args(["-accel", "tcg", "-m", "1500", "-smp", "1"])
            .args(["-nographic", "-no-reboot", "-net", "none"])
            .arg("-kernel")
            .arg(self.directory.join("vmlinuz"))
            .arg("-initrd")
            .arg(&archive)
            // A panic ends the guest at once instead of leaving it there.
            .args(["-append", &format!("console={console} quiet panic=-1 {parameters}")]);
        let mut guest = Process::spawn(&program, qemu)?;
        let ended = guest.wait(DEADLINE);
        let console = guest.stdout().text();
        let status = ended.with_context(|| format!("the console:\n{console}"))?;
        ensure!(status.success(), "{status}: {}\n{console}", guest.stderr().text());
        Ok(console)
    }
}

/// Releases of Debian by the series of their kernel.
const RELEASES: [(&str, &str); 3] = [("5.10", "bullseye"), ("6.1", "bookworm"), ("6.12", "trixie")];

/// Returns where the newest kernel of a series is, and its version.
fn offered(series: &str, architecture: &str) -> Result<(Apt, String)> {
    if let Some(release) = newest(&Apt::Host, series, architecture)? {
        return Ok((Apt::Host, release));
    }
    let (_, codename) = RELEASES
        .iter()
        .find(|(of, _)| *of == series)
        .with_context(|| format!("no release of Debian has kernel {series}"))?;
    let apt = Apt::release(codename)?;
    let release = newest(&apt, series, architecture)?.with_context(|| {
        format!("{codename} has no linux-image-{series}.*-cloud-{architecture}")
    })?;
    Ok((apt, release))
}

fn newest(apt: &Apt, series: &str, architecture: &str) -> Result<Option<String>> {
    let series = series.replace('.', "\\.");
    let pattern = format!("^linux-image-{series}[.+][^ ]*-cloud-{architecture}$");
    let mut newest: Option<String> = None;
    for package in apt.names(&pattern)? {
        if let Some(release) = package.strip_prefix("linux-image-")
            && newest.as_ref().is_none_or(|newest| is_newer(release, newest))
        {
            newest = Some(release.to_owned());
        }
    }
    Ok(newest)
}

/// Returns true if a version is newer, by Debian's order.
fn is_newer(version: &str, other: &str) -> bool {
    Command::new("dpkg")
        .args(["--compare-versions", version, "gt", other])
        .status()
        .is_ok_and(|status| status.success())
}

/// Takes the kernel and some of its modules out of its package.
fn fetch(
    apt: &Apt,
    release: &str,
    modules: &[&str],
    architecture: Architecture,
    directory: &Path,
) -> Result<()> {
    let unpacked = scratch::directory("kernel")?;
    let package = format!("linux-image-{release}");
    if architecture.is_native() {
        apt.unpack(&package, unpacked.path())?;
    } else {
        Foreign::new(architecture)?.unpack(&package, unpacked.path())?;
    }
    fs::copy(unpacked.path().join(format!("boot/vmlinuz-{release}")), directory.join("vmlinuz"))?;
    let kept = directory.join("modules");
    fs::create_dir(&kept)?;
    let below = unpacked.path().join("lib/modules");
    for module in modules {
        let listed =
            run(Command::new("find").arg(&below).args(["-name", &format!("{module}.ko*")]))?;
        let found = listed.lines().next().with_context(|| format!("{package} has no {module}"))?;
        let plain = kept.join(format!("{module}.ko"));
        if Path::new(found).extension().is_some_and(|extension| extension == "xz") {
            let status = Command::new("busybox")
                .args(["xzcat", found])
                .stdout(File::create(&plain)?)
                .status()
                .context("run busybox")?;
            ensure!(status.success(), "cannot unpack {found}");
        } else {
            fs::copy(found, &plain)?;
        }
    }
    Ok(())
}

/// The initial file system of a guest: busybox and added files.
pub struct Root {
    directory: TempDir,
    architecture: Architecture,
    /// Root directory of the programs that are not the machine's own.
    userland: Option<PathBuf>,
}

impl Root {
    /// With busybox and `init`, a script for its shell.
    ///
    /// # Errors
    /// When there is no busybox, or it is not static.
    pub fn new(init: &str, architecture: Architecture) -> Result<Self> {
        let userland = if architecture.is_native() { None } else { Some(userland(architecture)?) };
        let root = Self { directory: scratch::directory("guest")?, architecture, userland };
        let busybox = root.find("busybox")?;
        ensure!(
            root.libraries(&busybox)?.is_empty(),
            "{} is not static: install busybox-static",
            busybox.display()
        );
        root.program(&busybox)?;
        root.executable("init", init)?;
        Ok(root)
    }

    /// Adds a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn file(&self, path: &str, contents: impl AsRef<[u8]>) -> Result<()> {
        let path = self.directory.path().join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, contents).with_context(|| format!("write {}", path.display()))
    }

    /// Adds a script.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn executable(&self, path: &str, contents: impl AsRef<[u8]>) -> Result<()> {
        self.file(path, contents)?;
        fs::set_permissions(self.directory.path().join(path), fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    /// Adds a program to `/bin`, stripped, with the libraries that it needs.
    ///
    /// # Errors
    /// When it or one of its libraries is not there.
    pub fn program(&self, program: &Path) -> Result<()> {
        let name = program.file_name().context("a program without a name")?;
        let copy = self.directory.path().join("bin").join(name);
        fs::create_dir_all(self.directory.path().join("bin"))?;
        let strip = self.architecture.tool("strip");
        run(Command::new(strip).arg("-o").arg(&copy).arg(program))?;
        for (library, place) in self.libraries(program)? {
            let copy = self.directory.path().join(place.strip_prefix("/")?);
            if let Some(parent) = copy.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::copy(&library, &copy).with_context(|| format!("copy {}", library.display()))?;
        }
        Ok(())
    }

    /// Adds a program of the machine, or of its package for the guest's processor.
    ///
    /// # Errors
    /// When it is not there.
    pub fn utility(&self, name: &str) -> Result<()> {
        self.program(&self.find(name)?)
    }

    fn find(&self, name: &str) -> Result<PathBuf> {
        let Some(userland) = &self.userland else { return found(name) };
        let path = userland.join("bin").join(name);
        ensure!(path.is_file(), "no package of {USERLAND:?} has {name}");
        Ok(path)
    }

    /// Returns the libraries of a program, and where it looks for them.
    fn libraries(&self, program: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
        let Some(userland) = &self.userland else {
            let own = libraries(program)?;
            return Ok(own.into_iter().map(|library| (library.clone(), library)).collect());
        };
        if is_static(program)? {
            return Ok(Vec::new());
        }
        // ldd runs the loader, which this machine cannot: all libraries there are.
        let gnu = self.architecture.gnu();
        let mut all = Vec::new();
        for directory in ["lib", &format!("lib/{gnu}"), &format!("usr/lib/{gnu}")] {
            for entry in fs::read_dir(userland.join(directory))? {
                let path = entry?.path();
                if path.is_file() {
                    let place = Path::new("/").join(path.strip_prefix(userland)?);
                    all.push((path, place));
                }
            }
        }
        Ok(all)
    }

    /// Packs it with the modules, as the kernel wants it.
    fn archive(&self, modules: &Path) -> Result<PathBuf> {
        let kept = self.directory.path().join("modules");
        fs::create_dir_all(&kept)?;
        for module in fs::read_dir(modules)? {
            let module = module?;
            fs::copy(module.path(), kept.join(module.file_name()))?;
        }
        let archive = self.directory.path().join("initramfs");
        let list = self.directory.path().join("list");
        let names =
            run(Command::new("find").args([".", "-mindepth", "1"]).current_dir(&self.directory))?;
        fs::write(&list, names)?;
        let status = Command::new("cpio")
            .args(["--quiet", "-o", "-H", "newc"])
            .current_dir(&self.directory)
            .stdin(Stdio::from(File::open(&list)?))
            .stdout(File::create(&archive)?)
            .status()
            .context("run cpio")?;
        ensure!(status.success(), "cpio: {status}");
        Ok(archive)
    }
}

/// Root directory of the guest's programs for a foreign processor, fetched once.
fn userland(architecture: Architecture) -> Result<PathBuf> {
    let name = format!("guest-{}-1", architecture.debian());
    cache::filled(&name, |directory| Foreign::new(architecture)?.unpack_all(&USERLAND, directory))
}

/// Returns true if a program of any architecture needs no loader.
///
/// # Errors
/// When there is no readelf, or the file is no program.
pub fn is_static(program: &Path) -> Result<bool> {
    let headers = run(Command::new("readelf").args(["--program-headers", "--wide"]).arg(program))?;
    Ok(!headers.contains(" INTERP "))
}

/// The shared libraries of a program and its loader, as ldd(1) finds them; none if it is static.
///
/// # Errors
/// When there is no ldd, or it cannot read the program.
pub fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("run ldd")?;
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        if said.contains("not a dynamic executable") {
            return Ok(Vec::new());
        }
        bail!("ldd {}: {said}", program.display());
    }
    Ok(listed
        .lines()
        .flat_map(str::split_whitespace)
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect())
}

/// A program of this machine.
///
/// # Errors
/// When it is not on `PATH`.
pub fn found(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").context("no PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
        .with_context(|| format!("{program} is not installed: run `cargo xtask setup`"))
}
