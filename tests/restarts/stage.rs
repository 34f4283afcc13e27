//! The environment of the tests: a pair of interfaces without other traffic, a broker, and the directories
//! that agents share.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;
use tap53_harness::{
    agent::Agent, kafka::Kafka, namespace::Namespace, process::run, scratch, wait,
};
use tempfile::TempDir;

use super::DEADLINE;

pub(super) const TOPIC: &str = "dns-transactions";

/// The namespaces; the broker is in one of them.
pub(super) struct Stage {
    pub(super) client: Namespace,
    pub(super) server: Namespace,
    /// Spool and state.
    pub(super) directory: TempDir,
}

impl Stage {
    pub(super) fn new() -> Result<Self> {
        let (client, server) = (Namespace::new()?, Namespace::new()?);
        #[rustfmt::skip]
        run(Command::new("ip").args([
            "link", "add", "c0", "netns", client.name(), "type", "veth",
            "peer", "name", "s0", "netns", server.name(),
        ]))?;
        // No addresses: there are neither answers nor ICMP errors.
        for (space, end) in [(&client, "c0"), (&server, "s0")] {
            space.ip(&["link", "set", end, "arp", "off", "addrgenmode", "none"])?;
            space.ip(&["link", "set", end, "up"])?;
        }
        Ok(Self { client, server, directory: scratch::directory("restarts")? })
    }

    /// A configuration. Standard output beside Kafka: a line there tells that the record was
    /// accepted, since the sink before it has it.
    fn yaml(&self, kafka: &Kafka<'_>, mode: &str) -> String {
        let (broker, directory) = (kafka.address(), self.directory.path().display());
        format!(
            "node: test\n\
             interfaces: {{include: [s0]}}\n\
             capture: {{workers: 2, ring_bytes: 1048576}}\n\
             pair: {{timeout_ms: 1000}}\n\
             state: {{directory: {directory}/state}}\n\
             sinks:\n\
             \x20 - type: kafka\n    brokers: [\"{broker}\"]\n    topic: {TOPIC}\n    \
             linger_ms: 5\n    message_timeout_ms: 2000\n    queue_bytes: 4194304\n    \
             spool: {{mode: {mode}, directory: {directory}/spool, replay_records_per_s: 0}}\n\
             \x20 - type: stdout\n    format: json\n\
             shutdown: {{flush_timeout_ms: 10000}}\n"
        )
    }

    /// An agent that captures.
    pub(super) fn start(&self, kafka: &Kafka<'_>, mode: &str) -> Result<Agent> {
        Agent::start(&self.server, &self.yaml(kafka, mode), &[])
    }
}

/// Waits until an agent has recorded so many more transactions.
pub(super) fn wait_for_more(agent: &Agent, count: usize) -> Result<()> {
    let from = agent.process().stdout().len();
    wait::until("records", DEADLINE, || {
        Ok((agent.process().stdout().len() >= from + count).then_some(()))
    })
    .with_context(|| agent.process().stderr().text())
}

/// The ledger of a running agent.
pub(super) fn ledger(agent: &Agent) -> Result<Value> {
    let output = run(&mut agent.command(&["status", "-o", "json"])?)?;
    let status: Value = serde_json::from_str(&output)?;
    Ok(status["ledger"].clone())
}

/// The number of a record's exchange.
pub(super) fn number(record: &Value) -> Result<u32> {
    let qname = record["qname"].as_str().context("a qname")?;
    let number = qname.strip_prefix('q').and_then(|rest| rest.split('.').next());
    Ok(number.with_context(|| format!("a number in {qname}"))?.parse()?)
}
