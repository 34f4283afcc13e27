//! Claims of Kubernetes objects to addresses.

use std::net::IpAddr;

use ipnet::IpNet;
use tap53_records::encode::Identity;

use super::super::tenancy::{End, Micros};

/// Addresses that a pod claims, and when it had them.
#[derive(Clone, Debug)]
pub(crate) struct PodClaim {
    pub(crate) uid: String,
    pub(crate) identity: Identity,
    /// Its own, or its node's.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) host_network: bool,
    /// Time from which the pod had its addresses; `None` where its status has none.
    pub(crate) start: Option<Micros>,
    /// When it cannot have had them yet.
    pub(crate) earliest: Micros,
    pub(crate) end: End,
}

/// Addresses that a service claims.
#[derive(Clone, Debug)]
pub(crate) struct ServiceClaim {
    pub(crate) uid: String,
    pub(crate) identity: Identity,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) created: Micros,
}

/// Addresses and pod ranges that a node claims.
#[derive(Clone, Debug)]
pub(crate) struct NodeClaim {
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ranges: Vec<IpNet>,
}
