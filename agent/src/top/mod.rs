//! The report of an agent to `tap53 top`: counts of the DNS since the follower began, and the state of the
//! agent.
//!
//! Every field has a default, so that a command and an agent of different versions understand each other:
//! what one does not know or does not report is left out.

mod build;

use serde::{Deserialize, Serialize};
use tap53_base::vitals::Health;

pub use build::{losses, signals, sinks};

/// The report of an agent, as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// The agent.
    pub agent: AgentState,
    /// The transactions since counting began.
    pub dns: DnsCounts,
    /// Packets at the hooks since the start of the agent.
    pub packets: PacketCounts,
    /// Losses since the start of the agent; only reasons that occurred.
    pub losses: Vec<Loss>,
    /// The sinks.
    pub sinks: Vec<SinkCounts>,
}

/// State of an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentState {
    /// Version.
    pub version: String,
    /// Name of the node.
    pub node: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Liveness and readiness, with the condition of each sink and broker.
    pub health: Health,
}

/// Transactions since counting began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsCounts {
    /// Time since counting began in milliseconds.
    pub elapsed_ms: u64,
    /// All transactions.
    pub transactions: u64,
    /// Names.
    pub names: TopList,
    /// Names that do not exist.
    pub nxdomain_names: TopList,
    /// Addresses of clients.
    pub clients: TopList,
    /// Workloads of clients.
    pub workloads: Vec<EndCounts>,
    /// Servers, by workload or address.
    pub servers: Vec<EndCounts>,
    /// Response codes.
    pub rcodes: Vec<Count>,
    /// Query types.
    pub qtypes: Vec<Count>,
    /// Transports.
    pub transports: Vec<Count>,
    /// Signals: first-seen and suspicious domains.
    pub signals: Vec<Count>,
    /// Time from the query to the response.
    pub latency: Latency,
    /// Queries without a response.
    pub unanswered: u64,
    /// Queries that were repeated while they waited for a response.
    pub retries: u64,
    /// Truncated responses.
    pub truncated: u64,
    /// Responses that contradict an earlier one.
    pub conflicting: u64,
    /// Queries of search lists whose name was not the one that the lookup ended with.
    pub search_waste: u64,
}

/// The most frequent items of a kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TopList {
    /// The items, the most frequent first.
    pub items: Vec<TopItem>,
    /// Maximum number of transactions of an item that is not in the list.
    pub error: u64,
}

/// An item of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TopItem {
    /// The name or address.
    pub item: String,
    /// Number of transactions.
    pub count: u64,
    /// At most by how much `count` is too large.
    pub error: u64,
}

/// Transactions of a workload or server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndCounts {
    /// `namespace/workload`, an address, or `~other`.
    pub name: String,
    /// All transactions.
    pub transactions: u64,
    /// Responses that the name does not exist.
    pub nxdomain: u64,
    /// Other responses that are errors, such as SERVFAIL.
    pub errors: u64,
    /// Queries without a response.
    pub unanswered: u64,
    /// Time from the query to the response.
    pub latency: Latency,
}

/// The number of transactions of a kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Count {
    /// The kind.
    pub name: String,
    /// Number of transactions.
    pub count: u64,
}

/// A histogram of latencies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Latency {
    /// Upper bounds of the buckets in nanoseconds.
    pub bounds_ns: Vec<u64>,
    /// Responses for each bound, and last those above the largest one.
    pub buckets: Vec<u64>,
    /// Sum in nanoseconds.
    pub sum_ns: u64,
}

/// Packets at all hooks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PacketCounts {
    /// Packets that the programs saw.
    pub seen: u64,
    /// Packets copied into a ring.
    pub captured: u64,
}

/// A loss of the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Loss {
    /// The stage of the ledger, or the sink.
    pub stage: String,
    /// The reason.
    pub reason: String,
    /// The unit that is counted.
    pub unit: String,
    /// Number since the start of the agent.
    pub count: u64,
}

/// Records at a sink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SinkCounts {
    /// Name.
    pub name: String,
    /// Records that were acknowledged or written.
    pub delivered: u64,
    /// Records that are not acknowledged yet.
    pub in_flight: u64,
    /// Records in the spool.
    pub spooled: u64,
    /// Records that will not be delivered.
    pub lost: u64,
}

impl Latency {
    /// Returns the number of responses.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}
