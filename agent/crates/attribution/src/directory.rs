//! The directory as workers read it: without locks, without allocation.
//!
//! ```text
//!  writer ─ copies the shards that change ─▶ Snapshot ─ generation + 1
//!                                              │
//!  worker: once a batch, is the generation another? ─ then takes the new snapshot
//!          for each record, one look into one shard of its snapshot
//! ```
//!
//! A worker that holds a snapshot shares it with nobody who writes, so a look-up is that of a
//! hash table. Rejected: a lock (two atomic writes to one shared cache line per look-up, by all
//! workers), and a map for each worker (memory times workers: 8 × 10 MB at 100,000 pods).

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ipnet::IpNet;
use tap53_records::encode::{Attribution, Identity, Owner};

use super::{
    Status,
    index::{Shards, Tenants, fetch_fields},
    tenancy::Micros,
};

/// Everything known at a moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) shards: Shards,
    /// Ranges of the cluster that are not private ones, in order and apart from each other.
    pub(super) ranges: Arc<[IpNet]>,
    /// Ranges in which pods are expected that are not known yet, in order and apart.
    pub(super) awaited: Arc<[IpNet]>,
    /// How long a name is waited for.
    pub(super) hold_ns: u64,
    pub(super) nobody: Arc<Nobody>,
}

/// Owners of addresses of which nobody is known.
#[derive(Debug)]
pub(super) struct Nobody {
    unknown: Owner,
    external: Owner,
}

impl Default for Nobody {
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
            nobody: Arc::default(),
        }
    }

    #[inline]
    pub(super) fn owner(&self, address: IpAddr, at_us: Micros) -> &Owner {
        match self.shards.get(&address).map(|tenants| tenants.at(at_us)) {
            Some(Some(owner)) => owner,
            // Somebody's before or after: an address of the cluster.
            Some(None) => &self.nobody.unknown,
            None if is_private(&address) || within(&self.ranges, &address) => &self.nobody.unknown,
            None => &self.nobody.external,
        }
    }
}

/// Whether an address is in one of the ranges, which are in order and apart from each other.
fn within(ranges: &[IpNet], address: &IpAddr) -> bool {
    let behind = ranges.partition_point(|range| range.network() <= *address);
    let before = behind.checked_sub(1).and_then(|index| ranges.get(index));
    before.is_some_and(|range| range.contains(address))
}

/// Addresses that are not routed in the internet.
pub(super) fn is_private(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, ..] = address.octets();
            address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                // Shared address space, which providers give to pods too (RFC 6598 §7).
                || (a == 100 && b & 0xc0 == 64)
        }
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
    }
}

/// What the writer and all readers have in common.
#[derive(Debug)]
pub(super) struct Published {
    /// Raised with each snapshot.
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
        // The old one is dropped after the lock is given back, if this was its last holder.
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

    /// Waits for a status; false if it does not come in time.
    pub(super) fn wait(&self, patience: Duration, wanted: impl Fn(&Status) -> bool) -> bool {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let waited =
            self.status_changed.wait_timeout_while(status, patience, |status| !wanted(status));
        let (_status, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        !waited.timed_out()
    }
}

/// Who owned which address when. Cheap to clone; the default one names nobody.
#[derive(Clone, Debug, Default)]
pub struct Directory(Option<Arc<Published>>);

impl Directory {
    pub(super) fn new(published: &Arc<Published>) -> Self {
        Self(Some(published.clone()))
    }

    /// How it is fed: connected or not, and what is known.
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.as_ref().map_or_else(Status::default, |published| published.status())
    }

    pub(super) const fn published(&self) -> Option<&Arc<Published>> {
        self.0.as_ref()
    }

    /// A view for one worker.
    #[must_use]
    pub fn reader(&self) -> Reader {
        let mut reader = Reader {
            published: self.0.clone(),
            generation: u64::MAX,
            snapshot: None,
            unattributed: Owner::default(),
            upcoming: [IpAddr::V4(Ipv4Addr::UNSPECIFIED); UPCOMING],
            next: 0,
        };
        reader.refresh();
        reader
    }
}

/// One worker's view of the directory.
#[derive(Debug)]
pub struct Reader {
    published: Option<Arc<Published>>,
    generation: u64,
    snapshot: Option<Arc<Snapshot>>,
    unattributed: Owner,
    /// Addresses whose places were asked for, in a circle, and where in it the oldest stands.
    upcoming: [IpAddr; UPCOMING],
    next: usize,
}

/// Addresses between the moment that a place is asked for and that at which it is looked at: those of
/// four queries, a microsecond or two. Cold memory takes up to half of one.
const UPCOMING: usize = 8;

impl Reader {
    /// Takes in what is newly known; true if there was something. Once a batch: a record is not
    /// worth an atomic read.
    #[inline]
    pub fn refresh(&mut self) -> bool {
        let Some(published) = &self.published else { return false };
        // Read before the snapshot: one that is newer than its number is taken once more.
        let generation = published.generation.load(Ordering::Acquire);
        let news = generation != self.generation;
        if news {
            let newest = published.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone();
            // The old one is dropped with the lock given back: it may be this thread that frees it.
            self.snapshot = Some(newest);
            self.generation = generation;
        }
        news
    }

    /// Whether the name of an address whose owner is `owner` is worth waiting for: one from which
    /// a pod is expected, and of which nobody is known.
    #[must_use]
    #[inline]
    pub fn awaits(&self, owner: &Owner, address: IpAddr) -> bool {
        self.snapshot.as_ref().is_some_and(|snapshot| {
            snapshot.hold_ns > 0
                // Nobody else is unknown, and memory that is not near is not looked at.
                && std::ptr::eq(owner, &raw const snapshot.nobody.unknown)
                && within(&snapshot.awaited, &address)
        })
    }

    /// Has memory fetched that [`owner`](Self::owner) of an address and its record will look at: said
    /// of a query, so that it is near when the response comes. Nothing here waits: the place of the
    /// address is asked for now, and what it points to at a later call, when it has come.
    #[inline]
    pub fn fetch(&mut self, address: IpAddr) {
        let Some(snapshot) = &self.snapshot else { return };
        snapshot.shards.fetch(&address);
        let Some(upcoming) = self.upcoming.get_mut(self.next) else { return };
        let earlier = std::mem::replace(upcoming, address);
        self.next = (self.next + 1) % UPCOMING;
        if let Some(owner) = snapshot.shards.get(&earlier).and_then(Tenants::latest) {
            fetch_fields(owner);
        }
    }

    /// How long a name is worth waiting for, nanoseconds from the first message on.
    #[must_use]
    pub fn hold_ns(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.hold_ns)
    }

    /// Who owned `address` at a time, UTC microseconds since 1970.
    #[must_use]
    #[inline]
    pub fn owner(&self, address: IpAddr, at_us: i64) -> &Owner {
        match &self.snapshot {
            Some(snapshot) => snapshot.owner(address, at_us),
            None => &self.unattributed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{index::Index, tenancy::Span};

    #[test]
    fn a_directory_of_nobody_attributes_nothing() {
        let reader = Directory::default().reader();
        let owner = reader.owner([10, 0, 0, 1].into(), 5);
        assert_eq!(owner.identity().attribution, Attribution::Unattributed);
        assert!(!Directory::default().status().enabled);
    }

    #[test]
    fn addresses_of_which_nobody_is_known_are_the_clusters_or_not() {
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
    fn a_reader_sees_what_was_published_from_its_next_refresh_on() {
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
        index.set(address, Tenants::new(vec![Span { from: 10, until: 20, owner }]));
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
    fn what_is_fetched_is_named_as_before() {
        let mut index = Index::default();
        let addresses: Vec<IpAddr> = (0..200).map(|last| [10, 0, 0, last].into()).collect();
        let mut reader = Directory::default().reader();
        addresses.iter().for_each(|address| reader.fetch(*address));
        for address in addresses.iter().step_by(2) {
            let pod_name = Some(address.to_string());
            let owner = Owner::new(Identity { pod_name, ..Default::default() });
            index.set(*address, Tenants::new(vec![Span { from: 0, until: Micros::MAX, owner }]));
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
