//! Owners of addresses, told by a real Kubernetes API server while real DNS packets pass the veth
//! that carries the address. No kubelet runs: the test writes the status of its pods.

#[path = "kubernetes/addresses.rs"]
mod addresses;
#[path = "kubernetes/servers.rs"]
mod servers;
#[path = "kubernetes/stage.rs"]
mod stage;

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tap53::config::{KubernetesConfig, Scope};

use stage::*;
use tap53_attribution::{
    Kubernetes, Status, WatchStatus,
    config::{NodeLocalDnsConfig, ServersConfig, Services},
};
use tap53_harness::{
    account::Ledger,
    agent::Agent,
    cgroups::{Cgroup, Cgroups},
    client::{Client, Exchange, Question, Transport},
    http,
    kube::{Account, KubeApi},
    lab::{ANSWERED, Lab, UNANSWERED},
    namespace::{CLIENT_END, Namespace, SERVER_END},
    process,
    unbound::Unbound,
    wait,
};
use tap53_records::encode::Attribution;

const DEADLINE: Duration = Duration::from_secs(60);

/// Address of the metrics, in the namespace of the agent.
const TELEMETRY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9530);

#[test]
fn an_address_passes_from_pod_to_pod_and_every_record_names_the_right_one() -> Result<()> {
    let (lab, _unbound) = lab()?;
    let cluster = Cluster::start(Some(&lab.server))?;
    let account = cluster.account()?;
    let address = CLIENT_END.ipv4.to_string();
    let kubeconfig = account.kubeconfig.display().to_string();
    let mut stage = Stage::new(&lab, &kubeconfig, 12_000)?;

    // A pod of a Deployment.
    let replica_set = owned_by("ReplicaSet", "apps/v1", "web-7d4b9c6f5", "r-1");
    let labels = json!({"app": "web", "pod-template-hash": "7d4b9c6f5"});
    let metadata = json!({"labels": labels, "ownerReferences": replica_set});
    let web = cluster.create("web-7d4b9c6f5-x2x4z", &metadata, false)?;
    // It sends queries before the API server has its address, as pods do.
    stage.ask(&web.uid)?;
    cluster.run(&web, &address)?;
    let record = stage.until_named(&web.uid)?;
    for (field, value) in [
        ("client_attribution", "POD"),
        ("client_pod_name", "web-7d4b9c6f5-x2x4z"),
        ("client_pod_namespace", "default"),
        ("client_workload_kind", "Deployment"),
        ("client_workload_name", "web"),
        ("client_node_name", "node-1"),
    ] {
        assert_eq!(record[field], value, "{field}");
    }
    assert_eq!(record["client_labels"], json!({"app": "web"}));
    stage.ask(&web.uid)?;
    cluster.delete(&web)?;

    // A pod of a Job of a CronJob, which completes; its object stays.
    let nothing = ["--image=nothing:1", "--schedule=0 0 * * *"];
    cluster.api.kubectl(&[&["create", "cronjob", "nightly"][..], &nothing].concat())?;
    cluster.api.kubectl(&["create", "job", "nightly-29", "--from=cronjob/nightly"])?;
    let job = cluster.uid("job", "nightly-29")?;
    let metadata = json!({"ownerReferences": owned_by("Job", "batch/v1", "nightly-29", &job)});
    let nightly = cluster.create("nightly-29-abcde", &metadata, false)?;
    stage.ask(&nightly.uid)?;
    cluster.run(&nightly, &address)?;
    stage.until_named(&nightly.uid)?;
    let of_cron_job = wait::until("the CronJob to be known", DEADLINE, || {
        let record = stage.until_named(&nightly.uid)?;
        Ok((record["client_workload_kind"] == "CronJob").then_some(record))
    })?;
    assert_eq!(of_cron_job["client_workload_name"], "nightly");
    stage.ask(&nightly.uid)?;
    stage.ask_in_vain(&nightly.uid, UNANSWERED)?;
    let completed = now_s()?;
    next_second()?;

    // The next one has the address and sends queries before the API server has either change.
    let late = Pod { started: now_s()?, ..cluster.create("late", &json!({}), false)? };
    stage.ask_in_vain(&late.uid, UNANSWERED)?;
    cluster.complete(&nightly, completed)?;
    cluster.run(&late, &address)?;
    stage.until_named(&late.uid)?;
    stage.ask(&late.uid)?;
    // The delete of the completed one comes when another one has long had its address.
    cluster.delete(&nightly)?;
    stage.ask(&late.uid)?;

    // The same name with another UID, as a StatefulSet creates it.
    cluster.delete(&late)?;
    next_second()?;
    let again = cluster.create("late", &json!({}), false)?;
    stage.ask(&again.uid)?;
    cluster.run(&again, &address)?;
    assert_ne!(again.uid, late.uid);
    stage.until_named(&again.uid)?;
    stage.ask(&again.uid)?;

    // Records of unanswered queries are created now, long after the address has another owner.
    let silent: Vec<u16> = stage.expected.keys().copied().collect();
    wait::until("records of what got no answer", DEADLINE, || {
        let records = stage.records()?;
        let made = silent.iter().all(|id| records.iter().any(|record| record["dns_id"] == *id));
        Ok(made.then_some(()))
    })?;
    stage.finish()?;
    Ok(())
}

#[test]
fn a_pod_in_the_host_network_makes_the_nodes_address_ambiguous() -> Result<()> {
    let (lab, _unbound) = lab()?;
    let cluster = Cluster::start(Some(&lab.server))?;
    let account = cluster.account()?;
    let node = SERVER_END.ipv4.to_string();
    let telemetry = format!("telemetry: {{listen: '{TELEMETRY}'}}");
    let kubeconfig = account.kubeconfig.display().to_string();
    let mut stage = Stage::with_containers(&lab, &kubeconfig, 300, &telemetry)?;
    // Queries of the node itself, to an address that does not answer.
    let host = Client::new(&lab.server, CLIENT_END.ipv4.into());
    let attribution_of_host = |stage: &Stage<'_>| -> Result<Value> {
        let exchange = host.ask_in_vain(ANSWERED[0])?;
        let record = stage.record_of(&exchange)?;
        assert_eq!(record["client_address"], node);
        assert_eq!(record["client_node_name"], "node-1");
        assert_eq!(record["client_pod_uid"], Value::Null);
        Ok(record["client_attribution"].clone())
    };
    assert_eq!(attribution_of_host(&stage)?, "NODE");
    // A pod on the same node with its own address is not affected.
    let pod = cluster.create("own-address", &json!({}), false)?;
    cluster.run(&pod, &CLIENT_END.ipv4.to_string())?;
    stage.until_named(&pod.uid)?;

    let agent = cluster.create("node-agent", &json!({}), true)?;
    cluster.run(&agent, &node)?;
    wait::until("the address to be ambiguous", DEADLINE, || {
        Ok((attribution_of_host(&stage)? == "AMBIGUOUS_HOST_NETWORK").then_some(()))
    })?;
    stage.ask(&pod.uid)?;
    // It completes: the address is only the node's again, for later queries.
    cluster.complete(&agent, now_s()?)?;
    wait::until("the address to be the node's", DEADLINE, || {
        Ok((attribution_of_host(&stage)? == "NODE").then_some(()))
    })?;
    stage.ask(&pod.uid)?;
    // The records of the host's own queries are not expected there.
    let metrics = wait::until("everything to be recorded", DEADLINE, || {
        let text = http::get(&lab.server, TELEMETRY, "/metrics")?.body;
        let is_idle = ["tap53_ring_packets 0\n", "tap53_messages_pending 0\n"]
            .iter()
            .all(|line| text.contains(line));
        Ok(is_idle.then_some(text))
    })?;
    let ended = stage.agent.stop()?;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    let counted = counted_by_workload(&metrics)?;
    assert_eq!(counted, recorded_by_workload(&ended.records), "{metrics}");
    assert!(counted.keys().any(|workload| workload.contains("own-address")), "{counted:?}");
    assert!(counted.keys().any(|workload| workload.contains("~node")), "{counted:?}");
    for (id, owner) in &stage.expected {
        let record = ended.records.iter().find(|record| record["dns_id"] == *id);
        assert_eq!(client_of(record.context("a record")?), *owner);
    }
    Ok(())
}

/// Transactions in the metrics, by the labels of the client.
fn counted_by_workload(metrics: &str) -> Result<BTreeMap<String, u64>> {
    let mut counted = BTreeMap::new();
    let lines = metrics.lines().filter_map(|line| {
        let (labels, count) =
            line.strip_prefix("tap53_dns_transactions_total{")?.rsplit_once("} ")?;
        Some((labels.split_once(",server=")?.0.to_owned(), count))
    });
    for (client, count) in lines {
        *counted.entry(client).or_default() += count.parse::<u64>()?;
    }
    counted.retain(|_, count| *count > 0);
    Ok(counted)
}

/// Records, by the labels that the metrics have for their clients.
fn recorded_by_workload(records: &[Value]) -> BTreeMap<String, u64> {
    let mut recorded = BTreeMap::new();
    for record in records {
        let text = |field: &str| record[field].as_str().unwrap_or_default();
        let (namespace, workload) = match text("client_attribution") {
            "POD" if record["client_workload_name"].is_string() => {
                (text("client_pod_namespace"), text("client_workload_name"))
            }
            "POD" => (text("client_pod_namespace"), text("client_pod_name")),
            "NODE" | "AMBIGUOUS_HOST_NETWORK" => ("", "~node"),
            "EXTERNAL" => ("", "~external"),
            _ => ("", "~unknown"),
        };
        let labels = format!("client_namespace=\"{namespace}\",client_workload=\"{workload}\"");
        *recorded.entry(labels).or_default() += 1;
    }
    recorded
}

/// A pod that the API server knows no address of, a static pod, and two pods in the host's network.
#[test]
fn sockets_name_pods_whose_address_names_nobody() -> Result<()> {
    let (lab, _unbound) = lab()?;
    // Outside of the pods' range, or records would wait for its name.
    let resolver = IpAddr::from([203, 0, 113, 53]);
    lab.client.ip(&["address", "add", "203.0.113.53/32", "dev", "lo"])?;
    let gateway = CLIENT_END.ipv4.to_string();
    lab.server.ip(&["route", "add", "203.0.113.53", "via", &gateway])?;
    let _other_node = Unbound::start(&lab.client, &[resolver])?;
    let mut cluster = Cluster::start(Some(&lab.server))?;
    let account = cluster.account()?;
    let cgroups = Cgroups::mount()?;
    let containers = format!("containers: {{cgroup_root: {}}}", cgroups.root().display());
    let kubeconfig = account.kubeconfig.display().to_string();
    let stage = Stage::with_containers(&lab, &kubeconfig, 300, &containers)?;

    let hash = "3f2504e04f8941d39a0c0305e82c3301";
    let fixed = json!({"annotations": {"kubernetes.io/config.hash": hash}});
    let mut pods = Vec::new();
    for (number, (name, metadata, host_network)) in [
        ("addressless", json!({}), false),
        ("static", fixed, true),
        ("cache-a", json!({}), true),
        ("cache-b", json!({}), true),
    ]
    .into_iter()
    .enumerate()
    {
        let pod = cluster.create(name, &metadata, host_network)?;
        let id = format!("{number:064x}");
        cluster.create_container(&pod, &id)?;
        let uid = if name == "static" { hash } else { pod.uid.as_str() };
        let cgroup = cgroups.create(&format!("kubepods/burstable/pod{uid}/{id}"))?;
        pods.push((pod, id, cgroup, host_network));
    }
    // Each sends until the agent knows its name; none is ever taken for another.
    let mut queries = 0;
    let mut until_named = |(pod, id, cgroup, host_network): &(Pod, String, Cgroup, bool)| {
        wait::until(&format!("{} to be named", pod.name), DEADLINE, || {
            queries += 1;
            let name = format!("q{queries}.tap53.test");
            let namespace = if *host_network { &lab.server } else { &lab.client };
            let to = if *host_network { resolver } else { SERVER_END.ipv4.into() };
            let mut client = namespace.command(env!("CARGO_BIN_EXE_brief-client"));
            client.args(["udp", &to.to_string(), &name]);
            cgroup.hold(&mut client);
            process::run(&mut client)?;
            let record = wait::until("the record", DEADLINE, || {
                let records = stage.records()?;
                Ok(records.into_iter().find(|record| record["qname"] == *name))
            })?;
            assert_eq!(record["client_attribution"], "POD", "{record:#}");
            assert_eq!(record["client_attribution_source"], "SOCKET", "{record:#}");
            assert_eq!(record["client_container_id"], *id, "{record:#}");
            let is_named = record["client_pod_name"] == pod.name;
            assert!(is_named || record["client_pod_name"].is_null(), "{record:#}");
            Ok((is_named && record["client_container_name"] == "main").then_some(record))
        })
    };
    for pod in &pods {
        let record = until_named(pod)?;
        assert_eq!(record["client_labels"], json!({"app": pod.0.name}));
    }
    // Without an API server what is known stays known.
    cluster.api.kill();
    for pod in &pods {
        until_named(pod)?;
    }
    let ended = stage.agent.stop()?;
    Ledger(&ended.ledger).require_balance()?;
    Ok(())
}

/// An address that the API server says is another pod's: the socket wins, and the record says so.
#[test]
fn a_socket_that_contradicts_the_address_wins_and_is_counted() -> Result<()> {
    let (lab, _unbound) = lab()?;
    let cluster = Cluster::start(Some(&lab.server))?;
    let account = cluster.account()?;
    let cgroups = Cgroups::mount()?;
    let containers = format!("containers: {{cgroup_root: {}}}", cgroups.root().display());
    let kubeconfig = account.kubeconfig.display().to_string();
    let mut stage = Stage::with_containers(&lab, &kubeconfig, 300, &containers)?;
    let claimant = cluster.create("claimant", &json!({}), false)?;
    cluster.run(&claimant, &CLIENT_END.ipv4.to_string())?;
    stage.until_named(&claimant.uid)?;

    let sender = cluster.create("sender", &json!({}), false)?;
    let id = format!("{:064x}", 1);
    let cgroup = cgroups.create(&format!("kubepods/pod{}/{id}", sender.uid))?;
    let mut client = lab.client.command(env!("CARGO_BIN_EXE_brief-client"));
    client.args(["udp", &SERVER_END.ipv4.to_string(), "contradiction.tap53.test"]);
    cgroup.hold(&mut client);
    process::run(&mut client)?;
    let record = wait::until("the record", DEADLINE, || {
        let records = stage.records()?;
        Ok(records.into_iter().find(|record| record["qname"] == "contradiction.tap53.test"))
    })?;
    assert_eq!(client_of(&record), sender.uid, "{record:#}");
    assert_eq!(record["client_attribution_conflict"], true, "{record:#}");
    assert_eq!(record["client_container_id"], id, "{record:#}");
    Ok(())
}

#[test]
fn an_api_server_that_dies_and_returns_costs_no_record_and_no_name() -> Result<()> {
    let (lab, _unbound) = lab()?;
    let mut cluster = Cluster::start(Some(&lab.server))?;
    let account = cluster.account()?;
    let address = CLIENT_END.ipv4.to_string();
    let mut stage = Stage::new(&lab, &account.kubeconfig.display().to_string(), 300)?;
    // The same watches in this process, for their status.
    let watches = start_watches(Some(&lab.server), &account)?;
    let pod = cluster.create("before", &json!({}), false)?;
    cluster.run(&pod, &address)?;
    stage.until_named(&pod.uid)?;
    let status = status_when(&watches, |status| status.connected && status.pods == 1)?;
    assert_eq!(status.stale_since, None);

    cluster.api.kill();
    let status = status_when(&watches, |status| !status.connected)?;
    assert!(status.reason.as_ref().is_some_and(|reason| reason.contains("reach")), "{status:#?}");
    let stale_since = status.stale_since.context("a time since when it is stale")?;
    // Capture continues, with the known owners.
    for _ in 0..5 {
        stage.ask(&pod.uid)?;
    }
    assert_eq!(watches.directory().status().pods, 1);
    let told = stage.status_when(|status| status["enrichment"]["connected"] == false)?;
    assert_eq!(told["enrichment"]["pods"], 1);
    assert!(told["enrichment"]["stale_since"].is_string(), "{told:#}");
    let text = stage.tap53(&["status"])?;
    assert!(text.contains("kubernetes: not connected; known: pods of this node 1"), "{text}");
    assert!(text.contains("cannot be reached"), "{text}");

    cluster.api.restart()?;
    let status = status_when(&watches, |status| status.connected)?;
    assert_eq!(status.stale_since, None);
    assert!(status.errors > 0);
    let told = stage.status_when(|status| status["enrichment"]["connected"] == true)?;
    assert_eq!(told["enrichment"]["stale_since"], Value::Null);
    stage.ask(&pod.uid)?;
    cluster.complete(&pod, now_s()?)?;
    next_second()?;
    let after = cluster.create("after", &json!({}), false)?;
    cluster.run(&after, &address)?;
    stage.until_named(&after.uid)?;
    stage.ask(&after.uid)?;
    let status = status_when(&watches, |status| status.pods == 1)?;
    assert!(status.last_event.is_some_and(|at| at > stale_since), "{status:#?}");
    // Each watch logs each cause once, not each attempt.
    let log = stage.agent.process().stderr().text();
    assert!(log.contains("event=\"kubernetes_watch_interrupted\""), "{log}");
    assert!(!log.contains("ERROR"), "{log}");
    stage.finish()?;
    Ok(())
}

#[test]
fn a_token_that_expired_and_rights_that_are_missing_show_in_the_status() -> Result<()> {
    let mut cluster = Cluster::start(None)?;
    // Good for twenty seconds more: the API server allows for clocks that differ.
    let expiry = SystemTime::now() - (LEEWAY - Duration::from_secs(20));
    let account = cluster.api.account_expiring("default", "tap53", expiry)?;
    let watches = start_watches(None, &account)?;
    status_when(&watches, |status| status.connected)?;
    // Streams outlive their token; a restarted server requires it again.
    wait::until("the token to expire", DEADLINE, || {
        Ok((SystemTime::now() > expiry + LEEWAY + Duration::from_secs(1)).then_some(()))
    })?;
    cluster.api.restart()?;
    let refused = |watch: &WatchStatus| {
        watch.reason.as_ref().is_some_and(|reason| reason.contains("credentials (401)"))
    };
    let status = status_when(&watches, |status| status.watches.iter().all(refused))?;
    assert!(status.stale_since.is_some(), "{status:#?}");
    let soon = SystemTime::now() + Duration::from_secs(300);
    let token = cluster.api.signed_token("default", "tap53", soon)?;
    std::fs::write(&account.token_file, token)?;
    let status = status_when(&watches, |status| status.connected)?;
    assert_eq!((status.stale_since, status.services, status.nodes), (None, 2, 1), "{status:#?}");
    drop(watches);

    // An account that may see pods alone.
    cluster.api.apply(&ACCOUNT.replace("[pods, services, nodes]", "[pods]"))?;
    let watches = start_watches(None, &account)?;
    let denied = |watch: &WatchStatus| {
        let reason = format!("cannot list resource \"{}\"", watch.resource);
        watch.reason.as_ref().is_some_and(|found| found.contains(&reason))
    };
    let status = status_when(&watches, |status| {
        let (denied, others): (Vec<_>, Vec<_>) = status.watches.iter().partition(|it| denied(it));
        denied.len() == 2 && others.iter().all(|watch| watch.connected)
    })?;
    assert!(!status.connected);
    assert!(status.reason.as_ref().is_some_and(|it| it.contains("403")), "{status:#?}");
    let pod = cluster.create("alone", &json!({}), false)?;
    cluster.run(&pod, "10.0.0.7")?;
    status_when(&watches, |status| status.pods == 1)?;
    let reader = watches.directory().reader();
    let now_us = now_s()? * 1_000_000 + 999_999;
    let owner = reader.owner([10, 0, 0, 7].into(), now_us).identity();
    assert_eq!(owner.attribution, Attribution::Pod);
    assert_eq!(owner.pod_uid.as_deref(), Some(&*pod.uid));

    // The requests to the API server are exactly those that the account must be allowed.
    let mut asked: Vec<_> = cluster
        .api
        .requests_of(&account.user)?
        .into_iter()
        .map(|request| format!("{} {}", request.verb, request.resource))
        .collect();
    asked.sort();
    asked.dedup();
    assert_eq!(
        asked,
        ["list nodes", "list pods", "list services", "watch nodes", "watch pods", "watch services",]
    );
    Ok(())
}

/// A configuration of the watches.
fn config(kubeconfig: PathBuf) -> KubernetesConfig {
    KubernetesConfig {
        enabled: true,
        kubeconfig: Some(kubeconfig),
        scope: Scope::Node,
        labels: Vec::new(),
        servers: ServersConfig::default(),
        node_local_dns: NodeLocalDnsConfig::default(),
        services: Services::All,
        nodes: true,
        cidrs: Vec::new(),
        hold: Duration::from_secs(3),
        max_addresses: 1_000,
    }
}

/// The watches of the agent, in this process.
fn start_watches(namespace: Option<&Namespace>, account: &Account) -> Result<Kubernetes> {
    let config = config(account.kubeconfig.clone());
    let start = || Ok(Kubernetes::start(&config, "node-1")?);
    match namespace {
        // Its thread inherits the namespace.
        Some(namespace) => namespace.enter(start),
        None => start(),
    }
}

fn status_when(watches: &Kubernetes, wanted: impl Fn(&Status) -> bool) -> Result<Status> {
    let there = watches.directory().wait(DEADLINE, wanted);
    let status = watches.directory().status();
    ensure!(there, "waited in vain: {status:#?}");
    Ok(status)
}
