//! The one writer of the directory: takes in what objects say, in whatever order it comes.
//!
//! - Everything is kept by UID, so that a delete ends the claims of one object, never those of who
//!   has the address after it.
//! - What has ended stays for [`RETENTION_US`]: a transaction is recorded up to ten minutes after
//!   its first message (`pair.tcp_timeout_ms` at most), and events come late.
//! - Memory is bounded: [`Limits`].

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    directory::{Nobody, SHARDS, Shard, Snapshot, Tenants, is_private, shard_of},
    tenancy::{Claim, End, Span, Start, Us, any, exclusive, overlay},
};
use crate::encode::{Attribution, Identity, Owner};

/// How long what has ended is kept.
pub(super) const RETENTION_US: Us = 15 * 60 * 1_000_000;

/// Claims of one address that are kept at most. A pod lives for seconds at least, so eight are
/// more than the pairing table's longest wait with a usual timeout.
const HISTORY: usize = 8;

/// What is held at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Claims: each address of each pod and service. One takes at most 2 KB with the strings of
    /// its pod (names of up to 253 bytes, 32 labels not counted), 1.1 KB as a rule.
    pub claims: usize,
}

/// For whose names records wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hold {
    /// For how long, nanoseconds.
    pub(super) ns: u64,
    /// The node whose pods are watched, if it is one.
    pub(super) node: Option<String>,
}

/// What a claim is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pod,
    /// A pod in its node's network: no address is its own.
    HostPod,
    Service,
}

/// What a pod says of itself.
#[derive(Clone, Debug)]
pub(super) struct PodClaim {
    pub(super) uid: String,
    pub(super) identity: Identity,
    /// Its own, or its node's.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) host_network: bool,
    /// When it had its addresses, if it says so.
    pub(super) start: Option<Us>,
    /// When it cannot have had them yet.
    pub(super) earliest: Us,
    pub(super) end: End,
}

/// What a service says of itself.
#[derive(Clone, Debug)]
pub(super) struct ServiceClaim {
    pub(super) uid: String,
    pub(super) identity: Identity,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) created: Us,
}

/// What a node says of itself.
#[derive(Clone, Debug)]
pub(super) struct NodeClaim {
    pub(super) name: String,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ranges: Vec<IpNet>,
}

/// An object that has, or had, addresses.
struct Holder {
    kind: Kind,
    owner: Arc<Owner>,
    held: Vec<Held>,
    live: bool,
}

#[derive(Clone, Copy)]
struct Held {
    address: IpAddr,
    start: Start,
    end: End,
    /// Whether it was among the addresses that were seen first.
    first: bool,
}

/// What any object says.
struct Object<'a> {
    kind: Kind,
    uid: &'a str,
    identity: Identity,
    addresses: &'a [IpAddr],
    times: Times,
}

struct Times {
    /// When it had its first addresses, if it says so.
    told: Option<Us>,
    /// When it cannot have had them yet.
    earliest: Us,
    end: End,
}

/// A node.
struct Host {
    ambiguous: Arc<Owner>,
    alone: Arc<Owner>,
    /// Whether its object is there.
    known: bool,
    /// What its object names.
    addresses: Vec<IpAddr>,
    /// What its interfaces have, where it is this node.
    local: Vec<IpAddr>,
    /// What its pods in the host network name.
    pods: HashSet<Arc<str>>,
    /// Ranges for its pods.
    ranges: Vec<IpNet>,
}

/// Who has an address, or had.
#[derive(Default)]
struct Claimants {
    /// Pods and services, by UID.
    holders: Vec<Arc<str>>,
    node: Option<Arc<str>>,
}

/// How much is known, and what was given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) pods: usize,
    pub(super) services: usize,
    pub(super) nodes: usize,
    pub(super) claims: usize,
    /// Claims of addresses with more of them than are kept.
    pub(super) history_evicted: u64,
    /// Claims that had ended and were forgotten early, to make room.
    pub(super) ended_evicted: u64,
    /// Claims that were not taken in for want of room.
    pub(super) refused: u64,
}

/// The writer.
pub(super) struct Ownership {
    limits: Limits,
    holders: HashMap<Arc<str>, Holder>,
    hosts: HashMap<Arc<str>, Host>,
    addresses: HashMap<IpAddr, Claimants>,
    shards: Vec<Arc<Shard>>,
    configured_ranges: Vec<IpNet>,
    ranges: Arc<[IpNet]>,
    hold: Hold,
    awaited: Arc<[IpNet]>,
    nobody: Arc<Nobody>,
    changed: bool,
    counts: Counts,
}

impl Ownership {
    pub(super) fn new(limits: Limits, ranges: &[IpNet], hold: Hold) -> Self {
        let mut ownership = Self {
            limits,
            holders: HashMap::new(),
            hosts: HashMap::new(),
            addresses: HashMap::new(),
            shards: (0..SHARDS).map(|_| Arc::default()).collect(),
            configured_ranges: ranges.to_vec(),
            ranges: Arc::new([]),
            hold,
            awaited: Arc::new([]),
            nobody: Arc::default(),
            changed: true,
            counts: Counts::default(),
        };
        ownership.collect_ranges();
        ownership
    }

    pub(super) const fn counts(&self) -> Counts {
        self.counts
    }

    /// A snapshot, if something has changed since the last one.
    pub(super) fn snapshot(&mut self) -> Option<Snapshot> {
        std::mem::take(&mut self.changed).then(|| Snapshot {
            shards: self.shards.iter().cloned().collect(),
            ranges: self.ranges.clone(),
            awaited: self.awaited.clone(),
            hold_ns: self.hold.ns,
            nobody: self.nobody.clone(),
        })
    }

    /// Takes in what a pod says at `now`.
    pub(super) fn pod(&mut self, pod: PodClaim, now: Us) {
        let seen = self.holders.contains_key(&*pod.uid);
        let worth_knowing = match pod.end {
            End::Open => !pod.addresses.is_empty(),
            End::Known(at) => !pod.addresses.is_empty() && at > now - RETENTION_US,
            // It ended at an unknown time before this first sight of it.
            End::By(_) => false,
        };
        if !seen && !worth_knowing {
            return;
        }
        // It has the address now, so it had it before: clocks of two machines differ.
        let told = pod.start.map(|at| at.min(now));
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
            times: Times { told, earliest: pod.earliest.min(now), end },
        };
        self.object(object, now);
    }

    /// Takes in what a service says at `now`.
    pub(super) fn service(&mut self, service: ServiceClaim, now: Us) {
        if service.addresses.is_empty() && !self.holders.contains_key(&*service.uid) {
            return;
        }
        // The address is taken in the same transaction that creates the service.
        let created = service.created.min(now);
        let object = Object {
            kind: Kind::Service,
            uid: &service.uid,
            identity: service.identity,
            addresses: &service.addresses,
            times: Times { told: Some(created), earliest: created, end: End::Open },
        };
        self.object(object, now);
    }

    /// The object with this UID is gone: since `end`, as far as that is not known already.
    pub(super) fn gone(&mut self, uid: &str, end: End) {
        if let Some(holder) = self.holders.get_mut(uid) {
            for held in &mut holder.held {
                held.end = held.end.refined(end);
            }
            self.ended(uid);
            self.resolve_all(uid);
        }
    }

    /// Pods that are not in `present` are gone, since some time before `now`.
    pub(super) fn retain_pods(&mut self, present: &HashSet<String>, now: Us) {
        self.retain(present, now, |kind| kind != Kind::Service);
    }

    /// As above, of services.
    pub(super) fn retain_services(&mut self, present: &HashSet<String>, now: Us) {
        self.retain(present, now, |kind| kind == Kind::Service);
    }

    fn retain(&mut self, present: &HashSet<String>, now: Us, of: impl Fn(Kind) -> bool) {
        let gone: Vec<Arc<str>> = self
            .holders
            .iter()
            .filter(|(uid, holder)| {
                holder.live && of(holder.kind) && !present.contains(uid.as_ref())
            })
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in gone {
            self.gone(&uid, End::By(now));
        }
    }

    /// Gives a pod another workload.
    pub(super) fn set_workload(&mut self, uid: &str, kind: &str, name: &str) {
        let Some(holder) = self.holders.get_mut(uid) else { return };
        let mut identity = holder.owner.identity().clone();
        identity.workload_kind = Some(kind.to_owned());
        identity.workload_name = Some(name.to_owned());
        holder.owner = Arc::new(Owner::new(identity));
        self.resolve_all(uid);
    }

    /// Takes in what a node says.
    pub(super) fn node(&mut self, node: NodeClaim) {
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

    /// Takes in the addresses of this host's interfaces.
    pub(super) fn local(&mut self, node: &str, addresses: Vec<IpAddr>) {
        let name: Arc<str> = node.into();
        let host = self.hosts.entry(name.clone()).or_insert_with(|| Host::new(&name));
        let before = std::mem::replace(&mut host.local, addresses.clone());
        self.move_host(&name, &before, &addresses);
    }

    /// A node has other addresses than before.
    fn move_host(&mut self, name: &Arc<str>, before: &[IpAddr], now: &[IpAddr]) {
        for address in now.iter().filter(|address| !before.contains(address)) {
            self.addresses.entry(*address).or_default().node = Some(name.clone());
            self.resolve(*address);
        }
        for address in before.iter().filter(|address| !now.contains(address)) {
            self.release(name, *address);
        }
    }

    /// A node is gone.
    pub(super) fn node_gone(&mut self, name: &str) {
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

    /// Nodes that are not in `present` are gone.
    pub(super) fn retain_nodes(&mut self, present: &HashSet<String>) {
        let known = self.hosts.iter().filter(|(_, host)| host.known);
        let gone: Vec<Arc<str>> = known
            .filter(|(name, _)| !present.contains(name.as_ref()))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.node_gone(&name);
        }
    }

    /// Forgets what ended long before `now`.
    pub(super) fn sweep(&mut self, now: Us) {
        self.forget_ended_before(now - RETENTION_US);
    }

    /// The one way that claims change: what an object says is merged into what it said before.
    fn object(&mut self, object: Object<'_>, now: Us) {
        let Object { kind, uid, identity, addresses, times } = object;
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
            if !held && !new.contains(address) && self.make_room(new.len()) {
                new.push(*address);
            }
        }
        if first_sight && new.is_empty() {
            return;
        }
        let holder = self.holders.entry(uid.clone()).or_insert_with(|| {
            *live_of(&mut self.counts, kind) += 1;
            let owner = Arc::new(Owner::new(identity.clone()));
            Holder { kind, owner, held: Vec::new(), live: true }
        });
        if holder.owner.identity() != &identity {
            holder.owner = Arc::new(Owner::new(identity));
        }
        for held in &mut holder.held {
            if held.first
                && let Some(at) = times.told
            {
                held.start = held.start.refined(Start::Known(at));
            }
            held.end = match times.end {
                End::Open if !live || addresses.is_empty() => held.end,
                // It may have been without for a moment.
                End::Open if addresses.contains(&held.address) => End::Open,
                // It has others now.
                End::Open => held.end.refined(End::By(now)),
                end => held.end.refined(end),
            };
        }
        for address in &new {
            // An address that comes later than others is not as old as the object's times say.
            let start = match times.told {
                Some(at) if first_sight => Start::Known(at),
                _ => Start::Between(times.earliest, now),
            };
            holder.held.push(Held { address: *address, start, end: times.end, first: first_sight });
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

    /// One more claimant of an address, and one less where it has too many.
    fn on_address(&mut self, address: IpAddr, uid: &Arc<str>) {
        let claimants = self.addresses.entry(address).or_default();
        claimants.holders.push(uid.clone());
        if claimants.holders.len() <= HISTORY {
            return;
        }
        let times = |uid: &Arc<str>| {
            let held = self.holders.get(uid)?.held.iter().find(|held| held.address == address)?;
            Some((held.end.at(), held.start.position()))
        };
        let oldest = claimants.holders.iter().min_by_key(|uid| times(uid)).cloned();
        if let Some(oldest) = oldest {
            self.counts.history_evicted += 1;
            self.drop_held(&oldest, |held| held.address == address);
        }
    }

    /// One more pod in a node's network.
    fn on_host(&mut self, node: &str, address: IpAddr, uid: &Arc<str>) {
        let name: Arc<str> = match self.hosts.get_key_value(node) {
            Some((name, _)) => name.clone(),
            None => node.into(),
        };
        let host = self.hosts.entry(name.clone()).or_insert_with(|| Host::new(&name));
        host.pods.insert(uid.clone());
        self.addresses.entry(address).or_default().node = Some(name);
    }

    /// Room for one claim beside `beside` others that are on their way.
    fn make_room(&mut self, beside: usize) -> bool {
        if self.counts.claims + beside < self.limits.claims {
            return true;
        }
        // An eighth at once: each time costs a look at all.
        let mut ended: Vec<(Us, Arc<str>)> = self
            .holders
            .iter()
            .filter(|(_, holder)| !holder.live)
            .map(|(uid, holder)| (holder.ended_at(), uid.clone()))
            .collect();
        ended.sort_unstable();
        let before = self.counts.claims;
        for (_, uid) in ended {
            if before - self.counts.claims > self.limits.claims / 8 {
                break;
            }
            self.remove(&uid);
        }
        self.counts.ended_evicted += (before - self.counts.claims) as u64;
        let room = self.counts.claims + beside < self.limits.claims;
        if !room {
            self.counts.refused += 1;
        }
        room
    }

    fn forget_ended_before(&mut self, cutoff: Us) {
        let uids: Vec<Arc<str>> = self
            .holders
            .iter()
            .filter(|(_, holder)| holder.held.iter().any(|held| held.end.at() <= cutoff))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in uids {
            self.drop_held(&uid, |held| held.end.at() <= cutoff);
        }
    }

    /// Forgets an object.
    fn remove(&mut self, uid: &Arc<str>) {
        self.drop_held(uid, |_| true);
    }

    /// Forgets some of an object's claims, and the object with the last of them.
    fn drop_held(&mut self, uid: &Arc<str>, mut which: impl FnMut(&Held) -> bool) {
        let Some(holder) = self.holders.get_mut(uid) else { return };
        let (dropped, kept): (Vec<_>, Vec<_>) = holder.held.drain(..).partition(|h| which(h));
        holder.held = kept;
        let (kind, left) = (holder.kind, holder.held.len());
        let node = holder.owner.identity().node_name.clone().unwrap_or_default();
        self.counts.claims -= dropped.len();
        if left == 0 {
            self.ended(uid);
            self.holders.remove(uid);
        }
        for held in dropped {
            if kind == Kind::HostPod {
                let name = self.hosts.get_mut(&*node).map(|host| {
                    if left == 0 {
                        host.pods.remove(uid);
                    }
                });
                if name.is_some() {
                    self.release(&node, held.address);
                }
            } else {
                if let Some(claimants) = self.addresses.get_mut(&held.address) {
                    claimants.holders.retain(|holder| holder != uid);
                }
                self.resolve(held.address);
            }
        }
        if kind == Kind::HostPod {
            self.resolve_host(&node);
            if self.hosts.get(&*node).is_some_and(Host::is_empty) {
                self.hosts.remove(&*node);
            }
        }
    }

    fn ended(&mut self, uid: &str) {
        if let Some(holder) = self.holders.get_mut(uid)
            && std::mem::take(&mut holder.live)
        {
            *live_of(&mut self.counts, holder.kind) -= 1;
        }
    }

    /// An address is no longer a node's, unless something else of the node still says so.
    fn release(&mut self, node: &str, address: IpAddr) {
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

    fn resolve_all(&mut self, uid: &str) {
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
    fn resolve_host(&mut self, node: &str) {
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
    fn resolve(&mut self, address: IpAddr) {
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
        let Some(shard) = self.shards.get_mut(shard_of(&address)) else { return };
        // Most events change nothing here: a pod's status has much else in it.
        if shard.get(&address) == tenants.as_ref() {
            return;
        }
        let shard = Arc::make_mut(shard);
        match tenants {
            Some(tenants) => shard.insert(address, tenants),
            None => shard.remove(&address),
        };
        self.changed = true;
    }

    fn host_spans(&self, host: &Host) -> Vec<Span> {
        let pods = host.pods.iter().filter_map(|uid| self.holders.get(uid));
        // The address in a pod's status does not matter: it may use all of them.
        let claims: Vec<Claim> = pods.flat_map(|holder| holder.claims(None)).collect();
        let always = Span { from: Us::MIN, until: Us::MAX, owner: host.alone.clone() };
        overlay(vec![always], any(claims.iter(), &host.ambiguous))
    }

    fn collect_ranges(&mut self) {
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

/// Where live objects are counted.
const fn live_of(counts: &mut Counts, kind: Kind) -> &mut usize {
    match kind {
        Kind::Pod | Kind::HostPod => &mut counts.pods,
        Kind::Service => &mut counts.services,
    }
}

/// True if nobody needs to be told that the range is the cluster's.
fn private(range: &IpNet) -> bool {
    is_private(&range.network()) && is_private(&range.broadcast())
}

impl Holder {
    fn holds(&self, address: IpAddr) -> bool {
        self.held.iter().any(|held| held.address == address)
    }

    fn ended_at(&self) -> Us {
        self.held.iter().map(|held| held.end.at()).max().unwrap_or(Us::MIN)
    }

    /// Its claims of one address, or of all.
    fn claims(&self, address: Option<IpAddr>) -> impl Iterator<Item = Claim> {
        let held = self.held.iter().filter(move |held| address.is_none_or(|it| held.address == it));
        held.map(|held| Claim { owner: self.owner.clone(), start: held.start, end: held.end })
    }
}

impl Host {
    fn new(name: &str) -> Self {
        let owner = |attribution| {
            let node_name = Some(name.to_owned());
            Arc::new(Owner::new(Identity { attribution, node_name, ..Default::default() }))
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

    fn names(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address) || self.local.contains(&address)
    }

    /// True if nothing says that there is such a node.
    fn is_empty(&self) -> bool {
        !self.known && self.local.is_empty() && self.pods.is_empty()
    }
}

impl Claimants {
    const fn is_empty(&self) -> bool {
        self.holders.is_empty() && self.node.is_none()
    }
}

#[cfg(test)]
mod tests;
