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

mod directory;
mod follower;
mod path;
mod tree;

use std::{path::PathBuf, sync::Arc};

use serde::Serialize;
use tap53_records::encode::{Attribution, Identity, Owner};

pub use directory::ContainerDirectory;
pub(crate) use directory::ContainerReader;
pub use follower::{Containers, find_tree};
pub(crate) use path::PodUid;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_with_version_1_is_hybrid() {
        assert_eq!(Hierarchy::of("0::/user.slice\n"), Hierarchy::Unified);
        assert_eq!(Hierarchy::of("8:pids:/\n0::/\n"), Hierarchy::Hybrid);
    }
}
