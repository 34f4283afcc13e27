//! The agents in a Kubernetes cluster of two nodes: the image and the chart, as users install them.

use anyhow::{Result, ensure};
use serde_json::Value;
use tap53_harness::{
    agent,
    cluster::{CLUSTER_IP, Network, OUTSIDE_IP, Plan, Plugin, ProxyMode, Query},
};

#[path = "cluster/life.rs"]
mod life;
#[path = "cluster/paths.rs"]
mod paths;
#[path = "cluster/stage.rs"]
mod stage;

use stage::Stage;

/// Pods that are created at once.
const BURST: usize = 10;

#[test]
fn pods_are_named_at_both_ends_of_kube_proxys_translation() -> Result<()> {
    let network = Network::new()?;
    let plan = Plan { proxy: [ProxyMode::Iptables, ProxyMode::Nftables], ..Plan::default() };
    let stage = Stage::start(&network, plan, &[])?;
    // The DNS pod is on node-2.
    let far = [Query::new("far", "node-1")];
    let near = [Query::new("near", "node-2")];
    stage.cluster.query("naming", &[&far[..], &near[..]].concat())?;
    let records = stage.records_of(&far, &[("node-1", 1), ("node-2", 2)])?;
    let count = far[0].names().len();
    Seen::at("node-1", &records).require("far", [count, 0, 0])?;
    Seen::at("node-2", &records).require("far", [0, count, count])?;
    let records = stage.records_of(&near, &[("node-2", 2)])?;
    Seen::at("node-2", &records).require("near", [count, 0, count])?;
    first_queries_are_recorded(&stage)?;
    Plugin::install(&stage.cluster, &agent::binary()?)?.require_first_query()
}

/// Records of a pod's names at a node, by the server.
#[derive(Default)]
struct Seen<'r> {
    /// The service.
    service: Vec<&'r Value>,
    /// The DNS pod, behind the service of another node.
    dns_pod: Vec<&'r Value>,
    /// The upstream resolver, which the DNS pod queries.
    upstream: Vec<&'r Value>,
}

impl<'r> Seen<'r> {
    fn at(node: &str, records: &'r [Value]) -> Self {
        let mut seen = Self::default();
        for record in records.iter().filter(|record| record["node"] == node) {
            let server = record["server_address"].as_str().unwrap_or_default();
            let list = match server {
                _ if server == CLUSTER_IP.to_string() => &mut seen.service,
                _ if server == OUTSIDE_IP.to_string() => &mut seen.upstream,
                _ => &mut seen.dns_pod,
            };
            list.push(record);
        }
        seen
    }

    /// Requires numbers of records with each server, and the names of both ends in each.
    fn require(&self, client: &str, counts: [usize; 3]) -> Result<()> {
        let Self { service, dns_pod, upstream } = self;
        let found = [service, dns_pod, upstream].map(Vec::len);
        ensure!(found == counts, "{client}: {found:?} records, and not {counts:?}: {:#?}", {
            [service, dns_pod, upstream].map(|list| list.first().copied())
        });
        for record in service {
            ensure!(is_pod(record, "client", client), "{record:#}");
            ensure!(record["nat"] == "DESTINATION" && is_dns_pod(record, "server"), "{record:#}");
        }
        for record in dns_pod {
            // With the chart's scope, a node knows its own clients.
            ensure!(record["client_attribution"] == "UNKNOWN", "{record:#}");
            ensure!(record["nat"] == "NONE" && is_dns_pod(record, "server"), "{record:#}");
        }
        for record in upstream {
            ensure!(record["nat"] == "NONE" && is_dns_pod(record, "client"), "{record:#}");
        }
        Ok(())
    }
}

fn is_dns_pod(record: &Value, end: &str) -> bool {
    is_pod(record, end, "coredns-")
}

/// True if an end of a record is a pod whose name begins so.
fn is_pod(record: &Value, end: &str, name: &str) -> bool {
    let pod = record[format!("{end}_pod_name")].as_str().unwrap_or_default();
    record[format!("{end}_attribution")] == "POD" && pod.starts_with(name)
}

/// Pods query in the first millisecond of their first process.
fn first_queries_are_recorded(stage: &Stage<'_>) -> Result<()> {
    let new = |number: usize| Query {
        count: 3,
        ..Query::new(
            &format!("new-{number}"),
            if number.is_multiple_of(2) { "node-1" } else { "node-2" },
        )
    };
    let queries: Vec<Query> = (0..BURST).map(new).collect();
    stage.cluster.query("burst", &queries)?;
    for query in &queries {
        let records = stage.records_of(std::slice::from_ref(query), &[(query.node, 1)])?;
        let of_pod = records.iter().filter(|record| is_pod(record, "client", &query.pod));
        for record in of_pod.clone() {
            ensure!(record["outcome"] == "MATCHED", "{record:#}");
        }
        let count = of_pod.count();
        ensure!(count == query.names().len(), "{} has {count} records: {records:#?}", query.pod);
    }
    Ok(())
}
