//! Reassembles TCP segments to DNS messages (RFC 9293 §3.4, RFC 7766 §8).
//!
//! ```text
//!  Segment ─▶ Streams: connection by both endpoints, interface and tunnel
//!               └─▶ Connection: a Side for each direction
//!                     └─▶ Side: bytes in order; pieces wait after a gap
//!                           └─▶ Framing: messages, straight from the packet if they are whole
//! ```
//!
//! A worker owns one [`Streams`], created by [`Config::build`]. Each segment, even without payload
//! (its SYN, ACK, FIN or RST matters), goes into [`Streams::segment`]; [`Streams::expire`] passes
//! the time; [`Streams::finish`] ends. Each call reports a sequence of [`StreamEvent`]s: the
//! messages of this segment, of the one that it completes, and of the other direction if its
//! acknowledgement ends the wait for bytes that were not captured. A message's `at_ns` is the
//! capture time of the latest of its bytes. The context, `C`, belongs to the caller: an event has
//! that of the latest segment from the message's sender.
//!
//! Contract:
//! - No input causes a panic, time is an argument, memory is bounded ([`Config`]).
//! - A segment of whole messages in order is not copied, except for its last 256 bytes, and nothing
//!   is allocated for it.
//! - If two segments have bytes at the same position, the one that was captured first wins. A
//!   receiver treats its received bytes in the same way; a forger who knows ports and sequence
//!   numbers can exploit any such rule.
//!   Repeated bytes are compared with the stored ones: a difference is a loss of its own
//!   ([`StreamLoss::Conflict`]), and an event.
//! - [`StreamCounts`] accounts for every byte of payload between any two calls.
//! - Work is bounded by the number of segments and bytes, whatever their order
//!   ([`StreamCounts::most_steps`]).
//! - Every loss that can hide a message is also an event with its flow.
//! - A gap blocks its stream until the bytes arrive, the other side acknowledges them (so they were
//!   sent and not captured), the bytes after it exceed their limit, or [`Config::gap_timeout`]
//!   expires.
//!   An acknowledgement that arrives before any bytes after the gap does not end the wait: if the
//!   two directions are captured with different delays (mirror ports, files merged from two
//!   clocks), the acknowledged bytes are yet to arrive. It is an event at once, and the bytes after
//!   the gap wait until they are acknowledged themselves, hence before their response is read, or
//!   for [`Config::acknowledged_gap_timeout`].
//!   If the length of the message in which the gap began is known, and the gap ends in it, the next
//!   message is found exactly; otherwise by its look ([`begins`]), as in a connection that existed
//!   before the capture. In a stream that is synchronised to a SYN, no message is invented.
//! - RST, FIN and a new SYN end the state of a connection. A RST is only accepted with an expected
//!   sequence number (RFC 5961 §3.2). The shell of a closed connection is kept, and evicted first,
//!   so that retransmissions are not mistaken for a new one.

mod begins;
mod connection;
mod counts;
mod framing;
mod latest;
mod outlet;
mod side;

use std::{cell::Cell, hash::BuildHasher, time::Duration};

use hashbrown::DefaultHashBuilder;

use super::aged::AgedTable;
use crate::Flow;
use connection::{Connection, Ends, LISTS, Limits};

pub use counts::{StreamCounts, StreamIgnored, StreamLoss};

/// Bits of [`Segment::flags`] (RFC 9293 §3.1).
pub mod tcp_flags {
    /// The sender has no more data.
    pub const FIN: u8 = 1 << 0;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 1 << 1;
    /// Reset the connection.
    pub const RST: u8 = 1 << 2;
    /// The acknowledgement number is valid.
    pub const ACK: u8 = 1 << 4;
}

/// Limits on the stored streams of each worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Maximum number of connections.
    pub streams: usize,
    /// Maximum memory after gaps in one direction of a connection, in bytes, including the
    /// bookkeeping of each piece (96 bytes). In addition a direction stores at most one incomplete
    /// message, 64 KiB.
    pub stream_bytes: usize,
    /// Maximum memory of all connections in bytes. A segment is processed before others are
    /// evicted, so it may be exceeded by one segment.
    pub bytes: usize,
    /// Time that a gap blocks the bytes after it.
    pub gap_timeout: Duration,
    /// The same in a stream that continues, if the other side had acknowledged the missing bytes
    /// before any byte after the gap was captured.
    pub acknowledged_gap_timeout: Duration,
    /// Time that a connection is kept after its latest segment.
    pub idle_timeout: Duration,
}

impl Default for Config {
    /// 32,768 connections take 0.4 KiB each besides the context, so 13 MiB; with 32 MiB of stored
    /// bytes and the latest 256 bytes of each direction, a worker's streams are bounded to 61 MiB.
    /// A direction may store 256 KiB after gaps: several of the longest messages. It is worth
    /// waiting at a gap while the sender may repeat the segment: after 1 s and another 2 s (RFC
    /// 6298 §2). RFC 1035 §4.2.2 recommends that servers allow two minutes of silence.
    fn default() -> Self {
        Self {
            streams: 32_768,
            stream_bytes: 256 << 10,
            bytes: 32 << 20,
            gap_timeout: Duration::from_secs(3),
            acknowledged_gap_timeout: Duration::from_millis(50),
            idle_timeout: Duration::from_secs(120),
        }
    }
}

impl Config {
    /// Creates an empty reassembly.
    #[must_use]
    pub fn build<C: Copy>(self) -> Streams<C> {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Streams {
            capacity: self.streams.clamp(1, 1 << 30),
            bytes: self.bytes,
            idle_timeout_ns: nanoseconds(self.idle_timeout),
            latest_ns: 0,
            limits: Limits {
                stream_bytes: self.stream_bytes,
                gap_timeout_ns: nanoseconds(self.gap_timeout),
                acknowledged_gap_timeout_ns: nanoseconds(self.acknowledged_gap_timeout),
            },
            connections: AgedTable::new(),
            hasher: DefaultHashBuilder::default(),
            memory: 0,
            counts: StreamCounts::default(),
        }
    }
}

/// A captured TCP segment. It may be longer than on the wire (GSO, GRO).
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a, C> {
    /// Endpoints and interface, with its sender as the client.
    pub flow: Flow,
    /// Capture time in nanoseconds.
    pub at_ns: u64,
    /// Sequence number of the SYN, or of the first byte of payload.
    pub sequence: u32,
    /// Acknowledgement number, valid with [`tcp_flags::ACK`].
    pub acknowledgement: u32,
    /// Bits of [`tcp_flags`]; others are ignored.
    pub flags: u8,
    /// Payload.
    pub payload: &'a [u8],
    /// A value of the caller that is returned with a message.
    pub context: C,
}

/// The result of a segment, or of a timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEvent<'a, C> {
    /// A DNS message.
    Message {
        /// The message's sender is the client.
        flow: Flow,
        /// Context of the latest segment from its sender.
        context: C,
        /// Capture time of the latest of its bytes, in nanoseconds.
        at_ns: u64,
        /// The message, without its length prefix; at least 12 bytes.
        message: &'a [u8],
    },
    /// A message may be missing.
    Loss {
        /// The sender of the missing bytes is the client.
        flow: Flow,
        /// Context of the latest segment from that sender.
        context: C,
        /// Time when the loss became known, in nanoseconds.
        at_ns: u64,
        /// The reason of the loss.
        reason: StreamLoss,
    },
}

/// The TCP connections of a worker.
///
/// Six lists order them by the time of their latest segment: expendable and proven connections,
/// each divided by whether nothing waits, a message is incomplete, or bytes wait after a gap. A
/// connection is proven if it carries messages and both sides were heard, until it closes. A flood
/// of SYNs, or of forged segments with data, hence evicts only its own kind.
pub struct Streams<C> {
    capacity: usize,
    bytes: usize,
    idle_timeout_ns: u64,
    /// The latest time of any call.
    latest_ns: u64,
    limits: Limits,
    connections: AgedTable<Connection<C>, { LISTS }>,
    /// The seed is random: clients choose ports.
    hasher: DefaultHashBuilder,
    /// Memory of the connections' stored bytes, including bookkeeping.
    memory: usize,
    counts: StreamCounts,
}

impl<C: Copy> Streams<C> {
    /// Returns the counts of all bytes so far.
    #[must_use]
    pub fn counts(&self) -> StreamCounts {
        StreamCounts { streams: self.connections.len() as u64, ..self.counts }
    }

    /// Returns the memory in bytes, as charged against the limits.
    #[must_use]
    pub const fn memory(&self) -> usize {
        self.connections.slots() * AgedTable::<Connection<C>, { LISTS }>::ENTRY_BYTES + self.memory
    }

    /// Processes a segment.
    pub fn segment(
        &mut self,
        segment: &Segment<'_, C>,
        mut events: impl FnMut(StreamEvent<'_, C>),
    ) {
        self.counts.segments += 1;
        self.counts.bytes_received += segment.payload.len() as u64;
        let (ends, sender) = Ends::of(&segment.flow);
        let hash = self.hasher.hash_one(ends);
        let steps = Cell::new(1);
        let is_it = |connection: &Connection<C>| {
            steps.set(steps.get() + 1);
            *connection.ends() == ends
        };
        let found = self.connections.find(hash, is_it);
        self.counts.steps += steps.get();
        let number = match found {
            Some(number) => number,
            None => {
                let opens = segment.flags & tcp_flags::SYN != 0 || !segment.payload.is_empty();
                if segment.flags & tcp_flags::RST != 0 {
                    let text = segment.payload.len() as u64;
                    return self.counts.ignore(StreamIgnored::ResetText, text);
                }
                if !opens {
                    // An acknowledgement alone does not show the position of the stream.
                    return;
                }
                if self.connections.len() >= self.capacity {
                    self.evict_to_limits(segment.at_ns, &mut events);
                }
                self.connections.insert(hash, 0, Connection::new(ends, segment))
            }
        };
        // It was just found or inserted.
        let Some(connection) = self.connections.get_mut(number) else {
            return;
        };
        let before = connection.memory();
        let waited = connection.waiting();
        connection.segment(segment, sender, &self.limits, &mut self.counts, &mut events);
        connection.mark_heard(self.latest_ns);
        self.settle(number, before, waited);
        while self.memory > self.bytes && self.evict_waiting(segment.at_ns, &mut events) {}
    }

    /// Drops the gaps and the connections whose timeout has expired at `now_ns`, the time up to
    /// which segments were processed.
    pub fn expire(&mut self, now_ns: u64, mut events: impl FnMut(StreamEvent<'_, C>)) {
        self.latest_ns = self.latest_ns.max(now_ns);
        for list in connection::WITH_GAP {
            while let Some(number) = self.connections.oldest(list)
                && let Some(connection) = self.connections.get_mut(number)
                && connection.idle_since(self.limits.gap_timeout_ns, now_ns)
            {
                self.counts.steps += 1;
                let (before, waited) = (connection.memory(), connection.waiting());
                connection.give_up_gaps(now_ns, &mut self.counts, &mut events);
                self.settle(number, before, waited);
            }
        }
        for list in 0..LISTS {
            while let Some(number) = self.connections.oldest(list)
                && let Some(connection) = self.connections.get(number)
                && connection.idle_since(self.idle_timeout_ns, now_ns)
            {
                self.remove(number, StreamLoss::Idle, now_ns, &mut events);
            }
        }
    }

    /// Ends the capture: passes on the complete messages, and drops all connections.
    pub fn finish(&mut self, now_ns: u64, mut events: impl FnMut(StreamEvent<'_, C>)) {
        for list in 0..LISTS {
            while let Some(number) = self.connections.oldest(list) {
                self.remove(number, StreamLoss::Ended, now_ns, &mut events);
            }
        }
    }

    /// Resets the time after [`finish`](Self::finish), for another capture.
    pub const fn restart(&mut self) {
        self.latest_ns = 0;
    }

    /// Moves a changed connection to its list, and updates the sums.
    #[inline]
    fn settle(&mut self, number: u32, memory_before: usize, waited: usize) {
        if let Some(connection) = self.connections.get(number) {
            self.memory = self.memory + connection.memory() - memory_before;
            self.counts.bytes_waiting += connection.waiting() as u64;
            self.counts.bytes_waiting -= waited as u64;
            let list = connection.list();
            self.connections.renew(number, list);
        }
    }

    fn evict_to_limits(&mut self, now_ns: u64, events: &mut impl FnMut(StreamEvent<'_, C>)) {
        let oldest =
            self.oldest_of(connection::EXPENDABLE).or_else(|| self.oldest_of(connection::PROVEN));
        if let Some(number) = oldest {
            self.counts.streams_evicted += 1;
            self.remove(number, StreamLoss::Evicted, now_ns, events);
        }
    }

    /// Evicts a connection that stores bytes; returns false if none does.
    fn evict_waiting(&mut self, now_ns: u64, events: &mut impl FnMut(StreamEvent<'_, C>)) -> bool {
        let oldest = self
            .oldest_of(connection::EXPENDABLE_WAITING)
            .or_else(|| self.oldest_of(connection::PROVEN_WAITING));
        let Some(number) = oldest else {
            return false;
        };
        self.counts.streams_evicted += 1;
        self.remove(number, StreamLoss::Evicted, now_ns, events);
        true
    }

    /// Returns the connection in these lists that was heard of longest ago.
    fn oldest_of(&self, lists: std::ops::Range<usize>) -> Option<u32> {
        let oldest = lists.filter_map(|list| self.connections.oldest(list));
        oldest.min_by_key(|number| self.connections.get(*number).map(Connection::last_at_ns))
    }

    fn remove(
        &mut self,
        number: u32,
        reason: StreamLoss,
        now_ns: u64,
        events: &mut impl FnMut(StreamEvent<'_, C>),
    ) {
        if let Some(mut connection) = self.connections.remove(number) {
            self.counts.steps += 1;
            self.memory -= connection.memory();
            self.counts.bytes_waiting -= connection.waiting() as u64;
            connection.settle(reason, now_ns, &mut self.counts, events);
        }
    }
}

#[cfg(test)]
mod tests;
