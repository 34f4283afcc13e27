//! Deletes, kills, switches and upgrades agents in a cluster, and checks the records.

use std::{
    collections::HashSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tap53_harness::{
    cluster::{IMAGE, Network, Plan, Query},
    kube::RELEASE,
    wait,
};

use crate::stage::Stage;

const DEADLINE: Duration = Duration::from_secs(100);
const NEXT_TAG: &str = "next";
const SURGE: &str = r#"updateStrategy={
    "type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}
}"#;
/// Queries that one pod sends during an upgrade, and the time between two of them.
const STREAM: u32 = 700;
/// The gap on a node takes about a second; the machine may be busy.
const MOST_MISSED: usize = 200;

#[test]
#[ignore = "takes minutes: `cargo xtask cluster test`"]
fn records_survive_what_happens_to_agents() -> Result<()> {
    let network = Network::new()?;
    let mut stage = Stage::start(&network, Plan::default(), &[])?;
    let started = Instant::now();
    let step = |name: &str| println!("{name} after {:?}", started.elapsed());
    a_deleted_pod_leaves_its_spool_to_the_next(&mut stage)?;
    step("deleted pod");
    a_killed_agent_starts_again(&stage)?;
    step("killed agent");
    an_annotation_switches_capture(&stage)?;
    step("annotation");
    a_changed_config_map_is_reloaded(&stage)?;
    step("ConfigMap");
    the_charts_test_passes(&stage)?;
    step("helm test");
    the_network_policy_allows_what_the_agent_needs(&stage)?;
    step("network policy");
    an_upgrade_replaces_the_agents_with_a_short_gap(&stage)?;
    step("upgrade");
    a_surge_leaves_no_gap(&stage)?;
    step("surge");
    Ok(())
}

fn a_deleted_pod_leaves_its_spool_to_the_next(stage: &mut Stage<'_>) -> Result<()> {
    stage.kafka.kill();
    let query = [Query::new("spooled", "node-2")];
    stage.cluster.query("spooled", &query)?;
    let pod = stage.cluster.agent_on("node-2")?;
    stage.cluster.api.kubectl(&["delete", "pod", &pod, "--namespace", RELEASE])?;
    wait_for_rollout(stage)?;
    ensure!(stage.cluster.agent_on("node-2")? != pod, "the pod is still there");
    stage.kafka.restart()?;
    stage.records_of(&query, &[("node-2", 1)]).context("of a pod that was deleted")?;
    Ok(())
}

fn a_killed_agent_starts_again(stage: &Stage<'_>) -> Result<()> {
    let pod = stage.cluster.agent_on("node-2")?;
    let mut kill = stage.cluster.nodes()[1].command("pkill");
    // In the node's process namespace: no other agent of the machine is there.
    let status = kill.args(["--signal", "KILL", "--exact", "tap53"]).status()?;
    ensure!(status.success(), "no agent runs on node-2");
    for condition in ["jsonpath={.status.containerStatuses[0].restartCount}=1", "condition=Ready"] {
        let condition = format!("--for={condition}");
        let arguments = ["wait", &condition, "pod", &pod, "--namespace", RELEASE, "--timeout=55s"];
        stage.cluster.api.kubectl(&arguments).with_context(|| stage.cluster.agents_report())?;
    }
    let query = [Query::new("restarted", "node-2")];
    stage.cluster.query("restarted", &query)?;
    stage.records_of(&query, &[("node-2", 1)])?;
    Ok(())
}

fn an_annotation_switches_capture(stage: &Stage<'_>) -> Result<()> {
    let annotate = |words: &str| {
        stage.cluster.api.kubectl(&["annotate", "node", "node-1", words])?;
        Ok::<_, anyhow::Error>(())
    };
    let applied = |count| wait_for_event(stage, "node-1", "annotation_applied", count);
    annotate("tap53.io/capture=kind:pods=off,kind:physical=off")?;
    applied(1)?;
    let muted = [Query::new("muted", "node-1")];
    stage.cluster.query("muted", &muted)?;
    annotate("tap53.io/capture-")?;
    applied(2)?;
    let heard = [Query::new("heard", "node-1")];
    stage.cluster.query("heard", &heard)?;
    // An agent's records are in their order.
    stage.records_of(&heard, &[("node-1", 1)])?;
    let records = stage.records_of(&muted, &[("node-2", 1)])?;
    ensure!(records.iter().all(|record| record["node"] == "node-2"), "{records:#?}");
    Ok(())
}

fn a_changed_config_map_is_reloaded(stage: &Stage<'_>) -> Result<()> {
    let before = stage.cluster.agent_on("node-1")?;
    stage.upgrade(&["--set", "config.filter.qnames.deny={left-out.pods.test}"])?;
    wait_for_event(stage, "node-1", "config_reloaded", 1)?;
    ensure!(stage.cluster.agent_on("node-1")? == before, "the pod was replaced");
    let queries = [Query::new("left-out", "node-1"), Query::new("taken", "node-1")];
    stage.cluster.query("filtered-1", &queries[..1])?;
    stage.cluster.query("filtered-2", &queries[1..])?;
    let records = stage.records_of(&queries[1..], &[("node-1", 1)])?;
    ensure!(!records.is_empty(), "no record");
    let all = stage.records()?;
    let is_left_out = |name: &str| name.ends_with(".left-out.pods.test");
    let left_out = all.iter().filter(|record| {
        record["node"] == "node-1" && record["qname"].as_str().is_some_and(is_left_out)
    });
    ensure!(left_out.count() == 0, "names that the configuration excludes have records");
    Ok(())
}

fn the_charts_test_passes(stage: &Stage<'_>) -> Result<()> {
    let arguments = ["test", RELEASE, "--namespace", RELEASE, "--logs", "--timeout", "60s"];
    let output = stage.cluster.api.helm(&arguments).with_context(|| stage.cluster.pods_report())?;
    ensure!(output.contains("ok    record"), "{output}");
    Ok(())
}

/// The network of the cluster's pods ignores policies, and agents are in the network of their node: this
/// compares the policy that the API server has with the connections of the agents.
fn the_network_policy_allows_what_the_agent_needs(stage: &Stage<'_>) -> Result<()> {
    let arguments = ["get", "networkpolicy", RELEASE, "--namespace", RELEASE, "--output=json"];
    let policy: Value = serde_json::from_str(&stage.cluster.api.kubectl(&arguments)?)?;
    let rules = policy["spec"]["egress"].as_array().context("no egress")?;
    let ports = rules.iter().filter_map(|rule| rule["ports"].as_array()).flatten();
    let allowed: HashSet<(&str, u64)> = ports
        .filter_map(|port| Some((port["protocol"].as_str()?, port["port"].as_u64()?)))
        .collect();
    let broker: SocketAddr = stage.kafka.address().parse()?;
    for needed in [("TCP", u64::from(broker.port())), ("TCP", 443), ("UDP", 53), ("TCP", 53)] {
        ensure!(allowed.contains(&needed), "{needed:?} is not among {allowed:?}");
    }
    let pods = &policy["spec"]["podSelector"]["matchLabels"];
    let labels = pods.as_object().context("no labels")?.iter();
    let labels = labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    let selector = labels.collect::<Vec<_>>().join(",");
    let arguments =
        ["get", "pods", "--namespace", RELEASE, "--selector", &selector, "--output=name"];
    let selected = stage.cluster.api.kubectl(&arguments)?;
    ensure!(selected.lines().count() == stage.cluster.nodes().len(), "it selects {selected}");
    Ok(())
}

fn an_upgrade_replaces_the_agents_with_a_short_gap(stage: &Stage<'_>) -> Result<()> {
    for node in stage.cluster.nodes() {
        node.tag_image(IMAGE, &IMAGE.replace(env!("CARGO_PKG_VERSION"), NEXT_TAG))?;
    }
    let tag = format!("image.tag={NEXT_TAG}");
    let missed = missed_during(stage, "upgrade", &["--set", &tag])?;
    ensure!(missed <= MOST_MISSED, "{missed} of {STREAM} exchanges have no record");
    for node in ["node-1", "node-2"] {
        wait_for_event(stage, node, "gap_between_runs", 1)?;
    }
    Ok(())
}

fn a_surge_leaves_no_gap(stage: &Stage<'_>) -> Result<()> {
    let missed = missed_during(stage, "surge", &["--set-json", SURGE])?;
    ensure!(missed == 0, "{missed} of {STREAM} exchanges have no record");
    Ok(())
}

/// Number of exchanges on node-2 without a record of it, of a pod that queries during an upgrade.
fn missed_during(stage: &Stage<'_>, name: &str, arguments: &[&str]) -> Result<usize> {
    let stream = Query { count: STREAM, interval_ms: 50, ..Query::new(name, "node-2") };
    stage.cluster.start_queries(name, std::slice::from_ref(&stream))?;
    stage.upgrade(arguments)?;
    let phase = format!("pod/{name}");
    let running =
        stage.cluster.api.kubectl(&["get", &phase, "--output=jsonpath={.status.phase}"])?;
    ensure!(running.trim() == "Running", "the upgrade took longer than the queries: {running}");
    stage.cluster.wait_for_queries(name)?;
    let last = Query::new(&format!("{name}-end"), "node-2");
    stage.cluster.query(&last.pod, std::slice::from_ref(&last))?;
    stage.records_of(std::slice::from_ref(&last), &[("node-2", 1)])?;
    let records = stage.records()?;
    let of_node = records.iter().filter(|record| record["node"] == "node-2");
    let recorded: HashSet<&str> = of_node.filter_map(|record| record["qname"].as_str()).collect();
    let names = stream.names();
    let missed = names.iter().filter(|name| !recorded.contains(name.as_str())).count();
    println!("{name}: {missed} of {STREAM} exchanges without a record");
    Ok(missed)
}

fn wait_for_rollout(stage: &Stage<'_>) -> Result<()> {
    let object = format!("daemonset/{RELEASE}");
    let arguments = ["rollout", "status", &object, "--namespace", RELEASE, "--timeout=55s"];
    stage.cluster.api.kubectl(&arguments).with_context(|| stage.cluster.agents_report())?;
    Ok(())
}

/// Waits until the agent of a node has logged an event so many times.
fn wait_for_event(stage: &Stage<'_>, node: &str, event: &str, count: usize) -> Result<()> {
    let pattern = format!("event=\"{event}\"");
    let every = Duration::from_millis(500);
    wait::until_every(every, &format!("{event} on {node}"), DEADLINE, || {
        let pod = stage.cluster.agent_on(node)?;
        let log = stage.cluster.api.kubectl(&["logs", &pod, "--namespace", RELEASE])?;
        Ok((log.matches(&pattern).count() >= count).then_some(()))
    })
    .with_context(|| stage.cluster.agents_report())
}
