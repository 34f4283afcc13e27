//! The tree of cgroups, followed by inotify.
//!
//! - A directory is watched before it is listed, so that one that is created meanwhile is reported.
//! - A runtime creates a container's cgroup before it starts its first process, so a container is
//!   usually known before its first packet.
//! - inotify may lose events, and may have no room for more watches. Then the tree is scanned
//!   again, and so it is when a worker sees a cgroup that is not known.

use std::{
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hashbrown::HashMap;
use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor},
};

use super::{Placement, path};

/// Retention of a cgroup after its removal: records of its sockets may come until the
/// pairing table has given up their queries (`pair.tcp_timeout_ms`, ten minutes at most).
const RETENTION: Duration = Duration::from_secs(15 * 60);

/// A cgroup that exists, or existed until lately.
struct Cgroup {
    placement: Placement,
    removed_at: Option<Instant>,
}

/// A directory of the tree.
struct Directory {
    cgroup: u64,
    watch: Option<WatchDescriptor>,
}

/// All cgroups of a tree.
pub(super) struct Tree {
    root: PathBuf,
    node: String,
    limit: usize,
    inotify: Inotify,
    directories: HashMap<PathBuf, Directory>,
    watches: HashMap<WatchDescriptor, PathBuf>,
    cgroups: HashMap<u64, Cgroup>,
    changed: bool,
    refused: u64,
}

impl Tree {
    /// Reads the tree below `root` on the node of that name. Up to `limit` cgroups are remembered.
    ///
    /// # Errors
    /// When the kernel refuses inotify, or the root cannot be read.
    pub(super) fn open(root: &Path, node: &str, limit: usize) -> io::Result<Self> {
        fs::read_dir(root)?;
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let mut tree = Self {
            root: root.to_owned(),
            node: node.to_owned(),
            limit,
            inotify,
            directories: HashMap::new(),
            watches: HashMap::new(),
            cgroups: HashMap::new(),
            changed: true,
            refused: 0,
        };
        tree.scan(Instant::now());
        Ok(tree)
    }

    /// Readable when something has changed.
    pub(super) fn events(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// Number of cgroups that exist now.
    pub(super) fn len(&self) -> usize {
        self.directories.len()
    }

    /// Number of cgroups that were not remembered because the limit was reached.
    pub(super) const fn refused(&self) -> u64 {
        self.refused
    }

    /// Number of directories that inotify has no watch for.
    pub(super) fn unwatched(&self) -> usize {
        self.directories.values().filter(|directory| directory.watch.is_none()).count()
    }

    /// Placements by cgroup identifier, if they have changed since the last call.
    pub(super) fn take_changes(&mut self) -> Option<HashMap<u64, Placement>> {
        let placements = || {
            let cgroups = self.cgroups.iter();
            cgroups.map(|(id, cgroup)| (*id, cgroup.placement.clone())).collect()
        };
        std::mem::take(&mut self.changed).then(placements)
    }

    /// Processes the events that have come; scans the tree where some were lost.
    ///
    /// # Errors
    /// When inotify cannot be read.
    pub(super) fn process_events(&mut self, now: Instant) -> Result<(), Errno> {
        loop {
            match self.inotify.read_events() {
                Ok(events) => {
                    for event in events {
                        self.process(&event, now);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn process(&mut self, event: &InotifyEvent, now: Instant) {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            return self.scan(now);
        }
        let Some(parent) = self.watches.get(&event.wd) else { return };
        if event.mask.contains(AddWatchFlags::IN_IGNORED) {
            self.watches.remove(&event.wd);
            return;
        }
        let Some(name) =
            event.name.as_ref().filter(|_| event.mask.contains(AddWatchFlags::IN_ISDIR))
        else {
            return;
        };
        let path = parent.join(name);
        if event.mask.contains(AddWatchFlags::IN_CREATE) {
            self.add(path, now);
        } else if event.mask.contains(AddWatchFlags::IN_DELETE) {
            self.remove(&path, now);
        }
    }

    /// Compares what is known with the whole tree. Returns true if something was found that was not
    /// known.
    pub(super) fn scan_for_missing(&mut self, now: Instant) -> bool {
        let before = self.cgroups.len();
        self.scan(now);
        self.cgroups.len() > before
    }

    fn scan(&mut self, now: Instant) {
        let gone: Vec<PathBuf> =
            self.directories.keys().filter(|path| !path.is_dir()).cloned().collect();
        for path in gone {
            self.remove(&path, now);
        }
        self.add(self.root.clone(), now);
    }

    /// Adds a directory and all below it.
    fn add(&mut self, path: PathBuf, now: Instant) {
        let mut pending = vec![path];
        while let Some(path) = pending.pop() {
            if !self.add_one(&path, now) {
                continue;
            }
            let Ok(entries) = fs::read_dir(&path) else { continue };
            let directories =
                entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            pending.extend(directories.map(|entry| entry.path()));
        }
    }

    /// Adds one directory; false where it is gone already, or has no room.
    fn add_one(&mut self, path: &Path, now: Instant) -> bool {
        let known = self.directories.get(path).map(|known| (known.cgroup, known.watch));
        if known.is_none() && !self.has_room() {
            self.refused += 1;
            return false;
        }
        let watch = known.and_then(|(_, watch)| watch).or_else(|| self.watch(path));
        let Ok(metadata) = fs::metadata(path) else { return false };
        let cgroup = metadata.ino();
        if let Some((earlier, _)) = known
            && earlier != cgroup
            && let Some(earlier) = self.cgroups.get_mut(&earlier)
        {
            earlier.removed_at = Some(now);
        }
        self.directories.insert(path.to_owned(), Directory { cgroup, watch });
        // A removed one of this identifier is another: cgroups do not use identifiers again, but other
        // file systems do.
        if self.cgroups.get(&cgroup).is_none_or(|known| known.removed_at.is_some()) {
            let relative = path.strip_prefix(&self.root).unwrap_or(path);
            let placement = Placement::of(path::parse(&relative.to_string_lossy()), &self.node);
            self.cgroups.insert(cgroup, Cgroup { placement, removed_at: None });
            self.changed = true;
        }
        true
    }

    /// Watches a directory; `None` where it is gone, or the kernel has no room for another watch.
    fn watch(&mut self, path: &Path) -> Option<WatchDescriptor> {
        let flags = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_ONLYDIR;
        let watch = self.inotify.add_watch(path, flags).ok()?;
        self.watches.insert(watch, path.to_owned());
        Some(watch)
    }

    /// Makes room for one more by forgetting what was removed, the oldest first.
    fn has_room(&mut self) -> bool {
        if self.cgroups.len() < self.limit {
            return true;
        }
        let removed = self.cgroups.iter().filter_map(|(id, it)| Some((it.removed_at?, *id)));
        let Some((_, oldest)) = removed.min() else { return false };
        self.cgroups.remove(&oldest);
        self.changed = true;
        true
    }

    fn remove(&mut self, path: &Path, now: Instant) {
        let below: Vec<PathBuf> =
            self.directories.keys().filter(|known| known.starts_with(path)).cloned().collect();
        for path in below {
            let Some(directory) = self.directories.remove(&path) else { continue };
            if let Some(cgroup) = self.cgroups.get_mut(&directory.cgroup) {
                cgroup.removed_at = Some(now);
            }
        }
    }

    /// Forgets what was removed long before `now`.
    pub(super) fn forget_removed(&mut self, now: Instant) {
        let before = self.cgroups.len();
        self.cgroups.retain(|_, cgroup| {
            cgroup.removed_at.is_none_or(|at| now.saturating_duration_since(at) < RETENTION)
        });
        self.changed |= self.cgroups.len() != before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "8d3f1d4e-5c2b-4a57-9b0e-2f6a7c9d1e3b";

    fn pod(root: &Path) -> PathBuf {
        root.join("kubepods").join(format!("pod{UID}"))
    }

    fn container_of(tree: &mut Tree, cgroup: u64) -> Option<String> {
        let placements = tree.take_changes()?;
        let container = placements.get(&cgroup)?.container()?;
        Some(container.id().to_owned())
    }

    #[test]
    fn a_container_is_known_from_its_creation_until_long_after_its_removal() {
        let root = tempfile::tempdir().unwrap();
        let mut tree = Tree::open(root.path(), "node-1", 100).unwrap();
        let now = Instant::now();
        let path = pod(root.path()).join(ID);
        fs::create_dir_all(&path).unwrap();
        let cgroup = fs::metadata(&path).unwrap().ino();
        tree.process_events(now).unwrap();
        assert_eq!(container_of(&mut tree, cgroup).as_deref(), Some(ID));
        fs::remove_dir(&path).unwrap();
        tree.process_events(now).unwrap();
        assert_eq!(tree.len(), 3);
        tree.forget_removed(now + RETENTION - Duration::from_secs(1));
        assert!(tree.take_changes().is_none());
        tree.forget_removed(now + RETENTION);
        assert!(!tree.take_changes().unwrap().contains_key(&cgroup));
    }

    #[test]
    fn what_events_did_not_report_is_found_by_a_scan() {
        let root = tempfile::tempdir().unwrap();
        let mut tree = Tree::open(root.path(), "node-1", 100).unwrap();
        let path = pod(root.path()).join(ID);
        fs::create_dir_all(&path).unwrap();
        assert!(tree.scan_for_missing(Instant::now()));
        assert!(!tree.scan_for_missing(Instant::now()));
        let cgroup = fs::metadata(&path).unwrap().ino();
        assert_eq!(container_of(&mut tree, cgroup).as_deref(), Some(ID));
    }

    #[test]
    fn a_full_tree_forgets_removed_cgroups_first_and_then_counts_what_it_refuses() {
        let root = tempfile::tempdir().unwrap();
        let mut tree = Tree::open(root.path(), "node-1", 3).unwrap();
        let now = Instant::now();
        for name in ["a", "b"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        tree.process_events(now).unwrap();
        fs::remove_dir(root.path().join("a")).unwrap();
        fs::create_dir(root.path().join("c")).unwrap();
        tree.process_events(now).unwrap();
        assert_eq!((tree.len(), tree.refused()), (3, 0));
        fs::create_dir(root.path().join("d")).unwrap();
        tree.process_events(now).unwrap();
        assert_eq!((tree.len(), tree.refused()), (3, 1));
    }

    #[test]
    fn a_directory_of_the_same_path_is_another_cgroup() {
        let root = tempfile::tempdir().unwrap();
        let mut tree = Tree::open(root.path(), "node-1", 100).unwrap();
        let now = Instant::now();
        let path = root.path().join("a");
        fs::create_dir(&path).unwrap();
        tree.process_events(now).unwrap();
        let first = fs::metadata(&path).unwrap().ino();
        // While it is open, the file system cannot use its inode again. Cgroups never do.
        let _open = fs::File::open(&path).unwrap();
        fs::remove_dir(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let second = fs::metadata(&path).unwrap().ino();
        assert_ne!(first, second);
        tree.process_events(now).unwrap();
        let known = tree.take_changes().unwrap();
        assert!(known.contains_key(&first) && known.contains_key(&second));
    }
}
