//! Who owned an address when, from all claims of it.

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use super::{
    super::{
        index::Tenants,
        tenancy::{Claim, Micros, Span, any, exclusive, overlay},
    },
    Ownership,
    holder::Kind,
    hosts::Host,
};

/// Who has an address, or had.
#[derive(Default)]
pub(super) struct Claimants {
    /// Pods and services, by UID.
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

    /// A pod in a node's network may use any address of the node.
    pub(super) fn resolve_host(&mut self, node: &str) {
        let Some(host) = self.hosts.get(node) else { return };
        let pods = host.pods.iter().filter_map(|uid| self.holders.get(uid));
        let of_pods = pods.flat_map(|holder| holder.held.iter().map(|held| held.address));
        let own = host.addresses.iter().chain(&host.local).copied();
        let addresses: HashSet<IpAddr> = of_pods.chain(own).collect();
        for address in addresses {
            self.resolve(address);
        }
    }

    /// Computes who owned an address when, for the next snapshot.
    pub(super) fn resolve(&mut self, address: IpAddr) {
        let tenants = self.addresses.get(&address).and_then(|claimants| {
            let of = |kind| {
                let holders = claimants.holders.iter().filter_map(|uid| self.holders.get(uid));
                let holders = holders.filter(move |holder| holder.kind == kind);
                let claims: Vec<Claim> =
                    holders.flat_map(|holder| holder.claims(Some(address))).collect();
                exclusive(claims.iter())
            };
            let host = claimants.node.as_ref().and_then(|node| self.hosts.get(node));
            let host = host.map_or_else(Vec::new, |host| self.host_spans(host));
            Tenants::new(overlay(overlay(host, of(Kind::Service)), of(Kind::Pod)))
        });
        if tenants.is_none() && self.addresses.get(&address).is_some_and(Claimants::is_empty) {
            self.addresses.remove(&address);
        }
        // Most events change nothing here: a pod's status has much else in it.
        self.changed |= self.index.set(address, tenants);
    }

    fn host_spans(&self, host: &Host) -> Vec<Span> {
        let pods = host.pods.iter().filter_map(|uid| self.holders.get(uid));
        // The address in a pod's status does not matter: it may use all of them.
        let claims: Vec<Claim> = pods.flat_map(|holder| holder.claims(None)).collect();
        let always = Span { from: Micros::MIN, until: Micros::MAX, owner: host.alone.clone() };
        overlay(vec![always], any(claims.iter(), &host.ambiguous))
    }
}
