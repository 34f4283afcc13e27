//! Containers by the cgroups of their sockets.
//!
//! ```text
//!  kernel ─ cgroup id of the sending socket ─▶ record header ─▶ worker ─ one look ─▶ container, pod
//!  cgroup tree ─ inotify, scans ─▶ tree ─▶ path ─ placements ─▶ snapshot ─────────────┘
//! ```
//!
//! A socket is evidence: whatever address a process uses, the cgroup in which it created its socket
//! is that of its container. So a pod is named before the API server knows its address, and pods in
//! the host's network are told apart.
//!
//! - Cgroups are those of version 2. Where the kubelet manages containers by version 1 alone, all
//!   sockets are in the root of version 2, which says nothing: [`Hierarchy::Hybrid`].
//! - Memory is bounded by `containers.max_cgroups`; what is not remembered is counted.
//! - A cgroup that was removed stays known for 15 minutes.

mod path;
mod tree;

use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hashbrown::HashMap;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::{EfdFlags, EventFd},
};
use parking_lot::Mutex;
use serde::Serialize;
use tap53_base::threads::JoinedThread;
use tap53_records::encode::{Attribution, Identity, Owner};

pub(crate) use path::PodUid;

use crate::config::ContainersConfig;
use tree::Tree;

/// Longest time between two looks at what can be forgotten.
const SWEEP: Duration = Duration::from_secs(30);

/// Shortest time between two scans that workers caused.
const MIN_SCAN_INTERVAL: Duration = Duration::from_millis(100);

/// A container by the path of its cgroup.
#[derive(Debug)]
pub(crate) struct Container {
    id: String,
    pod: Option<PodOfContainer>,
}

/// The pod of a container, as far as the path names it.
#[derive(Debug)]
struct PodOfContainer {
    uid: PodUid,
    /// The pod without anything that only the API server knows.
    owner: Owner,
}

impl Container {
    /// Identifier, 64 hexadecimal digits.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// UID of its pod, and the owner to name where the pod itself is not known.
    pub(crate) fn pod(&self) -> Option<(PodUid, &Owner)> {
        self.pod.as_ref().map(|pod| (pod.uid, &pod.owner))
    }
}

/// The owner of a cgroup.
#[derive(Clone, Debug)]
pub(crate) enum Placement {
    /// No container: a service of the host, a user's session, the root.
    Host,
    /// A container.
    Container(Arc<Container>),
}

impl Placement {
    fn of(named: Option<path::Named>, node: &str) -> Self {
        let Some(path::Named { container, pod }) = named else { return Self::Host };
        let pod = pod.and_then(|text| {
            let uid = PodUid::parse(&text)?;
            let identity = Identity {
                attribution: Attribution::Pod,
                pod_uid: Some(text),
                node_name: Some(node.to_owned()),
                ..Default::default()
            };
            Some(PodOfContainer { uid, owner: Owner::new(identity) })
        });
        Self::Container(Arc::new(Container { id: container, pod }))
    }

    #[cfg(test)]
    fn container(&self) -> Option<&Container> {
        match self {
            Self::Host => None,
            Self::Container(container) => Some(container),
        }
    }
}

/// The hierarchies of cgroups on a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hierarchy {
    /// Version 2 alone: every process is in its place there.
    #[default]
    Unified,
    /// Version 2 beside version 1: a process may be in a container of version 1 alone.
    Hybrid,
}

/// State of the container directory, for `tap53 status` and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ContainersStatus {
    /// True if the configuration enables it.
    pub enabled: bool,
    /// Directory of the tree, where there is one.
    pub root: Option<PathBuf>,
    /// Hierarchies of the machine.
    pub hierarchy: Hierarchy,
    /// Reason for which containers are unknown.
    pub reason: Option<String>,
    /// Number of cgroups that exist.
    pub cgroups: usize,
    /// Number of cgroups that were not remembered: `containers.max_cgroups` was reached.
    pub refused: u64,
    /// Number of directories that inotify has no watch for: what is below is found by scans alone.
    pub unwatched: usize,
    /// Number of scans that a cgroup which was not known caused.
    pub scans: u64,
}

impl Hierarchy {
    /// Hierarchies of a machine where `/proc/self/cgroup` has this text: a line for each, of which
    /// the one of version 2 has number 0 (cgroups(7)).
    fn of(process_cgroups: &str) -> Self {
        let is_unified = process_cgroups.lines().all(|line| line.starts_with("0::"));
        if is_unified { Self::Unified } else { Self::Hybrid }
    }
}

/// Finds the version 2 tree in the directory that the configuration names, or beside version 1 in
/// it.
fn find_root(root: &Path) -> Result<PathBuf, String> {
    let candidates = [root.to_owned(), root.join("unified")];
    let found = candidates.into_iter().find(|path| path.join("cgroup.controllers").exists());
    let path = found.ok_or_else(|| {
        let root = root.display();
        format!("{root} has no cgroup tree of version 2: set containers.cgroup_root")
    })?;
    // Only the root of the whole tree has no such file (cgroup-v2.rst, "Core Interface Files").
    if path.join("cgroup.events").exists() {
        return Err(format!(
            "{} is the agent's own cgroup, not the host's tree: mount the host's /sys/fs/cgroup and \
             set containers.cgroup_root",
            path.display()
        ));
    }
    Ok(path)
}

/// State that the thread and all readers share.
#[derive(Debug, Default)]
struct Shared {
    /// Raised with each snapshot.
    generation: AtomicU64,
    snapshot: Mutex<Arc<HashMap<u64, Placement>>>,
    status: Mutex<ContainersStatus>,
    /// True while a scan is requested.
    scan_requested: AtomicBool,
    stop: AtomicBool,
    wake: Option<EventFd>,
    /// This node, to name a process that is in no container.
    host: Owner,
}

impl Shared {
    fn publish(&self, placements: HashMap<u64, Placement>) {
        *self.snapshot.lock() = Arc::new(placements);
        self.generation.fetch_add(1, Ordering::Release);
    }

    fn change_status(&self, change: impl FnOnce(&mut ContainersStatus)) {
        change(&mut self.status.lock());
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        if let Some(wake) = &self.wake {
            // Full only after 2⁶⁴ − 1 calls that nobody reads.
            let _ = wake.write(1);
        }
    }
}

/// Containers of this machine. Cheap to clone; the default one knows none.
#[derive(Clone, Debug, Default)]
pub struct ContainerDirectory(Arc<Shared>);

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

/// The thread that follows the tree; stopped and joined when this is dropped.
pub struct Containers {
    directory: ContainerDirectory,
    thread: Option<JoinedThread>,
}

impl Containers {
    /// Reads the tree and follows it from then on. A machine without a version 2 tree is no error:
    /// the status says why nothing is known.
    ///
    /// # Errors
    /// When the kernel refuses an event descriptor, inotify or the thread.
    pub fn start(config: &ContainersConfig, node: &str) -> io::Result<Self> {
        let status = ContainersStatus { enabled: config.enabled, ..Default::default() };
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let host = Identity {
            attribution: Attribution::Node,
            node_name: Some(node.to_owned()),
            ..Default::default()
        };
        let shared = Shared {
            status: Mutex::new(status),
            wake: Some(wake),
            host: Owner::new(host),
            ..Default::default()
        };
        let directory = ContainerDirectory(Arc::new(shared));
        let mut containers = Self { directory, thread: None };
        if !config.enabled {
            return Ok(containers);
        }
        let shared = containers.directory.0.clone();
        let tree = find_root(&config.cgroup_root).and_then(|root| {
            let processes = fs::read_to_string("/proc/self/cgroup")
                .map_err(|error| format!("cannot read /proc/self/cgroup: {error}"))?;
            let tree = Tree::open(&root, node, config.max_cgroups)
                .map_err(|error| format!("cannot follow {}: {error}", root.display()))?;
            shared.change_status(|status| {
                status.root = Some(root);
                status.hierarchy = Hierarchy::of(&processes);
            });
            Ok(tree)
        });
        match tree {
            Ok(mut tree) => {
                publish(&mut tree, &shared);
                let stopped = shared.clone();
                let follow = move || follow(tree, &shared);
                let stop = move || stopped.stop();
                containers.thread = Some(JoinedThread::start("containers", follow, stop)?);
            }
            Err(reason) => shared.change_status(|status| status.reason = Some(reason)),
        }
        Ok(containers)
    }

    /// Logs why records do not name containers, if they do not. Called once capture runs: an operator
    /// who may not load programs should see only that error.
    pub fn log_unavailable(&self) {
        if let Some(reason) = self.directory.status().reason {
            tracing::info!(
                event = "containers_unavailable",
                reason,
                "records do not name containers"
            );
        }
    }

    /// The containers that workers read.
    #[must_use]
    pub fn directory(&self) -> ContainerDirectory {
        self.directory.clone()
    }
}

/// Publishes what has changed.
fn publish(tree: &mut Tree, shared: &Shared) {
    shared.change_status(|status| {
        status.cgroups = tree.len();
        status.refused = tree.refused();
        status.unwatched = tree.unwatched();
    });
    if let Some(placements) = tree.take_changes() {
        shared.publish(placements);
    }
}

/// Follows the tree until the stop.
fn follow(mut tree: Tree, shared: &Shared) {
    let Some(wake) = &shared.wake else { return };
    let mut pause = MIN_SCAN_INTERVAL;
    let mut next_scan = Instant::now();
    loop {
        let now = Instant::now();
        let requested = shared.scan_requested.load(Ordering::Relaxed);
        let wait = if requested { next_scan.saturating_duration_since(now) } else { SWEEP };
        // While a scan is due later, workers that request it need not wake this thread.
        let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
        let mut ready = [
            PollFd::new(tree.events(), PollFlags::POLLIN),
            PollFd::new(wake.as_fd(), PollFlags::POLLIN),
        ];
        // An interrupted wait is one that ends early.
        let _ = poll(&mut ready, timeout);
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        let _ = wake.read();
        let now = Instant::now();
        tree.process_events(now);
        if requested && now >= next_scan {
            // First the flag, so that a request that comes during the scan causes another.
            shared.scan_requested.store(false, Ordering::Relaxed);
            shared.change_status(|status| status.scans += 1);
            // A cgroup that no scan finds is of another machine's tree, or gone: scan less often.
            let found = tree.scan_for_missing(now);
            pause = if found { MIN_SCAN_INTERVAL } else { (pause * 2).min(SWEEP) };
            next_scan = now + pause;
        }
        tree.forget_removed(now);
        publish(&mut tree, shared);
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::MetadataExt, thread};

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.controllers"), "").unwrap();
        root
    }

    fn config(root: &Path) -> ContainersConfig {
        ContainersConfig { enabled: true, cgroup_root: root.to_owned(), max_cgroups: 100 }
    }

    /// Waits until a reader knows a cgroup.
    fn wait_for(reader: &mut ContainerReader, cgroup: u64) -> Option<Placement> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            reader.refresh();
            if let Some(placement) = reader.placement(cgroup) {
                return Some(placement.clone());
            }
            thread::yield_now();
        }
        None
    }

    #[test]
    fn a_reader_learns_of_a_container_while_it_runs() {
        let root = root();
        let containers = Containers::start(&config(root.path()), "node-1").unwrap();
        let mut reader = containers.directory().reader();
        let path = root.path().join("docker").join(ID);
        fs::create_dir_all(&path).unwrap();
        let placement = wait_for(&mut reader, fs::metadata(&path).unwrap().ino()).unwrap();
        assert_eq!(placement.container().map(Container::id), Some(ID));
        assert_eq!(containers.directory().status().cgroups, 3);
    }

    #[test]
    fn a_cgroup_that_is_not_known_causes_a_scan() {
        let root = root();
        let containers = Containers::start(&config(root.path()), "node-1").unwrap();
        let mut reader = containers.directory().reader();
        assert!(reader.placement(u64::MAX).is_none());
        let deadline = Instant::now() + Duration::from_secs(20);
        while containers.directory().status().scans == 0 {
            assert!(Instant::now() < deadline, "no scan");
            thread::yield_now();
        }
        reader.refresh();
        assert!(reader.placement(fs::metadata(root.path()).unwrap().ino()).is_some());
    }

    #[test]
    fn a_machine_without_the_tree_says_why() {
        let empty = tempfile::tempdir().unwrap();
        let containers = Containers::start(&config(empty.path()), "node-1").unwrap();
        let reason = containers.directory().status().reason.unwrap();
        assert!(reason.contains("no cgroup tree of version 2"), "{reason}");
        let own = root();
        fs::write(own.path().join("cgroup.events"), "").unwrap();
        let containers = Containers::start(&config(own.path()), "node-1").unwrap();
        let reason = containers.directory().status().reason.unwrap();
        assert!(reason.contains("containers.cgroup_root"), "{reason}");
    }

    #[test]
    fn the_tree_is_found_beside_version_1() {
        let root = tempfile::tempdir().unwrap();
        let beside = root.path().join("unified");
        fs::create_dir(&beside).unwrap();
        fs::write(beside.join("cgroup.controllers"), "").unwrap();
        assert_eq!(find_root(root.path()), Ok(beside));
    }

    #[test]
    fn a_machine_with_version_1_is_hybrid() {
        assert_eq!(Hierarchy::of("0::/user.slice\n"), Hierarchy::Unified);
        assert_eq!(Hierarchy::of("8:pids:/\n0::/\n"), Hierarchy::Hybrid);
    }
}
