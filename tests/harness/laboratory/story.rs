//! One lookup of a pod, from the records of both nodes: the picture of the README.
//!
//! The pod runs on node-1, the DNS pod on node-2, and an API server knows both by name. The C library of a
//! process in the pod's container looks up a name outside of the cluster, through the pod's search list.

use std::{fmt, time::Duration};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    CLUSTER_IP, Laboratory, Plan, Pod, Recording, ask_until_followed, lookup::configuration,
};
use crate::{cgroups::Cgroups, kube::KubeApi, wait};

const NAME: &str = "www.t1.test";
const POD: [&str; 2] = ["shop", "web-0"];
const DNS_POD: [&str; 2] = ["kube-system", "coredns-0"];
const CONTAINER: &str = "3f1c5a0e9d7b4c62a8e1f0d3b5c7a9e2d4f6081a3c5e7092b4d6f8a1c3e50729";
const DEADLINE: Duration = Duration::from_secs(60);
/// Times that a lookup is made. One during which the machine was busy elsewhere has pauses between its
/// queries, so that they are no group.
const ATTEMPTS: usize = 5;

/// The steps of the lookup, each with what the resolver asked for it.
const STEPS: &str = "
SELECT hop, search_step, search_winner, q.qname, q.qtype, q.rcode, answer_count, answered_from,
       q.server_address, q.resolver, q.server_node, q.client_pod_namespace, q.client_pod_name,
       q.server_pod_namespace, q.server_pod_name, container,
       epoch_us(q.query_time) AS sent_us, q.latency_ns / 1e6 AS ms
FROM chains
JOIN questions AS q USING (question_id)
JOIN (SELECT question_id, max(client_container_name) AS container
      FROM sightings GROUP BY question_id) AS named USING (question_id)
JOIN (SELECT question_id, max(search_step) AS search_step, bool_or(search_winner) AS search_winner
      FROM sightings GROUP BY question_id) AS steps ON steps.question_id = chain_id
WHERE search_step IS NOT NULL
ORDER BY search_step, (SELECT root.qtype FROM questions AS root WHERE root.question_id = chain_id), hop";

/// A lookup that was recorded; it is displayed as a table of its steps.
#[derive(Clone, Debug)]
pub struct Story {
    rows: Vec<Row>,
}

#[derive(Clone, Debug, serde::Deserialize)]
struct Row {
    hop: u32,
    search_step: u32,
    search_winner: Option<bool>,
    qname: String,
    qtype: String,
    rcode: Option<String>,
    answer_count: Option<u32>,
    answered_from: Option<String>,
    server_address: String,
    resolver: String,
    server_node: Option<String>,
    client_pod_namespace: Option<String>,
    client_pod_name: Option<String>,
    server_pod_namespace: Option<String>,
    server_pod_name: Option<String>,
    container: Option<String>,
    sent_us: i64,
    ms: Option<f64>,
}

impl Story {
    /// Records a lookup.
    ///
    /// # Errors
    /// When a part of the laboratory does not start, or no lookup was recorded whole.
    pub fn record() -> Result<Self> {
        let plan = Plan { chains: true, own_domain: true, ..Plan::default() };
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let story = Self { rows: look_up(&Laboratory::new(&plan)?)? };
            if story.is_whole() {
                return Ok(story);
            }
            last = Some(story);
        }
        let last = last.map(|story| story.to_string()).unwrap_or_default();
        anyhow::bail!("no lookup was recorded whole; the last one:\n{last}")
    }

    /// True if it has four steps for A and AAAA each, what the resolver asked for the last one, and a
    /// verdict on each answer: on a busy machine, a record may be written before there is one.
    fn is_whole(&self) -> bool {
        let hops = |hop| self.rows.iter().filter(|row| row.hop == hop).count();
        let is_decided = |row: &Row| {
            let expected = if row.search_step == 4 { "UPSTREAM" } else { "LOCAL" };
            row.hop > 0 || row.answered_from.as_deref() == Some(expected)
        };
        hops(0) == 8 && hops(1) == 2 && self.rows.iter().all(is_decided)
    }
}

/// Looks a name up, and returns its steps.
fn look_up(laboratory: &Laboratory) -> Result<Vec<Row>> {
    let [node, _] = laboratory.nodes();
    let pod = laboratory.pods().next().context("a pod")?;
    let dns_pod = laboratory.dns_pods().next().context("a DNS pod")?;
    let cgroups = Cgroups::mount()?;
    let api = KubeApi::start(&node.namespace)?;
    let uid = create_objects(&api, pod, dns_pod)?;
    let sections = format!(
        "kubernetes: {{kubeconfig: {}}}\ncontainers: {{cgroup_root: {}}}\n",
        api.admin_kubeconfig().display(),
        cgroups.root().display()
    );
    // The names are those that the client's node knows.
    let recording = Recording::start_with(laboratory, |of| match of.name == node.name {
        true => sections.clone(),
        false => "containers: {enabled: false}\n".to_owned(),
    })?;
    wait_until_known(laboratory)?;
    let container = cgroups.create(&format!("kubepods/burstable/pod{uid}/{CONTAINER}"))?;
    let file = configuration(&[CLUSTER_IP.into()], POD[0], 5);
    let mut lookup = pod.lookup(&file, "getent ahosts", &[NAME.to_owned()])?;
    container.hold(&mut lookup.command);
    lookup.run()?;
    let recorded = recording.stop()?;
    let [rows] = recorded.tables.ask([STEPS])?;
    rows.into_iter().map(|row| serde_json::from_value(row).context("a step")).collect()
}

/// Waits until the agents know their objects and their resolver.
fn wait_until_known(laboratory: &Laboratory) -> Result<()> {
    let [first, second] = laboratory.nodes();
    wait::until("the agent to know its pods", DEADLINE, || {
        for resource in ["pods", "server_pods", "services"] {
            let series = format!("tap53_kubernetes_objects{{resource=\"{resource}\"}}");
            if first.metric(&series)?.is_none_or(|count| count < 1.0) {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })?;
    ask_until_followed(laboratory, second)
}

/// Creates the service and both pods at the API server; returns the UID of the client's pod.
fn create_objects(api: &KubeApi<'_>, pod: &Pod, dns_pod: &Pod) -> Result<String> {
    let [namespace, name] = POD;
    let port = json!({"name": "dns", "port": 53, "protocol": "UDP"});
    for object in [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": "kube-dns", "namespace": DNS_POD[0], "labels": {"k8s-app": "kube-dns"},
            },
            "spec": {"clusterIP": CLUSTER_IP, "ports": [port]},
        }),
        pod_object(POD, pod, "app", &json!({})),
        pod_object(DNS_POD, dns_pod, "coredns", &json!({"k8s-app": "kube-dns"})),
    ] {
        api.apply(&object.to_string())?;
    }
    let running = json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
    let container = json!({
        "name": "app", "image": "shop:1", "imageID": "", "ready": true, "restartCount": 0,
        "containerID": format!("containerd://{CONTAINER}"), "state": running,
    });
    set_running(api, POD, pod, &json!([container]))?;
    set_running(api, DNS_POD, dns_pod, &json!([]))?;
    let uid = ["get", "pod", name, "--namespace", namespace, "--output=jsonpath={.metadata.uid}"];
    Ok(api.kubectl(&uid)?.trim().to_owned())
}

fn pod_object([namespace, name]: [&str; 2], pod: &Pod, container: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"nodeName": pod.node, "containers": [{"name": container, "image": "nothing:1"}]},
    })
}

/// Writes what a kubelet writes about a pod that runs.
pub(super) fn set_running(
    api: &KubeApi<'_>,
    [namespace, name]: [&str; 2],
    pod: &Pod,
    containers: &Value,
) -> Result<()> {
    let status = json!({"status": {
        "phase": "Running",
        "podIP": pod.address,
        "podIPs": [{"ip": pod.address}],
        "startTime": "2026-01-01T00:00:00Z",
        "containerStatuses": containers,
    }});
    let object = format!("pod/{name}");
    api.kubectl(&[
        "patch",
        &object,
        "--namespace",
        namespace,
        "--subresource=status",
        "--type=merge",
        "--patch",
        &status.to_string(),
    ])?;
    Ok(())
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.rows.first() else { return writeln!(f, "nothing was recorded") };
        let began_us = self.rows.iter().map(|row| row.sent_us).min().unwrap_or_default();
        let end = |row: &Row| row.after_ms(began_us) + row.ms.unwrap_or_default();
        let waited_ms = self.rows.iter().map(end).fold(0.0, f64::max);
        let queries = self.rows.iter().filter(|row| row.hop == 0).count();
        let of = |namespace: &Option<String>, name: &Option<String>| match (namespace, name) {
            (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
            _ => "?".to_owned(),
        };
        writeln!(
            f,
            "{} (container {}) looks up {NAME}: {queries} queries in {waited_ms:.2} ms",
            of(&first.client_pod_namespace, &first.client_pod_name),
            first.container.as_deref().unwrap_or("?"),
        )?;
        writeln!(
            f,
            "to the service {}, translated to {} ({} on {})\n",
            first.server_address,
            of(&first.server_pod_namespace, &first.server_pod_name),
            first.resolver,
            first.server_node.as_deref().unwrap_or("?"),
        )?;
        writeln!(f, "step     at ms  took ms  query{:41}answer      answered from", "")?;
        let dns_pod = first.server_pod_name.as_deref().unwrap_or("?");
        self.rows.iter().try_for_each(|row| row.write(f, began_us, dns_pod))
    }
}

impl Row {
    fn after_ms(&self, began_us: i64) -> f64 {
        (self.sent_us - began_us) as f64 / 1e3
    }

    fn answer(&self) -> String {
        match (self.rcode.as_deref(), self.answer_count) {
            (Some("NOERROR"), Some(0)) => "no records".to_owned(),
            (Some("NOERROR"), Some(1)) => "1 record".to_owned(),
            (Some("NOERROR"), Some(count)) => format!("{count} records"),
            (Some(rcode), _) => rcode.to_owned(),
            (None, _) => "no answer".to_owned(),
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, began_us: i64, dns_pod: &str) -> fmt::Result {
        let step = match (self.hop, self.search_winner) {
            (0, Some(true)) => format!("{} ✓", self.search_step),
            (0, _) => self.search_step.to_string(),
            _ => String::new(),
        };
        let query = match self.hop {
            0 => format!("{:5}{}", self.qtype, self.qname),
            _ => format!("└ {dns_pod} asks {}", self.resolver),
        };
        let line = format!(
            "{step:6}{:8.2} {:8.2}  {query:46}{:12}{}",
            self.after_ms(began_us),
            self.ms.unwrap_or_default(),
            self.answer(),
            self.answered_from.as_deref().unwrap_or_default()
        );
        writeln!(f, "{}", line.trim_end())
    }
}
