//! The `kubernetes` section: who is asked for the owners of addresses.

use std::{env, path::PathBuf, time::Duration};

use clap::ValueEnum;
use ipnet::IpNet;
use serde::Serialize;
use tap53_base::settings::{
    Section, as_milliseconds, boolean, choice, label, milliseconds, prefix, text, whole_number,
};

/// Environment variable with this node's name, which a DaemonSet sets from `spec.nodeName`.
const NODE_NAME: &str = "NODE_NAME";

/// Who is asked for the owners of addresses, and for what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KubernetesConfig {
    /// Whether the Kubernetes API is asked at all; true where the section is there.
    pub enabled: bool,
    /// A kubeconfig file; without one, the account of the pod that the agent runs in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,
    /// Whose pods are watched.
    pub scope: Scope,
    /// Labels of pods that records carry.
    pub labels: Vec<String>,
    /// Whether services are watched.
    pub services: bool,
    /// Whether all nodes are watched, not only this one.
    pub nodes: bool,
    /// Ranges of the cluster beside private ones and the pod ranges of its nodes.
    pub cidrs: Vec<IpNet>,
    /// How long a record waits for the name of a pod of this node.
    #[serde(rename = "hold_ms", serialize_with = "as_milliseconds")]
    pub hold: Duration,
    /// Addresses of pods and services that are held at most.
    pub max_addresses: usize,
}

/// Whose pods are watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Those of this node.
    #[default]
    Node,
    /// Those of all nodes.
    Cluster,
}

impl KubernetesConfig {
    /// Reads the section, which turns attribution on where it is `present`.
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
            // The kubelet looks once a second, and then writes what it saw.
            hold: section
                .read("hold_ms", milliseconds(0..=30_000))
                .unwrap_or(Duration::from_secs(3)),
            // A node runs a few hundred pods, and its jobs come and go; a cluster up to 150,000,
            // with two addresses each.
            max_addresses: max_addresses.unwrap_or(match scope {
                Scope::Node => 1 << 16,
                Scope::Cluster => 1 << 19,
            }),
        }
    }
}

/// Labels that a record carries at most.
const MAX_LABELS: usize = 32;

/// The key of a label: a name of up to 63 characters, or a domain, a slash and such a name.
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

/// A path that does not depend on where the agent was started.
fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err("must be an absolute path".to_owned()) }
}

/// The node's name as the DaemonSet tells it.
pub fn node_name() -> Option<String> {
    env::var(NODE_NAME).ok().filter(|name| label(name).is_ok())
}
