//! The tree of files that an installation consists of.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use tap53_harness::architecture::Architecture;
use tempfile::TempDir;

use super::{GZIP, Release};
use crate::workspace::{Workspace, output, program, run};

/// Scripts that complete commands: the shell, and where its distributions look for them.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/tap53"),
    ("fish", "usr/share/fish/vendor_completions.d/tap53.fish"),
    ("zsh", "usr/share/zsh/site-functions/_tap53"),
];

/// Files of the repository, and their place.
const COPIES: [(&str, &str); 6] = [
    ("deploy/packages/tap53.service", "usr/lib/systemd/system/tap53.service"),
    ("deploy/packages/sysusers.conf", "usr/lib/sysusers.d/tap53.conf"),
    ("deploy/tap53.yaml", "usr/share/doc/tap53/tap53.yaml"),
    ("CHANGELOG.md", "usr/share/doc/tap53/CHANGELOG.md"),
    ("LICENSE-APACHE", "usr/share/doc/tap53/LICENSE-APACHE"),
    ("LICENSE-MIT", "usr/share/doc/tap53/LICENSE-MIT"),
];

/// A temporary directory with the files, as they are below `/`.
pub(super) struct Tree {
    directory: TempDir,
    architecture: Architecture,
}

impl Tree {
    /// Creates the tree around `program`, which is asked for its manual and its completions.
    pub(super) fn new(
        workspace: &Workspace,
        architecture: Architecture,
        program: &Path,
    ) -> Result<Self> {
        let directory = tempfile::tempdir().context("create a directory")?;
        let tree = Self { directory, architecture };
        let installed = tree.place("usr/bin/tap53")?;
        // Debug information is four fifths of the size; names of functions stay, for backtraces.
        let strip = architecture.tool("strip");
        run(Command::new(strip).args(["--strip-debug", "-o"]).arg(&installed).arg(program))?;
        fs::set_permissions(&installed, fs::Permissions::from_mode(0o755))?;
        // kubectl finds its plugins by their names.
        symlink("tap53", tree.place("usr/bin/kubectl-tap53")?)?;
        for (shell, path) in COMPLETIONS {
            let script = output(tree.run_program()?.args(["completions", shell]))?;
            fs::write(tree.place(path)?, script + "\n")?;
        }
        let manual = tree.place("usr/share/man/man1")?;
        run(tree.run_program()?.arg("man").arg("--dir").arg(&manual))?;
        for page in fs::read_dir(&manual)? {
            run(Command::new("gzip").arg("-9n").arg(page?.path()))?;
        }
        for (from, to) in COPIES {
            let from = workspace.root.join(from);
            fs::copy(&from, tree.place(to)?).with_context(|| format!("copy {}", from.display()))?;
        }
        Ok(tree)
    }

    /// The directory that stands for `/`.
    pub(super) fn root(&self) -> &Path {
        self.directory.path()
    }

    /// The architecture of the program.
    pub(super) const fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// The program.
    pub(super) fn program(&self) -> PathBuf {
        self.root().join("usr/bin/tap53")
    }

    /// A command that runs the program, by QEMU if it is of another architecture.
    fn run_program(&self) -> Result<Command> {
        if self.architecture.is_native() {
            return Ok(Command::new(self.program()));
        }
        let emulator = format!("qemu-{}", self.architecture.rust());
        let emulator = program(&emulator)
            .with_context(|| format!("there is no {emulator}: `cargo xtask setup --for dist`"))?;
        let mut command = Command::new(emulator);
        command.arg(self.program());
        Ok(command)
    }

    /// Packs the tree as an archive, for hosts without a package manager.
    pub(super) fn archive(&self, release: &Release) -> Result<()> {
        run(release
            .tar(&release.file(self.architecture, "tar.gz"), self.root())
            .args(GZIP)
            .arg("usr"))
    }

    /// Returns a path in the tree, and creates its directory.
    fn place(&self, path: &str) -> Result<PathBuf> {
        let path = self.root().join(path);
        let directory = path.parent().context("a path in the tree has a directory")?;
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        Ok(path)
    }
}
