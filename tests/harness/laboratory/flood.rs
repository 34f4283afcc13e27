//! A workload whose search list floods the resolver with names that do not exist, until an operator ends it.
//!
//! Two Deployments run on node-1, and look up the same name again and again: `web` with `ndots:5` and the
//! name as people write it, `checkout` with a trailing dot. Prometheus scrapes the node's agent, with the
//! alerts of `deploy/prometheus`, whose times are shortened.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU8, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::{Value, json};

use super::{CLUSTER_IP, Laboratory, Plan, Pod, lookup::configuration, story::set_running};
use crate::{
    agent::Agent, kube::KubeApi, namespace::Namespace, prometheus::Prometheus, scratch, wait,
};

/// The name that both look up.
const NAME: &str = "api.t5.test";
/// Lookups of one process.
const LOOKUPS: usize = 20;
const NAMESPACE: &str = "shop";
/// The one with the search list, and the other.
const WORKLOADS: [&str; 2] = ["web", "checkout"];
const HASH: &str = "7d4b9c6f5";
const DEADLINE: Duration = Duration::from_secs(60);
const ALERT: &str = "ALERTS{alertname=\"Tap53DnsSearchWaste\",alertstate=\"firing\"}";
const PORT: &str = "127.0.0.1:9530";
/// The `ndots` of pods without `dnsConfig`.
const USUAL_NDOTS: u8 = 5;
/// Pause between two processes that look up.
const PAUSE: Duration = Duration::from_millis(100);
/// Queries a second for names that do not exist, by the last two scrapes.
const ABSENT: &str =
    "sum(irate(tap53_dns_transactions_total{client_workload=\"web\",rcode=\"NXDOMAIN\"}[1m]))";

/// A cluster in which the flood goes on until the advice is followed.
pub struct Flood<'a> {
    laboratory: &'a Laboratory,
    agent: &'a Agent,
    prometheus: Prometheus<'a>,
    ndots: &'a AtomicU8,
    kubectl: String,
}

impl Flood<'_> {
    /// Builds the cluster, waits until the alert fires, and passes the flood to `take`.
    ///
    /// # Errors
    /// When a part does not start, the alert does not fire, or `take` fails.
    pub fn through<R>(take: impl FnOnce(&Flood<'_>) -> Result<R>) -> Result<R> {
        let plan = Plan { pods: [2, 0], chains: true, own_domain: true, ..Plan::default() };
        let laboratory = Laboratory::new(&plan)?;
        let node = &laboratory.nodes()[0].namespace;
        let api = KubeApi::start(node)?;
        let pods: Vec<_> = laboratory.pods().collect();
        create_objects(&api, &pods, laboratory.dns_pods().next().context("a DNS pod")?)?;
        let agent = Agent::start(node, &agent_configuration(&api), &[])?;
        let (ndots, usual) = (AtomicU8::new(USUAL_NDOTS), AtomicU8::new(USUAL_NDOTS));
        let rules = scratch::directory("rules")?;
        let rules = [quick_rules(rules.path())?];
        let flood = Flood {
            laboratory: &laboratory,
            agent: &agent,
            prometheus: Prometheus::start(node, PORT.parse()?, &rules)?,
            ndots: &ndots,
            kubectl: format!(
                "exec {} --kubeconfig {} \"$@\"",
                api.kubectl_path().display(),
                api.admin_kubeconfig().display()
            ),
        };
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let complete = format!("{NAME}.");
            let (ndots, over) = (flood.ndots, &is_over);
            let lookups = [(pods[0], NAME.to_owned(), ndots), (pods[1], complete, &usual)]
                .map(|(pod, name, ndots)| scope.spawn(move || look_up(pod, &name, ndots, over)));
            let taken = flood.wait_until_firing().and_then(|()| take(&flood));
            is_over.store(true, Ordering::Relaxed);
            for lookups in lookups {
                lookups.join().map_err(|_| anyhow!("the lookups panicked"))??;
            }
            taken
        })
    }

    /// Returns the node of the workload.
    #[must_use]
    pub fn node(&self) -> &Namespace {
        &self.laboratory.nodes()[0].namespace
    }

    /// Returns the agent of that node, whose records are in its directory.
    #[must_use]
    pub fn agent(&self) -> &Agent {
        self.agent
    }

    /// Returns a script that is `kubectl` for this cluster.
    #[must_use]
    pub fn kubectl(&self) -> &str {
        &self.kubectl
    }

    /// Does what the kubelet does after the pod template has `ndots`: the pods are replaced. Waits until the
    /// flood has ended.
    ///
    /// # Errors
    /// When it does not end.
    pub fn replace_pods(&self, ndots: u8) -> Result<()> {
        self.ndots.store(ndots, Ordering::Relaxed);
        wait::until("the flood to end", DEADLINE, || {
            Ok((self.prometheus.query(ABSENT)? == [0.0]).then_some(()))
        })
    }

    fn wait_until_firing(&self) -> Result<()> {
        wait::until("the alert to fire", DEADLINE, || {
            Ok((!self.prometheus.query(ALERT)?.is_empty()).then_some(()))
        })?;
        wait::until("a finished file of records", DEADLINE, || {
            Ok((!self.agent.finished_files()?.is_empty()).then_some(()))
        })
    }
}

fn look_up(pod: &Pod, name: &str, ndots: &AtomicU8, is_over: &AtomicBool) -> Result<()> {
    let names = vec![name.to_owned(); LOOKUPS];
    while !is_over.load(Ordering::Relaxed) {
        let ndots = ndots.load(Ordering::Relaxed);
        let file = configuration(&[CLUSTER_IP.into()], NAMESPACE, ndots);
        pod.lookup(&file, "getent ahostsv4", &names)?.run()?;
        // A rate, not a wait for an event.
        thread::sleep(PAUSE);
    }
    Ok(())
}

fn agent_configuration(api: &KubeApi<'_>) -> String {
    format!(
        "node: node-1\ninterfaces: {{include: [\"eth0\", \"veth*\"]}}\n\
         pair: {{timeout_ms: 1000}}\nchains: {{enabled: true}}\n\
         kubernetes: {{kubeconfig: {}}}\ncontainers: {{enabled: false}}\n\
         sinks: [{{type: file, directory: $OUT, rotate_after_s: 1}}]\n\
         telemetry: {{listen: \"{PORT}\"}}\n",
        api.admin_kubeconfig().display()
    )
}

/// The alerts of `deploy/prometheus`, which look at ten seconds and do not wait.
fn quick_rules(directory: &Path) -> Result<PathBuf> {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus/dns-alerts.yaml");
    let rules = fs::read_to_string(rules)?;
    let quick = rules.replace("[15m]", "[10s]").replace("for: 30m", "for: 1s");
    ensure!(quick != rules, "the alert has other times");
    let path = directory.join("dns-alerts.yaml");
    fs::write(&path, quick)?;
    Ok(path)
}

/// Creates both Deployments with a pod each, and the DNS service with its pod.
fn create_objects(api: &KubeApi<'_>, pods: &[&Pod], dns_pod: &Pod) -> Result<()> {
    let port = json!({"name": "dns", "port": 53, "protocol": "UDP"});
    api.apply(
        &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
            .to_string(),
    )?;
    api.apply(
        &json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"},
            },
            "spec": {"clusterIP": CLUSTER_IP, "ports": [port]},
        })
        .to_string(),
    )?;
    for (workload, pod) in WORKLOADS.iter().zip(pods) {
        api.apply(&deployment(workload).to_string())?;
        create_pod(api, [NAMESPACE, workload], pod, &json!({}))?;
    }
    create_pod(api, ["kube-system", "coredns"], dns_pod, &json!({"k8s-app": "kube-dns"}))
}

fn deployment(name: &str) -> Value {
    let labels = json!({"app": name});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "main", "image": "nothing:1"}]},
            },
        },
    })
}

/// Creates a running pod of a Deployment.
fn create_pod(
    api: &KubeApi<'_>,
    [namespace, workload]: [&str; 2],
    pod: &Pod,
    labels: &Value,
) -> Result<()> {
    let name = format!("{workload}-{HASH}-x2x4z");
    let mut labels = labels.clone();
    labels["pod-template-hash"] = HASH.into();
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": namespace, "labels": labels,
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": true,
                "name": format!("{workload}-{HASH}"), "uid": workload,
            }],
        },
        "spec": {"nodeName": pod.node, "containers": [{"name": "main", "image": "nothing:1"}]},
    });
    api.apply(&object.to_string())?;
    set_running(api, [namespace, &name], pod, &json!([]))
}
