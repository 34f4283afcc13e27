//! Finds the agents of a cluster.

use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde::Deserialize;
use tap53::control::{agents::Agent, client::Client};
use tap53_base::visible::visible;

use super::{Cluster, exec::Exec};

/// Container of the agent in its pod.
const CONTAINER: &str = "tap53";

/// The answer of the API server: the part of it that is needed.
#[derive(Deserialize)]
struct Pods {
    items: Vec<Pod>,
}

#[derive(Deserialize)]
struct Pod {
    metadata: Metadata,
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: String,
    #[serde(default)]
    deletion_timestamp: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    node_name: String,
    containers: Vec<Container>,
}

#[derive(Deserialize)]
struct Container {
    name: String,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    phase: String,
}

impl Pod {
    /// Returns true if it is an agent that can be asked. Pods of a hook of the chart have its labels too.
    fn is_agent(&self) -> bool {
        self.status.phase == "Running"
            && self.metadata.deletion_timestamp.is_none()
            && self.spec.containers.iter().any(|container| container.name == CONTAINER)
    }
}

impl Cluster {
    /// Returns kubectl with the options that select the cluster.
    pub(super) fn kubectl(&self) -> Command {
        let mut kubectl = Command::new("kubectl");
        if let Some(context) = &self.context {
            kubectl.arg("--context").arg(context);
        }
        if let Some(file) = &self.kubeconfig {
            kubectl.arg("--kubeconfig").arg(file);
        }
        kubectl
    }

    /// Returns the agents of the selected nodes, in the order of the nodes' names.
    ///
    /// # Errors
    /// When kubectl fails, or there is none.
    pub(super) fn agents(&self) -> anyhow::Result<Vec<Agent>> {
        let mut list = self.kubectl();
        list.args(["get", "pods", "--output", "json", "--selector", &self.selector]);
        match &self.agents {
            Some(namespace) => list.args(["--namespace", namespace]),
            None => list.arg("--all-namespaces"),
        };
        let listed = list.stdin(Stdio::null()).output().context("cannot run kubectl")?;
        if !listed.status.success() {
            let error = String::from_utf8_lossy(&listed.stderr);
            let hint = match &self.agents {
                None if error.contains("Forbidden") => {
                    "; --agents NAMESPACE needs the permission for one namespace only"
                }
                _ => "",
            };
            bail!("cannot list the agents: {}{hint}", visible(error.trim_end()));
        }
        let pods: Pods =
            serde_json::from_slice(&listed.stdout).context("cannot read the list of kubectl")?;
        let found = self.select(pods);
        if found.is_empty() {
            bail!(
                "no agent runs: no pod with the labels {} and a container {CONTAINER:?} is Running{}{}",
                self.selector,
                self.agents.as_ref().map_or(String::new(), |it| format!(" in the namespace {it}")),
                if self.nodes.is_empty() { "" } else { " on these nodes" },
            );
        }
        Ok(found)
    }

    fn select(&self, pods: Pods) -> Vec<Agent> {
        let is_selected = |pod: &Pod| {
            let node = &pod.spec.node_name;
            self.nodes.is_empty() || self.nodes.iter().any(|pattern| pattern.matches(node))
        };
        let pods = pods.items.into_iter().filter(|pod| pod.is_agent() && is_selected(pod));
        let mut agents: Vec<Agent> = pods
            .map(|Pod { metadata, spec, .. }| {
                let mut command = self.kubectl();
                command.args(["exec", "--stdin", "--namespace", &metadata.namespace]);
                command.args([&metadata.name, "--container", CONTAINER, "--", "tap53", "relay"]);
                let place =
                    format!("{} ({}/{})", spec.node_name, metadata.namespace, metadata.name);
                Agent { node: spec.node_name, client: Client::of(Exec::new(&command, place)) }
            })
            .collect();
        agents.sort_by(|one, other| one.node.cmp(&other.node));
        agents
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::command::kubectl::Arguments;

    fn cluster(arguments: &[&str]) -> Cluster {
        let all = ["kubectl-tap53", "status"].iter().chain(arguments);
        Arguments::try_parse_from(all).unwrap().cluster
    }

    fn pods() -> Pods {
        let pod = |name: &str, node: &str, phase: &str, container: &str| {
            serde_json::json!({
                "metadata": {"name": name, "namespace": "monitoring"},
                "spec": {"nodeName": node, "containers": [{"name": container}]},
                "status": {"phase": phase},
            })
        };
        let mut leaving = pod("tap53-d", "node-1", "Running", "tap53");
        leaving["metadata"]["deletionTimestamp"] = "2026-11-30T00:00:00Z".into();
        let items = [
            pod("tap53-b", "node-2", "Running", "tap53"),
            pod("tap53-a", "node-1", "Running", "tap53"),
            pod("tap53-c", "node-3", "Pending", "tap53"),
            pod("tap53-test", "node-1", "Running", "probe"),
            leaving,
        ];
        serde_json::from_value(serde_json::json!({ "items": items })).unwrap()
    }

    fn places(cluster: &Cluster) -> Vec<String> {
        cluster.select(pods()).iter().map(|agent| agent.client.place()).collect()
    }

    #[test]
    fn running_agents_are_found_in_the_order_of_their_nodes() {
        let all = ["node-1 (monitoring/tap53-a)", "node-2 (monitoring/tap53-b)"];
        assert_eq!(places(&cluster(&[])), all);
        assert_eq!(places(&cluster(&["--node", "*-2"])), all[1..]);
        assert!(places(&cluster(&["--node", "node-3"])).is_empty());
    }

    #[test]
    fn kubectl_gets_the_options_of_the_cluster() {
        let cluster = cluster(&["--context", "dev", "--kubeconfig", "/etc/kube"]);
        let kubectl = cluster.kubectl();
        let arguments: Vec<_> = kubectl.get_args().collect();
        assert_eq!(arguments, ["--context", "dev", "--kubeconfig", "/etc/kube"]);
    }
}
