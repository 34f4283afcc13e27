//! Tracks gaps of the capture, and the flows that they may affect.

use hashbrown::HashMap;
use tap53_dns::{Flow, Transport};

/// Maximum number of flows with unreadable packets that are stored, in both directions: 0.5 MiB.
const DAMAGED_FLOWS: usize = 4_096;

/// Time that a connection is distrusted after conflicting bytes, in nanoseconds: the idle timeout
/// of a connection. A later one of the same ports may be distrusted with it.
const DISTRUSTED_NS: u64 = 120_000_000_000;

/// Maximum number of interfaces whose last start or stop of capture is stored, 16 bytes each.
const SWITCHED_INTERFACES: usize = 4_096;

/// Gaps of one worker's capture.
pub(super) struct Gaps {
    ring_lost: u32,
    /// Number of gaps that may affect any flow, and the time of the last one.
    known: u64,
    last_at_ns: u64,
    /// Flows with an unreadable packet, and its time.
    damaged: HashMap<Flow, u64>,
    /// TCP connections with conflicting bytes, in both directions, and the time of the conflict.
    conflicts: HashMap<Flow, u64>,
    /// Times when capture last started or stopped on an interface.
    switched: HashMap<u32, u64>,
}

impl Gaps {
    pub(super) fn new(started_at_ns: u64) -> Self {
        // Packets before the start were not captured either.
        Self {
            ring_lost: 0,
            known: 0,
            last_at_ns: started_at_ns,
            damaged: HashMap::new(),
            conflicts: HashMap::new(),
            switched: HashMap::new(),
        }
    }

    /// Returns the number of gaps that may affect any flow.
    pub(super) const fn known(&self) -> u64 {
        self.known
    }

    pub(super) const fn note_ring_lost(&mut self, ring_lost: u32, at_ns: u64) {
        if ring_lost != self.ring_lost {
            self.ring_lost = ring_lost;
            self.note(at_ns);
        }
    }

    pub(super) fn note_unreadable(&mut self, flow: Flow, at_ns: u64) {
        if self.damaged.len() >= DAMAGED_FLOWS {
            // Too many to distinguish: any flow may be affected.
            self.damaged.clear();
            self.note(at_ns);
        }
        let back = Flow { client: flow.server, server: flow.client, ..flow };
        for flow in [flow, back] {
            let latest = self.damaged.entry(flow).or_default();
            *latest = at_ns.max(*latest);
        }
    }

    pub(super) fn note_conflict(&mut self, flow: Flow, at_ns: u64) {
        if self.conflicts.len() >= DAMAGED_FLOWS {
            // Drop the expired ones first; if there are still too many, drop the sign as above.
            self.conflicts.retain(|_, noted_ns| noted_ns.saturating_add(DISTRUSTED_NS) >= at_ns);
            if self.conflicts.len() >= DAMAGED_FLOWS {
                self.conflicts.clear();
                self.note(at_ns);
            }
        }
        let back = Flow { client: flow.server, server: flow.client, ..flow };
        for flow in [flow, back] {
            self.conflicts.insert(flow, at_ns);
        }
    }

    /// Returns true if the flow's connection had conflicting bytes recently.
    #[inline]
    pub(super) fn is_conflicting(&self, flow: &Flow, now_ns: u64) -> bool {
        flow.transport == Transport::Tcp
            && !self.conflicts.is_empty()
            && self
                .conflicts
                .get(flow)
                .is_some_and(|at_ns| now_ns.saturating_sub(*at_ns) <= DISTRUSTED_NS)
    }

    pub(super) fn note_switched(&mut self, ifindex: u32, at_ns: u64) {
        if self.switched.len() >= SWITCHED_INTERFACES {
            // Too many to distinguish, as above.
            self.switched.clear();
            self.note(at_ns);
        }
        let latest = self.switched.entry(ifindex).or_default();
        *latest = at_ns.max(*latest);
    }

    const fn note(&mut self, at_ns: u64) {
        self.known += 1;
        self.last_at_ns = at_ns;
    }

    /// Returns true if a packet of the flow could not be read since then.
    pub(super) fn is_damaged(&self, flow: &Flow, since_ns: u64) -> bool {
        self.damaged.get(flow).is_some_and(|at_ns| *at_ns >= since_ns)
    }

    /// Returns true if capture on the interface started or stopped since then.
    pub(super) fn is_switched(&self, ifindex: u32, since_ns: u64) -> bool {
        self.switched.get(&ifindex).is_some_and(|at_ns| *at_ns >= since_ns)
    }

    /// Returns true if any message of the flow may have been missed since then.
    pub(super) fn any_since(&self, flow: &Flow, since_ns: u64) -> bool {
        self.last_at_ns >= since_ns || self.is_damaged(flow, since_ns)
    }

    /// Returns the same as [`any_since`](Self::any_since), without the time before the start.
    pub(super) fn any_lost_since(&self, flow: &Flow, since_ns: u64) -> bool {
        self.known > 0 && self.last_at_ns >= since_ns || self.is_damaged(flow, since_ns)
    }

    #[cfg(test)]
    pub(super) fn switched_interfaces(&self) -> usize {
        self.switched.len()
    }

    #[cfg(test)]
    pub(super) fn conflicts(&self) -> usize {
        self.conflicts.len()
    }

    #[cfg(test)]
    pub(super) fn damaged_flows(&self) -> usize {
        self.damaged.len()
    }
}
