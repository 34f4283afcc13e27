//! TCP segments become DNS messages (RFC 9293 §3.4, RFC 7766 §8).
//!
//! ```text
//!  Segment ─▶ Streams: connection by both endpoints, interface and tunnel
//!               └─▶ Connection: a Side for each direction
//!                     └─▶ Side: bytes in order; pieces wait behind a gap
//!                           └─▶ Framing: messages, straight from the packet where they are whole
//! ```
//!
//! A worker owns one [`Streams`], made by [`Config::build`]. Each segment, also one without payload
//! (its SYN, ACK, FIN or RST matters), goes into [`Streams::segment`]; [`Streams::expire`] passes
//! the time; [`Streams::finish`] ends. What comes of it is a sequence of [`StreamEvent`]s, in the
//! call: the messages of this segment, of the one that it completes, and of the other direction
//! where its acknowledgement ends the wait for bytes that were not captured. A message's `at_ns` is
//! when the latest of its bytes was captured. The context, `C`, is the caller's: that of the latest
//! segment from the message's sender.
//!
//! Contract:
//! - Nothing panics on any input, time is passed in, memory is bounded ([`Config`]).
//! - A segment of whole messages in order is neither copied, but for its last 256 bytes, nor
//!   allocated for.
//! - Where two segments have the same position, the one that was captured first wins. A receiver
//!   does the same with what it has taken; a forger who knows ports and sequence numbers can use
//!   any such rule.
//!   Bytes that come again are compared with what was taken, as far as that is kept: where they
//!   differ they are a loss of their own ([`StreamLoss::Conflict`]), and an event.
//! - [`StreamCounts`] accounts for every byte of payload between any two calls.
//! - Work is bounded by the segments and bytes that come, whatever their order
//!   ([`StreamCounts::most_steps`]).
//! - Every loss that can hide a message is also an event with its flow.
//! - A gap holds its stream up until the bytes come, the other side acknowledges them (so they were
//!   sent and not captured), the bytes behind it exceed their limit, or [`Config::gap_timeout`].
//!   An acknowledgement that comes before anything behind the gap does not end the wait: where the
//!   two directions are captured one behind the other (mirror ports, files merged from two clocks),
//!   what it acknowledges is yet to come. It is an event at once, and what comes behind the gap
//!   waits until it is acknowledged itself, hence before its answer is read, or for
//!   [`Config::acknowledged_gap_timeout`].
//!   Where the length of the message that the gap began in was known, and the gap ends in it, the
//!   next message is found exactly; else by its looks ([`begins`]), as in a connection that was
//!   there before the capture. Once synchronised to a SYN, no message is made up.
//! - RST, FIN and a new SYN end the state of a connection. A RST counts only with a sequence number
//!   that is expected (RFC 5961 §3.2). The shell of a closed connection is kept, and evicted first,
//!   so that retransmissions are not taken for a new one.

mod begins;
mod connection;
mod counts;
mod framing;
mod latest;
mod outlet;
mod side;

use std::{cell::Cell, hash::BuildHasher, time::Duration};

use hashbrown::DefaultHashBuilder;

use super::aged::Aged;
use crate::Flow;
use connection::{Connection, Ends, LISTS, Limits};

pub use counts::{StreamCounts, StreamIgnored, StreamLoss};

/// Bits of [`Segment::flags`] (RFC 9293 §3.1).
pub mod tcp_flags {
    /// No more data from the sender.
    pub const FIN: u8 = 1 << 0;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 1 << 1;
    /// Reset the connection.
    pub const RST: u8 = 1 << 2;
    /// The acknowledgement number is valid.
    pub const ACK: u8 = 1 << 4;
}

/// How much is kept of streams, by each worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Connections at most.
    pub streams: usize,
    /// Bytes behind gaps at most, of one direction of a connection, with the bookkeeping of each
    /// piece (96 bytes). Beside them a direction keeps at most one message that has not ended, 64
    /// KiB.
    pub stream_bytes: usize,
    /// Bytes kept at most, of all connections. A segment is taken in before room is made, so one
    /// segment more at times.
    pub bytes: usize,
    /// How long a gap holds up what is behind it.
    pub gap_timeout: Duration,
    /// How long it does in a stream that goes on, if the other side had acknowledged what is missing
    /// before anything behind it was captured.
    pub acknowledged_gap_timeout: Duration,
    /// How long a connection is kept after its latest segment.
    pub idle_timeout: Duration,
}

impl Default for Config {
    /// 32,768 connections take 0.4 KiB each besides the context, so 13 MiB; with the 32 MiB of
    /// bytes that they keep and the latest 256
    /// bytes of each direction, a worker's streams are bounded to 61 MiB. A direction may keep 256 KiB
    /// behind gaps: several of the longest messages. A gap is worth waiting for while the sender
    /// may repeat the segment: after 1 s and 2 s more (RFC 6298 §2). Two minutes of silence are
    /// what RFC 1035 §4.2.2 recommends servers to allow.
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
    /// No streams yet.
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
            connections: Aged::new(),
            hasher: DefaultHashBuilder::default(),
            memory: 0,
            counts: StreamCounts::default(),
        }
    }
}

/// A TCP segment as captured. It may be longer than what was on the wire (GSO, GRO).
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a, C> {
    /// Between whom and where it was captured, its sender as the client.
    pub flow: Flow,
    /// When it was captured, nanoseconds.
    pub at_ns: u64,
    /// Sequence number of the SYN, or else of the first byte of payload.
    pub sequence: u32,
    /// Acknowledgement number, valid with [`tcp_flags::ACK`].
    pub acknowledgement: u32,
    /// Bits of [`tcp_flags`]; others are not looked at.
    pub flags: u8,
    /// Payload.
    pub payload: &'a [u8],
    /// What the caller wants to know again with a message.
    pub context: C,
}

/// What comes of a segment, or of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEvent<'a, C> {
    /// A DNS message.
    Message {
        /// Its sender is the client.
        flow: Flow,
        /// Context of the latest segment from its sender.
        context: C,
        /// When the latest of its bytes was captured, nanoseconds.
        at_ns: u64,
        /// The message, without its length prefix; at least 12 bytes.
        message: &'a [u8],
    },
    /// A message may be missing.
    Loss {
        /// The sender of what is missing is the client.
        flow: Flow,
        /// Context of the latest segment from that sender.
        context: C,
        /// When it became known, nanoseconds.
        at_ns: u64,
        /// Why.
        reason: StreamLoss,
    },
}

/// The TCP connections that a worker sees.
///
/// Six lists keep them by the time of their latest segment: those that may be given up and those
/// that are proven, each by whether nothing waits, a message has not ended, or bytes wait behind a
/// gap. Proven are connections that carry messages and whose both sides were heard, until they
/// close. A flood of SYNs, or of forged segments with data, hence evicts only its own kind.
pub struct Streams<C> {
    capacity: usize,
    bytes: usize,
    idle_timeout_ns: u64,
    /// The latest time heard of.
    latest_ns: u64,
    limits: Limits,
    connections: Aged<Connection<C>, { LISTS }>,
    /// Keyed at random: the clients choose ports.
    hasher: DefaultHashBuilder,
    /// Bytes that the connections keep, with bookkeeping.
    memory: usize,
    counts: StreamCounts,
}

impl<C: Copy> Streams<C> {
    /// What became of every byte up to now.
    #[must_use]
    pub fn counts(&self) -> StreamCounts {
        StreamCounts { streams: self.connections.len() as u64, ..self.counts }
    }

    /// Bytes of memory, by the arithmetic of the limits.
    #[must_use]
    pub const fn memory(&self) -> usize {
        self.connections.slots() * Aged::<Connection<C>, { LISTS }>::ENTRY_BYTES + self.memory
    }

    /// Takes in a segment.
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
                    // An acknowledgement alone tells nothing of where the stream is.
                    return;
                }
                if self.connections.len() >= self.capacity {
                    self.make_room(segment.at_ns, &mut events);
                }
                self.connections.insert(hash, 0, Connection::new(ends, segment))
            }
        };
        // Found or inserted just now.
        let Some(connection) = self.connections.get_mut(number) else {
            return;
        };
        let before = connection.memory();
        let waited = connection.waiting();
        connection.segment(segment, sender, &self.limits, &mut self.counts, &mut events);
        connection.is_heard(self.latest_ns);
        self.settle(number, before, waited);
        while self.memory > self.bytes && self.evict_waiting(segment.at_ns, &mut events) {}
    }

    /// Gives up the gaps and the connections whose time has run out at `now_ns`: the time up to
    /// which segments were handed in.
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

    /// The end of capture: hands out what is whole, and forgets all connections.
    pub fn finish(&mut self, now_ns: u64, mut events: impl FnMut(StreamEvent<'_, C>)) {
        for list in 0..LISTS {
            while let Some(number) = self.connections.oldest(list) {
                self.remove(number, StreamLoss::Ended, now_ns, &mut events);
            }
        }
    }

    /// Forgets the time, after [`finish`](Self::finish): what comes next is another capture.
    pub const fn restart(&mut self) {
        self.latest_ns = 0;
    }

    /// Puts a connection that has changed into its list, and what it keeps into the sums.
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

    fn make_room(&mut self, now_ns: u64, events: &mut impl FnMut(StreamEvent<'_, C>)) {
        let oldest =
            self.oldest_of(connection::EXPENDABLE).or_else(|| self.oldest_of(connection::PROVEN));
        if let Some(number) = oldest {
            self.counts.streams_evicted += 1;
            self.remove(number, StreamLoss::Evicted, now_ns, events);
        }
    }

    /// Evicts a connection that keeps bytes; false if none does.
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

    /// The connection in these lists that was heard of longest ago.
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
