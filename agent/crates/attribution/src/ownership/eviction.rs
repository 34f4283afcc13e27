//! Bounds the number of claims, and evicts those that have ended.

use std::{net::IpAddr, sync::Arc};

use super::{
    super::address_history::Micros,
    Ownership,
    holder::{HeldAddress, Kind},
    hosts::Host,
};

/// Time that an ended claim is kept, in microseconds.
pub(super) const RETENTION_US: Micros = 15 * 60 * 1_000_000;

/// Maximum number of claims to one address. A pod lives for seconds at least, so eight cover more
/// than the longest wait in the pairing table with a usual timeout.
pub(super) const HISTORY: usize = 8;

impl Ownership {
    /// Evicts ended claims if there is no room for one claim in addition to `others` that are to be
    /// added. Returns false if there still is none.
    pub(super) fn evict_for(&mut self, others: usize) -> bool {
        if self.counts.claims + others < self.limits.claims {
            return true;
        }
        // Evict an eighth at once: each eviction scans all claims.
        let mut ended: Vec<(Micros, Arc<str>)> = self
            .holders
            .iter()
            .filter(|(_, holder)| !holder.live)
            .map(|(uid, holder)| (holder.ended_at(), uid.clone()))
            .collect();
        ended.sort_unstable();
        let before = self.counts.claims;
        for (_, uid) in ended {
            if before - self.counts.claims > self.limits.claims / 8 {
                break;
            }
            self.remove(&uid);
        }
        self.counts.ended_evicted += (before - self.counts.claims) as u64;
        let room = self.counts.claims + others < self.limits.claims;
        if !room {
            self.counts.refused += 1;
        }
        room
    }

    /// Adds a claimant to an address, and evicts one if it has too many.
    pub(super) fn on_address(&mut self, address: IpAddr, uid: &Arc<str>) {
        let claimants = self.addresses.entry(address).or_default();
        claimants.holders.push(uid.clone());
        if claimants.holders.len() <= HISTORY {
            return;
        }
        let times = |uid: &Arc<str>| {
            let held = self.holders.get(uid)?.held.iter().find(|held| held.address == address)?;
            Some((held.end.at(), held.start.position()))
        };
        let oldest = claimants.holders.iter().min_by_key(|uid| times(uid)).cloned();
        if let Some(oldest) = oldest {
            self.counts.history_evicted += 1;
            self.drop_claims(&oldest, |held| held.address == address);
        }
    }

    /// Removes the claims that ended long before `now`.
    pub(crate) fn sweep(&mut self, now: Micros) {
        self.evict_ended_before(now - RETENTION_US);
        self.local_pods.sweep(now);
    }

    /// Removes an object.
    fn remove(&mut self, uid: &Arc<str>) {
        self.drop_claims(uid, |_| true);
    }

    /// Removes some of an object's claims, and with the last claim the object.
    fn drop_claims(&mut self, uid: &Arc<str>, mut which: impl FnMut(&HeldAddress) -> bool) {
        let Some(holder) = self.holders.get_mut(uid) else { return };
        let (dropped, kept): (Vec<_>, Vec<_>) = holder.held.drain(..).partition(|h| which(h));
        holder.held = kept;
        let (kind, left) = (holder.kind, holder.held.len());
        let node = holder.owner.identity().node_name.clone().unwrap_or_default();
        self.counts.claims -= dropped.len();
        if left == 0 {
            self.ended(uid);
            self.holders.remove(uid);
        }
        for held in dropped {
            if kind == Kind::HostPod {
                let name = self.hosts.get_mut(&*node).map(|host| {
                    if left == 0 {
                        host.pods.remove(uid);
                    }
                });
                if name.is_some() {
                    self.release(&node, held.address);
                }
            } else {
                if let Some(claimants) = self.addresses.get_mut(&held.address) {
                    claimants.holders.retain(|holder| holder != uid);
                }
                self.resolve(held.address);
            }
        }
        if kind == Kind::HostPod {
            self.resolve_host(&node);
            if self.hosts.get(&*node).is_some_and(Host::is_empty) {
                self.hosts.remove(&*node);
            }
        }
    }

    fn evict_ended_before(&mut self, cutoff: Micros) {
        let uids: Vec<Arc<str>> = self
            .holders
            .iter()
            .filter(|(_, holder)| holder.held.iter().any(|held| held.end.at() <= cutoff))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in uids {
            self.drop_claims(&uid, |held| held.end.at() <= cutoff);
        }
    }
}
