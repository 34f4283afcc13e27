//! Counts of bytes of streams by their fate.

use tap53_reasons::reasons;

reasons! {
    /// Why bytes of a stream are in no message, although none is missing.
    pub enum StreamIgnored {
        /// The bytes were sent again unchanged, or after their position was given up: retransmissions,
        /// overlaps, and copies of a packet that passes a hook twice. Bytes too far back to be compared
        /// are counted here.
        Repeated = "repeated", Ignored;
        /// The byte belongs to a keep-alive probe (RFC 9293 §3.8.4).
        KeepAlive = "keep_alive", Ignored;
        /// A reset segment carried text (RFC 9293 §3.5.3), which is not part of the stream.
        ResetText = "reset_text", Ignored;
    }
}

reasons! {
    /// Why bytes of a stream are in no message.
    pub enum StreamLoss {
        /// Another part of their message was not captured.
        Gap = "gap", Lost, "see `ring_full`; check that all paths are captured";
        /// It is not known where a message begins: after a gap, or in a connection that is older than the
        /// capture.
        Unsynchronised = "unsynchronised", Lost, "nothing at the start";
        /// Their message is too short for a DNS header (12 bytes, RFC 1035 §4.1.1).
        ShorterThanHeader = "shorter_than_header", Lost, "look for another protocol on the port; may be hostile";
        /// The connection ended within their message.
        Closed = "closed", Lost, "nothing; the sender stopped";
        /// They waited, and nothing more came for the idle timeout.
        Idle = "idle", Lost;
        /// They waited, and their stream made room for others.
        Evicted = "evicted", Lost, "look for a flood of connections";
        /// They waited when capture ended.
        Ended = "ended", Lost;
        /// The same position was sent twice with other bytes: somebody tampers with the stream, or damaged
        /// bytes came first.
        Conflict = "conflict", Lost, "look at the records with the anomaly `TCP_CONFLICT`";
    }
}

/// Counts of one [`Streams`](super::Streams). They are exact between any two calls:
/// `bytes_received = bytes_in_messages + bytes_waiting + Σ bytes_ignored + Σ bytes_lost`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamCounts {
    /// Bytes of payload handed in.
    pub bytes_received: u64,
    /// Bytes of messages handed out, with their two bytes of length each.
    pub bytes_in_messages: u64,
    /// Bytes that wait: of messages that have not ended, and after gaps.
    pub bytes_waiting: u64,
    /// Bytes that are not needed, by [`StreamIgnored`].
    pub bytes_ignored: [u64; StreamIgnored::ALL.len()],
    /// Bytes in no message, by [`StreamLoss`].
    pub bytes_lost: [u64; StreamLoss::ALL.len()],
    /// Bytes that the streams had and that were not captured; no part of the sum.
    pub bytes_missing: u64,
    /// Messages handed out.
    pub messages: u64,
    /// Messages too short for a DNS header, and skipped.
    pub messages_too_short: u64,
    /// Gaps given up.
    pub gaps: u64,
    /// Times that a message's beginning was found by its looks.
    pub synchronisations: u64,
    /// Connections that are kept.
    pub streams: u64,
    /// Connections evicted to make room for others.
    pub streams_evicted: u64,
    /// Segments handed in.
    pub segments: u64,
    /// Connections, pieces, messages and labels that were looked at. They are no part of the sum, and at
    /// most [`most_steps`](Self::most_steps).
    pub steps: u64,
}

impl StreamCounts {
    /// Returns the number of bytes whose fate is known; equal to `bytes_received` unless there is a defect.
    #[must_use]
    pub fn bytes_accounted(&self) -> u64 {
        let ignored: u64 = self.bytes_ignored.iter().sum();
        let lost: u64 = self.bytes_lost.iter().sum();
        self.bytes_in_messages + self.bytes_waiting + ignored + lost
    }

    /// Returns the limit of [`steps`](Self::steps), whatever came in whatever order, expiry and
    /// eviction included: 160 for each segment, and 4 for each byte of payload. A benign segment
    /// costs 3. Where no boundary is known, one costs the labels of a name, up to 128; a piece, which
    /// has a byte at least, is put into its place, taken, and given up once.
    #[must_use]
    pub const fn most_steps(&self) -> u64 {
        160 * self.segments + 4 * self.bytes_received
    }

    pub(super) const fn ignore(&mut self, reason: StreamIgnored, bytes: u64) {
        self.bytes_ignored[reason as usize] += bytes;
    }

    pub(super) const fn lose(&mut self, reason: StreamLoss, bytes: u64) {
        self.bytes_lost[reason as usize] += bytes;
    }

    /// Adds the counts of another worker.
    pub fn add(&mut self, other: &Self) {
        self.bytes_received += other.bytes_received;
        self.bytes_in_messages += other.bytes_in_messages;
        self.bytes_waiting += other.bytes_waiting;
        for (sum, ignored) in self.bytes_ignored.iter_mut().zip(other.bytes_ignored) {
            *sum += ignored;
        }
        for (sum, lost) in self.bytes_lost.iter_mut().zip(other.bytes_lost) {
            *sum += lost;
        }
        self.bytes_missing += other.bytes_missing;
        self.messages += other.messages;
        self.messages_too_short += other.messages_too_short;
        self.gaps += other.gaps;
        self.synchronisations += other.synchronisations;
        self.streams += other.streams;
        self.streams_evicted += other.streams_evicted;
        self.segments += other.segments;
        self.steps += other.steps;
    }
}
