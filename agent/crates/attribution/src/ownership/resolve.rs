//! Computes the owners of an address over time from all claims to it.

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use super::{
    super::{
        address_history::{Claim, Micros, Span, any, exclusive, overlay, unique},
        index::AddressHistory,
    },
    Ownership,
    holder::{Holder, Kind},
    hosts::Host,
};

/// The objects that claim an address.
#[derive(Default)]
pub(super) struct Claimants {
    /// UIDs of pods and services.
    pub(super) holders: Vec<Arc<str>>,
    pub(super) node: Option<Arc<str>>,
}

impl Claimants {
    const fn is_empty(&self) -> bool {
        self.holders.is_empty() && self.node.is_none()
    }
}

impl Ownership {
    pub(super) fn resolve_all(&mut self, uid: &str) {
        let Some(holder) = self.holders.get(uid) else { return };
        if holder.kind == Kind::HostPod {
            let node = holder.owner.identity().node_name.clone().unwrap_or_default();
            self.resolve_host(&node);
            return;
        }
        let addresses: Vec<IpAddr> = holder.held.iter().map(|held| held.address).collect();
        for address in addresses {
            self.resolve(address);
        }
    }

    /// Recomputes a node's addresses: a pod in its network may use any of them.
    pub(super) fn resolve_host(&mut self, node: &str) {
        let Some(host) = self.hosts.get(node) else { return };
        let pods = host.pods.iter().filter_map(|uid| self.holders.get(uid));
        let of_pods = pods.flat_map(|holder| holder.held.iter().map(|held| held.address));
        let own = host.addresses.iter().chain(&host.local).copied();
        let is_own = node == self.local_pods.node();
        let of_cache = self.node_cache.iter().filter(|_| is_own).copied();
        let addresses: HashSet<IpAddr> = of_pods.chain(own).chain(of_cache).collect();
        for address in addresses {
            self.resolve(address);
        }
    }

    /// Recomputes the owners of an address for the next snapshot.
    pub(super) fn resolve(&mut self, address: IpAddr) {
        let claimants = self.addresses.get(&address);
        let holders: Vec<&Holder> = claimants
            .into_iter()
            .flat_map(|claimants| &claimants.holders)
            .filter_map(|uid| self.holders.get(uid))
            .collect();
        let of = |kind| {
            let holders = holders.iter().filter(|holder| holder.kind == kind);
            let claims: Vec<Claim> =
                holders.flat_map(|holder| holder.claims(Some(address))).collect();
            exclusive(claims.iter())
        };
        let host = claimants.and_then(|claimants| self.hosts.get(claimants.node.as_ref()?));
        let host = host.map_or_else(Vec::new, |host| self.host_spans(host));
        let shared = overlay(overlay(host, of(Kind::Service)), self.node_cache_spans(address));
        let history = AddressHistory::new(overlay(shared, of(Kind::Pod)));
        if history.is_none() && self.addresses.get(&address).is_some_and(Claimants::is_empty) {
            self.addresses.remove(&address);
        }
        // Most events change nothing here: a pod's status has many other fields.
        self.changed |= self.index.set(address, history);
    }

    fn host_spans(&self, host: &Host) -> Vec<Span> {
        let pods = host.pods.iter().filter_map(|uid| self.holders.get(uid));
        // The address in a pod's status does not matter: the pod may use all of the node's.
        let claims: Vec<Claim> = pods.flat_map(|holder| holder.claims(None)).collect();
        let always = Span { from: Micros::MIN, until: Micros::MAX, owner: host.alone.clone() };
        overlay(vec![always], any(claims.iter(), &host.ambiguous))
    }

    /// Returns when one pod was the DNS cache of this node. It is ambiguous while there were two.
    fn node_cache_spans(&self, address: IpAddr) -> Vec<Span> {
        let host = self.hosts.get(self.local_pods.node());
        let Some(host) = host.filter(|_| self.node_cache.contains(&address)) else {
            return Vec::new();
        };
        let pods = host.pods.iter().filter_map(|uid| self.holders.get(uid));
        let caches = pods.filter(|holder| holder.is_node_cache);
        let claims: Vec<Claim> = caches.flat_map(|holder| holder.claims(None)).collect();
        unique(&claims, &host.ambiguous)
    }
}
