//! Decides whether two queries with equal bytes can be one packet at two points of its path.

use tap53_ebpf::settings::Direction;

use super::super::{
    Table,
    slots::{NONE, Slot},
};
use crate::pair::recent::COPIED_NS;

/// Maximum time in nanoseconds between two sightings whose client differs. A packet passes a node in
/// microseconds; the rest allows for a busy one.
const CLIENT_TRANSLATED_NS: u64 = 50_000_000;

/// Maximum decrease of the hop limit between two sightings whose client differs.
const HOPS: u8 = 3;

/// The evidence that two queries with equal bytes are one packet, from weak to strong. A decision
/// considers only the strongest that there is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Evidence {
    /// The client differs.
    OtherClient,
    /// The client differs, and both packets have the same IPv4 identification.
    OtherClientSamePacket,
    /// The client is the same.
    SameClient,
    /// The client and the IPv4 identification are the same.
    SameClientSamePacket,
}

impl Table {
    /// Returns the evidence that a new query is the next sighting of a pending one; `None` if it is
    /// not.
    pub(super) fn evidence(&self, pending: u32, new: u32) -> Option<Evidence> {
        let (outer, inner) = (&self.slots[pending as usize], &self.slots[new as usize]);
        let is_last = outer.pending && outer.links.inner == NONE;
        if !is_last
            || outer.links.content != inner.links.content
            || outer.flow.transport != inner.flow.transport
            || outer.query.message.id != inner.query.message.id
            || outer.question != inner.question
            || self.passed_before(pending, inner)
        {
            return None;
        }
        let [earlier, later] = [&outer.query, &inner.query];
        let between_ns = later.at_ns.saturating_sub(outer.latest.at_ns.min(later.at_ns));
        let both_known = |one: u64, other: u64| one != 0 && other != 0;
        let [one, other] = [earlier.sender.socket, later.sender.socket];
        let same_packet = both_known(earlier.identification.into(), later.identification.into());
        if later.at_ns < earlier.at_ns
            || both_known(one, other) && one != other
            || same_packet && earlier.identification != later.identification
            // The hop limit of a packet never increases.
            || later.hop_limit > earlier.hop_limit
        {
            return None;
        }
        let same_client = outer.flow.client == inner.flow.client;
        if same_client && outer.flow.server == inner.flow.server {
            // Only the tunnel differs. From one into another there is no direct way.
            let is_tunnel = outer.flow.tunnel.is_none() != inner.flow.tunnel.is_none();
            return (is_tunnel && between_ns <= COPIED_NS).then_some(if same_packet {
                Evidence::SameClientSamePacket
            } else {
                Evidence::SameClient
            });
        }
        let hops = earlier.hop_limit - later.hop_limit;
        let leaves = later.point.direction == Direction::Egress;
        // A translated packet has entered this node. Of a packet that leaves it, nothing follows: the
        // next one with these bytes is that of another server, which one socket may query at once.
        if earlier.point.direction != Direction::Ingress || !(leaves || hops > 0) {
            return None;
        }
        if same_client {
            return (between_ns <= COPIED_NS).then_some(if same_packet {
                Evidence::SameClientSamePacket
            } else {
                Evidence::SameClient
            });
        }
        // A forwarder repeats the bytes of a query too, in a packet of its own: from the address that
        // was queried, or with a hop limit that was not decremented.
        let may_be_forwarded =
            inner.flow.client.ip() == outer.flow.server.ip() || hops == 0 || hops > HOPS;
        let is_sure = leaves
            && !may_be_forwarded
            && between_ns <= CLIENT_TRANSLATED_NS
            && outer.gaps == self.gaps.known();
        is_sure.then_some(if same_packet {
            Evidence::OtherClientSamePacket
        } else {
            Evidence::OtherClient
        })
    }

    /// Returns true if a sighting of the same exchange was at the point of this one: a packet passes
    /// each point once.
    fn passed_before(&self, last: u32, inner: &Slot) -> bool {
        let mut at = last;
        while let Some(slot) = self.slots.get(at as usize) {
            if slot.query.point == inner.query.point || slot.flow == inner.flow {
                return true;
            }
            at = slot.links.outer;
        }
        false
    }
}
