//! `kubectl tap53`, as the users of a cluster run it.

use std::{os::unix::fs::symlink, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::{Cluster, Query};
use crate::{
    process::{Process, run},
    scratch,
};

const DEADLINE: Duration = Duration::from_secs(30);

/// A directory with kubectl and the plugin; dropping it removes it.
pub struct Plugin<'c> {
    cluster: &'c Cluster<'c>,
    directory: TempDir,
}

impl<'c> Plugin<'c> {
    /// Installs `program`, an agent, as the plugin.
    ///
    /// # Errors
    /// If files cannot be written.
    pub fn install(cluster: &'c Cluster<'c>, program: &Path) -> Result<Self> {
        let directory = scratch::directory("plugin")?;
        symlink(program, directory.path().join("kubectl-tap53"))?;
        cluster.write_kubectl(&directory.path().join("kubectl"))?;
        Ok(Self { cluster, directory })
    }

    /// A command that will run `kubectl tap53` with arguments.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let directory = self.directory.path();
        let programs = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", directory.display());
        let mut command = Command::new(directory.join("kubectl"));
        command.arg("tap53").args(arguments).env("PATH", programs);
        command
    }

    /// Requires that all nodes are ready, and that a new pod's first query is shown to who follows already.
    ///
    /// # Errors
    /// If not.
    pub fn require_first_query(&self) -> Result<()> {
        let status = run(&mut self.command(&["status"]))?;
        for node in self.cluster.nodes() {
            let line = status.lines().find(|line| line.starts_with(&node.name));
            let state = line.and_then(|line| line.split_whitespace().nth(1));
            ensure!(state == Some("ready"), "{status}");
        }
        let tail = Process::spawn("kubectl", self.command(&["tail"]))?;
        tail.stdout().wait_for_line("TIME", 0, DEADLINE)?;
        let query = [Query::new("shown", "node-1")];
        self.cluster.query("shown", &query)?;
        let first = &query[0].names()[0];
        let shown = tail.stdout().wait_for_line(first, 0, DEADLINE);
        let line = shown.with_context(|| tail.stderr().text())?;
        ensure!(line.contains("node-1") && line.contains("default/shown"), "{line}");
        Ok(())
    }
}
