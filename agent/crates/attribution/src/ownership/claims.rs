//! Claims of Kubernetes objects to addresses.

use std::net::IpAddr;

use ipnet::IpNet;
use tap53_records::encode::Identity;

use super::super::address_history::{End, Micros};

/// The addresses of a pod, and the time since when it had them.
#[derive(Clone, Debug)]
pub(crate) struct PodClaim {
    pub(crate) uid: String,
    pub(crate) identity: Identity,
    /// Addresses of the pod, or of its node.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) host_network: bool,
    /// True if the pod may be the DNS cache of its node.
    pub(crate) is_node_cache: bool,
    /// Time from which the pod had its addresses; `None` where its status has none.
    pub(crate) start: Option<Micros>,
    /// Earliest time at which the pod can have had them.
    pub(crate) earliest: Micros,
    pub(crate) end: End,
    /// Identifiers and names of its containers, as far as they were created.
    pub(crate) containers: Vec<(String, String)>,
    /// UID of a static pod as the kubelet has it.
    pub(crate) manifest_hash: Option<String>,
}

/// The addresses of a service.
#[derive(Clone, Debug)]
pub(crate) struct ServiceClaim {
    pub(crate) uid: String,
    pub(crate) identity: Identity,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) created: Micros,
}

/// The addresses and pod ranges of a node.
#[derive(Clone, Debug)]
pub(crate) struct NodeClaim {
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ranges: Vec<IpNet>,
}
