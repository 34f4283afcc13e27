//! The ledger itself: drawn up from all counts, every line checked.

mod check;
mod fill;

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use serde::Serialize;
use tap53_ebpf::settings::Direction;

use super::{
    MessageLoss, PreviousRuns, RegistryCounts, SinkLoss,
    sources::Sources,
    stage::{Stage as _, StageCount, sum},
    stages::{
        Deliveries, Fragments, Hook, Messages, Packets, Records, Rings, SpoolHistory, Summaries,
        TcpBytes,
    },
};

/// The ledger, as it is printed and written.
#[derive(Clone, Debug, Serialize)]
pub struct Ledger {
    pub(crate) tap53_version: &'static str,
    pub(crate) node: String,
    /// Run of the agent, as in its records.
    pub(crate) run_id: String,
    pub(crate) written_at: String,
    /// Interfaces that are captured from, or were.
    pub interfaces: Vec<Interface>,
    /// Fates of the packets that the hooks captured.
    pub agent: Agent,
    /// The runs before this one; nothing where nothing is written down.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub before: Option<PreviousRuns>,
    /// Lines that do not add up; empty in a balanced ledger.
    pub(crate) imbalances: Vec<String>,
    pub(crate) balanced: bool,
}

/// Packets at the two hooks of an interface.
#[derive(Clone, Debug, Serialize)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Number of the interface.
    pub ifindex: u32,
    pub(crate) hooks: BTreeMap<&'static str, String>,
    /// True for ends of pairs, of which there is one for each pod.
    #[serde(skip)]
    pub is_pair: bool,
    /// False once it is detached.
    #[serde(skip)]
    pub is_attached: bool,
    /// Packets that arrived.
    pub ingress: Hook,
    /// Packets that left.
    pub egress: Hook,
}

/// The stages in the agent, from the rings to the sinks.
#[derive(Clone, Debug, Serialize)]
pub struct Agent {
    /// Packets, from the rings to messages.
    pub packets: AgentPackets,
    /// Fragments in the reassembly of datagrams.
    pub fragments: Fragments,
    /// Bytes in the reassembly of TCP streams.
    pub tcp_bytes: TcpBytes,
    /// Messages, until they are in records.
    pub messages: Messages,
    /// Transactions, until they are records.
    pub records: Records,
    /// Records at each sink.
    pub sinks: Vec<Sink>,
}

/// Two stages that are one object in JSON.
#[derive(Clone, Debug, Serialize)]
pub struct AgentPackets {
    /// Packets in the rings.
    #[serde(flatten)]
    pub rings: Rings,
    /// Packets at the workers.
    #[serde(flatten)]
    pub workers: Packets,
}

/// Records at a sink, and what is beside them.
#[derive(Clone, Debug, Serialize)]
pub struct Sink {
    /// Name in the configuration.
    pub name: String,
    /// Records.
    pub records: Deliveries,
    /// The messages that they stand for.
    pub(crate) messages: Deliveries,
    /// Bytes that its spool takes on disk.
    pub spool_bytes: u64,
    /// Everything that ever was in its spool, in this run and in those before.
    pub spool: Option<SpoolTotals>,
    /// Its schema registry, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistryCounts>,
    /// Summaries of the ledger beside them.
    pub summaries: Option<Summaries>,
}

/// Everything that ever was in a spool.
#[derive(Clone, Debug, Serialize)]
pub struct SpoolTotals {
    /// Id of the first record that is counted.
    pub(crate) from_id: u64,
    /// Records.
    pub records: SpoolHistory,
    /// The messages that they stand for.
    pub(crate) messages: SpoolHistory,
}

impl Interface {
    const fn hook(&self, direction: Direction) -> &Hook {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

impl Ledger {
    /// Draws up a ledger and checks every line of it.
    #[must_use]
    pub fn new(sources: &Sources) -> Self {
        let interfaces: Vec<Interface> = sources.interfaces.iter().map(Interface::new).collect();
        let agent = Agent::new(&interfaces, sources);
        let mut ledger = Self {
            tap53_version: env!("CARGO_PKG_VERSION"),
            node: sources.node.clone(),
            run_id: HEXLOWER.encode(&sources.run),
            written_at: jiff::Timestamp::from_microsecond(sources.taken_at_us)
                .map_or_else(|_| "unknown".into(), |timestamp| format!("{timestamp:.6}")),
            interfaces,
            agent,
            before: None,
            imbalances: Vec::new(),
            balanced: false,
        };
        ledger.imbalances = ledger.check(sources);
        ledger.balanced = ledger.imbalances.is_empty();
        ledger
    }

    /// Returns every count of every stage up to `sink`, zeros included, always in the same order.
    pub(crate) fn counts(&self, sink: &Sink) -> Vec<StageCount> {
        [self.agent_counts(), sink.records.counts()].concat()
    }

    /// Returns every count of every stage before the sinks, zeros included, always in the same order.
    pub(crate) fn agent_counts(&self) -> Vec<StageCount> {
        let agent = &self.agent;
        [
            self.hooks().counts(),
            agent.packets.rings.counts(),
            agent.packets.workers.counts(),
            agent.fragments.counts(),
            agent.tcp_bytes.counts(),
            agent.messages.counts(),
            agent.records.counts(),
        ]
        .concat()
    }

    /// Adds what is known of the runs before.
    #[must_use]
    pub fn after(mut self, before: Option<&PreviousRuns>) -> Self {
        self.before = before.cloned();
        self
    }

    /// Returns true if every line adds up.
    #[must_use]
    pub const fn balanced(&self) -> bool {
        self.balanced
    }

    /// Returns true if a sink has lost records, other than to a reader that went away, or if a worker was
    /// abandoned with something that would have become records.
    #[must_use]
    pub fn lost_records(&self) -> bool {
        let Agent { packets, messages, .. } = &self.agent;
        if packets.rings.abandoned > 0 || messages.lost[MessageLoss::Abandoned.name()] > 0 {
            return true;
        }
        let closed = SinkLoss::Closed.name();
        self.agent.sinks.iter().any(|sink| sum(&sink.records.lost) > sink.records.lost[closed])
    }
}

#[cfg(test)]
mod tests;
