//! A cluster of two nodes without Kubernetes: its packets take the paths that they take in one.
//!
//! ```text
//!   node-1                                            node-2
//!  ┌────────────────────────────────────────┐       ┌──────────────────────────┐
//!  │ pod ── veth1 ┐                         │       │         ┌ veth51 ── DNS  │
//!  │ pod ── veth2 ┤  routes, nftables  eth0 ├──lan0─┤ eth0  … ┘            pod │
//!  │ node cache ──┘  (DNAT, masquerade)     │   │   │                          │
//!  │ 169.254.20.10                          │   │   │                          │
//!  └────────────────────────────────────────┘   │   └──────────────────────────┘
//!                                       upstream resolver 192.168.53.53
//! ```
//!
//! Each of them has an IPv6 address too, by [`paired`].
//!
//! A pod is a namespace with a veth pair into its node, and a route to it there, as the `ptp` plugin of
//! CNI sets them. nftables rewrites the service's address as kube-proxy does. The DNS pods and the node
//! cache are CoreDNS, which logs for each query whether it was forwarded; the upstream resolver is
//! unbound, which logs each query: these logs are the truth that records are compared with.

mod coredns;
mod flood;
mod load;
mod logs;
mod lookup;
mod network;
mod pairs;
mod recording;
mod rules;
mod sql;
mod story;

use std::{net::Ipv4Addr, path::Path};

use anyhow::{Context, Result};
use tempfile::TempDir;

use coredns::CoreDns;
pub use coredns::{cluster_program, is_built, program};
pub use flood::Flood;
pub use load::{Asked, Load, SHARED_EVERY, ask_until_followed};
pub use logs::{Served, queries_in};
pub use lookup::{Library, Resolver};
pub use network::{Node, Pod, paired};
pub(crate) use network::{attach_host, create as create_network};
pub use pairs::{Asked as PairAsked, Pairs};
pub use recording::{Recorded, Recording};
pub use sql::{Tables, VIEWS, views_path};
pub use story::Story;

use crate::{
    agent::Agent,
    namespace::Namespace,
    scratch,
    unbound::{Extra, Unbound},
};

/// Address of the service `kube-dns`.
pub const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Address of the node cache, as that of NodeLocal DNSCache.
pub const CACHE_IP: Ipv4Addr = Ipv4Addr::new(169, 254, 20, 10);
/// Address of the upstream resolver.
pub const UPSTREAM_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 53, 53);
/// Address at which parts that are no part of the cluster can listen, in [`Laboratory::network`].
pub const NETWORK_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 53, 1);

/// The upstream resolver's zones: `t1` to `t5` with times to live of 1 to 5 s, and one for names that are
/// asked once.
const ZONES: [(&str, u32); 6] = [
    ("t1.test", 1),
    ("t2.test", 2),
    ("t3.test", 3),
    ("t4.test", 4),
    ("t5.test", 5),
    ("once.test", 5),
];

/// The only names under `cluster.local` that exist.
const SERVICES: [&str; 2] = ["api.default.svc.cluster.local", "db.prod.svc.cluster.local"];

/// The parts of a laboratory.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Clients' pods on each of the two nodes.
    pub pods: [usize; 2],
    /// The nodes of the DNS pods, 0 or 1. A query for the service goes to a random one of them.
    pub backends: Vec<usize>,
    /// True if a query for the service has its node's address from there on, as with kube-proxy's
    /// `masqueradeAll`.
    pub masquerade: bool,
    /// True if each node has a cache, which forwards to the service.
    pub node_cache: bool,
    /// True if the agents follow the chains behind answers.
    pub chains: bool,
    /// True if the DNS pods answer for `cluster.local` themselves: no name exists there. Otherwise they
    /// forward it too, and the upstream resolver has two services.
    pub own_domain: bool,
    /// True if the DNS pods send their queries over IPv4 and IPv6 alike, otherwise over IPv4.
    pub both_families: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            pods: [1, 0],
            backends: vec![1],
            masquerade: false,
            node_cache: false,
            chains: false,
            own_domain: false,
            both_families: false,
        }
    }
}

/// A running laboratory; dropping it removes everything.
pub struct Laboratory {
    // Fields drop in this order: programs before the namespaces they run in.
    upstream: Unbound,
    dns_pods: Vec<(CoreDns, Pod)>,
    caches: Vec<CoreDns>,
    pods: [Vec<Pod>; 2],
    nodes: [Node; 2],
    _upstream_space: Namespace,
    chains: bool,
    /// The network between the nodes, where [`NETWORK_IP`] is.
    pub network: Namespace,
    directory: TempDir,
}

impl Laboratory {
    /// Builds the parts of `plan` and waits until they serve.
    ///
    /// # Errors
    /// Without root, nft or Go, or when a part does not start.
    pub fn new(plan: &Plan) -> Result<Self> {
        let program = program()?;
        let directory = scratch::directory("laboratory")?;
        let network = network::create()?;
        let upstream_space = attach_host(&network, "upstream", UPSTREAM_IP)?;
        let mut nodes = [Node::create(&network, 0)?, Node::create(&network, 1)?];
        let mut pods = [Vec::new(), Vec::new()];
        for ((node, pods), count) in nodes.iter_mut().zip(&mut pods).zip(plan.pods) {
            for _ in 0..count {
                pods.push(node.create_pod()?);
            }
        }
        network::route_pods(&upstream_space, &nodes)?;
        let upstream = start_upstream(&upstream_space, directory.path())?;
        let mut dns_pods = Vec::new();
        for number in &plan.backends {
            let pod = nodes[*number].create_pod()?;
            let server = CoreDns::start(&program, &pod.namespace, pod.address, UPSTREAM_IP, plan)?;
            dns_pods.push((server, pod));
        }
        let backends: Vec<_> = dns_pods.iter().map(|(_, pod)| pod.address).collect();
        let mut caches = Vec::new();
        for node in &nodes {
            rules::apply(node, &backends, plan, directory.path())?;
            if plan.node_cache {
                network::add_addresses(&node.namespace, "lo", CACHE_IP, [32, 128])?;
                caches.push(CoreDns::start(&program, &node.namespace, CACHE_IP, CLUSTER_IP, plan)?);
            }
        }
        Ok(Self {
            upstream,
            dns_pods,
            caches,
            pods,
            nodes,
            _upstream_space: upstream_space,
            chains: plan.chains,
            network,
            directory,
        })
    }

    /// The nodes.
    #[must_use]
    pub const fn nodes(&self) -> &[Node; 2] {
        &self.nodes
    }

    /// The clients' pods of all nodes.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter().flatten()
    }

    /// The DNS pods, in the plan's order.
    pub fn dns_pods(&self) -> impl Iterator<Item = &Pod> {
        self.dns_pods.iter().map(|(_, pod)| pod)
    }

    /// Starts an agent on each node, which captures `eth0` and each `veth*`. `sinks` is the section of
    /// that name, in YAML; in it, `$NODE` stands for the node's name.
    ///
    /// # Errors
    /// When one does not get ready.
    pub fn start_agents(&self, sinks: &str) -> Result<[Agent; 2]> {
        self.start_agents_with(|node| {
            format!("containers: {{enabled: false}}\n{}", sinks.replace("$NODE", &node.name))
        })
    }

    /// Does the same with sections for each node.
    fn start_agents_with(&self, sections: impl Fn(&Node) -> String) -> Result<[Agent; 2]> {
        let start = |node: &Node| {
            let yaml = format!(
                "node: {}\ninterfaces: {{include: [\"eth0\", \"veth*\"]}}\n\
                 pair: {{timeout_ms: 2000}}\nchains: {{enabled: {}}}\n\
                 telemetry: {{listen: \"127.0.0.1:9530\"}}\n{}\n",
                node.name,
                self.chains,
                sections(node)
            );
            Agent::start(&node.namespace, &yaml, &[])
        };
        Ok([start(&self.nodes[0])?, start(&self.nodes[1])?])
    }

    /// The queries that the DNS pods have served so far, by their logs.
    ///
    /// # Errors
    /// When a line cannot be read.
    pub fn served(&self) -> Result<Vec<Served>> {
        collect(self.dns_pods.iter().map(|(server, _)| server))
    }

    /// The queries that the node caches have served so far, by their logs.
    ///
    /// # Errors
    /// When a line cannot be read.
    pub fn cached(&self) -> Result<Vec<Served>> {
        collect(self.caches.iter())
    }

    /// The names that the upstream resolver was asked for so far, by its log.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn asked_upstream(&self) -> Result<Vec<String>> {
        let log = self.directory.path().join(UPSTREAM_LOG);
        let text = std::fs::read_to_string(log).context("read the upstream resolver's log")?;
        Ok(queries_in(&text))
    }

    /// The upstream resolver.
    #[must_use]
    pub const fn upstream(&self) -> &Unbound {
        &self.upstream
    }
}

const UPSTREAM_LOG: &str = "upstream.log";

fn collect<'a>(servers: impl Iterator<Item = &'a CoreDns>) -> Result<Vec<Served>> {
    let mut all = Vec::new();
    for server in servers {
        all.extend(server.served()?);
    }
    Ok(all)
}

fn start_upstream(namespace: &Namespace, directory: &Path) -> Result<Unbound> {
    let zones: String = ZONES
        .iter()
        .map(|(zone, ttl)| {
            format!(
                "  local-zone: \"{zone}.\" redirect\n  local-data: \"{zone}. {ttl} IN A 198.51.100.7\"\n"
            )
        })
        .collect();
    let services: String = SERVICES
        .iter()
        .map(|name| format!("  local-data: \"{name}. 5 IN A 10.96.1.1\"\n"))
        .collect();
    let extra = Extra {
        server: format!(
            "  log-queries: yes\n  local-zone: \"cluster.local.\" static\n{zones}{services}"
        ),
        log_file: Some(directory.join(UPSTREAM_LOG)),
        ..Extra::default()
    };
    Unbound::start_with(namespace, &[UPSTREAM_IP.into(), paired(UPSTREAM_IP).into()], &extra)
}
