//! Applies changes of the interfaces: new ones, renamed ones, those that are gone, and pairs whose other
//! end has moved.

use std::time::Instant;

use tap53_capture::{
    capture::CaptureThread,
    interfaces::{self, Change, Interface, Kind, Peer},
};

use super::{InterfaceReconciler, Stage, Tracked, detach, ifindex_of, is_lost};
use crate::{agent::links::News, telemetry::CHANGE};

impl InterfaceReconciler {
    /// Applies changes of the interfaces.
    pub(super) fn note(&mut self, capture: &CaptureThread, news: News) {
        let changes = match news {
            News::Changes(changes) => changes,
            News::All(all) => return self.note_all(capture, all),
        };
        // Noted together, but before another interface gets the same number.
        let mut gone = Vec::new();
        let mut came_back = Vec::new();
        for change in changes {
            match change {
                Change::Present(interface) => {
                    if gone.contains(&interface.ifindex) {
                        self.note_gone(&std::mem::take(&mut gone));
                    }
                    if self.gone.contains(&interface.ifindex) {
                        self.detach_gone(capture);
                    }
                    let interface = with_peer(interface);
                    if let Some(Peer::Ifindex(peer)) = interface.peer {
                        came_back.push(peer);
                    }
                    self.present(capture, interface, Stage::New);
                }
                Change::Gone(ifindex) => gone.push(ifindex),
                // The reader has listed the interfaces instead.
                Change::Lost => {}
            }
        }
        let mut changed = self.pairs_with(&gone);
        self.note_gone(&gone);
        came_back.retain(|ifindex| {
            let tracked = self.interfaces.get(ifindex);
            tracked.is_some_and(|tracked| tracked.interface.peer == Some(Peer::OtherNamespace))
        });
        changed.append(&mut came_back);
        for ifindex in changed {
            self.look_for_peer(capture, ifindex);
        }
    }

    /// Returns the ends of pairs whose other ends are these interfaces.
    fn pairs_with(&self, others: &[u32]) -> Vec<u32> {
        let is_meant = |interface: &&Interface| match interface.peer {
            Some(Peer::Ifindex(peer)) => others.contains(&peer),
            _ => false,
        };
        self.interfaces().filter(is_meant).map(|interface| interface.ifindex).collect()
    }

    /// Looks where the other end of a pair is now: the kernel does not report when it moves between
    /// namespaces, as that of a pod does.
    fn look_for_peer(&mut self, capture: &CaptureThread, ifindex: u32) {
        let Some(tracked) = self.interfaces.get(&ifindex) else { return };
        let unknown = Interface { peer: None, ..tracked.interface.clone() };
        self.present(capture, with_peer(unknown), Stage::New);
    }

    /// Applies a list of all interfaces, at the start or after netlink messages have been lost. Hooks
    /// that are no longer in place were on an interface that is gone, though another may have its
    /// number now.
    pub(in crate::agent) fn note_all(&mut self, capture: &CaptureThread, all: Vec<Interface>) {
        let is_there = |ifindex: &u32| all.iter().any(|interface| interface.ifindex == *ifindex);
        let gone: Vec<u32> =
            self.interfaces.keys().copied().filter(|ifindex| !is_there(ifindex)).collect();
        self.note_gone(&gone);
        self.detach_gone(capture);
        self.drop_lost_hooks(capture);
        for interface in all {
            self.present(capture, interface, Stage::Usual);
        }
    }

    fn present(&mut self, capture: &CaptureThread, interface: Interface, stage: Stage) {
        let ifindex = interface.ifindex;
        let Some(tracked) = self.interfaces.get_mut(&ifindex) else {
            let tracked = Tracked { interface, hooked: None, failure: None, stage };
            self.interfaces.insert(ifindex, tracked);
            return;
        };
        // The end of a pair that is being removed may no longer have another one.
        let interface = Interface { peer: interface.peer.or(tracked.interface.peer), ..interface };
        if tracked.interface == interface {
            return;
        }
        let before = std::mem::replace(&mut tracked.interface, interface);
        if before.peer != tracked.interface.peer && tracked.hooked.is_none() {
            // It may have become the node's end of a pod's pair.
            tracked.stage = stage;
        }
        // An attempt that failed may succeed now: the interface is up, or has another MTU.
        tracked.retry_now(Instant::now());
        if let Some(hooked) = &mut tracked.hooked {
            hooked.attachment.interface = tracked.interface.clone();
            if let Err(error) = capture.update(&tracked.interface) {
                tracing::error!(event = "interface_update_failed", "{error}");
            }
        }
        if before.name != tracked.interface.name {
            // After records have the new name.
            tracing::info!(
                target: CHANGE,
                event = "interface_renamed",
                ifindex,
                from = before.name,
                to = tracked.interface.name,
                "interface renamed"
            );
        }
    }

    fn note_gone(&mut self, ifindexes: &[u32]) {
        for ifindex in ifindexes {
            let Some(tracked) = self.interfaces.remove(ifindex) else { continue };
            if tracked.hooked.is_some() {
                self.gone.push(*ifindex);
                let name = tracked.interface.name;
                tracing::info!(
                    target: CHANGE,
                    event = "interface_removed",
                    interface = name,
                    ifindex,
                    "interface removed, capture ended"
                );
            }
        }
    }

    /// Detaches the programs of interfaces that are gone, also of those that have only moved to
    /// another namespace, where the programs still run. Many together take little longer than one.
    pub(super) fn detach_gone(&mut self, capture: &CaptureThread) {
        detach(capture, &std::mem::take(&mut self.gone));
    }

    /// Drops hooks that another program has removed, so that they are attached again.
    pub(in crate::agent) fn drop_lost_hooks(&mut self, capture: &CaptureThread) {
        let states = capture.states().unwrap_or_default();
        let mut lost: Vec<u32> = states.iter().filter(|s| is_lost(s)).map(ifindex_of).collect();
        if lost.is_empty() {
            return;
        }
        // The netlink message about an interface that is gone is still to come.
        let Ok(there) = interfaces::list() else { return };
        lost.retain(|ifindex| there.iter().any(|interface| interface.ifindex == *ifindex));
        for ifindex in &lost {
            if let Some(tracked) = self.interfaces.get_mut(ifindex)
                && tracked.hooked.take().is_some()
            {
                let name = &tracked.interface.name;
                tracing::warn!(
                    target: CHANGE,
                    event = "hooks_lost",
                    interface = name,
                    ifindex,
                    "another process has detached our programs, attaching them again"
                );
            }
        }
        detach(capture, &lost);
    }
}

/// Adds the location of a pair's other end, which the kernel's first message lacks.
fn with_peer(interface: Interface) -> Interface {
    if interface.peer.is_some() || !matches!(interface.kind, Kind::Veth | Kind::NetkitPrimary) {
        return interface;
    }
    let peer = interfaces::get(interface.ifindex).ok().flatten().and_then(|now| now.peer);
    Interface { peer, ..interface }
}
