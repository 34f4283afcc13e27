//! Writes the directory: applies the state of objects, in whatever order it arrives.
//!
//! - State is kept by UID, so that a delete ends the claims of one object, never those of the next
//!   owner of the address.
//! - An ended claim stays for [`RETENTION_US`]: a transaction is recorded up to ten minutes after
//!   its first message (`pair.tcp_timeout_ms` at most), and events arrive late.
//! - Memory is bounded: [`Limits`].

mod claims;
mod eviction;
mod holder;
mod hosts;
mod local_pods;
mod resolve;
mod servers;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use tap53_records::encode::Owner;

use super::status::Counts;
use super::{
    address_history::{End, Micros, Start},
    directory::{Snapshot, UnknownOwners},
    index::Index,
};
use eviction::RETENTION_US;
use holder::{HeldAddress, Holder, Kind, Object, Times, live_of};
use hosts::Host;
use resolve::Claimants;

use local_pods::LocalPods;

pub(super) use claims::{NodeClaim, PodClaim, ServiceClaim};

/// Limits on memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of claims, one per address of each pod and service. One takes at most 2 KB
    /// with the strings of its pod (names of up to 253 bytes, 32 labels not counted), usually 1.1
    /// KB.
    pub claims: usize,
}

/// Selects the pods whose names records wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hold {
    /// Maximum wait in nanoseconds.
    pub(super) ns: u64,
    /// The node whose pods are watched; `None` for all nodes.
    pub(super) node: Option<String>,
}

/// The only writer of the directory.
pub(super) struct Ownership {
    limits: Limits,
    holders: HashMap<Arc<str>, Holder>,
    hosts: HashMap<Arc<str>, Host>,
    addresses: HashMap<IpAddr, Claimants>,
    index: Index,
    configured_ranges: Vec<IpNet>,
    ranges: Arc<[IpNet]>,
    hold: Hold,
    awaited: Arc<[IpNet]>,
    unknown_owners: Arc<UnknownOwners>,
    local_pods: LocalPods,
    /// Addresses at which the DNS cache of this node answers.
    node_cache: Vec<IpAddr>,
    changed: bool,
    counts: Counts,
}

impl Ownership {
    /// An empty directory, of an agent that runs on `node`.
    pub(super) fn new(node: &str, limits: Limits, ranges: &[IpNet], hold: Hold) -> Self {
        let mut ownership = Self {
            limits,
            holders: HashMap::new(),
            hosts: HashMap::new(),
            addresses: HashMap::new(),
            index: Index::default(),
            configured_ranges: ranges.to_vec(),
            ranges: Arc::new([]),
            hold,
            awaited: Arc::new([]),
            unknown_owners: Arc::default(),
            local_pods: LocalPods::of(node),
            node_cache: Vec::new(),
            changed: true,
            counts: Counts::default(),
        };
        ownership.collect_ranges();
        ownership
    }

    /// The same, which names the pod that is the DNS cache of this node at these addresses.
    pub(super) fn with_node_cache(mut self, addresses: &[IpAddr]) -> Self {
        self.node_cache = addresses.to_vec();
        self
    }

    pub(super) const fn counts(&self) -> Counts {
        let refused = self.counts.refused + self.local_pods.refused();
        Counts { refused, ..self.counts }
    }

    /// Returns a snapshot if anything has changed since the last one.
    pub(super) fn snapshot(&mut self) -> Option<Snapshot> {
        let changed = std::mem::take(&mut self.changed) | self.local_pods.has_changed();
        changed.then(|| Snapshot {
            shards: self.index.shards().clone(),
            ranges: self.ranges.clone(),
            awaited: self.awaited.clone(),
            hold_ns: self.hold.ns,
            unknown_owners: self.unknown_owners.clone(),
            pods: self.local_pods.publish(),
        })
    }

    /// Applies the state of a pod seen at `now`.
    pub(super) fn pod(&mut self, pod: PodClaim, now: Micros) {
        self.local_pods.pod(&pod, (pod.end != End::Open).then_some(now));
        let seen = self.holders.contains_key(&*pod.uid);
        let worth_knowing = match pod.end {
            End::Open => !pod.addresses.is_empty(),
            End::Known(at) => !pod.addresses.is_empty() && at > now - RETENTION_US,
            // It ended at an unknown time before it was first seen.
            End::By(_) => false,
        };
        if !seen && !worth_knowing {
            return;
        }
        // It has the address now, so its start cannot be later: clocks of two machines differ.
        let reported = pod.start.map(|at| at.min(now));
        let end = match pod.end {
            End::Open => End::Open,
            End::Known(at) => End::Known(at.min(now)),
            End::By(at) => End::By(at.min(now)),
        };
        let object = Object {
            kind: if pod.host_network { Kind::HostPod } else { Kind::Pod },
            uid: &pod.uid,
            identity: pod.identity,
            addresses: &pod.addresses,
            times: Times { reported, earliest: pod.earliest.min(now), end },
            is_node_cache: pod.is_node_cache,
        };
        self.object(object, now);
    }

    /// Applies the state of a service seen at `now`.
    pub(super) fn service(&mut self, service: ServiceClaim, now: Micros) {
        if service.addresses.is_empty() && !self.holders.contains_key(&*service.uid) {
            return;
        }
        // The address is allocated in the transaction that creates the service.
        let created = service.created.min(now);
        let object = Object {
            kind: Kind::Service,
            uid: &service.uid,
            identity: service.identity,
            addresses: &service.addresses,
            times: Times { reported: Some(created), earliest: created, end: End::Open },
            is_node_cache: false,
        };
        self.object(object, now);
    }

    /// Ends the claims of the object with this UID at `end`, unless their end is known already.
    pub(super) fn object_deleted(&mut self, uid: &str, end: End) {
        self.local_pods.end(uid, end.at());
        if let Some(holder) = self.holders.get_mut(uid) {
            for held in &mut holder.held {
                held.end = held.end.refined(end);
            }
            self.ended(uid);
            self.resolve_all(uid);
        }
    }

    /// Ends the claims of pods in the scope that are not in `present`, at some time before `now`.
    pub(super) fn retain_pods(&mut self, present: &HashSet<String>, now: Micros) {
        self.local_pods.retain(|uid| present.contains(uid), now);
        self.retain(present, now, |holder| holder.kind != Kind::Service && !holder.is_server);
    }

    /// Ends the claims of services that are not in `present`, at some time before `now`.
    pub(super) fn retain_services(&mut self, present: &HashSet<String>, now: Micros) {
        self.retain(present, now, |holder| holder.kind == Kind::Service);
    }

    fn retain(&mut self, present: &HashSet<String>, now: Micros, of: impl Fn(&Holder) -> bool) {
        let gone: Vec<Arc<str>> = self
            .holders
            .iter()
            .filter(|(uid, holder)| holder.live && of(holder) && !present.contains(uid.as_ref()))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in gone {
            self.object_deleted(&uid, End::By(now));
        }
    }

    /// Changes the workload of a pod.
    pub(super) fn set_workload(&mut self, uid: &str, kind: &str, name: &str) {
        let with_workload = |owner: &Owner| {
            let mut identity = owner.identity().clone();
            identity.workload_kind = Some(kind.to_owned());
            identity.workload_name = Some(name.to_owned());
            Owner::new(identity)
        };
        self.local_pods.set_owner(uid, with_workload);
        let Some(holder) = self.holders.get_mut(uid) else { return };
        holder.owner = with_workload(&holder.owner);
        self.resolve_all(uid);
    }

    /// Merges the state of an object into its claims. Claims change nowhere else.
    fn object(&mut self, object: Object<'_>, now: Micros) {
        let Object { kind, uid, identity, addresses, times, is_node_cache } = object;
        let is_server = kind != Kind::Service && !self.has_in_scope(&identity);
        let uid: Arc<str> = match self.holders.get_key_value(uid) {
            Some((uid, _)) => uid.clone(),
            None => uid.into(),
        };
        let (live, first_sight) = self
            .holders
            .get(&uid)
            .map_or((true, true), |holder| (holder.live, holder.held.is_empty()));
        let mut new: Vec<IpAddr> = Vec::new();
        for address in addresses.iter().filter(|_| live) {
            let held = self.holders.get(&uid).is_some_and(|holder| holder.holds(*address));
            if !held && !new.contains(address) && self.evict_for(new.len()) {
                new.push(*address);
            }
        }
        if first_sight && new.is_empty() {
            return;
        }
        let holder = self.holders.entry(uid.clone()).or_insert_with(|| {
            *live_of(&mut self.counts, kind, is_server) += 1;
            let owner = Owner::new(identity.clone());
            Holder { kind, owner, held: Vec::new(), live: true, is_server, is_node_cache }
        });
        holder.is_node_cache = is_node_cache;
        if holder.owner.identity() != &identity {
            holder.owner = Owner::new(identity);
        }
        for held in &mut holder.held {
            if held.first
                && let Some(at) = times.reported
            {
                held.start = held.start.refined(Start::Known(at));
            }
            held.end = match times.end {
                End::Open if !live || addresses.is_empty() => held.end,
                // The pod may have been without the address for a moment.
                End::Open if addresses.contains(&held.address) => End::Open,
                // The pod has other addresses now.
                End::Open => held.end.refined(End::By(now)),
                end => held.end.refined(end),
            };
        }
        for address in &new {
            // An address that appears later than others is newer than the object's times.
            let start = match times.reported {
                Some(at) if first_sight => Start::Known(at),
                _ => Start::Between(times.earliest, now),
            };
            holder.held.push(HeldAddress {
                address: *address,
                start,
                end: times.end,
                first: first_sight,
            });
        }
        self.counts.claims += new.len();
        let node = (kind == Kind::HostPod).then(|| holder.owner.identity().node_name.clone());
        for address in new {
            match &node {
                Some(node) => self.on_host(node.as_deref().unwrap_or_default(), address, &uid),
                None => self.on_address(address, &uid),
            }
        }
        if times.end != End::Open {
            self.ended(&uid);
        }
        self.resolve_all(&uid);
    }

    fn ended(&mut self, uid: &str) {
        if let Some(holder) = self.holders.get_mut(uid)
            && std::mem::take(&mut holder.live)
        {
            *live_of(&mut self.counts, holder.kind, holder.is_server) -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
