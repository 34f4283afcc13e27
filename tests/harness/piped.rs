//! The agent with pipes that the test holds, and reads when it wants to.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{agent, lab::Lab, process::die_with_parent, wait};

const DEADLINE: Duration = Duration::from_secs(30);

/// `tap53 run` in the server's namespace; dropping it kills the process.
pub struct Piped(Child);

impl Piped {
    /// Starts `tap53 run` with `arguments`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(lab: &Lab, arguments: &[&str]) -> Result<Self> {
        let mut command: Command = lab.server.command(agent::binary()?);
        command.arg("run").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        die_with_parent(&mut command, Signal::SIGKILL);
        Ok(Self(command.spawn()?))
    }

    /// Reads the log up to the line `ready`.
    ///
    /// # Errors
    /// When the agent ends before.
    pub fn read_until_ready(&mut self) -> Result<BufReader<ChildStderr>> {
        let mut log = BufReader::new(self.0.stderr.take().context("stderr is piped")?);
        let mut line = String::new();
        while !line.contains("ready interfaces=") {
            line.clear();
            let length = log.read_line(&mut line)?;
            ensure!(length > 0, "the agent ended before it was ready");
        }
        Ok(log)
    }

    /// Standard output, once.
    ///
    /// # Errors
    /// When it was taken already.
    pub fn take_stdout(&mut self) -> Result<ChildStdout> {
        self.0.stdout.take().context("stdout is piped, and taken once")
    }

    /// Its process.
    ///
    /// # Errors
    /// None that can happen.
    pub fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.0.id())?))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(self.pid()?, signal)?)
    }

    /// Waits for the exit.
    ///
    /// # Errors
    /// When it does not come.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        wait::until("tap53 to exit", DEADLINE, || Ok(self.0.try_wait()?))
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
