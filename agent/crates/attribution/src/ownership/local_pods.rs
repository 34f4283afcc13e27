//! Pods of this node by UID, with or without an address: sockets are known by their pod's UID.

use std::{collections::HashMap, sync::Arc};

use tap53_records::encode::Owner;

use super::{super::address_history::Micros, claims::PodClaim, eviction::RETENTION_US};
use crate::{
    containers::PodUid,
    pods::{LocalPod, PodsByUid},
};

/// Pods that are remembered at most, those that ended lately included. A node runs a few hundred;
/// one takes some 2 KB.
const MAX_PODS: usize = 8_192;

/// The writer of [`PodsByUid`].
#[derive(Default)]
pub(super) struct LocalPods {
    node: String,
    pods: PodsByUid,
    /// UIDs under which the kubelet knows static pods, by the UIDs under which the API server does.
    static_pods: HashMap<PodUid, PodUid>,
    published: Arc<PodsByUid>,
    changed: bool,
    refused: u64,
}

impl LocalPods {
    /// Follows the pods of `node`.
    pub(super) fn of(node: &str) -> Self {
        Self { node: node.to_owned(), ..Self::default() }
    }

    /// Takes in what a pod says.
    pub(super) fn pod(&mut self, pod: &PodClaim, ended: Option<Micros>) {
        let is_local = pod.identity.node_name.as_deref() == Some(self.node.as_str());
        let Some(uid) = PodUid::parse(&pod.uid).filter(|_| is_local) else { return };
        if let Some(known) = pod.manifest_hash.as_deref().and_then(PodUid::parse) {
            self.static_pods.insert(uid, known);
        }
        let key = self.key(uid);
        if let Some(known) = self.pods.get_mut(&key) {
            // Of a pod that ended, the API may forget what its containers were.
            let is_same = known.owner.identity() == &pod.identity
                && *known.containers == *pod.containers
                && known.ended == ended;
            if !is_same {
                if known.owner.identity() != &pod.identity {
                    known.owner = Owner::new(pod.identity.clone());
                }
                if !pod.containers.is_empty() {
                    known.containers = pod.containers.clone().into();
                }
                known.ended = known.ended.or(ended);
                self.changed = true;
            }
            return;
        }
        if self.pods.len() >= MAX_PODS {
            self.refused += 1;
            return;
        }
        let owner = Owner::new(pod.identity.clone());
        let containers = pod.containers.clone().into();
        self.pods.insert(key, LocalPod { owner, containers, ended });
        self.changed = true;
    }

    /// The pod has another owner now.
    pub(super) fn set_owner(&mut self, uid: &str, change: impl FnOnce(&Owner) -> Owner) {
        let Some(key) = PodUid::parse(uid).map(|uid| self.key(uid)) else { return };
        if let Some(pod) = self.pods.get_mut(&key) {
            pod.owner = change(&pod.owner);
            self.changed = true;
        }
    }

    /// The pod is gone.
    pub(super) fn end(&mut self, uid: &str, at: Micros) {
        let Some(key) = PodUid::parse(uid).map(|uid| self.key(uid)) else { return };
        if let Some(pod) = self.pods.get_mut(&key) {
            pod.ended.get_or_insert(at);
        }
    }

    /// Ends the pods that are not present.
    pub(super) fn retain(&mut self, is_present: impl Fn(&str) -> bool, now: Micros) {
        for pod in self.pods.values_mut() {
            let uid = pod.owner.identity().pod_uid.as_deref();
            if uid.is_some_and(|uid| !is_present(uid)) {
                pod.ended.get_or_insert(now);
            }
        }
    }

    /// Forgets what ended long before `now`.
    pub(super) fn sweep(&mut self, now: Micros) {
        let before = self.pods.len();
        self.pods.retain(|_, pod| pod.ended.is_none_or(|at| at > now - RETENTION_US));
        self.changed |= self.pods.len() != before;
        let pods = &self.pods;
        self.static_pods.retain(|_, known| pods.contains_key(known));
    }

    /// The UID by which a pod's cgroup is named.
    fn key(&self, uid: PodUid) -> PodUid {
        self.static_pods.get(&uid).copied().unwrap_or(uid)
    }

    /// Number of pods that were not remembered.
    pub(super) const fn refused(&self) -> u64 {
        self.refused
    }

    /// True if there is something to publish.
    pub(super) const fn has_changed(&self) -> bool {
        self.changed
    }

    /// All pods, to publish.
    pub(super) fn publish(&mut self) -> Arc<PodsByUid> {
        if std::mem::take(&mut self.changed) {
            self.published = Arc::new(self.pods.clone());
        }
        self.published.clone()
    }
}
