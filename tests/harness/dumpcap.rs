//! Capture files that Wireshark's dumpcap writes while packets pass.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, ensure};
use nix::{sys::signal::Signal, unistd::Pid};

use crate::{dns, namespace::Namespace, process::Process, wait};

const DEADLINE: Duration = Duration::from_secs(30);

/// A running dumpcap.
pub struct Dumpcap {
    process: Process,
    path: PathBuf,
}

impl Dumpcap {
    /// Captures what passes `interface` into a pcapng file at `path`, and waits until it does.
    /// `link_type` is one of those that the interface offers, by its name.
    ///
    /// # Errors
    /// When dumpcap is not installed or does not start.
    pub fn start(
        namespace: &Namespace,
        interface: &str,
        link_type: &str,
        path: &Path,
    ) -> Result<Self> {
        let mut command = namespace.command("dumpcap");
        // -B: room for what passes while dumpcap is not scheduled, MiB.
        command.args(["-q", "-B", "8", "-i", interface, "-y", link_type, "-w"]).arg(path);
        let process = Process::spawn("dumpcap", command)?;
        // Said once the interface is open and captured from.
        process.wait_for_line("File:", 0, DEADLINE)?;
        Ok(Self { process, path: path.to_owned() })
    }

    /// Returns the number of its process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Waits until the file holds the response to a query for `name`, the last that was asked, and
    /// ends dumpcap.
    ///
    /// # Errors
    /// When it does not come.
    pub fn stop_after(mut self, name: &str) -> Result<()> {
        let mut wire = Vec::new();
        dns::push_name(&mut wire, name);
        wait::until("the last response in the file", DEADLINE, || {
            let file = fs::read(&self.path)?;
            let found = file.windows(wire.len()).filter(|window| *window == wire).count();
            Ok((found >= 2).then_some(()))
        })?;
        self.process.signal(Signal::SIGINT)?;
        let status = self.process.wait(DEADLINE)?;
        ensure!(status.success(), "dumpcap: {status}: {}", self.process.stderr().text());
        Ok(())
    }
}
