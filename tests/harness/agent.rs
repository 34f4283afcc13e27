//! The agent under test: `tap53 run` in a namespace.

use std::{
    env, fs,
    fs::{File, Permissions},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    fastavro,
    namespace::Namespace,
    process::{Process, run as run_to_end},
    scratch,
};

/// Loading and verifying takes a second or two on a loaded machine.
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// Longer than the longest flush deadline that a test sets.
const STOP_DEADLINE: Duration = Duration::from_secs(60);

/// The `tap53` binary: `TAP53_BIN`, or the newer of the debug and release builds.
///
/// # Errors
/// If it does not exist; the message has the command that builds it.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("TAP53_BIN") {
        let path = PathBuf::from(path);
        if !path.is_file() {
            bail!("TAP53_BIN names {}, which is not a file", path.display());
        }
        return Ok(path);
    }
    let target = target_directory();
    let built = ["debug", "release"].map(|profile| target.join(profile).join("tap53"));
    let modified = |path: &PathBuf| fs::metadata(path).and_then(|metadata| metadata.modified());
    built
        .into_iter()
        .filter_map(|path| Some((modified(&path).ok()?, path)))
        .max()
        .map(|(_, path)| path)
        .with_context(|| {
            format!(
                "no tap53 in {}: run `cargo xtask build-ebpf && cargo build --package tap53`, or \
                 set TAP53_BIN",
                target.display()
            )
        })
}

/// A copy of the binary that every user can execute, since the build's directory may be closed to
/// others; and the directory that it goes with.
///
/// # Errors
/// When there is no binary, or no room.
pub fn binary_for_everyone() -> Result<(TempDir, PathBuf)> {
    let directory = scratch::directory("binary")?;
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
    let copy = directory.path().join("tap53");
    // Copied by another process: where this one had the file open to write, a child that another
    // thread starts meanwhile would hold it open for a moment, in which it cannot be executed.
    run_to_end(Command::new("install").args(["-m", "755"]).arg(binary()?).arg(&copy))?;
    Ok((directory, copy))
}

/// `$CARGO_TARGET_DIR`, or `target` in the workspace.
#[must_use]
pub fn target_directory() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target"),
        PathBuf::from,
    )
}

/// A running `tap53 run`; dropping it kills it.
pub struct Agent {
    process: Process,
    directory: TempDir,
}

/// The result of an agent that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit status.
    pub status: ExitStatus,
    /// The ledger that it wrote.
    pub ledger: Value,
    /// Records of all files that it wrote, read by fastavro, in the files' order.
    pub records: Vec<Value>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Agent {
    /// Starts the agent with the configuration `yaml` and waits until it captures.
    ///
    /// In `yaml`, `$OUT` stands for a directory of the agent's own, which is where
    /// [`ended`](Self::ended) looks for Avro files. Unless `yaml` says otherwise, the control socket
    /// is there too, since the default one is there once on a machine.
    ///
    /// # Errors
    /// When the agent does not get ready; the message ends with its log.
    pub fn start(namespace: &Namespace, yaml: &str, arguments: &[&str]) -> Result<Self> {
        let agent = Self::launch(namespace.command(binary()?), yaml, arguments)?;
        agent.wait_until_ready()?;
        Ok(agent)
    }

    /// Does the same as [`start`](Self::start), without waiting. `command` is `tap53` or what will execute it.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn launch(mut command: Command, yaml: &str, arguments: &[&str]) -> Result<Self> {
        let directory = scratch::directory("agent")?;
        let out = directory.path().to_str().context("a temporary path in UTF-8")?;
        let configuration = directory.path().join("tap53.yaml");
        let mut yaml = yaml.replace("$OUT", out);
        if !yaml.contains("\ncontrol:") {
            yaml.push_str(&format!("\ncontrol: {{socket: {out}/control.sock}}\n"));
        }
        fs::write(&configuration, yaml)
            .with_context(|| format!("write {}", configuration.display()))?;
        command
            .args(["run", "--config"])
            .arg(&configuration)
            .arg("--ledger")
            .arg(directory.path().join("ledger.json"))
            .args(arguments);
        let log = File::create(directory.path().join("agent.log"))?;
        let process = Process::spawn_copying_stderr("tap53", command, Some(log))?;
        Ok(Self { process, directory })
    }

    /// Waits until the agent has logged that it captures on every selected interface.
    ///
    /// # Errors
    /// When it does not come.
    pub fn wait_until_ready(&self) -> Result<()> {
        self.process.wait_for_line("ready interfaces=", 0, READY_DEADLINE)?;
        Ok(())
    }

    /// Waits for a line of standard output, from line `from` on, that contains `pattern`.
    ///
    /// # Errors
    /// When it does not come before `deadline`; the message ends with the agent's log.
    pub fn wait_for_output(
        &self,
        pattern: &str,
        from: usize,
        deadline: Duration,
    ) -> Result<String> {
        self.process.stdout().wait_for_line(pattern, from, deadline).with_context(|| {
            format!("no line with {pattern:?}; the agent's log:\n{}", self.process.stderr().text())
        })
    }

    /// Waits for the record of a client's exchange on standard output, which must be JSON.
    ///
    /// # Errors
    /// When it does not come before `deadline`; the message ends with the agent's log.
    pub fn wait_for_record(&self, client: SocketAddr, deadline: Duration) -> Result<String> {
        self.wait_for_output(&format!("\"client_port\":{},", client.port()), 0, deadline)
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The process, to be killed.
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The agent's own directory, `$OUT` in its configuration.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The control socket, unless the configuration puts it elsewhere.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.directory().join("control.sock")
    }

    /// A command for this agent: `tap53` with `arguments` and its socket.
    ///
    /// # Errors
    /// When there is no `tap53`.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary()?);
        command.args(arguments).arg("--socket").arg(self.control_socket());
        Ok(command)
    }

    /// Sends SIGTERM, waits for the exit, and reads all that the agent wrote.
    ///
    /// # Errors
    /// When it does not exit, wrote no ledger, or files that fastavro cannot read.
    pub fn stop(self) -> Result<Ended> {
        self.process.signal(Signal::SIGTERM)?;
        self.ended()
    }

    /// Does the same as [`stop`](Self::stop), for the ledger alone: for a great many records.
    ///
    /// # Errors
    /// When it does not exit, or wrote no ledger.
    pub fn stop_for_ledger(mut self) -> Result<Value> {
        self.process.signal(Signal::SIGTERM)?;
        let status = self.process.wait(STOP_DEADLINE)?;
        self.ledger(status)
    }

    /// Waits for the agent to exit and reads all that it wrote.
    ///
    /// # Errors
    /// See [`stop`](Self::stop).
    pub fn ended(mut self) -> Result<Ended> {
        let status = self.process.wait(STOP_DEADLINE)?;
        let stderr = self.process.stderr().text();
        Ok(Ended {
            status,
            ledger: self.ledger(status)?,
            records: fastavro::read_containers(&self.finished_files()?)?,
            stdout: self.process.stdout().text(),
            stderr,
        })
    }

    fn ledger(&self, status: ExitStatus) -> Result<Value> {
        let ledger = fs::read(self.directory.path().join("ledger.json")).with_context(|| {
            format!("{status}, and no ledger; its log:\n{}", self.process.stderr().text())
        })?;
        serde_json::from_slice(&ledger).context("the ledger's JSON")
    }

    /// The Avro files that have their final name, in name order, which is the order of writing.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn finished_files(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.directory.path())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "avro") {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }
}

/// Runs `tap53` with `arguments` to its end; for commands that print and exit.
///
/// # Errors
/// When it cannot be started.
pub fn run(arguments: &[&str]) -> Result<std::process::Output> {
    let binary = binary()?;
    Command::new(&binary)
        .args(arguments)
        .output()
        .with_context(|| format!("start {}", binary.display()))
}
