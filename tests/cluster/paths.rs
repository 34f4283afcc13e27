//! Queries through a cache on the node, and in VXLAN between nodes.

use anyhow::{Result, ensure};
use tap53_harness::cluster::{NODE_CACHE_IP, Network, Plan, Query};

use crate::stage::Stage;

/// No name exists there.
const CLUSTER_ZONE: &str = "default.svc.cluster.local";

#[test]
#[ignore = "takes minutes: `cargo xtask cluster test`"]
fn caches_on_nodes_and_queries_in_vxlan_are_named() -> Result<()> {
    let network = Network::new()?;
    let plan = Plan { overlay: true, node_cache: true, ..Plan::default() };
    let stage = Stage::start(&network, plan, &["--set", "presets={flannel,nodelocaldns}"])?;
    answers_of_the_cache_are_named(&stage)?;
    queries_of_the_cache_in_vxlan_are_named(&stage)
}

/// Pods query the cache, whose link-local address is no pod's.
fn answers_of_the_cache_are_named(stage: &Stage<'_>) -> Result<()> {
    let query = [Query::new("cached", "node-1")];
    stage.cluster.query("cached", &query)?;
    let records = stage.records_of(&query, &[("node-1", 1)])?;
    let mut count = 0;
    for record in records.iter().filter(|record| record["client_pod_name"] == "cached") {
        ensure!(record["server_address"] == NODE_CACHE_IP.to_string(), "{record:#}");
        let server = record["server_pod_name"].as_str().unwrap_or_default();
        ensure!(server.starts_with("node-local-dns-"), "{record:#}");
        count += 1;
    }
    ensure!(count == query[0].names().len(), "{count} records of the pod's queries: {records:#?}");
    Ok(())
}

/// The cache of node-1 forwards names of the cluster to the DNS pod on node-2.
fn queries_of_the_cache_in_vxlan_are_named(stage: &Stage<'_>) -> Result<()> {
    let query = [Query { zone: CLUSTER_ZONE.to_owned(), ..Query::new("inside", "node-1") }];
    stage.cluster.query("inside", &query)?;
    let records = stage.records_of(&query, &[("node-1", 1), ("node-2", 1)])?;
    for record in records.iter().filter(|record| record["node"] == "node-2") {
        let server = record["server_pod_name"].as_str().unwrap_or_default();
        ensure!(server.starts_with("coredns-") && record["transport"] == "TCP", "{record:#}");
    }
    Ok(())
}
