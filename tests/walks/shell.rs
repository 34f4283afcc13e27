//! A shell that runs the commands of a page.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tap53_harness::{
    agent::{self, Agent},
    namespace::Namespace,
    process::Process,
    scratch,
};
use tempfile::TempDir;

/// Time for one command.
const DEADLINE: Duration = Duration::from_secs(120);

/// A shell whose path has the tested `tap53`. It is in the top directory of the sources.
pub(crate) struct Shell {
    /// Directory of the scripts that replace `sudo` and `tap53`.
    programs: TempDir,
    namespace: Option<String>,
    directory: PathBuf,
    variables: Vec<(String, String)>,
    compares_numbers: bool,
}

impl Shell {
    /// Creates a shell.
    ///
    /// # Errors
    /// If there is no `tap53`, or no space for the shell's directory.
    pub(crate) fn new() -> Result<Self> {
        let shell = Self {
            programs: scratch::directory("walk")?,
            namespace: None,
            directory: root(),
            variables: Vec::new(),
            compares_numbers: true,
        };
        // The user of a page may need it; a test is root.
        shell.program("sudo", "exec \"$@\"")?;
        shell.program("tap53", &format!("exec '{}' \"$@\"", agent::binary()?.display()))?;
        Ok(shell)
    }

    /// Lets commands run in a network namespace.
    pub(crate) fn inside(mut self, namespace: &Namespace) -> Self {
        self.namespace = Some(namespace.name().to_owned());
        self
    }

    /// Lets `tap53 status`, `tail` and others reach this agent: pages have the default socket, of which a
    /// machine has one.
    ///
    /// # Errors
    /// If there is no `tap53`.
    pub(crate) fn agent(self, agent: &Agent) -> Result<Self> {
        let (binary, socket) = (agent::binary()?, agent.control_socket());
        let (binary, socket) = (binary.display(), socket.display());
        let script = format!(
            "case $1 in\n\
             status | tail | top | enable | disable | reset | interfaces | probe)\n\
             exec '{binary}' \"$@\" --socket '{socket}' ;;\n\
             *) exec '{binary}' \"$@\" ;;\n\
             esac"
        );
        self.program("tap53", &script)?;
        Ok(self)
    }

    /// Lets commands run in another directory.
    pub(crate) fn directory(mut self, directory: &Path) -> Self {
        directory.clone_into(&mut self.directory);
        self
    }

    /// Sets a variable of the environment.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a program of this name, a script for `sh`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn with_program(self, name: &str, script: &str) -> Result<Self> {
        self.program(name, script)?;
        Ok(self)
    }

    /// Lets numbers differ from those of the page, for counts that differ in each run. Addresses are
    /// compared, their ports are not.
    pub(crate) fn without_numbers(mut self) -> Self {
        self.compares_numbers = false;
        self
    }

    pub(crate) const fn compares_numbers(&self) -> bool {
        self.compares_numbers
    }

    /// Runs a command and returns what it prints, standard error included.
    ///
    /// # Errors
    /// If it exits with another code than 0; with what it printed.
    pub(crate) fn run(&self, command: &str) -> Result<String> {
        let script = format!("exec 2>&1\n{command}");
        let bash = ["-o", "pipefail", "-c", &script];
        let mut process = match &self.namespace {
            None => Command::new("bash"),
            Some(namespace) => {
                let mut process = Command::new("ip");
                process.args(["netns", "exec", namespace, "bash"]);
                process
            }
        };
        let path = format!("{}:{}", self.programs.path().display(), env::var("PATH")?);
        process.args(bash).env("PATH", path).current_dir(&self.directory);
        // `sort` differs by language.
        process.env("LC_ALL", "C.UTF-8");
        process.envs(self.variables.iter().map(|(name, value)| (name, value)));
        let mut process = Process::spawn(command, process)?;
        let status = process.wait(DEADLINE)?;
        let printed = process.stdout().text();
        ensure!(status.success(), "$ {command}\n{printed}\n{status}");
        Ok(printed)
    }

    /// Writes a program of the path.
    fn program(&self, name: &str, script: &str) -> Result<()> {
        let path = self.programs.path().join(name);
        let write = || {
            fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
        };
        write().with_context(|| format!("write {}", path.display()))
    }
}

/// Returns the top directory of the sources.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("")
}
