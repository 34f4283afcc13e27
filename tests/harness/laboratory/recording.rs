//! Agents that write files, and what they have written.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;

use super::{Laboratory, Node, Tables};
use crate::{agent::Agent, scratch};

/// Running agents, which write object container files.
pub struct Recording {
    agents: [Agent; 2],
    directory: TempDir,
}

/// The output of the agents of both nodes.
pub struct Recorded {
    /// The ledger of each node's agent.
    pub ledgers: [Value; 2],
    /// The records of both.
    pub tables: Tables,
    _directory: TempDir,
}

impl Recording {
    /// Starts an agent on each node.
    ///
    /// # Errors
    /// When one does not get ready.
    pub fn start(laboratory: &Laboratory) -> Result<Self> {
        Self::start_with(laboratory, |_| "containers: {enabled: false}".to_owned())
    }

    /// Does the same with further sections for each node's agent.
    pub(super) fn start_with(
        laboratory: &Laboratory,
        sections: impl Fn(&Node) -> String,
    ) -> Result<Self> {
        let directory = scratch::directory("recording")?;
        let path = directory.path().to_str().context("a temporary path in UTF-8")?;
        // One directory for each: their files have the same names.
        for node in laboratory.nodes() {
            fs::create_dir(directory.path().join(&node.name))?;
        }
        let agents = laboratory.start_agents_with(|node| {
            let sink = format!("sinks: [{{type: file, directory: {path}/{}}}]", node.name);
            format!("{sink}\n{}", sections(node))
        })?;
        Ok(Self { agents, directory })
    }

    /// Stops the agents.
    ///
    /// # Errors
    /// When one does not exit, or wrote no ledger.
    pub fn stop(self) -> Result<Recorded> {
        let [first, second] = self.agents;
        let ledgers = [first.stop_for_ledger()?, second.stop_for_ledger()?];
        let mut containers = Vec::new();
        for node in fs::read_dir(self.directory.path())? {
            for file in fs::read_dir(node?.path())? {
                containers.push(file?.path());
            }
        }
        containers.retain(|path: &PathBuf| path.extension().is_some_and(|end| end == "avro"));
        let tables = Tables { containers, ..Tables::default() };
        Ok(Recorded { ledgers, tables, _directory: self.directory })
    }
}
