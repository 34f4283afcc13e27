//! The agents in a Kubernetes cluster of two nodes: the image and the chart, as users install them.

use anyhow::{Result, ensure};
use serde_json::Value;
use tap53_harness::cluster::{CLUSTER_IP, Network, Plan, ProxyMode, Query};

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
    let [far, near] = [Query::new("far", "node-1"), Query::new("near", "node-2")];
    stage.cluster.query("naming", &[far.clone(), near.clone()])?;
    let of_far = stage.records_of(std::slice::from_ref(&far), &["node-1", "node-2"])?;
    let of_near = stage.records_of(std::slice::from_ref(&near), &["node-2"])?;
    for record in of_far.iter().filter(|record| record["node"] == "node-1").chain(&of_near) {
        let pod = record["client_pod_name"].as_str().unwrap_or_default();
        ensure!(pod == "far" || pod == "near", "{record:#}");
        require_translated(record)?;
    }
    for record in of_far.iter().filter(|record| record["node"] == "node-2") {
        ensure!(is_dns_pod(record), "{record:#}");
    }
    first_queries_are_recorded(&stage)
}

/// A client's query as its node sees it: to the service, answered by the DNS pod.
fn require_translated(record: &Value) -> Result<()> {
    ensure!(record["client_attribution"] == "POD", "{record:#}");
    ensure!(record["server_address"] == CLUSTER_IP.to_string(), "{record:#}");
    ensure!(record["backend_address"].is_string() && record["nat"] == "DESTINATION", "{record:#}");
    ensure!(is_dns_pod(record), "{record:#}");
    Ok(())
}

fn is_dns_pod(record: &Value) -> bool {
    let name = record["server_pod_name"].as_str().unwrap_or_default();
    record["server_attribution"] == "POD" && name.starts_with("coredns-")
}

/// Pods query in the first millisecond of their first process.
fn first_queries_are_recorded(stage: &Stage<'_>) -> Result<()> {
    let new = |number: usize| Query {
        count: 3,
        ..Query::new(&format!("new-{number}"), if number % 2 == 0 { "node-1" } else { "node-2" })
    };
    let queries: Vec<Query> = (0..BURST).map(new).collect();
    stage.cluster.query("burst", &queries)?;
    for query in &queries {
        let records = stage.records_of(std::slice::from_ref(query), &[query.node])?;
        for record in records.iter().filter(|record| record["node"] == query.node) {
            ensure!(record["outcome"] == "MATCHED", "{record:#}");
        }
    }
    Ok(())
}
