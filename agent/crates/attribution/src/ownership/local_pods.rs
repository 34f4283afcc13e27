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

    /// Name of the node.
    pub(super) fn node(&self) -> &str {
        &self.node
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
            if known.owner.identity() != &pod.identity {
                known.owner = Owner::new(pod.identity.clone());
                self.changed = true;
            }
            // The API server may drop the containers of a pod that ended.
            if !pod.containers.is_empty() && *known.containers != *pod.containers {
                known.containers = pod.containers.clone().into();
                self.changed = true;
            }
            // When it ended matters to eviction only, not to readers.
            known.ended = known.ended.or(ended);
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

#[cfg(test)]
mod tests {
    use tap53_records::encode::Identity;

    use super::{super::super::address_history::End, *};

    const UID: &str = "8d3f1d4e-5c2b-4a57-9b0e-2f6a7c9d1e3b";

    fn pod(node: &str, containers: &[&str]) -> PodClaim {
        let identity = Identity {
            pod_uid: Some(UID.to_owned()),
            node_name: Some(node.to_owned()),
            ..Default::default()
        };
        PodClaim {
            uid: UID.to_owned(),
            identity,
            addresses: Vec::new(),
            host_network: false,
            is_node_cache: false,
            start: None,
            earliest: 0,
            end: End::Open,
            containers: containers.iter().map(|id| ((*id).to_owned(), "main".to_owned())).collect(),
            manifest_hash: None,
        }
    }

    #[test]
    fn only_what_readers_see_is_published_again() {
        let mut pods = LocalPods::of("node-1");
        pods.pod(&pod("node-2", &["a"]), None);
        assert!(!pods.has_changed(), "a pod of another node");
        pods.pod(&pod("node-1", &["a"]), None);
        assert!(pods.has_changed());
        pods.publish();
        for (containers, ended) in
            [(&["a"][..], None), (&[], None), (&["a"], Some(5)), (&[], Some(6))]
        {
            pods.pod(&pod("node-1", containers), ended);
            assert!(!pods.has_changed(), "{containers:?} {ended:?}");
        }
        pods.pod(&pod("node-1", &["a", "b"]), None);
        assert!(pods.has_changed());
        let published = pods.publish();
        let pod = published.values().next().unwrap();
        assert_eq!((pod.container_name("b"), pod.ended), (Some("main"), Some(5)));
    }

    #[test]
    fn a_pod_is_forgotten_long_after_its_end() {
        let mut pods = LocalPods::of("node-1");
        pods.pod(&pod("node-1", &["a"]), Some(5));
        pods.sweep(RETENTION_US);
        assert_eq!(pods.publish().len(), 1);
        pods.sweep(RETENTION_US + 5);
        assert_eq!(pods.publish().len(), 0);
    }
}
