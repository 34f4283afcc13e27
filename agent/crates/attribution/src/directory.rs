//! The directory as workers read it: without locks and without allocation.
//!
//! ```text
//!  writer ─ copies the shards that change ─▶ Snapshot ─ generation + 1
//!                                              │
//!  worker: once per batch, compare the generation ─ then take the new snapshot
//!          per record, one lookup in one shard of its snapshot
//! ```
//!
//! No writer touches a snapshot that a worker holds, so a lookup costs that of a hash table.
//! Rejected alternatives: a lock (two atomic writes per lookup to one cache line shared by all
//! workers), and a map per worker (memory times workers: 8 × 10 MB at 100,000 pods).

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ipnet::IpNet;
use tap53_ebpf::record::Sender;
use tap53_records::encode::{Attribution, Identity, Owner};

use super::{
    ContainerDirectory, Status,
    address_history::Micros,
    containers::ContainerReader,
    endpoint::Endpoint,
    index::{AddressHistory, Shards, fetch_fields},
    pods::PodsByUid,
};

/// An immutable state of the directory.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) shards: Shards,
    /// Public address ranges of the cluster, sorted and disjoint.
    pub(super) ranges: Arc<[IpNet]>,
    /// Ranges in which new pods are expected, sorted and disjoint.
    pub(super) awaited: Arc<[IpNet]>,
    /// Maximum time to wait for the name of an owner, in nanoseconds.
    pub(super) hold_ns: u64,
    pub(super) unknown_owners: Arc<UnknownOwners>,
    /// Pods of this node.
    pub(super) pods: Arc<PodsByUid>,
}

/// The owners of addresses that no object claims.
#[derive(Debug)]
pub(super) struct UnknownOwners {
    unknown: Owner,
    external: Owner,
}

impl Default for UnknownOwners {
    fn default() -> Self {
        let owner = |attribution| Owner::new(Identity { attribution, ..Default::default() });
        Self { unknown: owner(Attribution::Unknown), external: owner(Attribution::External) }
    }
}

impl Snapshot {
    pub(super) fn empty() -> Self {
        Self {
            shards: Shards::default(),
            ranges: Arc::new([]),
            awaited: Arc::new([]),
            hold_ns: 0,
            unknown_owners: Arc::default(),
            pods: Arc::default(),
        }
    }

    #[inline]
    pub(super) fn owner(&self, address: IpAddr, at_us: Micros) -> &Owner {
        match self.shards.get(&address).map(|history| history.at(at_us)) {
            Some(Some(owner)) => owner,
            // The address had an owner before or after: it belongs to the cluster.
            Some(None) => &self.unknown_owners.unknown,
            None if is_private(&address) || within(&self.ranges, &address) => {
                &self.unknown_owners.unknown
            }
            None => &self.unknown_owners.external,
        }
    }
}

/// Returns true if an address is in one of the ranges, which are sorted and disjoint.
fn within(ranges: &[IpNet], address: &IpAddr) -> bool {
    let behind = ranges.partition_point(|range| range.network() <= *address);
    let before = behind.checked_sub(1).and_then(|index| ranges.get(index));
    before.is_some_and(|range| range.contains(address))
}

/// Returns true for addresses that are not routed in the Internet.
pub(super) fn is_private(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, ..] = address.octets();
            address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                // Shared address space, which some providers use for pods (RFC 6598 §7).
                || (a == 100 && b & 0xc0 == 64)
        }
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
    }
}

/// The state that the writer and all readers share.
#[derive(Debug)]
pub(super) struct Published {
    /// Incremented with each snapshot.
    generation: AtomicU64,
    snapshot: Mutex<Arc<Snapshot>>,
    status: Mutex<Status>,
    status_changed: Condvar,
}

impl Published {
    pub(super) fn new(status: Status) -> Self {
        Self {
            generation: AtomicU64::new(0),
            snapshot: Mutex::new(Arc::new(Snapshot::empty())),
            status: Mutex::new(status),
            status_changed: Condvar::new(),
        }
    }

    pub(super) fn publish(&self, snapshot: Snapshot) {
        let snapshot = Arc::new(snapshot);
        // Drop the old snapshot after the lock is released, in case this is its last reference.
        let _old = std::mem::replace(
            &mut *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner),
            snapshot,
        );
        self.generation.fetch_add(1, Ordering::Release);
    }

    fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn change_status(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
        self.status_changed.notify_all();
    }

    /// Waits until the status is as `wanted`. Returns false on timeout.
    pub(super) fn wait(&self, timeout: Duration, wanted: impl Fn(&Status) -> bool) -> bool {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let waited =
            self.status_changed.wait_timeout_while(status, timeout, |status| !wanted(status));
        let (_status, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        !waited.timed_out()
    }
}

/// Names the owner of an address at a time, and the container of a socket. Cheap to clone; the default
/// directory names no owner.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    kubernetes: Option<Arc<Published>>,
    containers: ContainerDirectory,
}

impl Directory {
    pub(super) fn new(published: &Arc<Published>) -> Self {
        Self { kubernetes: Some(published.clone()), ..Self::default() }
    }

    /// The same, which names containers too.
    #[must_use]
    pub fn with_containers(self, containers: ContainerDirectory) -> Self {
        Self { containers, ..self }
    }

    /// The containers of this machine.
    #[must_use]
    pub const fn containers(&self) -> &ContainerDirectory {
        &self.containers
    }

    /// Returns the state of the watches and the number of known objects.
    #[must_use]
    pub fn status(&self) -> Status {
        let status = self.kubernetes.as_ref().map(|published| published.status());
        Status { containers: self.containers.status(), ..status.unwrap_or_default() }
    }

    pub(super) const fn published(&self) -> Option<&Arc<Published>> {
        self.kubernetes.as_ref()
    }

    /// Creates a view for one worker.
    #[must_use]
    pub fn reader(&self) -> Reader {
        let mut reader = Reader {
            published: self.kubernetes.clone(),
            generation: u64::MAX,
            snapshot: None,
            containers: self.containers.reader(),
            unattributed: Owner::default(),
            upcoming: [IpAddr::V4(Ipv4Addr::UNSPECIFIED); UPCOMING],
            next: 0,
        };
        reader.refresh();
        reader
    }
}

/// The view of the directory that one worker has.
#[derive(Debug)]
pub struct Reader {
    published: Option<Arc<Published>>,
    generation: u64,
    snapshot: Option<Arc<Snapshot>>,
    containers: ContainerReader,
    unattributed: Owner,
    /// Ring buffer of prefetched addresses, and the index of the oldest.
    upcoming: [IpAddr; UPCOMING],
    next: usize,
}

/// Number of addresses between the prefetch of a slot and its use: those of four queries, a
/// microsecond or two. A read from cold memory takes up to half a microsecond.
const UPCOMING: usize = 8;

impl Reader {
    /// Takes the newest snapshot, and returns true if it has changed. Call it once per batch: an
    /// atomic read per record would cost too much.
    #[inline]
    pub fn refresh(&mut self) -> bool {
        self.containers.refresh();
        let Some(published) = &self.published else { return false };
        // Read the generation before the snapshot: a newer snapshot is then only taken twice.
        let generation = published.generation.load(Ordering::Acquire);
        let news = generation != self.generation;
        if news {
            let newest = published.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone();
            // Drop the old snapshot after the lock is released: this thread may be the one that
            // frees it.
            self.snapshot = Some(newest);
            self.generation = generation;
        }
        news
    }

    /// Returns true if the name of an address with this `owner` is worth waiting for: the address
    /// is in a range of expected pods, and no object claims it.
    #[must_use]
    #[inline]
    pub fn awaits(&self, owner: &Owner, address: IpAddr) -> bool {
        self.snapshot.as_ref().is_some_and(|snapshot| {
            snapshot.hold_ns > 0
                // Only this owner is unknown; comparing pointers touches no cold memory.
                && std::ptr::eq(owner, &raw const snapshot.unknown_owners.unknown)
                && within(&snapshot.awaited, &address)
        })
    }

    /// Prefetches the memory that [`owner`](Self::owner) of an address and its record will read.
    /// The caller passes the addresses of a query, so that the memory is in the cache when the
    /// response arrives. It never blocks: the slot is prefetched now, and the data that it points
    /// to at a later call.
    #[inline]
    pub fn fetch(&mut self, address: IpAddr) {
        let Some(snapshot) = &self.snapshot else { return };
        snapshot.shards.fetch(&address);
        let Some(upcoming) = self.upcoming.get_mut(self.next) else { return };
        let earlier = std::mem::replace(upcoming, address);
        self.next = (self.next + 1) % UPCOMING;
        if let Some(owner) = snapshot.shards.get(&earlier).and_then(AddressHistory::latest) {
            fetch_fields(owner);
        }
    }

    /// Returns how long to wait for a name, in nanoseconds since the first message.
    #[must_use]
    pub fn hold_ns(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.hold_ns)
    }

    /// Returns the owner of `address` at a time, in UTC microseconds since 1970.
    #[must_use]
    #[inline]
    pub fn owner(&self, address: IpAddr, at_us: i64) -> &Owner {
        match &self.snapshot {
            Some(snapshot) => snapshot.owner(address, at_us),
            None => &self.unattributed,
        }
    }

    /// The endpoint of a transaction that had `address` at a time, UTC microseconds since 1970, and
    /// whose packet was sent by `sender`.
    #[must_use]
    #[inline]
    pub fn endpoint(&self, address: IpAddr, at_us: i64, sender: Sender) -> Endpoint<'_> {
        // Without a look at the owner itself, whose memory may be cold.
        let is_attributed = self.snapshot.is_some();
        let by_address = Endpoint::by_address(self.owner(address, at_us), is_attributed);
        if !sender.is_known() {
            return by_address;
        }
        let pods = self.snapshot.as_ref().map(|snapshot| &*snapshot.pods);
        by_address.refined(sender, &self.containers, pods)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{address_history::Span, index::Index};

    #[test]
    fn an_empty_directory_attributes_nothing() {
        let reader = Directory::default().reader();
        let owner = reader.owner([10, 0, 0, 1].into(), 5);
        assert_eq!(owner.identity().attribution, Attribution::Unattributed);
        assert!(!Directory::default().status().enabled);
    }

    #[test]
    fn unclaimed_addresses_are_inside_or_outside_of_the_cluster() {
        let ranges = ["2001:db8:5::/48", "203.0.113.0/25"].map(|range| range.parse().unwrap());
        let mut ranges = ranges.to_vec();
        ranges.sort();
        let snapshot = Snapshot { ranges: ranges.into(), ..Snapshot::empty() };
        for (address, expected) in [
            ("10.1.2.3", Attribution::Unknown),
            ("172.31.0.1", Attribution::Unknown),
            ("192.168.255.1", Attribution::Unknown),
            ("100.64.0.1", Attribution::Unknown),
            ("100.128.0.1", Attribution::External),
            ("169.254.20.10", Attribution::Unknown),
            ("127.0.0.53", Attribution::Unknown),
            ("fd00::1", Attribution::Unknown),
            ("fe80::1", Attribution::Unknown),
            ("::1", Attribution::Unknown),
            ("2001:db8:5:1::1", Attribution::Unknown),
            ("2001:db8:6::1", Attribution::External),
            ("2001:db8:4::1", Attribution::External),
            ("203.0.113.127", Attribution::Unknown),
            ("203.0.113.128", Attribution::External),
            ("8.8.8.8", Attribution::External),
        ] {
            let owner = snapshot.owner(address.parse().unwrap(), 0);
            assert_eq!(owner.identity().attribution, expected, "{address}");
        }
    }

    #[test]
    fn a_reader_sees_publications_after_its_next_refresh() {
        let published = Arc::new(Published::new(Status::default()));
        let directory = Directory::new(&published);
        let mut reader = directory.reader();
        let address = IpAddr::from([10, 0, 0, 1]);
        let owner = Owner::new(Identity {
            attribution: Attribution::Pod,
            pod_name: Some("a".into()),
            ..Default::default()
        });
        let mut index = Index::default();
        index.set(address, AddressHistory::new(vec![Span { from: 10, until: 20, owner }]));
        published.publish(Snapshot { shards: index.shards().clone(), ..Snapshot::empty() });
        let named = |reader: &Reader, at| reader.owner(address, at).identity().pod_name.clone();
        assert_eq!(named(&reader, 10), None);
        assert!(reader.refresh() && !reader.refresh());
        assert_eq!(named(&reader, 10).as_deref(), Some("a"));
        assert_eq!(named(&reader, 19).as_deref(), Some("a"));
        for at in [9, 20] {
            let owner = reader.owner(address, at);
            assert_eq!(owner.identity().attribution, Attribution::Unknown);
        }
    }

    #[test]
    fn prefetching_changes_no_owner() {
        let mut index = Index::default();
        let addresses: Vec<IpAddr> = (0..200).map(|last| [10, 0, 0, last].into()).collect();
        let mut reader = Directory::default().reader();
        addresses.iter().for_each(|address| reader.fetch(*address));
        for address in addresses.iter().step_by(2) {
            let pod_name = Some(address.to_string());
            let owner = Owner::new(Identity { pod_name, ..Default::default() });
            index.set(
                *address,
                AddressHistory::new(vec![Span { from: 0, until: Micros::MAX, owner }]),
            );
        }
        let published = Arc::new(Published::new(Status::default()));
        published.publish(Snapshot { shards: index.shards().clone(), ..Snapshot::empty() });
        let mut reader = Directory::new(&published).reader();
        for (number, address) in addresses.iter().enumerate() {
            reader.fetch(*address);
            let name = reader.owner(*address, 5).identity().pod_name.clone();
            assert_eq!(name, (number % 2 == 0).then(|| address.to_string()));
        }
    }
}
