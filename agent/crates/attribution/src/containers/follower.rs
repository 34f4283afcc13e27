//! The thread that fills the directory of containers from the tree of cgroups.

use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::{EfdFlags, EventFd},
};
use tap53_base::threads::JoinedThread;
use tap53_records::encode::{Attribution, Identity, Owner};

use super::{ContainerDirectory, ContainersStatus, Hierarchy, directory::Shared, tree::Tree};
use crate::config::ContainersConfig;

/// Longest time between two looks at what can be forgotten.
const SWEEP: Duration = Duration::from_secs(30);

/// Shortest time between two scans that workers caused.
const MIN_SCAN_INTERVAL: Duration = Duration::from_millis(100);

/// Finds the tree of version 2 in the directory that the configuration names, or beside version 1 in it,
/// and the hierarchies of the machine.
///
/// # Errors
/// The reason for which there is no tree to follow.
pub fn find_tree(root: &Path) -> Result<(PathBuf, Hierarchy), String> {
    let tree = find_root(root)?;
    let processes = fs::read_to_string("/proc/self/cgroup")
        .map_err(|error| format!("cannot read /proc/self/cgroup: {error}"))?;
    Ok((tree, Hierarchy::of(&processes)))
}

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
        let shared = Shared::new(status, wake, Owner::new(host));
        let directory = ContainerDirectory(Arc::new(shared));
        let mut containers = Self { directory, thread: None };
        if !config.enabled {
            return Ok(containers);
        }
        let shared = containers.directory.0.clone();
        let tree = find_tree(&config.cgroup_root).and_then(|(root, hierarchy)| {
            let tree = Tree::open(&root, node, config.max_cgroups)
                .map_err(|error| format!("cannot follow {}: {error}", root.display()))?;
            shared.change_status(|status| {
                status.root = Some(root);
                status.hierarchy = hierarchy;
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
    let mut events_are_readable = true;
    loop {
        let now = Instant::now();
        let requested = shared.scan_requested.load(Ordering::Relaxed);
        let wait = if requested { next_scan.saturating_duration_since(now) } else { SWEEP };
        // While a scan is due later, workers that request it need not wake this thread.
        let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
        let mut ready = [
            PollFd::new(wake.as_fd(), PollFlags::POLLIN),
            PollFd::new(tree.events(), PollFlags::POLLIN),
        ];
        let ready = &mut ready[..1 + usize::from(events_are_readable)];
        // An interrupted wait is one that ends early.
        let _ = poll(ready, timeout);
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        let _ = wake.read();
        let now = Instant::now();
        if events_are_readable && let Err(error) = tree.process_events(now) {
            // Scans still find each cgroup that a worker sees.
            events_are_readable = false;
            tracing::warn!(
                event = "cgroup_events_unreadable",
                %error,
                "cannot read the events of the cgroup tree: it is scanned instead"
            );
        }
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

    use super::{
        super::{Container, ContainerReader, Placement},
        *,
    };

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.controllers"), "").unwrap();
        root
    }

    fn config(root: &Path) -> ContainersConfig {
        ContainersConfig {
            enabled: true,
            cgroup_root: root.to_owned(),
            max_cgroups: 100,
            processes: false,
        }
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
}
