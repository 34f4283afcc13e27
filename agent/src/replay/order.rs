//! Sorts the packets of a file by time, within a bounded window.
//!
//! Capture tools that read several queues or interfaces write frames some milliseconds out of order.
//! A response before its query would become a response without a query. So packets are buffered for
//! [`WINDOW_NS`] of capture time, and released in the order of time.
//!
//! - **A query comes before a response of the same time, or one that follows it in the file in the same
//!   flow.** Equal times come from clocks of microseconds. A response that is older than its query
//!   comes from a clock that was set back, or from another host's: the file's order is right then. Other
//!   flows do not delay a response, which would put it after its successors in its own flow.
//! - **A step back by more than the window is a clock's, not a queue's.** Buffered packets are released
//!   first, and the order of the file continues from there.
//! - **The buffer is bounded** by [`MAX_PACKETS`] and [`MAX_BYTES`]: beyond them the earliest packet is
//!   released early. Each packet costs the logarithm of that in comparisons.

use std::{cmp::Reverse, collections::BinaryHeap};

use tap53_ebpf::{headers::ring_index, record::RecordHeader};

/// Time for which a packet is buffered, in nanoseconds of capture time.
const WINDOW_NS: u64 = 100_000_000;

/// Maximum number of buffered packets, and of bytes of memory for them.
const MAX_PACKETS: usize = 4_096;
const MAX_BYTES: usize = 8 << 20;

/// Maximum capacity in bytes that the buffer of a released packet keeps for the next one: all of these
/// buffers together keep no more than the buffered packets.
const MAX_SPARE_BYTES: usize = MAX_BYTES / MAX_PACKETS;

/// Number of slots for the latest times of flows. Two flows that share a slot have one latest time, so
/// a response of one may be released later than it should.
const FLOW_PLACES: u32 = 4_096;

/// A buffered packet.
#[derive(Debug, Default)]
pub(super) struct BufferedPacket {
    pub(super) header: RecordHeader,
    pub(super) bytes: Vec<u8>,
    pub(super) frame: u64,
}

/// Sort key of a packet: time, queries first, order in the file; and its slot.
type SortKey = (u64, bool, u64, usize);

/// The buffered packets.
pub(super) struct Order {
    heap: BinaryHeap<Reverse<SortKey>>,
    slots: Vec<BufferedPacket>,
    free: Vec<usize>,
    /// The packet that was released last.
    out: BufferedPacket,
    /// Capacity of the buffers of all buffered packets, in bytes.
    bytes: usize,
    /// The latest time since the clock last stepped back.
    latest_ns: u64,
    /// The latest time of each flow's packets, by the hash of the flow.
    latest_of_flow_ns: Vec<u64>,
    sequence: u64,
    /// Number of packets that may be released regardless of their time: those before a step back.
    due: usize,
}

impl Default for Order {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            out: BufferedPacket::default(),
            bytes: 0,
            latest_ns: 0,
            latest_of_flow_ns: vec![0; FLOW_PLACES as usize],
            sequence: 0,
            due: 0,
        }
    }
}

impl Order {
    /// Adds a packet. The caller must then take the due packets from [`next`](Self::next).
    pub(super) fn push(&mut self, header: &RecordHeader, bytes: &[u8], frame: u64, response: bool) {
        let at_ns = header.captured_at_ns;
        // The hash is equal for both directions of a flow.
        let place = ring_index(header.flow_hash, FLOW_PLACES) as usize;
        let latest_ns = self.latest_of_flow_ns.get_mut(place).map_or(at_ns, |latest_ns| {
            *latest_ns = at_ns.max(*latest_ns);
            *latest_ns
        });
        // A response is never released before the packets that precede it in the file in its flow,
        // within the window.
        let key_ns = if response { latest_ns } else { at_ns };
        self.sequence += 1;
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(BufferedPacket::default());
                self.slots.len() - 1
            }
        };
        if let Some(packet) = self.slots.get_mut(slot) {
            (packet.header, packet.frame) = (*header, frame);
            packet.bytes.clear();
            packet.bytes.reserve_exact(bytes.len());
            packet.bytes.extend_from_slice(bytes);
            self.bytes += packet.bytes.capacity();
        }
        self.heap.push(Reverse((key_ns, response, self.sequence, slot)));
    }

    /// Advances to the time of a frame, before its packet is [pushed](Self::push) or left out. If the
    /// clock has stepped back by more than the window, all buffered packets are due.
    pub(super) fn begin(&mut self, at_ns: u64) {
        if at_ns.saturating_add(WINDOW_NS) < self.latest_ns {
            self.flush();
            self.latest_ns = at_ns;
            self.latest_of_flow_ns.fill(0);
        }
        self.latest_ns = self.latest_ns.max(at_ns);
    }

    /// Returns the time up to which everything has been released when nothing is due.
    pub(super) const fn passed_ns(&self) -> u64 {
        self.latest_ns.saturating_sub(WINDOW_NS)
    }

    /// Makes all buffered packets due.
    pub(super) fn flush(&mut self) {
        self.due = self.heap.len();
    }

    /// Returns the next packet that is due.
    pub(super) fn next(&mut self) -> Option<&BufferedPacket> {
        let Reverse((key_ns, ..)) = self.heap.peek()?;
        let is_due = self.due > 0
            || key_ns.saturating_add(WINDOW_NS) <= self.latest_ns
            || self.heap.len() > MAX_PACKETS
            || self.bytes > MAX_BYTES;
        if !is_due {
            return None;
        }
        self.due = self.due.saturating_sub(1);
        let Reverse((.., slot)) = self.heap.pop()?;
        self.free.push(slot);
        let packet = self.slots.get_mut(slot)?;
        self.bytes -= packet.bytes.capacity();
        // The slot gets the buffer of the previous packet, which is not used any more.
        std::mem::swap(packet, &mut self.out);
        if packet.bytes.capacity() > MAX_SPARE_BYTES {
            packet.bytes = Vec::new();
        }
        Some(&self.out)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const MS: u64 = 1_000_000;

    fn header(at_ns: u64) -> RecordHeader {
        RecordHeader { captured_at_ns: at_ns, ..RecordHeader::default() }
    }

    /// Returns the order in which packets of these times are released (true for responses), by their
    /// position in the file.
    fn ordered(packets: &[(u64, bool)]) -> Vec<u64> {
        let of_flow = |(at_ns, response): &(u64, bool)| (0, *at_ns, *response);
        ordered_flows(&packets.iter().map(of_flow).collect::<Vec<_>>())
    }

    /// Returns the order for packets of several flows, given by their hashes.
    fn ordered_flows(packets: &[(u32, u64, bool)]) -> Vec<u64> {
        let (mut order, mut out) = (Order::default(), Vec::new());
        for ((flow_hash, at_ns, response), frame) in packets.iter().zip(1..) {
            order.begin(*at_ns);
            while let Some(packet) = order.next() {
                out.push(packet.frame);
            }
            let header = RecordHeader { flow_hash: *flow_hash, ..header(*at_ns) };
            order.push(&header, &[7; 60], frame, *response);
            while let Some(packet) = order.next() {
                out.push(packet.frame);
            }
            assert!(order.heap.len() <= MAX_PACKETS && order.bytes <= MAX_BYTES);
        }
        order.flush();
        while let Some(packet) = order.next() {
            out.push(packet.frame);
        }
        assert_eq!((order.bytes, order.due), (0, 0));
        out
    }

    #[test]
    fn another_flow_delays_no_response_past_what_follows_it() {
        let (flow, other) = (0x1234_5678, 0xfedc_ba98);
        let packets = [(flow, 60 * MS, true), (flow, 61 * MS, false)];
        assert_eq!(ordered_flows(&packets), [1, 2]);
        let packets = [(other, 100 * MS, false), packets[0], packets[1]];
        assert_eq!(ordered_flows(&packets), [2, 3, 1]);
    }

    #[test]
    fn a_step_back_resets_the_times_of_flows() {
        let packets = [(1, 900 * MS, false), (1, 60 * MS, true), (1, 61 * MS, false)];
        assert_eq!(ordered_flows(&packets), [1, 2, 3]);
    }

    #[test]
    fn memory_is_bounded_whatever_lengths_take_turns() {
        let (small, large) = ([7; 60], vec![7; 64 << 10]);
        let mut order = Order::default();
        for round in 0..8 {
            let at_ns = round * MS;
            order.begin(at_ns + 1);
            // The large ones are released first, so that the buffers of small ones are reused first.
            (0..100).for_each(|frame| order.push(&header(at_ns), &large, frame, false));
            (0..600).for_each(|frame| order.push(&header(at_ns + 1), &small, frame, false));
            order.flush();
            while order.next().is_some() {}
        }
        let capacity: usize = order.slots.iter().map(|packet| packet.bytes.capacity()).sum();
        assert!(capacity <= MAX_BYTES, "{capacity} bytes of unused buffers");
    }

    #[test]
    fn a_response_before_its_query_is_released_after_it() {
        assert_eq!(ordered(&[(5 * MS, true), (2 * MS, false)]), [2, 1]);
        assert_eq!(ordered(&[(5 * MS, true), (5 * MS, false)]), [2, 1], "in one tick");
    }

    #[test]
    fn a_response_after_its_query_stays_there_even_if_its_clock_is_behind() {
        assert_eq!(ordered(&[(5 * MS, false), (2 * MS, true)]), [1, 2]);
        assert_eq!(ordered(&[(5_000 * MS, false), (2 * MS, true), (3 * MS, false)]), [1, 2, 3]);
    }

    #[test]
    fn queries_are_sorted_by_time_within_the_window_only() {
        let packets = [(500 * MS, false), (460 * MS, false), (300 * MS, false), (10 * MS, false)];
        assert_eq!(ordered(&packets), [2, 1, 3, 4]);
    }

    #[test]
    fn the_buffer_is_bounded() {
        let packets: Vec<_> = (0..3 * MAX_PACKETS as u64).map(|at| (at, at % 2 == 0)).collect();
        let expected: Vec<u64> = (1..=packets.len() as u64).collect();
        assert_eq!(ordered(&packets), expected);
    }

    proptest! {
        #[test]
        fn every_packet_is_released_once(packets in vec((0..400 * MS, any::<bool>()), 0..300)) {
            let mut out = ordered(&packets);
            out.sort_unstable();
            let all: Vec<u64> = (1..=packets.len() as u64).collect();
            prop_assert_eq!(out, all);
        }

        #[test]
        fn ordered_packets_stay_in_order(mut times in vec(0..400 * MS, 0..300)) {
            times.sort_unstable();
            let packets: Vec<_> = times.into_iter().map(|at_ns| (at_ns, false)).collect();
            let expected: Vec<u64> = (1..=packets.len() as u64).collect();
            prop_assert_eq!(ordered(&packets), expected);
        }
    }
}
