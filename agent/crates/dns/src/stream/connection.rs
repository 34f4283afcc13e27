//! Both directions of a TCP connection: each acknowledges data of the other.

use std::{
    hash::{Hash, Hasher},
    net::{IpAddr, SocketAddr},
    ops::Range,
};

use super::{
    Segment, StreamCounts, StreamEvent, StreamIgnored, StreamLoss,
    outlet::Sender,
    side::Side,
    tcp_flags::{ACK, FIN, RST, SYN},
};
use crate::{Flow, Transport, Tunnel};

/// Lists of connections: expendable and proven ones, each divided by the data that waits.
pub(super) const LISTS: usize = 6;
pub(super) const EXPENDABLE: Range<usize> = 0..3;
pub(super) const EXPENDABLE_WAITING: Range<usize> = 1..3;
pub(super) const PROVEN: Range<usize> = 3..6;
pub(super) const PROVEN_WAITING: Range<usize> = 4..6;
pub(super) const WITH_GAP: [usize; 2] = [2, 5];

/// Limits of a single connection.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Memory of one side's pieces in bytes.
    pub(super) stream_bytes: usize,
    pub(super) gap_timeout_ns: u64,
    pub(super) acknowledged_gap_timeout_ns: u64,
}

/// Identifies a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    /// The lower one first.
    ends: [SocketAddr; 2],
    tunnel: Option<Tunnel>,
    ifindex: u32,
}

impl Ends {
    /// Returns the ends of a flow, and the index of its client.
    #[inline]
    pub(super) fn of(flow: &Flow) -> (Self, usize) {
        let (ends, sender) = if flow.client <= flow.server {
            ([flow.client, flow.server], 0)
        } else {
            ([flow.server, flow.client], 1)
        };
        (Self { ends, tunnel: flow.tunnel, ifindex: flow.ifindex }, sender)
    }

    /// Returns the flow with `sender` as its client.
    const fn flow(&self, sender: usize) -> Flow {
        Flow {
            transport: Transport::Tcp,
            client: self.ends[sender & 1],
            server: self.ends[(sender & 1) ^ 1],
            tunnel: self.tunnel,
            ifindex: self.ifindex,
        }
    }
}

/// Hashes as few words as possible, but every field that distinguishes connections: otherwise a
/// sender that chooses tunnels could fill one bucket.
impl Hash for Ends {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        for end in &self.ends {
            match end.ip() {
                IpAddr::V4(address) => state.write_u64(address.to_bits().into()),
                IpAddr::V6(address) => state.write_u128(address.to_bits()),
            }
        }
        let ports = u32::from(self.ends[0].port()) << 16 | u32::from(self.ends[1].port());
        state.write_u64(u64::from(self.ifindex) << 32 | u64::from(ports));
        if let Some(tunnel) = self.tunnel {
            state.write_u64(tunnel.number());
        }
    }
}

/// A connection, or the rest of a closed one.
pub(super) struct Connection<C> {
    ends: Ends,
    last_at_ns: u64,
    /// True if payload arrived outside of the SYN.
    has_data: bool,
    closed: bool,
    sides: [Side; 2],
    /// Context of the latest segment from each end.
    contexts: [C; 2],
}

impl<C: Copy> Connection<C> {
    pub(super) const fn new(ends: Ends, segment: &Segment<'_, C>) -> Self {
        Self {
            ends,
            last_at_ns: segment.at_ns,
            has_data: false,
            closed: false,
            sides: [Side::new(), Side::new()],
            // The context of the other end is replaced before any event uses it.
            contexts: [segment.context; 2],
        }
    }

    #[inline]
    pub(super) const fn ends(&self) -> &Ends {
        &self.ends
    }

    pub(super) const fn last_at_ns(&self) -> u64 {
        self.last_at_ns
    }

    /// Records a segment. The time is at least the latest one of any segment: a slow clock (set
    /// back, or of another host in a capture file) does not make the connection look idle.
    #[inline]
    pub(super) const fn mark_heard(&mut self, latest_ns: u64) {
        if self.last_at_ns < latest_ns {
            self.last_at_ns = latest_ns;
        }
    }

    pub(super) const fn idle_since(&self, timeout_ns: u64, now_ns: u64) -> bool {
        self.last_at_ns.saturating_add(timeout_ns) <= now_ns
    }

    /// Returns the number of stream bytes that wait.
    #[inline]
    pub(super) fn waiting(&self) -> usize {
        self.sides[0].waiting() + self.sides[1].waiting()
    }

    /// Returns the memory in bytes, besides this struct.
    #[inline]
    pub(super) fn memory(&self) -> usize {
        self.sides[0].memory() + self.sides[1].memory()
    }

    /// Returns the list that it belongs to.
    #[inline]
    pub(super) fn list(&self) -> usize {
        let proven = self.has_data && !self.closed && self.sides.iter().all(Side::was_seen);
        let what_waits =
            if self.sides.iter().any(Side::has_gap) { 2 } else { usize::from(self.waiting() > 0) };
        if proven { PROVEN.start + what_waits } else { EXPENDABLE.start + what_waits }
    }

    /// Returns one side, and the outlet of its messages.
    #[inline]
    fn side<'a, E>(
        &'a mut self,
        which: usize,
        counts: &'a mut StreamCounts,
        events: &'a mut E,
    ) -> (&'a mut Side, Sender<'a, C, E>) {
        let which = which & 1;
        let sender =
            Sender { flow: self.ends.flow(which), context: self.contexts[which], counts, events };
        (&mut self.sides[which], sender)
    }

    /// Processes a segment that `from` has sent.
    #[inline]
    pub(super) fn segment<E: FnMut(StreamEvent<'_, C>)>(
        &mut self,
        segment: &Segment<'_, C>,
        from: usize,
        limits: &Limits,
        counts: &mut StreamCounts,
        events: &mut E,
    ) {
        let at_ns = segment.at_ns;
        self.last_at_ns = self.last_at_ns.max(at_ns);
        self.contexts[from & 1] = segment.context;
        let mut sequence = segment.sequence;
        if segment.flags & RST != 0 {
            return self.reset(segment, from, counts, events);
        }
        if segment.flags & SYN != 0 {
            self.open(segment, from, counts, events);
            sequence = sequence.wrapping_add(1);
        }
        if segment.flags & ACK != 0 {
            let (other, mut out) = self.side(from ^ 1, counts, events);
            other.acknowledged(segment.acknowledgement, at_ns, &mut out);
        }
        if !segment.payload.is_empty() {
            self.has_data |= segment.flags & SYN == 0;
            self.closed = false;
            let (mine, mut out) = self.side(from, counts, events);
            mine.data(sequence, segment.payload, at_ns, &mut out);
        }
        if self.sides.iter().any(Side::has_gap) {
            self.enforce_limits(limits, at_ns, counts, events);
        }
        if segment.flags & FIN != 0 || self.sides.iter().any(Side::has_fin) {
            let size = u32::try_from(segment.payload.len()).unwrap_or(u32::MAX);
            let fin = (segment.flags & FIN != 0).then(|| sequence.wrapping_add(size));
            self.close(fin, from, at_ns, counts, events);
        }
    }

    /// Processes a SYN: it opens a new connection, or the other side of the current one.
    #[cold]
    fn open<E: FnMut(StreamEvent<'_, C>)>(
        &mut self,
        segment: &Segment<'_, C>,
        from: usize,
        counts: &mut StreamCounts,
        events: &mut E,
    ) {
        let (mine, other) = (&self.sides[from & 1], &self.sides[(from & 1) ^ 1]);
        if mine.is_syn(segment.sequence) {
            return;
        }
        if mine.is_late_syn(segment.sequence) {
            return self.sides[from & 1].note_late_syn();
        }
        if mine.was_seen() || (other.was_seen() && !other.saw_syn()) {
            self.settle(StreamLoss::Closed, segment.at_ns, counts, events);
            self.sides = [Side::new(), Side::new()];
            (self.has_data, self.closed) = (false, false);
        }
        self.sides[from & 1].open(segment.sequence);
        let other = &mut self.sides[(from & 1) ^ 1];
        if segment.flags & ACK != 0 && !other.was_seen() {
            // Its SYN was not captured. It may have carried data, so this need not be a boundary.
            other.start_amid(segment.acknowledgement);
        }
    }

    /// Processes a RST: waiting data will not continue.
    #[cold]
    fn reset<E: FnMut(StreamEvent<'_, C>)>(
        &mut self,
        segment: &Segment<'_, C>,
        from: usize,
        counts: &mut StreamCounts,
        events: &mut E,
    ) {
        counts.ignore(StreamIgnored::ResetText, segment.payload.len() as u64);
        let (mine, other) = (&self.sides[from & 1], &self.sides[(from & 1) ^ 1]);
        // A RST in response to a SYN has no sequence number (RFC 9293 §3.10.7.2).
        let refuses = !mine.was_seen()
            && segment.flags & ACK != 0
            && other.can_reset(segment.acknowledgement);
        if refuses || mine.can_reset(segment.sequence) {
            self.settle(StreamLoss::Closed, segment.at_ns, counts, events);
            self.closed = true;
        }
    }

    fn enforce_limits<E: FnMut(StreamEvent<'_, C>)>(
        &mut self,
        limits: &Limits,
        at_ns: u64,
        counts: &mut StreamCounts,
        events: &mut E,
    ) {
        let since_ns = at_ns.saturating_sub(limits.gap_timeout_ns);
        let acknowledged_since_ns = at_ns.saturating_sub(limits.acknowledged_gap_timeout_ns);
        for which in 0..2 {
            let (side, mut out) = self.side(which, counts, events);
            side.give_up_beyond(limits.stream_bytes, at_ns, &mut out);
            side.give_up_since(since_ns, acknowledged_since_ns, at_ns, &mut out);
        }
    }

    /// Closes the sides that have reached their FIN.
    fn close<E: FnMut(StreamEvent<'_, C>)>(
        &mut self,
        fin: Option<u32>,
        from: usize,
        at_ns: u64,
        counts: &mut StreamCounts,
        events: &mut E,
    ) {
        if let Some(fin) = fin {
            self.sides[from & 1].finish(fin);
        }
        for which in 0..2 {
            let (side, mut out) = self.side(which, counts, events);
            side.end_if_over(at_ns, &mut out);
        }
        self.closed = false;
        self.note_closed();
    }

    /// Marks the connection as closed once both sides have ended.
    fn note_closed(&mut self) {
        self.closed |= self.sides.iter().any(Side::has_fin)
            && self.sides.iter().all(|side| !side.was_seen() || side.has_ended());
    }

    /// Continues after all gaps.
    pub(super) fn give_up_gaps<E: FnMut(StreamEvent<'_, C>)>(
        &mut self,
        now_ns: u64,
        counts: &mut StreamCounts,
        events: &mut E,
    ) {
        // It moves to the end of a list, so it must count as heard now.
        self.last_at_ns = now_ns;
        for which in 0..2 {
            let (side, mut out) = self.side(which, counts, events);
            side.give_up_since(u64::MAX, u64::MAX, now_ns, &mut out);
            side.end_if_over(now_ns, &mut out);
        }
        self.note_closed();
    }

    /// Passes on the whole messages after gaps, and loses the other waiting bytes.
    pub(super) fn settle<E: FnMut(StreamEvent<'_, C>)>(
        &mut self,
        reason: StreamLoss,
        now_ns: u64,
        counts: &mut StreamCounts,
        events: &mut E,
    ) {
        for which in 0..2 {
            let (side, mut out) = self.side(which, counts, events);
            side.settle(reason, now_ns, &mut out);
        }
    }
}
