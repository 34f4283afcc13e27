//! The sections `kubernetes` and `containers`: the evidence for the owners of addresses and sockets.

use std::{env, net::IpAddr, path::PathBuf, time::Duration};

use clap::ValueEnum;
use ipnet::IpNet;
use serde::{Serialize, Serializer};
use tap53_base::settings::{
    Section, Value, as_milliseconds, boolean, choice, label, milliseconds, prefix, text,
    whole_number,
};

use crate::selector::{LabelSelector, label_key};

/// Environment variable with this node's name, which a DaemonSet sets from `spec.nodeName`.
const NODE_NAME: &str = "NODE_NAME";

/// Configures which API server is queried for the owners of addresses, and for which objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KubernetesConfig {
    /// True if the Kubernetes API is queried at all; defaults to true if the section is present.
    pub enabled: bool,
    /// Path of a kubeconfig file. Unset, the service account of the agent's pod is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,
    /// The pods to watch.
    pub scope: Scope,
    /// Keys of the pod labels that records contain.
    pub labels: Vec<String>,
    /// The pods and services of the cluster's DNS servers.
    pub servers: ServersConfig,
    /// The DNS cache of this node.
    pub node_local_dns: NodeLocalDnsConfig,
    /// The services to watch.
    pub services: Services,
    /// True if all nodes are watched, not only this one; defaults to true with [`Scope::Cluster`].
    pub nodes: bool,
    /// Address ranges of the cluster in addition to private ones and the pod ranges of its nodes.
    pub cidrs: Vec<IpNet>,
    /// Maximum time that a record waits for the name of a pod on this node.
    #[serde(rename = "hold_ms", serialize_with = "as_milliseconds")]
    pub hold: Duration,
    /// Maximum number of addresses of pods and services that are stored.
    pub max_addresses: usize,
}

/// The pods to watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Pods of this node.
    #[default]
    Node,
    /// Pods of all nodes.
    Cluster,
}

/// The services to watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Services {
    /// All services; `true` in the configuration.
    #[default]
    All,
    /// Those that [`ServersConfig`] selects; `servers` in the configuration.
    Servers,
    /// None; `false` in the configuration.
    None,
}

impl Services {
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Boolean(true) => Ok(Self::All),
            Value::Boolean(false) => Ok(Self::None),
            Value::Text(text) if text == "servers" => Ok(Self::Servers),
            _ => Err("must be true, false or servers".to_owned()),
        }
    }
}

impl Serialize for Services {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_bool(true),
            Self::Servers => serializer.serialize_str("servers"),
            Self::None => serializer.serialize_bool(false),
        }
    }
}

/// Selects the pods and services of the cluster's DNS servers. With [`Scope::Node`], these pods are
/// watched on all nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServersConfig {
    /// Their labels; the empty selector switches the watch off.
    pub selector: LabelSelector,
    /// Their namespace; `None` for all.
    #[serde(serialize_with = "empty_if_none")]
    pub namespace: Option<String>,
}

impl ServersConfig {
    fn read(section: &mut Section<'_>) -> Self {
        let selector = section.read("selector", text(LabelSelector::parse));
        let namespace = section.read("namespace", text(namespace));
        let default = Self::default();
        Self {
            selector: selector.unwrap_or(default.selector),
            namespace: namespace.unwrap_or(default.namespace),
        }
    }
}

impl Default for ServersConfig {
    fn default() -> Self {
        Self { selector: selector_of(SERVERS), namespace: Some(SERVERS_NAMESPACE.to_owned()) }
    }
}

/// Names the pod of this node that answers at addresses which exist on each node, such as those of
/// NodeLocal DNSCache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeLocalDnsConfig {
    /// Labels of the pod, which is in the host's network and in [`ServersConfig::namespace`].
    pub selector: LabelSelector,
    /// The addresses; with none there is no such rule.
    pub addresses: Vec<IpAddr>,
}

impl NodeLocalDnsConfig {
    fn read(section: &mut Section<'_>) -> Self {
        let selector = section.read("selector", text(LabelSelector::parse));
        let addresses = section.read_list("addresses", text(address));
        let default = Self::default();
        Self {
            selector: selector.unwrap_or(default.selector),
            addresses: addresses.unwrap_or(default.addresses),
        }
    }
}

impl Default for NodeLocalDnsConfig {
    fn default() -> Self {
        Self {
            selector: selector_of(NODE_LOCAL),
            addresses: vec![IpAddr::from(NODE_LOCAL_ADDRESS)],
        }
    }
}

/// Labels of the DNS servers of kubeadm and of the large providers.
const SERVERS: &str = "k8s-app in (kube-dns,node-local-dns)";

/// Namespace of these servers. Without a namespace, the API server would pass each event of any pod
/// to each agent's watch, to be filtered there.
const SERVERS_NAMESPACE: &str = "kube-system";

/// Label of the pods of NodeLocal DNSCache.
const NODE_LOCAL: &str = "k8s-app=node-local-dns";

/// Default address of NodeLocal DNSCache.
const NODE_LOCAL_ADDRESS: [u8; 4] = [169, 254, 20, 10];

/// Parses a selector of this file; a test parses all of them.
fn selector_of(text: &str) -> LabelSelector {
    LabelSelector::parse(text).unwrap_or_default()
}

/// Accepts the name of a namespace; the empty text stands for all.
fn namespace(text: &str) -> Result<Option<String>, String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() {
        return Ok(None);
    }
    let edge = text.starts_with('-') || text.ends_with('-');
    if text.len() <= 63 && text.chars().all(allowed) && !edge {
        Ok(Some(text.to_owned()))
    } else {
        Err("is not the name of a namespace; \"\" stands for all".to_owned())
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "is not an IP address: write 169.254.20.10, or fd00::10".to_owned())
}

fn empty_if_none<S: Serializer>(text: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text.as_deref().unwrap_or_default())
}

impl KubernetesConfig {
    /// Reads the section. Attribution is enabled by default if the section is `present`.
    pub fn read(section: &mut Section<'_>, present: bool) -> Self {
        let scope = section.read("scope", choice).unwrap_or_default();
        let max_addresses = section.read("max_addresses", whole_number(1..=1 << 22));
        let mut labels = section.read_list("labels", text(label_key)).unwrap_or_default();
        if labels.len() > MAX_LABELS {
            section.refuse("labels", None, format!("must not have more than {MAX_LABELS} entries"));
            labels.clear();
        }
        let servers = section.section("servers", ServersConfig::read);
        let services = section.read("services", Services::read).unwrap_or_default();
        if services == Services::Servers && servers.selector.is_empty() {
            let wrong = "is servers, but kubernetes.servers.selector selects none";
            section.refuse("services", None, wrong);
        }
        Self {
            enabled: section.read("enabled", boolean).unwrap_or(present),
            kubeconfig: section.read("kubeconfig", text(absolute)),
            scope,
            labels,
            servers,
            node_local_dns: section.section("node_local_dns", NodeLocalDnsConfig::read),
            services,
            // Each node's object has some 15 KB and changes every five minutes at least.
            nodes: section.read("nodes", boolean).unwrap_or(scope == Scope::Cluster),
            cidrs: section.read_list("cidrs", text(prefix)).unwrap_or_default(),
            // The kubelet polls once a second, and then writes the pod's status.
            hold: section
                .read("hold_ms", milliseconds(0..=30_000))
                .unwrap_or(Duration::from_secs(3)),
            // A node runs a few hundred pods, and short-lived jobs; a cluster runs up to 150,000
            // pods with two addresses each.
            max_addresses: max_addresses.unwrap_or(match scope {
                Scope::Node => 1 << 16,
                Scope::Cluster => 1 << 19,
            }),
        }
    }
}

/// Configures how containers are found by the cgroups of sockets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ContainersConfig {
    /// True if records name containers.
    pub enabled: bool,
    /// Mount point of the machine's cgroups.
    pub cgroup_root: PathBuf,
    /// Maximum number of cgroups in memory.
    pub max_cgroups: usize,
    /// True if records name the processes of clients.
    pub processes: bool,
}

impl ContainersConfig {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> Self {
        let root = section.read("cgroup_root", text(absolute));
        Self {
            enabled: section.read("enabled", boolean).unwrap_or(true),
            cgroup_root: root.unwrap_or_else(|| PathBuf::from("/sys/fs/cgroup")),
            // A node of 256 pods has some 2,000, a few hundred bytes each; removed ones stay for a
            // while.
            max_cgroups: section.read("max_cgroups", whole_number(64..=1 << 20)).unwrap_or(16_384),
            // It takes programs that run with each query, and a system call for each record.
            processes: section.read("processes", boolean).unwrap_or(false),
        }
    }
}

/// Maximum number of labels in a record.
const MAX_LABELS: usize = 32;

/// Accepts only an absolute path: it must not depend on the directory that the agent starts in.
fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err("must be an absolute path".to_owned()) }
}

/// Returns the node's name from the environment that the DaemonSet sets.
pub fn node_name() -> Option<String> {
    env::var(NODE_NAME).ok().filter(|name| label(name).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_selectors_are_valid() {
        for text in [SERVERS, NODE_LOCAL] {
            assert_eq!(selector_of(text).query().as_deref(), Some(text));
        }
    }
}
