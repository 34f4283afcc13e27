//! Pods of DNS servers on other nodes, which have a watch of their own.
//!
//! Each pod has one watch that says whether it exists, chosen by its node, which never changes: the
//! watch of the scope, or this one. What the other one says about it is ignored. So an event that is
//! late in one stream cannot contradict the other stream, and both may deliver the same pod.

use std::collections::HashSet;

use tap53_records::encode::Identity;

use super::{Ownership, PodClaim, holder::live_of};
use crate::address_history::{End, Micros};

impl Ownership {
    /// Returns true if the watch of the scope has this pod.
    pub(super) fn has_in_scope(&self, pod: &Identity) -> bool {
        let scope = self.hold.node.as_deref();
        scope.is_none_or(|node| pod.node_name.as_deref() == Some(node))
    }

    /// Applies the state of a server's pod seen at `now`.
    pub(crate) fn server_pod(&mut self, pod: PodClaim, now: Micros) {
        if self.has_in_scope(&pod.identity) {
            return;
        }
        // Events of one watch are in order: this pod was gone only because its labels had changed.
        if pod.end == End::Open {
            self.revive(&pod.uid);
        }
        self.pod(pod, now);
    }

    /// Ends the claims of a server's pod that was deleted, or that the selector no longer selects:
    /// no watch would report its end.
    pub(crate) fn server_pod_gone(&mut self, uid: &str, end: End) {
        if self.holders.get(uid).is_some_and(|holder| holder.is_server) {
            self.object_deleted(uid, end);
        }
    }

    /// Ends the claims of servers' pods that are not in `present`, at some time before `now`.
    pub(crate) fn retain_server_pods(&mut self, present: &HashSet<String>, now: Micros) {
        self.retain(present, now, |holder| holder.is_server);
    }

    /// Lets an ended pod live again. Its addresses follow with its state.
    fn revive(&mut self, uid: &str) {
        if let Some(holder) = self.holders.get_mut(uid)
            && !std::mem::replace(&mut holder.live, true)
        {
            *live_of(&mut self.counts, holder.kind, holder.is_server) += 1;
        }
    }
}
