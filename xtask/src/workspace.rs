//! Paths of the workspace, and running other programs.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

/// The directories that tasks work in.
pub(crate) struct Workspace {
    /// Root of the repository.
    pub(crate) root: PathBuf,
    /// `$CARGO_TARGET_DIR`, or `target` under the root.
    pub(crate) target: PathBuf,
    /// Tools and artefacts of others, kept between clones: `$TAP53_CACHE`, or `~/.cache/tap53`.
    pub(crate) cache: PathBuf,
}

impl Workspace {
    /// Finds the workspace that this binary was built from.
    pub(crate) fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask has no parent directory")?
            .to_path_buf();
        ensure!(
            root.join("Cargo.toml").is_file(),
            "the workspace was at {} when xtask was built, and is not there now: build it again",
            root.display()
        );
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(directory) => env::current_dir()?.join(directory),
            None => root.join("target"),
        };
        Ok(Self { root, target, cache: tap53_harness::cache::directory()? })
    }

    /// The BPF object that `build-ebpf` writes and the agent embeds.
    pub(crate) fn bpf_object(&self) -> PathBuf {
        self.target.join("bpf/tap53.bpf.o")
    }

    /// Directory of the programs that `setup` builds.
    pub(crate) fn tools(&self) -> PathBuf {
        self.cache.join("tools")
    }

    /// Returns a cargo command in the workspace, without the variables of the cargo that runs this program.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root);
        command
    }
}

/// The executable `name` on PATH, or in a directory of administrators' programs, which users'
/// PATHs leave out.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    programs(name).next()
}

/// All of them, in order of search.
pub(crate) fn programs(name: &str) -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
        .map(move |directory| directory.join(name))
        .filter(|file| file.is_file())
        .collect::<Vec<_>>()
        .into_iter()
}

/// Runs a command to its end; its output is the user's to see.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", shown(command)))?;
    ensure!(status.success(), "{} failed: {status}", shown(command));
    Ok(())
}

/// Runs a command and returns its trimmed output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {}", shown(command)))?;
    if !output.status.success() {
        bail!(
            "{} failed: {}\n{}",
            shown(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let printed = String::from_utf8(output.stdout)
        .with_context(|| format!("{} printed something else than text", shown(command)))?;
    Ok(printed.trim().to_owned())
}

/// Program and arguments, as one would type them.
fn shown(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    format!("`{line}`")
}

/// Returns a command that runs `env` as root, with sudo if necessary; `what` is for the error message.
pub(crate) fn as_root(what: &str) -> Result<Command> {
    if tap53_harness::require_root().is_ok() {
        return Ok(Command::new("env"));
    }
    if program("sudo").is_none() {
        bail!(
            "{what}: network namespaces and BPF programs need root, and there is no sudo here: run \
             this as root"
        );
    }
    let mut sudo = Command::new("sudo");
    sudo.arg("env");
    Ok(sudo)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_is_named_with_its_output() {
        let error = output(Command::new("sh").args(["-c", "echo why >&2; exit 3"]))
            .expect_err("exit status 3");
        let message = format!("{error:#}");
        assert!(message.contains("`sh -c"), "{message}");
        assert!(message.contains("exit status: 3"), "{message}");
        assert!(message.ends_with("why"), "{message}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&mut Command::new("no-such-program-53")).expect_err("missing");
        assert!(error.to_string().contains("`no-such-program-53`"));
    }
}
