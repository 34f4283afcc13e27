//! The fields of Kubernetes objects that are used, and no others: the parser skips all other fields
//! without allocating.
//!
//! Parsing is lenient where one bad value must not cost an object: a time or an address that cannot
//! be parsed becomes `None`. Objects are then converted to claims.

use std::{collections::BTreeMap, fmt, marker::PhantomData, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Visitor},
};
use tap53_records::encode::{Attribution, Identity};

use super::{
    address_history::{End, Micros},
    ownership::{NodeClaim, PodClaim, ServiceClaim},
    selector::LabelSelector,
};

/// Resolution of times in objects: whole seconds, rounded down.
const GRAIN_US: Micros = 1_000_000;

/// A value parsed from text, or `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lenient<T>(Option<T>);

impl<T> Default for Lenient<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: FromStr> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text<T>(PhantomData<T>);

        impl<T: FromStr> Visitor<'_> for Text<T> {
            type Value = Lenient<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text or null")
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Lenient(text.parse().ok()))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Lenient(None))
            }
        }

        deserializer.deserialize_any(Text(PhantomData))
    }
}

/// Annotation of the API server's copy of a static pod: the UID under which the kubelet knows it,
/// and by which its cgroup is named.
const MANIFEST_HASH: &str = "kubernetes.io/config.hash";

type Time = Lenient<jiff::Timestamp>;

impl Time {
    fn us(self) -> Option<Micros> {
        self.0.map(jiff::Timestamp::as_microsecond)
    }
}

/// Reads a list or map that may be null.
fn or_empty<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A kind of object that can be watched.
pub(super) trait Object: DeserializeOwned + Send + 'static {
    /// Name of the collection, in the plural.
    const RESOURCE: &'static str;

    /// Returns the metadata.
    fn metadata(&self) -> &Metadata;

    /// Returns the identifier of the object: its UID or its name.
    fn key(metadata: &Metadata) -> &str {
        &metadata.uid
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metadata {
    pub(super) uid: String,
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) resource_version: String,
    creation_timestamp: Time,
    #[serde(deserialize_with = "or_empty")]
    labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_empty")]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_empty")]
    owner_references: Vec<OwnerReference>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct OwnerReference {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) uid: String,
    controller: bool,
}

impl Metadata {
    /// Returns the owner that manages the object.
    pub(super) fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|reference| reference.controller)
    }
}

/// A Job, or any object of which only the metadata is used.
#[derive(Debug, Deserialize)]
pub(super) struct MetadataOnly {
    pub(super) metadata: Metadata,
}

#[derive(Debug, Deserialize)]
pub(super) struct Pod {
    metadata: Metadata,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_name: Option<String>,
    host_network: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus {
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: Lenient<IpAddr>,
    #[serde(rename = "podIPs", deserialize_with = "or_empty")]
    pod_ips: Vec<PodAddress>,
    #[serde(rename = "hostIP")]
    host_ip: Lenient<IpAddr>,
    #[serde(rename = "hostIPs", deserialize_with = "or_empty")]
    host_ips: Vec<PodAddress>,
    start_time: Time,
    #[serde(deserialize_with = "or_empty")]
    conditions: Vec<Condition>,
    #[serde(deserialize_with = "or_empty")]
    init_container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "or_empty")]
    container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "or_empty")]
    ephemeral_container_statuses: Vec<ContainerStatus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodAddress {
    ip: Lenient<IpAddr>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    last_transition_time: Time,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerStatus {
    name: String,
    #[serde(rename = "containerID", deserialize_with = "or_empty")]
    container_id: String,
    #[serde(deserialize_with = "or_empty")]
    state: ContainerState,
    #[serde(deserialize_with = "or_empty")]
    last_state: ContainerState,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerState {
    running: Option<ContainerTimes>,
    terminated: Option<ContainerTimes>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerTimes {
    started_at: Time,
    finished_at: Time,
}

impl Object for Pod {
    const RESOURCE: &'static str = "pods";

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

impl Pod {
    /// Returns the owner that manages the pod.
    pub(super) fn controller(&self) -> Option<&OwnerReference> {
        self.metadata.controller()
    }

    /// Returns true if the pod is in its node's network and in the namespace of the DNS servers, if
    /// there is one, and has the labels of the node's DNS cache.
    pub(super) fn is_node_cache(&self, selector: &LabelSelector, namespace: Option<&str>) -> bool {
        self.spec.host_network
            && namespace.is_none_or(|namespace| namespace == self.metadata.namespace)
            && selector.selects(&self.metadata.labels)
    }

    /// Returns true if the pod has ended without having been deleted.
    fn has_ended(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Converts the pod, as seen at `now`, to a claim; `workload` manages it.
    pub(super) fn claim(
        &self,
        chosen_labels: &[String],
        workload: Option<(&str, &str)>,
        now: Micros,
    ) -> PodClaim {
        let Self { metadata, spec, status } = self;
        let labels: BTreeMap<String, String> = chosen_labels
            .iter()
            .filter_map(|name| Some((name.clone(), metadata.labels.get(name)?.clone())))
            .collect();
        let identity = Identity {
            attribution: Attribution::Pod,
            pod_uid: Some(metadata.uid.clone()),
            pod_name: Some(metadata.name.clone()),
            pod_namespace: Some(metadata.namespace.clone()),
            workload_kind: workload.map(|(kind, _)| kind.to_owned()),
            workload_name: workload.map(|(_, name)| name.to_owned()),
            labels: (!labels.is_empty()).then_some(labels),
            node_name: spec.node_name.clone(),
            ..Default::default()
        };
        let earliest = status.start_time.us().or(metadata.creation_timestamp.us());
        PodClaim {
            uid: metadata.uid.clone(),
            identity,
            addresses: self.addresses(),
            host_network: spec.host_network,
            is_node_cache: false,
            start: status.had_addresses_at(),
            earliest: earliest.unwrap_or(now),
            end: if self.has_ended() { self.end(now) } else { End::Open },
            containers: status.containers().filter_map(ContainerStatus::identifier).collect(),
            manifest_hash: metadata.annotations.get(MANIFEST_HASH).cloned(),
        }
    }

    /// Returns the end of a pod that was deleted, as seen at `now`.
    pub(super) fn end(&self, now: Micros) -> End {
        match self.status.finished_at() {
            // It ended within that second, and not after it was seen.
            Some(at) => End::Known((at + GRAIN_US).min(now).max(at)),
            None => End::By(now),
        }
    }

    fn addresses(&self) -> Vec<IpAddr> {
        let status = &self.status;
        let own = status.pod_ips.iter().map(|address| address.ip).chain([status.pod_ip]);
        let host = status.host_ips.iter().map(|address| address.ip).chain([status.host_ip]);
        let host = host.filter(|_| self.spec.host_network);
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in own.chain(host).filter_map(|address| address.0) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }
}

impl ContainerStatus {
    /// Identifier and name, once the runtime has created it: the API has `containerd://<id>`.
    fn identifier(&self) -> Option<(String, String)> {
        let (_, id) = self.container_id.split_once("://")?;
        Some((id.to_owned(), self.name.clone()))
    }
}

impl PodStatus {
    fn containers(&self) -> impl Iterator<Item = &ContainerStatus> {
        self.init_container_statuses
            .iter()
            .chain(&self.container_statuses)
            .chain(&self.ephemeral_container_statuses)
    }

    /// Returns the time from which the pod certainly had its addresses: its network was ready, or a
    /// container ran. `startTime` is useless: the kubelet sets it before the sandbox exists.
    fn had_addresses_at(&self) -> Option<Micros> {
        let ready = self
            .conditions
            .iter()
            .filter(|it| it.kind == "PodReadyToStartContainers" && it.status == "True")
            .filter_map(|it| it.last_transition_time.us());
        let states = self.containers().flat_map(|container| {
            [&container.state, &container.last_state]
                .into_iter()
                .flat_map(|state| [state.running, state.terminated])
        });
        let started = states.flatten().filter_map(|times| times.started_at.us());
        ready.chain(started).min()
    }

    /// Returns the time when the last container ended, if all have.
    fn finished_at(&self) -> Option<Micros> {
        let mut last = None;
        for container in self.containers() {
            // A container that waits has never run, or has ended before.
            if container.state.running.is_some() {
                return None;
            }
            for state in [&container.state, &container.last_state] {
                let at = state.terminated.and_then(|times| times.finished_at.us());
                last = last.max(at);
            }
        }
        last
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Service {
    metadata: Metadata,
    #[serde(default)]
    spec: ServiceSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceSpec {
    #[serde(rename = "clusterIP")]
    cluster_ip: Lenient<IpAddr>,
    #[serde(rename = "clusterIPs", deserialize_with = "or_empty")]
    cluster_ips: Vec<Lenient<IpAddr>>,
}

impl Object for Service {
    const RESOURCE: &'static str = "services";

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

impl Service {
    /// Converts the service to a claim; a headless service has no address.
    pub(super) fn claim(&self, now: Micros) -> ServiceClaim {
        let Self { metadata, spec } = self;
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in spec.cluster_ips.iter().chain([&spec.cluster_ip]).filter_map(|it| it.0) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        ServiceClaim {
            uid: metadata.uid.clone(),
            identity: Identity {
                attribution: Attribution::Service,
                service_name: Some(metadata.name.clone()),
                service_namespace: Some(metadata.namespace.clone()),
                ..Default::default()
            },
            addresses,
            created: metadata.creation_timestamp.us().unwrap_or(now),
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Node {
    metadata: Metadata,
    #[serde(default)]
    spec: NodeSpec,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeSpec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Lenient<IpNet>,
    #[serde(rename = "podCIDRs", deserialize_with = "or_empty")]
    pod_cidrs: Vec<Lenient<IpNet>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeStatus {
    #[serde(deserialize_with = "or_empty")]
    addresses: Vec<NodeAddress>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeAddress {
    /// The list also contains names, which are not addresses.
    address: Lenient<IpAddr>,
}

impl Object for Node {
    const RESOURCE: &'static str = "nodes";

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Pods refer to their node by its name.
    fn key(metadata: &Metadata) -> &str {
        &metadata.name
    }
}

impl Node {
    pub(super) fn annotation(&self, name: &str) -> Option<&String> {
        self.metadata.annotations.get(name)
    }

    /// Converts the node to a claim.
    pub(super) fn claim(&self) -> NodeClaim {
        let Self { metadata, spec, status } = self;
        let ranges = spec.pod_cidrs.iter().chain([&spec.pod_cidr]).filter_map(|range| range.0);
        NodeClaim {
            name: metadata.name.clone(),
            addresses: status.addresses.iter().filter_map(|it| it.address.0).collect(),
            ranges: ranges.collect(),
        }
    }
}

/// Returns the workload of a pod's controller (Deployment, StatefulSet, …), as far as the pod
/// itself states it. A Job must be queried for its CronJob.
///
/// A ReplicaSet of a Deployment has the Deployment's name with the hash of the pod template
/// appended, which a label of the pod repeats. So the Deployment is known without watching
/// ReplicaSets, of which a cluster keeps ten for each Deployment.
pub(super) fn workload(pod: &Pod) -> Option<(&str, &str)> {
    let controller = pod.controller()?;
    if controller.kind == "ReplicaSet"
        && let Some(hash) = pod.metadata.labels.get("pod-template-hash")
        && let Some(stem) = controller.name.strip_suffix(hash.as_str())
        && let Some(deployment) = stem.strip_suffix('-')
    {
        return Some(("Deployment", deployment));
    }
    Some((&controller.kind, &controller.name))
}

#[cfg(test)]
mod tests;
