//! Packets of a file in order of time, as far as a bounded window allows.
//!
//! Capture tools that read several queues or interfaces write frames some milliseconds out of order.
//! A response in front of its query would be one without a query. So packets are held for
//! [`WINDOW_NS`] of capture time and come out by it.
//!
//! - **A query comes before a response that is as late, or that follows it in the file in the same
//!   flow.** The one is what a clock of microseconds does, the other one what a clock does that is set
//!   back, or that of another host: the file's order is the truth then. Other flows do not delay a
//!   response: it would come out after what follows it in its own flow.
//! - **A step back by more than the window is a clock's, not a queue's.** What is held comes out
//!   first, and the order of the file goes on from there.
//! - **Bounded** by [`MOST_PACKETS`] and [`MOST_BYTES`]: beyond them the earliest comes out early. Each
//!   packet costs the logarithm of that in comparisons.

use std::{cmp::Reverse, collections::BinaryHeap};

use tap53_ebpf::{headers::ring_index, record::RecordHeader};

/// How long a packet is held, nanoseconds of capture time.
const WINDOW_NS: u64 = 100_000_000;

/// Packets that are held at most, and bytes of memory for them.
const MOST_PACKETS: usize = 4_096;
const MOST_BYTES: usize = 8 << 20;

/// What the buffer of a packet that is out may keep for the next one, bytes: all of those buffers
/// together keep no more than the packets that are held.
const MOST_SPARE_BYTES: usize = MOST_BYTES / MOST_PACKETS;

/// Flows whose latest times are kept apart. Two that share a place have one latest time, so a response
/// of one may come out later than it should.
const FLOW_PLACES: u32 = 4_096;

/// A packet that is held.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) header: RecordHeader,
    pub(super) bytes: Vec<u8>,
    pub(super) frame: u64,
}

/// What packets come out by: time, queries first, order in the file; then where the packet is.
type Place = (u64, bool, u64, usize);

/// The packets that are held.
pub(super) struct Order {
    heap: BinaryHeap<Reverse<Place>>,
    slots: Vec<Held>,
    free: Vec<usize>,
    /// The packet that came out last.
    out: Held,
    /// Capacity of the buffers of what is held, whatever their packets take of it.
    bytes: usize,
    /// The latest time since the clock last stepped back.
    latest_ns: u64,
    /// The same of the packets of each flow, by the hash of the flow.
    latest_of_flow_ns: Vec<u64>,
    sequence: u64,
    /// Packets that may come out whatever comes: those before a step back.
    due: usize,
}

impl Default for Order {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            out: Held::default(),
            bytes: 0,
            latest_ns: 0,
            latest_of_flow_ns: vec![0; FLOW_PLACES as usize],
            sequence: 0,
            due: 0,
        }
    }
}

impl Order {
    /// Takes in a packet. What [`next`](Self::next) then has is to be taken out.
    pub(super) fn push(&mut self, header: &RecordHeader, bytes: &[u8], frame: u64, response: bool) {
        let at_ns = header.captured_at_ns;
        // The hash is equal for both directions of a flow.
        let place = ring_index(header.flow_hash, FLOW_PLACES) as usize;
        let latest_ns = self.latest_of_flow_ns.get_mut(place).map_or(at_ns, |latest_ns| {
            *latest_ns = at_ns.max(*latest_ns);
            *latest_ns
        });
        // A response never comes out before what precedes it in the file in its flow, within the
        // window.
        let key_ns = if response { latest_ns } else { at_ns };
        self.sequence += 1;
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(Held::default());
                self.slots.len() - 1
            }
        };
        if let Some(held) = self.slots.get_mut(slot) {
            (held.header, held.frame) = (*header, frame);
            held.bytes.clear();
            held.bytes.reserve_exact(bytes.len());
            held.bytes.extend_from_slice(bytes);
            self.bytes += held.bytes.capacity();
        }
        self.heap.push(Reverse((key_ns, response, self.sequence, slot)));
    }

    /// Passes the time of a frame, before its packet is [pushed](Self::push) or left out. Where the
    /// clock stepped back by more than the window, all that is held is due.
    pub(super) fn begin(&mut self, at_ns: u64) {
        if at_ns.saturating_add(WINDOW_NS) < self.latest_ns {
            self.flush();
            self.latest_ns = at_ns;
            self.latest_of_flow_ns.fill(0);
        }
        self.latest_ns = self.latest_ns.max(at_ns);
    }

    /// The time up to which everything is out once nothing is due.
    pub(super) const fn passed_ns(&self) -> u64 {
        self.latest_ns.saturating_sub(WINDOW_NS)
    }

    /// All that is held is due.
    pub(super) fn flush(&mut self) {
        self.due = self.heap.len();
    }

    /// The next packet that is due.
    pub(super) fn next(&mut self) -> Option<&Held> {
        let Reverse((key_ns, ..)) = self.heap.peek()?;
        let is_due = self.due > 0
            || key_ns.saturating_add(WINDOW_NS) <= self.latest_ns
            || self.heap.len() > MOST_PACKETS
            || self.bytes > MOST_BYTES;
        if !is_due {
            return None;
        }
        self.due = self.due.saturating_sub(1);
        let Reverse((.., slot)) = self.heap.pop()?;
        self.free.push(slot);
        let held = self.slots.get_mut(slot)?;
        self.bytes -= held.bytes.capacity();
        // The slot gets the buffer of the packet before, which nobody reads any more.
        std::mem::swap(held, &mut self.out);
        if held.bytes.capacity() > MOST_SPARE_BYTES {
            held.bytes = Vec::new();
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

    /// What comes out of packets of these times, responses with true, by their place in the file.
    fn ordered(packets: &[(u64, bool)]) -> Vec<u64> {
        let of_flow = |(at_ns, response): &(u64, bool)| (0, *at_ns, *response);
        ordered_flows(&packets.iter().map(of_flow).collect::<Vec<_>>())
    }

    /// The same of packets of several flows, by the hashes of these.
    fn ordered_flows(packets: &[(u32, u64, bool)]) -> Vec<u64> {
        let (mut order, mut out) = (Order::default(), Vec::new());
        for ((flow_hash, at_ns, response), frame) in packets.iter().zip(1..) {
            order.begin(*at_ns);
            while let Some(held) = order.next() {
                out.push(held.frame);
            }
            let header = RecordHeader { flow_hash: *flow_hash, ..header(*at_ns) };
            order.push(&header, &[7; 60], frame, *response);
            while let Some(held) = order.next() {
                out.push(held.frame);
            }
            assert!(order.heap.len() <= MOST_PACKETS && order.bytes <= MOST_BYTES);
        }
        order.flush();
        while let Some(held) = order.next() {
            out.push(held.frame);
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
    fn a_step_back_forgets_the_times_of_flows() {
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
            // The large ones come out first, so that the buffers of small ones are reused first.
            (0..100).for_each(|frame| order.push(&header(at_ns), &large, frame, false));
            (0..600).for_each(|frame| order.push(&header(at_ns + 1), &small, frame, false));
            order.flush();
            while order.next().is_some() {}
        }
        let capacity: usize = order.slots.iter().map(|held| held.bytes.capacity()).sum();
        assert!(capacity <= MOST_BYTES, "{capacity} bytes for nothing that is held");
    }

    #[test]
    fn a_response_before_its_query_comes_out_behind_it() {
        assert_eq!(ordered(&[(5 * MS, true), (2 * MS, false)]), [2, 1]);
        assert_eq!(ordered(&[(5 * MS, true), (5 * MS, false)]), [2, 1], "in one tick");
    }

    #[test]
    fn a_response_behind_its_query_stays_there_though_its_clock_is_behind() {
        assert_eq!(ordered(&[(5 * MS, false), (2 * MS, true)]), [1, 2]);
        assert_eq!(ordered(&[(5_000 * MS, false), (2 * MS, true), (3 * MS, false)]), [1, 2, 3]);
    }

    #[test]
    fn queries_come_out_by_time_within_the_window_only() {
        let packets = [(500 * MS, false), (460 * MS, false), (300 * MS, false), (10 * MS, false)];
        assert_eq!(ordered(&packets), [2, 1, 3, 4]);
    }

    #[test]
    fn what_is_held_is_bounded() {
        let packets: Vec<_> = (0..3 * MOST_PACKETS as u64).map(|at| (at, at % 2 == 0)).collect();
        let expected: Vec<u64> = (1..=packets.len() as u64).collect();
        assert_eq!(ordered(&packets), expected);
    }

    proptest! {
        #[test]
        fn every_packet_comes_out_once(packets in vec((0..400 * MS, any::<bool>()), 0..300)) {
            let mut out = ordered(&packets);
            out.sort_unstable();
            let all: Vec<u64> = (1..=packets.len() as u64).collect();
            prop_assert_eq!(out, all);
        }

        #[test]
        fn what_is_in_order_stays_in_order(mut times in vec(0..400 * MS, 0..300)) {
            times.sort_unstable();
            let packets: Vec<_> = times.into_iter().map(|at_ns| (at_ns, false)).collect();
            let expected: Vec<u64> = (1..=packets.len() as u64).collect();
            prop_assert_eq!(ordered(&packets), expected);
        }
    }
}
