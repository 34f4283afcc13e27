//! The directory of containers, as workers read it and one thread fills it.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use hashbrown::HashMap;
use nix::sys::eventfd::EventFd;
use parking_lot::Mutex;
use tap53_records::encode::Owner;
#[cfg(test)]
use tap53_records::encode::{Attribution, Identity};

use super::{ContainersStatus, Hierarchy, Placement, path};

/// State that the thread and all readers share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Raised with each snapshot.
    generation: AtomicU64,
    snapshot: Mutex<Arc<HashMap<u64, Placement>>>,
    pub(super) status: Mutex<ContainersStatus>,
    /// True while a scan is requested.
    pub(super) scan_requested: AtomicBool,
    pub(super) stop: AtomicBool,
    pub(super) wake: Option<EventFd>,
    /// This node, to name a process that is in no container.
    host: Owner,
}

impl Shared {
    pub(super) fn new(status: ContainersStatus, wake: EventFd, host: Owner) -> Self {
        Self { status: Mutex::new(status), wake: Some(wake), host, ..Self::default() }
    }

    pub(super) fn publish(&self, placements: HashMap<u64, Placement>) {
        *self.snapshot.lock() = Arc::new(placements);
        self.generation.fetch_add(1, Ordering::Release);
    }

    pub(super) fn change_status(&self, change: impl FnOnce(&mut ContainersStatus)) {
        change(&mut self.status.lock());
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        if let Some(wake) = &self.wake {
            // It is full only after 2⁶⁴ − 1 calls without a read.
            let _ = wake.write(1);
        }
    }
}

/// Containers of this machine. Cheap to clone; the default one knows none.
#[derive(Clone, Debug, Default)]
pub struct ContainerDirectory(pub(super) Arc<Shared>);

impl ContainerDirectory {
    /// Returns the state of the thread that fills it.
    #[must_use]
    pub fn status(&self) -> ContainersStatus {
        self.0.status.lock().clone()
    }

    /// Creates a directory of cgroups, by identifier and path, on the node of that name, for
    /// benchmarks.
    #[must_use]
    pub fn of_cgroups<'a>(node: &str, cgroups: impl IntoIterator<Item = (u64, &'a str)>) -> Self {
        let shared = Shared::default();
        shared.change_status(|status| status.root = Some(PathBuf::new()));
        let placement = |path: &str| Placement::of(path::parse(path), node);
        shared.publish(cgroups.into_iter().map(|(id, path)| (id, placement(path))).collect());
        Self(Arc::new(shared))
    }

    pub(crate) fn reader(&self) -> ContainerReader {
        let mut reader = ContainerReader {
            shared: self.0.clone(),
            generation: u64::MAX,
            placements: Arc::default(),
            is_followed: false,
            is_unified: false,
        };
        reader.refresh();
        reader
    }
}

/// One worker's view of the containers.
#[derive(Debug)]
pub(crate) struct ContainerReader {
    shared: Arc<Shared>,
    generation: u64,
    placements: Arc<HashMap<u64, Placement>>,
    is_followed: bool,
    is_unified: bool,
}

impl ContainerReader {
    /// Takes the newest snapshot. Once a batch.
    #[inline]
    pub(crate) fn refresh(&mut self) {
        // Read before the snapshot: one that is newer than its number is taken once more.
        let generation = self.shared.generation.load(Ordering::Acquire);
        if generation != self.generation {
            self.take_snapshot(generation);
        }
    }

    #[cold]
    fn take_snapshot(&mut self, generation: u64) {
        let newest = self.shared.snapshot.lock().clone();
        self.placements = newest;
        self.generation = generation;
        let status = self.shared.status.lock();
        self.is_followed = status.root.is_some();
        self.is_unified = self.is_followed && status.hierarchy == Hierarchy::Unified;
    }

    /// Returns the owner of a cgroup. Returns `None` for an unknown cgroup, and requests a scan.
    #[inline]
    pub(crate) fn placement(&self, cgroup: u64) -> Option<&Placement> {
        let found = self.placements.get(&cgroup);
        if found.is_none() && self.is_followed {
            self.request_scan();
        }
        found
    }

    /// A reader of these placements, by cgroup and by the cgroup's path, on node `node-1`.
    #[cfg(test)]
    pub(crate) fn scripted(cgroups: &[(u64, &str)], is_unified: bool) -> Self {
        let identity = Identity {
            attribution: Attribution::Node,
            node_name: Some("node-1".to_owned()),
            ..Default::default()
        };
        let placement = |path: &str| Placement::of(path::parse(path), "node-1");
        Self {
            shared: Arc::new(Shared { host: Owner::new(identity), ..Shared::default() }),
            generation: 0,
            placements: Arc::new(cgroups.iter().map(|(id, path)| (*id, placement(path))).collect()),
            is_followed: true,
            is_unified,
        }
    }

    /// True if the machine's cgroups are followed.
    pub(crate) const fn is_followed(&self) -> bool {
        self.is_followed
    }

    /// This node, as the owner of a process that is in no container.
    pub(crate) fn host(&self) -> &Owner {
        &self.shared.host
    }

    /// True if a process that is in no container's cgroup is in no container.
    pub(crate) const fn is_unified(&self) -> bool {
        self.is_unified
    }

    #[cold]
    fn request_scan(&self) {
        let requested = &self.shared.scan_requested;
        if !requested.load(Ordering::Relaxed) && !requested.swap(true, Ordering::Relaxed) {
            self.shared.wake();
        }
    }
}
