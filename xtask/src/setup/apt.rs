//! Debian packages.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::needs::Need;
use crate::workspace::{Workspace, program};

/// Runs as root, once for all packages. It undoes itself at any end but SIGKILL, and then at the
/// next start.
const SCRIPT: &str = include_str!("apt.sh");

/// Installs the packages of `missing`.
pub(super) fn install(workspace: &Workspace, missing: &[&Need]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let packages: BTreeSet<&str> =
        missing.iter().flat_map(|need| need.packages.iter().copied()).collect();
    let packages: Vec<&str> = packages.into_iter().collect();
    if program("apt-get").is_none() {
        bail!("{}", without_apt(missing));
    }
    let mut command = as_root()?;
    println!(
        "setup: installing {} with apt{}",
        packages.join(" "),
        if command.get_program() == "sudo" { ", by sudo" } else { "" }
    );
    fs::create_dir_all(&workspace.cache)?;
    let log_path = workspace.cache.join("setup.log");
    let log =
        File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
    let status = command
        .args(["sh", "-c", SCRIPT, "tap53-setup"])
        .args(&packages)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()
        .context("cannot run apt-get")?;
    if !status.success() {
        bail!(
            "apt-get did not install {} ({status}); the end of {}:\n{}",
            packages.join(" "),
            log_path.display(),
            last_lines(&log_path, 8)
        );
    }
    let still_missing: Vec<&str> = missing
        .iter()
        .filter(|need| !need.is_met() && need.is_testable())
        .map(|need| need.role)
        .collect();
    if !still_missing.is_empty() {
        bail!(
            "apt-get has installed {}, but the need of {} is still missing",
            packages.join(" "),
            still_missing.join(", ")
        );
    }
    Ok(())
}

/// Returns a line of instructions for machines without apt.
fn without_apt(missing: &[&Need]) -> String {
    let list: Vec<String> = missing
        .iter()
        .map(|need| format!("{} (for {})", need.packages.join(" and "), need.role))
        .collect();
    format!(
        "there is no apt-get here; install by other means, named as in Debian: {}",
        list.join(", ")
    )
}

/// `env` as root, by sudo where we are not root.
fn as_root() -> Result<Command> {
    if is_root() {
        return Ok(Command::new("env"));
    }
    if program("sudo").is_none() {
        bail!("packages are missing, and this is neither root nor has sudo: run setup as root");
    }
    let mut sudo = Command::new("sudo");
    sudo.arg("env");
    Ok(sudo)
}

/// Owner of our own process, as the kernel shows it.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn last_lines(path: &std::path::Path, count: usize) -> String {
    let Ok(file) = File::open(path) else {
        return String::new();
    };
    let lines: Vec<String> = BufReader::new(file).lines().map_while(Result::ok).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
