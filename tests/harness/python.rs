//! Python with independent packages that read and write our formats.

use std::{
    ffi::OsStr,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{cache, process::run};

/// Packages in a separate virtual environment, in the cache.
#[derive(Clone, Copy, Debug)]
pub struct Environment {
    /// The first word of the directory's name.
    pub purpose: &'static str,
    /// Names, with extras, and versions.
    pub packages: &'static [(&'static str, &'static str)],
}

/// Avro; SQL; frames (GPL-2.0: a program that tests run, and no part of what is built); DNS messages;
/// Kafka with a schema registry.
const READERS: Environment = Environment {
    purpose: "python",
    packages: &[
        ("fastavro", "1.13.1"),
        ("duckdb", "2.0.1"),
        ("scapy", "2.8.0"),
        ("dnspython", "2.9.2"),
        ("confluent-kafka[avro,schemaregistry]", "2.16.1"),
    ],
};

impl Environment {
    /// Returns the environment; creates it if it is missing.
    ///
    /// # Errors
    /// When Python 3 with venv is not installed, or a package cannot be had.
    pub fn directory(&self) -> Result<PathBuf> {
        cache::filled(&self.name(), |directory| {
            run(Command::new("python3").args(["-m", "venv"]).arg(directory))
                .context("make a virtual environment (packages python3 and python3-venv)")?;
            let packages = self.packages.iter().map(|(name, version)| format!("{name}=={version}"));
            run(Command::new(directory.join("bin/python"))
                .args(["-m", "pip", "install", "--quiet"])
                .args(packages))
            .context("install Python packages")?;
            Ok(())
        })
    }

    /// True if [`directory`](Self::directory) has nothing to fetch.
    ///
    /// # Errors
    /// When there is no place for the cache.
    pub fn is_ready(&self) -> Result<bool> {
        Ok(cache::directory()?.join(self.name()).is_dir())
    }

    /// Directory in the cache. Its name changes with the packages, so that no older one is taken for
    /// it.
    fn name(&self) -> String {
        self.packages.iter().fold(self.purpose.to_owned(), |name, (package, version)| {
            let package = package.split('[').next().unwrap_or_default();
            format!("{name}-{package}-{version}")
        })
    }
}

/// The interpreter that has the packages of the independent readers.
///
/// # Errors
/// See [`Environment::directory`].
pub fn python() -> Result<PathBuf> {
    Ok(READERS.directory()?.join("bin/python"))
}

/// True if [`python`] has nothing to fetch.
///
/// # Errors
/// When there is no place for the cache.
pub fn is_ready() -> Result<bool> {
    READERS.is_ready()
}

/// Runs a script of `harness/python` with `input`, and returns the lines of JSON that it prints.
///
/// # Errors
/// When it fails; with its message.
pub fn json_lines<S: AsRef<OsStr>>(
    script: &str,
    arguments: impl IntoIterator<Item = S>,
    input: &[u8],
) -> Result<Vec<Value>> {
    json_lines_of(Command::new(python()?), script, arguments, input)
}

/// Does the same as [`json_lines`], where `python` starts the interpreter, as in a namespace.
///
/// # Errors
/// See [`json_lines`].
pub(crate) fn json_lines_of<S: AsRef<OsStr>>(
    mut python: Command,
    script: &str,
    arguments: impl IntoIterator<Item = S>,
    input: &[u8],
) -> Result<Vec<Value>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("harness/python");
    let mut child = python
        .arg(directory.join(script))
        .args(arguments)
        // The scripts import each other; what Python would cache beside them is no part of the tree.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {script}"))?;
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            // A script that fails early closes its end; its exit code shows it.
            let _ = stdin.write_all(input);
        });
        child.wait_with_output()
    })?;
    if !output.status.success() {
        bail!("{script}: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    let text = String::from_utf8(output.stdout)?;
    text.lines().map(|line| serde_json::from_str(line).context("a line of JSON")).collect()
}
