//! Measures the cost of the whole system, and of the system that it replaces: `cargo xtask bench
//! --system`.
//!
//! ```text
//!  client's namespace            server's namespace
//!  ┌─────────┐                   ┌────────────────────────────────────────────────────┐
//!  │ dnsperf │ c0 ─────────▶ s0  │ gateway ──JSON, forward protocol──▶ collector ──┐   │ the old way
//!  └─────────┘               │   │ gateway                                        ▼   │
//!                            └───┼─▶ tap53 ───────────────────────────────────▶ Kafka │
//!                                └────────────────────────────────────────────────────┘
//! ```
//!
//! Each section starts all parts anew for each run, alternates what it compares, and gives ratios
//! within a round. Absolute figures of two machines do not compare.
//!
//! CPU is the scheduler's run time of all threads of a process ([`cpu_time`](crate::usage::cpu_time)).
//! The work of the kernel in a softirq counts for the process that it interrupts: the ingress program of
//! the agent counts for the client, which sends; the egress program for the gateway. So the client's
//! CPU is measured as well.

mod agent;
mod capacity;
mod gateway;
mod measure;
mod node;
mod producers;
mod programs;
mod resolver;
mod services;
mod spread;
mod stage;
mod table;
mod threads;
mod watches;

use std::{fmt, time::Duration};

use anyhow::{Result, ensure};

pub use programs::Programs;

/// Extent of the measurements.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Before each measurement, under load.
    pub warm_up: Duration,
    /// Each measurement.
    pub window: Duration,
    /// Runs of each case, in turn.
    pub rounds: usize,
    /// Set if a missing record is an error: at rates that overload no part.
    pub lossless: bool,
    /// Queries a second to the gateway; `None`: as many as it answers.
    pub gateway_rates: Vec<Option<u32>>,
    /// Queries a second in all, for several gateways on a node and for the headline.
    pub headline_rate: u32,
    /// Gateways on a node.
    pub gateways: Vec<usize>,
    /// Queries a second, for the agent alone.
    pub agent_rates: Vec<u32>,
    /// Delays of the broker's answers.
    pub delays: Vec<Duration>,
    /// Transactions a second that are tried, lowest first, until one is not captured whole.
    pub offered: Vec<u32>,
    /// Producers at one broker.
    pub producers: Vec<u32>,
    /// Agents that register their schema.
    pub registrations: u32,
    /// Agents that watch the pods of their node.
    pub watches: Vec<u32>,
    /// Nodes of the cluster whose objects the API server has, for each watch alone.
    pub cluster_nodes: u32,
    /// Agents with one watch each.
    pub watchers: u32,
    /// Changes of an object that they watch.
    pub changes: u32,
}

impl Plan {
    /// Returns the plan for the table in the documents, which takes some twenty minutes.
    #[must_use]
    pub fn full() -> Self {
        let window = Duration::from_secs(4);
        Self {
            warm_up: Duration::from_secs(1),
            window,
            rounds: 3,
            lossless: false,
            gateway_rates: vec![Some(1_000), Some(5_000), None],
            headline_rate: 5_000,
            gateways: vec![1, 5, 10],
            agent_rates: vec![1_000, 5_000, 20_000, 60_000],
            delays: [0, 20, 50, 100].map(Duration::from_millis).to_vec(),
            offered: [25, 50, 75, 100, 125, 150, 200, 250, 300].map(|rate| rate * 1_000).to_vec(),
            producers: vec![100, 500, 1_000, 2_500, 5_000],
            registrations: 5_000,
            watches: vec![500, 1_000, 5_000],
            cluster_nodes: 100,
            watchers: 500,
            changes: 200,
        }
    }

    /// Checks in a minute or two that everything runs; its figures are not meaningful.
    #[must_use]
    pub fn short() -> Self {
        Self {
            warm_up: Duration::from_millis(300),
            window: Duration::from_secs(1),
            rounds: 1,
            lossless: true,
            gateway_rates: vec![Some(500)],
            headline_rate: 500,
            gateways: vec![1, 2],
            agent_rates: vec![500],
            delays: vec![Duration::ZERO],
            offered: vec![1_000],
            producers: vec![20],
            registrations: 20,
            watches: vec![20],
            cluster_nodes: 4,
            watchers: 5,
            changes: 3,
        }
    }
}

/// A part of the measurements that runs by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// One gateway: CPU, memory, latency, bytes.
    Gateway,
    /// Several gateways on a node.
    Node,
    /// A resolver under saturation.
    Resolver,
    /// The agent alone, by rate and sink.
    Agent,
    /// The agent alone, by thread.
    Threads,
    /// The agent alone, by the broker's delay.
    Delay,
    /// The rate that the agent captures without loss.
    Capacity,
    /// Many agents against one broker.
    Producers,
    /// Many agents against one registry and one API server.
    Services,
    /// Each watch of an agent alone, and a large cluster calculated from it.
    Watches,
}

impl Section {
    /// All, in the order of the document.
    pub const ALL: [Self; 10] = [
        Self::Gateway,
        Self::Node,
        Self::Resolver,
        Self::Agent,
        Self::Threads,
        Self::Delay,
        Self::Capacity,
        Self::Producers,
        Self::Services,
        Self::Watches,
    ];

    /// Measures; the result is Markdown.
    ///
    /// # Errors
    /// When a part does not start, or a check of the measurement fails.
    pub fn measure(self, plan: &Plan) -> Result<String> {
        ensure!(plan.rounds > 0, "no rounds");
        match self {
            Self::Gateway => gateway::measure(plan),
            Self::Node => node::measure(plan),
            Self::Resolver => resolver::measure(plan),
            Self::Agent => agent::by_rate(plan),
            Self::Threads => threads::measure(plan),
            Self::Delay => agent::by_delay(plan),
            Self::Capacity => capacity::measure(plan),
            Self::Producers => producers::measure(plan),
            Self::Services => services::measure(plan),
            Self::Watches => watches::measure(plan),
        }
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gateway => "gateway",
            Self::Node => "node",
            Self::Resolver => "resolver",
            Self::Agent => "agent",
            Self::Threads => "threads",
            Self::Delay => "delay",
            Self::Capacity => "capacity",
            Self::Producers => "producers",
            Self::Services => "services",
            Self::Watches => "watches",
        })
    }
}
