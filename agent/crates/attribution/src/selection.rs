//! The objects that the watches follow. Requests, status and rights are derived from this list.

use crate::config::{KubernetesConfig, Scope, Services};

/// Pods of other nodes whose address is their own. The address of a pod in the host's network is
/// its node's and names no pod, so the API server leaves those out (Kubernetes 1.28 or newer): with
/// NodeLocal DNSCache there is one on each node.
const OWN_ADDRESS: &str = "spec.hostNetwork=false";

/// The objects that one watch follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Name of the watch in the status, in metrics and in the log.
    pub(crate) watch: &'static str,
    /// Namespace; `None` for all.
    pub(crate) namespace: Option<String>,
    /// Field selector.
    pub(crate) fields: Option<String>,
    /// Label selector.
    pub(crate) labels: Option<String>,
}

/// The objects of all watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selections {
    pub(crate) pods: Selection,
    /// The DNS servers' pods on other nodes.
    pub(crate) server_pods: Option<Selection>,
    pub(crate) services: Option<Selection>,
    pub(crate) nodes: Selection,
}

impl Selections {
    /// Returns what an agent on `node` watches.
    pub(crate) fn new(config: &KubernetesConfig, node: &str) -> Self {
        let is_node = config.scope == Scope::Node;
        let servers = |watch| {
            let labels = config.servers.selector.query()?;
            let namespace = config.servers.namespace.clone();
            Some(Selection { watch, namespace, labels: Some(labels), fields: None })
        };
        let all = |watch| Selection { watch, ..Selection::default() };
        let of_node = |watch, field: &str, only: bool| Selection {
            fields: only.then(|| format!("{field}={node}")),
            ..all(watch)
        };
        let server_pods = servers("server_pods").filter(|_| is_node);
        Self {
            pods: of_node("pods", "spec.nodeName", is_node),
            server_pods: server_pods
                .map(|selection| Selection { fields: Some(OWN_ADDRESS.to_owned()), ..selection }),
            services: match config.services {
                Services::All => Some(all("services")),
                Services::Servers => servers("services"),
                Services::None => None,
            },
            nodes: of_node("nodes", "metadata.name", !config.nodes),
        }
    }

    /// Returns all of them with their resource, in the order of the status.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &Selection)> {
        let some = [
            ("pods", Some(&self.pods)),
            ("pods", self.server_pods.as_ref()),
            ("nodes", Some(&self.nodes)),
            ("services", self.services.as_ref()),
        ];
        some.into_iter().filter_map(|(resource, selection)| Some((resource, selection?)))
    }
}
