//! Pods that query.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Cluster, TIMEOUT, images};

/// Parent of names that the upstream resolver knows.
pub const ZONE: &str = "pods.test";
/// Label of the pods of one call.
const LABEL: &str = "tap53.test/queries";

/// A pod that sends queries as soon as it runs, and ends.
#[derive(Clone, Debug)]
pub struct Query {
    /// Name of the pod. The names that it queries are `q0.NAME.pods.test`, `q1.…` and so on.
    pub pod: String,
    /// Its node.
    pub node: &'static str,
    /// Number of queries.
    pub count: u32,
    /// Milliseconds between an answer and the next query.
    pub interval_ms: u32,
    /// True if it is in the node's network.
    pub host_network: bool,
    /// Parent of the names: [`ZONE`], or another.
    pub zone: String,
}

impl Query {
    /// Ten queries for names of [`ZONE`] from a pod of a node.
    #[must_use]
    pub fn new(pod: &str, node: &'static str) -> Self {
        let zone = ZONE.to_owned();
        Self { pod: pod.to_owned(), node, count: 10, interval_ms: 5, host_network: false, zone }
    }

    /// The names that it queries.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        (0..self.count).map(|number| format!("q{number}.{}.{}", self.pod, self.zone)).collect()
    }

    fn object(&self, label: &str) -> Value {
        let name = format!("{}.{}", self.pod, self.zone);
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": self.pod,
                "namespace": "default",
                "labels": {LABEL: label, "app.kubernetes.io/name": "client"},
            },
            "spec": {
                "nodeName": self.node,
                "hostNetwork": self.host_network,
                "dnsPolicy": if self.host_network { "ClusterFirstWithHostNet" } else { "ClusterFirst" },
                "restartPolicy": "Never",
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "query",
                    "image": images::POD,
                    "args": ["query", name, self.count.to_string(), self.interval_ms.to_string()],
                }],
            },
        })
    }
}

impl Cluster<'_> {
    /// Creates all pods at once, and waits until each has all its answers.
    ///
    /// # Errors
    /// If one does not get them.
    pub fn query(&self, label: &str, queries: &[Query]) -> Result<()> {
        self.start_queries(label, queries)?;
        self.wait_for_queries(label)
    }

    /// Creates all pods at once.
    ///
    /// # Errors
    /// If the API server refuses one.
    pub fn start_queries(&self, label: &str, queries: &[Query]) -> Result<()> {
        let pods = queries.iter().map(|query| format!("---\n{}\n", query.object(label)));
        self.api.apply(&pods.collect::<String>()).map(drop)
    }

    /// Waits until the pods of this label have all their answers.
    ///
    /// # Errors
    /// If one does not get them.
    pub fn wait_for_queries(&self, label: &str) -> Result<()> {
        let selector = format!("{LABEL}={label}");
        let phase = "--for=jsonpath={.status.phase}=Succeeded";
        self.api
            .kubectl(&["wait", phase, "pod", "--selector", &selector, TIMEOUT])
            .with_context(|| self.pods_report())?;
        Ok(())
    }
}
