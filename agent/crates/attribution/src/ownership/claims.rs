//! What objects say of addresses, as far as it matters here.

use std::net::IpAddr;

use ipnet::IpNet;
use tap53_records::encode::Identity;

use super::super::tenancy::{End, Micros};

/// What a pod says of itself.
#[derive(Clone, Debug)]
pub(crate) struct PodClaim {
    pub(crate) uid: String,
    pub(crate) identity: Identity,
    /// Its own, or its node's.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) host_network: bool,
    /// When it had its addresses, if it says so.
    pub(crate) start: Option<Micros>,
    /// When it cannot have had them yet.
    pub(crate) earliest: Micros,
    pub(crate) end: End,
}

/// What a service says of itself.
#[derive(Clone, Debug)]
pub(crate) struct ServiceClaim {
    pub(crate) uid: String,
    pub(crate) identity: Identity,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) created: Micros,
}

/// What a node says of itself.
#[derive(Clone, Debug)]
pub(crate) struct NodeClaim {
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ranges: Vec<IpNet>,
}
