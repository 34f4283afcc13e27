//! What may have been missed, and whose it may have been.

use hashbrown::HashMap;
use tap53_dns::{Flow, Transport};

/// Flows of which is remembered that a packet could not be read, both ways of each: 0.5 MiB.
const DAMAGED_FLOWS: usize = 4_096;

/// How long a connection is distrusted after bytes in it differed, nanoseconds: as long as one is
/// kept that nothing comes from. Another one of the same ports may be distrusted with it.
const DISTRUSTED_NS: u64 = 120_000_000_000;

/// Interfaces of which is remembered when capture on them began or ended, 16 bytes each.
const SWITCHED_INTERFACES: usize = 4_096;

/// Gaps of one worker's capture.
pub(super) struct Gaps {
    ring_lost: u32,
    /// Gaps that any flow may have suffered from, and when the last one was noted.
    known: u64,
    last_at_ns: u64,
    /// Flows of which a packet could not be read, and when.
    damaged: HashMap<Flow, u64>,
    /// TCP connections in which bytes were sent twice and differed, both ways of each, and when.
    conflicts: HashMap<Flow, u64>,
    /// When capture last began or ended on an interface.
    switched: HashMap<u32, u64>,
}

impl Gaps {
    pub(super) fn new(started_at_ns: u64) -> Self {
        // What came before the start was not seen either.
        Self {
            ring_lost: 0,
            known: 0,
            last_at_ns: started_at_ns,
            damaged: HashMap::new(),
            conflicts: HashMap::new(),
            switched: HashMap::new(),
        }
    }

    /// Number of gaps that any flow may have suffered from.
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
            // Too many to tell apart: any flow may be one of them.
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
            // Those whose time has passed; or else, as above, without the sign.
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

    /// True if bytes of the flow's connection differed lately.
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
            // As above.
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

    /// True if a packet of the flow could not be read since then.
    pub(super) fn is_damaged(&self, flow: &Flow, since_ns: u64) -> bool {
        self.damaged.get(flow).is_some_and(|at_ns| *at_ns >= since_ns)
    }

    /// True if capture on the interface began or ended since then.
    pub(super) fn is_switched(&self, ifindex: u32, since_ns: u64) -> bool {
        self.switched.get(&ifindex).is_some_and(|at_ns| *at_ns >= since_ns)
    }

    /// True if anything of the flow may have been missed since then.
    pub(super) fn any_since(&self, flow: &Flow, since_ns: u64) -> bool {
        self.last_at_ns >= since_ns || self.is_damaged(flow, since_ns)
    }

    /// As [`any_since`](Self::any_since), but for what came before the start.
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
