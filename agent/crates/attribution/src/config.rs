//! The sections `kubernetes` and `containers`: the evidence for the owners of addresses and sockets.

use std::{env, path::PathBuf, time::Duration};

use clap::ValueEnum;
use ipnet::IpNet;
use serde::Serialize;
use tap53_base::settings::{
    Section, as_milliseconds, boolean, choice, label, milliseconds, prefix, text, whole_number,
};

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
    /// True if services are watched.
    pub services: bool,
    /// True if all nodes are watched, not only this one.
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
        Self {
            enabled: section.read("enabled", boolean).unwrap_or(present),
            kubeconfig: section.read("kubeconfig", text(absolute)),
            scope,
            labels,
            services: section.read("services", boolean).unwrap_or(true),
            nodes: section.read("nodes", boolean).unwrap_or(true),
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
        }
    }
}

/// Maximum number of labels in a record.
const MAX_LABELS: usize = 32;

/// Accepts the key of a label: a name of up to 63 characters, optionally after a domain and a
/// slash.
fn label_key(text: &str) -> Result<String, String> {
    let (domain, name) = text.split_once('/').map_or((None, text), |(d, name)| (Some(d), name));
    let part = |part: &str, longest: usize, extra: &[char]| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || extra.contains(&c);
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        part.len() <= longest
            && part.chars().all(allowed)
            && edge(part.chars().next())
            && edge(part.chars().next_back())
    };
    let name_fits = part(name, 63, &['-', '_', '.']);
    if name_fits && domain.is_none_or(|domain| part(domain, 253, &['-', '.'])) {
        Ok(text.to_owned())
    } else {
        Err("is not the key of a label: write app, or app.kubernetes.io/name".to_owned())
    }
}

/// Accepts only an absolute path: it must not depend on the directory that the agent starts in.
fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err("must be an absolute path".to_owned()) }
}

/// Returns the node's name from the environment that the DaemonSet sets.
pub fn node_name() -> Option<String> {
    env::var(NODE_NAME).ok().filter(|name| label(name).is_ok())
}
