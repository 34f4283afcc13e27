//! Names of servers with scope node: pods on other nodes, and the DNS cache of this one.

use std::fs;

use super::*;
use tap53_attribution::rights;

/// A server's pod on another node, and its address.
const ELSEWHERE: [u8; 4] = [10, 244, 2, 53];

/// Where NodeLocal DNSCache listens by default.
const CACHE: [u8; 4] = [169, 254, 20, 10];

/// Asks until the record's server is as `wanted`, and returns the record.
fn until_server(
    stage: &Stage<'_>,
    client: &Client<'_>,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Result<Value> {
    wait::until(what, DEADLINE, || {
        let exchange = client.ask(Transport::Udp, ANSWERED[0])?;
        let record = stage.record_of(&exchange)?;
        assert_ne!(record["server_pod_name"], "hostage", "{record:#}");
        Ok(wanted(&record).then_some(record))
    })
}

fn server_is(record: &Value, attribution: &str, pod: &str) -> bool {
    let name = record["server_pod_name"].as_str().unwrap_or_default();
    record["server_attribution"] == attribution && name == pod
}

fn start<'a>(lab: &'a Lab, cluster: &Cluster<'_>) -> Result<Stage<'a>> {
    Stage::new(lab, &cluster.account()?.kubeconfig.display().to_string(), 300)
}

fn finish(stage: Stage<'_>) -> Result<()> {
    let ended = stage.agent.stop()?;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    Ledger(&ended.ledger).require_balance()
}

#[test]
fn a_server_on_another_node_is_named_while_the_selector_selects_it() -> Result<()> {
    let (lab, _unbound) = lab()?;
    // Beyond the captured interface, as another node is.
    let address = IpAddr::from(ELSEWHERE).to_string();
    lab.client.ip(&["address", "add", &format!("{address}/32"), "dev", "lo"])?;
    lab.server.ip(&["route", "add", &address, "via", &CLIENT_END.ipv4.to_string()])?;
    let _other_node = Unbound::start(&lab.client, &[ELSEWHERE.into()])?;
    let cluster = Cluster::start(Some(&lab.server))?;
    let stage = start(&lab, &cluster)?;
    let client = Client::new(&lab.server, ELSEWHERE.into());
    until_server(&stage, &client, "an unknown server", |it| server_is(it, "UNKNOWN", ""))?;

    let labels = |app: &str| json!({"k8s-app": app, "pod-template-hash": "5d78c9869d"});
    let in_kube_system = |app: &str, controller: &str| {
        let owner = owned_by("ReplicaSet", "apps/v1", controller, "r-1");
        json!({"namespace": "kube-system", "labels": labels(app), "ownerReferences": owner})
    };
    // Not a server; a server in the host's network, whose address says nothing; another namespace.
    for (name, metadata, host_network) in [
        ("hostage-a", in_kube_system("metrics-server", "m-5d78c9869d"), false),
        ("hostage-b", in_kube_system("node-local-dns", "n-5d78c9869d"), true),
        ("hostage-c", json!({"labels": labels("kube-dns")}), false),
    ] {
        let pod = cluster.create_on("node-2", name, &metadata, host_network)?;
        cluster.run(&pod, "10.244.2.7")?;
    }
    let metadata = in_kube_system("kube-dns", "coredns-5d78c9869d");
    let pod = cluster.create_on("node-2", "coredns-5d78c9869d-k2x7q", &metadata, false)?;
    cluster.run(&pod, &address)?;
    let is_named = |record: &Value| server_is(record, "POD", &pod.name);
    let record = until_server(&stage, &client, "the server to be named", is_named)?;
    for (field, value) in [
        ("server_pod_uid", pod.uid.as_str()),
        ("server_pod_namespace", "kube-system"),
        ("server_node_name", "node-2"),
        ("server_workload_kind", "Deployment"),
        ("server_workload_name", "coredns"),
        ("server_attribution_source", "ADDRESS"),
    ] {
        assert_eq!(record[field], value, "{field}");
    }
    let status = stage.tap53(&["status"])?;
    let known = "pods of this node 0, of DNS servers elsewhere 1, services 2, nodes 1";
    assert!(status.contains(known), "{status}");

    let label = |app: &str| {
        let label = format!("k8s-app={app}");
        let how = ["--namespace=kube-system", "--overwrite"];
        cluster.api.kubectl(&[&["label", "pod", &pod.name, &label][..], &how].concat())
    };
    label("elsewhere")?;
    until_server(&stage, &client, "it to be unknown", |it| server_is(it, "UNKNOWN", ""))?;
    label("kube-dns")?;
    until_server(&stage, &client, "it to be named again", is_named)?;
    cluster.delete(&pod)?;
    until_server(&stage, &client, "it to be deleted", |it| server_is(it, "UNKNOWN", ""))?;
    finish(stage)
}

#[test]
fn the_nodes_cache_is_named_at_its_link_local_address_unless_there_are_two() -> Result<()> {
    let (lab, _unbound) = lab()?;
    let address = IpAddr::from(CACHE).to_string();
    lab.server.ip(&["address", "add", &format!("{address}/32"), "dev", "lo"])?;
    lab.client.ip(&["route", "add", &address, "via", &SERVER_END.ipv4.to_string()])?;
    let _cache = Unbound::start(&lab.server, &[CACHE.into()])?;
    let cluster = Cluster::start(Some(&lab.server))?;
    // Records of a client without a name would wait for it.
    let pod = cluster.create("client", &json!({}), false)?;
    cluster.run(&pod, &CLIENT_END.ipv4.to_string())?;
    let stage = start(&lab, &cluster)?;
    let client = Client::new(&lab.client, CACHE.into());
    until_server(&stage, &client, "the node's address", |it| server_is(it, "NODE", ""))?;

    let metadata = |app: &str| json!({"namespace": "kube-system", "labels": {"k8s-app": app}});
    let node = SERVER_END.ipv4.to_string();
    let proxy = cluster.create("hostage", &metadata("kube-proxy"), true)?;
    cluster.run(&proxy, &node)?;
    let ambiguous = |it: &Value| server_is(it, "AMBIGUOUS_HOST_NETWORK", "");
    until_server(&stage, &client, "a pod of the host's network", ambiguous)?;
    let first = cluster.create("node-local-dns-1", &metadata("node-local-dns"), true)?;
    cluster.run(&first, &node)?;
    let record =
        until_server(&stage, &client, "the cache", |it| server_is(it, "POD", &first.name))?;
    assert_eq!(record["server_pod_uid"], *first.uid);
    assert_eq!(record["server_node_name"], "node-1");
    assert_eq!(record["server_attribution_source"], "ADDRESS");

    let second = cluster.create("node-local-dns-2", &metadata("node-local-dns"), true)?;
    cluster.run(&second, &node)?;
    until_server(&stage, &client, "two caches", ambiguous)?;
    cluster.delete(&first)?;
    until_server(&stage, &client, "the second", |it| server_is(it, "POD", &second.name))?;
    finish(stage)
}

/// The kubelet's identity may list and watch the pods of its node, and no others.
#[test]
fn an_account_that_may_see_its_node_alone_loses_the_servers_elsewhere_alone() -> Result<()> {
    // In addition to RBAC.
    let api = KubeApi::start_with(None, &["--authorization-mode=Node"])?;
    let cluster = Cluster::of(api)?;
    let kubeconfig = impersonating(&cluster.api, "system:node:node-1", "system:nodes")?;
    let config = KubernetesConfig { nodes: false, ..config(kubeconfig.clone()) };
    let watches = Kubernetes::start(&config, "node-1")?;
    let denied =
        |watch: &WatchStatus| watch.reason.as_ref().is_some_and(|reason| reason.contains("403"));
    let status = status_when(&watches, |status| {
        status.watches.iter().all(|watch| watch.connected || denied(watch))
    })?;
    let denied: Vec<_> =
        status.watches.iter().filter(|it| denied(it)).map(|it| it.resource).collect();
    assert_eq!(denied, ["server_pods"], "{status:#?}");
    let reason = status.reason.context("a reason")?;
    assert!(reason.starts_with("server_pods: the API server denies access (403)"), "{reason}");

    let pod = cluster.create("own", &json!({}), false)?;
    cluster.run(&pod, "10.0.0.7")?;
    status_when(&watches, |status| status.pods == 1)?;
    let reader = watches.directory().reader();
    let owner = reader.owner([10, 0, 0, 7].into(), (now_s()? + 1) * 1_000_000).identity();
    assert_eq!(owner.pod_uid.as_deref(), Some(&*pod.uid));

    // `tap53 doctor` finds the same about these rights.
    let rights = rights::check(Some(&kubeconfig), rights::needed(&config, "node-1"));
    let rights = rights.map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let refused: Vec<_> =
        rights.iter().filter(|(_, allowed)| !allowed).map(|(right, _)| right.to_string()).collect();
    let expected = [
        "list pods --namespace=kube-system",
        "watch pods --namespace=kube-system",
        "get jobs.batch",
    ];
    assert_eq!(refused, expected);
    Ok(())
}

/// A kubeconfig of an administrator who acts as another user.
fn impersonating(api: &KubeApi<'_>, user: &str, group: &str) -> Result<PathBuf> {
    let admin = api.admin_kubeconfig();
    let text = fs::read_to_string(&admin)?;
    let acting = format!("user: {{as: '{user}', as-groups: ['{group}'], token:");
    let changed = text.replace("user: {token:", &acting);
    ensure!(changed != text, "no token in {text}");
    let path = admin.with_file_name("impersonating.kubeconfig");
    fs::write(&path, changed)?;
    Ok(path)
}
