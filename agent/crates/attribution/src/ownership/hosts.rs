//! Nodes: their addresses, which the pods in their network share, and their pod ranges.

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use tap53_records::encode::{Attribution, Identity, Owner};

use super::{super::directory::is_private, NodeClaim, Ownership};

/// A node.
pub(super) struct Host {
    pub(super) ambiguous: Owner,
    pub(super) alone: Owner,
    /// True if the Node object exists.
    pub(super) known: bool,
    /// Addresses in the Node object.
    pub(super) addresses: Vec<IpAddr>,
    /// Addresses of the interfaces, if this is the agent's node.
    pub(super) local: Vec<IpAddr>,
    /// UIDs of the pods in the host network.
    pub(super) pods: HashSet<Arc<str>>,
    /// Ranges from which its pods get addresses.
    pub(super) ranges: Vec<IpNet>,
}

impl Host {
    pub(super) fn new(name: &str) -> Self {
        let owner = |attribution| {
            let node_name = Some(name.to_owned());
            Owner::new(Identity { attribution, node_name, ..Default::default() })
        };
        Self {
            ambiguous: owner(Attribution::AmbiguousHostNetwork),
            alone: owner(Attribution::Node),
            known: false,
            addresses: Vec::new(),
            local: Vec::new(),
            pods: HashSet::new(),
            ranges: Vec::new(),
        }
    }

    pub(super) fn names(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address) || self.local.contains(&address)
    }

    /// Returns true if no object refers to the node.
    pub(super) fn is_empty(&self) -> bool {
        !self.known && self.local.is_empty() && self.pods.is_empty()
    }
}

impl Ownership {
    /// Applies the state of a node.
    pub(crate) fn node(&mut self, node: NodeClaim) {
        let name: Arc<str> = node.name.as_str().into();
        let host = self.hosts.entry(name.clone()).or_insert_with(|| Host::new(&name));
        if !host.known {
            host.known = true;
            self.counts.nodes += 1;
        }
        let before = std::mem::replace(&mut host.addresses, node.addresses.clone());
        let other_ranges = host.ranges != node.ranges;
        host.ranges = node.ranges;
        self.move_host(&name, &before, &node.addresses);
        if other_ranges {
            self.collect_ranges();
        }
    }

    /// Updates the addresses of this host's interfaces.
    pub(crate) fn local(&mut self, node: &str, addresses: Vec<IpAddr>) {
        let name: Arc<str> = node.into();
        let host = self.hosts.entry(name.clone()).or_insert_with(|| Host::new(&name));
        let before = std::mem::replace(&mut host.local, addresses.clone());
        self.move_host(&name, &before, &addresses);
    }

    /// Updates the claims after the addresses of a node have changed.
    fn move_host(&mut self, name: &Arc<str>, before: &[IpAddr], now: &[IpAddr]) {
        for address in now.iter().filter(|address| !before.contains(address)) {
            self.addresses.entry(*address).or_default().node = Some(name.clone());
            self.resolve(*address);
        }
        for address in before.iter().filter(|address| !now.contains(address)) {
            self.release(name, *address);
        }
    }

    /// Removes a node.
    pub(crate) fn node_deleted(&mut self, name: &str) {
        let Some(host) = self.hosts.get_mut(name) else { return };
        if !std::mem::take(&mut host.known) {
            return;
        }
        self.counts.nodes -= 1;
        let had_ranges = !std::mem::take(&mut host.ranges).is_empty();
        let name: Arc<str> = name.into();
        for address in std::mem::take(&mut host.addresses) {
            self.release(&name, address);
        }
        if self.hosts.get(&name).is_some_and(Host::is_empty) {
            self.hosts.remove(&name);
        }
        if had_ranges {
            self.collect_ranges();
        }
    }

    /// Removes the nodes that are not in `present`.
    pub(crate) fn retain_nodes(&mut self, present: &HashSet<String>) {
        let known = self.hosts.iter().filter(|(_, host)| host.known);
        let gone: Vec<Arc<str>> = known
            .filter(|(name, _)| !present.contains(name.as_ref()))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.node_deleted(&name);
        }
    }

    /// Adds a pod to a node's network.
    pub(super) fn on_host(&mut self, node: &str, address: IpAddr, uid: &Arc<str>) {
        let name: Arc<str> = match self.hosts.get_key_value(node) {
            Some((name, _)) => name.clone(),
            None => node.into(),
        };
        let host = self.hosts.entry(name.clone()).or_insert_with(|| Host::new(&name));
        host.pods.insert(uid.clone());
        self.addresses.entry(address).or_default().node = Some(name);
    }

    /// Removes an address from a node, unless another source still names it.
    pub(super) fn release(&mut self, node: &str, address: IpAddr) {
        let named = self.hosts.get(node).is_some_and(|host| {
            let mut pods = host.pods.iter().filter_map(|uid| self.holders.get(uid));
            host.names(address) || pods.any(|holder| holder.holds(address))
        });
        if !named
            && let Some(claimants) = self.addresses.get_mut(&address)
            && claimants.node.as_deref() == Some(node)
        {
            claimants.node = None;
        }
        self.resolve(address);
    }

    pub(super) fn collect_ranges(&mut self) {
        let of_nodes = self.hosts.values().flat_map(|host| &host.ranges);
        let all = self.configured_ranges.iter().chain(of_nodes).filter(|range| !private(range));
        self.ranges = IpNet::aggregate(&all.copied().collect()).into();
        let watched = self
            .hosts
            .iter()
            .filter(|(name, _)| self.hold.node.as_deref().is_none_or(|node| node == name.as_ref()));
        let awaited = watched.flat_map(|(_, host)| &host.ranges).copied();
        self.awaited = IpNet::aggregate(&awaited.collect()).into();
        self.changed = true;
    }
}

/// Returns true for ranges that belong to a cluster without being configured.
fn private(range: &IpNet) -> bool {
    is_private(&range.network()) && is_private(&range.broadcast())
}
