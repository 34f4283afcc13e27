//! What objects say of addresses, as far as it matters here.

use std::net::IpAddr;

use ipnet::IpNet;

use super::super::tenancy::{End, Micros};
use crate::encode::Identity;

/// What a pod says of itself.
#[derive(Clone, Debug)]
pub(in crate::enrich) struct PodClaim {
    pub(in crate::enrich) uid: String,
    pub(in crate::enrich) identity: Identity,
    /// Its own, or its node's.
    pub(in crate::enrich) addresses: Vec<IpAddr>,
    pub(in crate::enrich) host_network: bool,
    /// When it had its addresses, if it says so.
    pub(in crate::enrich) start: Option<Micros>,
    /// When it cannot have had them yet.
    pub(in crate::enrich) earliest: Micros,
    pub(in crate::enrich) end: End,
}

/// What a service says of itself.
#[derive(Clone, Debug)]
pub(in crate::enrich) struct ServiceClaim {
    pub(in crate::enrich) uid: String,
    pub(in crate::enrich) identity: Identity,
    pub(in crate::enrich) addresses: Vec<IpAddr>,
    pub(in crate::enrich) created: Micros,
}

/// What a node says of itself.
#[derive(Clone, Debug)]
pub(in crate::enrich) struct NodeClaim {
    pub(in crate::enrich) name: String,
    pub(in crate::enrich) addresses: Vec<IpAddr>,
    pub(in crate::enrich) ranges: Vec<IpNet>,
}
