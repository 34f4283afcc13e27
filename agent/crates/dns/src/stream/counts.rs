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
    /// Received bytes of payload.
    pub bytes_received: u64,
    /// Bytes of complete messages, including the length prefix of two bytes each.
    pub bytes_in_messages: u64,
    /// Stored bytes: of incomplete messages, and after gaps.
    pub bytes_waiting: u64,
    /// Ignored bytes by [`StreamIgnored`].
    pub bytes_ignored: [u64; StreamIgnored::ALL.len()],
    /// Lost bytes by [`StreamLoss`].
    pub bytes_lost: [u64; StreamLoss::ALL.len()],
    /// Bytes that the streams had and that were never captured: not part of the sum.
    pub bytes_missing: u64,
    /// Complete messages.
    pub messages: u64,
    /// Messages too short for a DNS header, which were skipped.
    pub messages_too_short: u64,
    /// Gaps that were given up.
    pub gaps: u64,
    /// Message boundaries found by the look of the bytes.
    pub synchronisations: u64,
    /// Stored connections.
    pub streams: u64,
    /// Connections evicted by newer ones.
    pub streams_evicted: u64,
    /// Received segments.
    pub segments: u64,
    /// Connections, pieces, messages and labels that were visited. Not part of the sum; at most
    /// [`most_steps`](Self::most_steps).
    pub steps: u64,
}

impl StreamCounts {
    /// Returns the sum over all outcomes of bytes; equal to `bytes_received` unless there is a
    /// defect.
    #[must_use]
    pub fn bytes_accounted(&self) -> u64 {
        let ignored: u64 = self.bytes_ignored.iter().sum();
        let lost: u64 = self.bytes_lost.iter().sum();
        self.bytes_in_messages + self.bytes_waiting + ignored + lost
    }

    /// Returns the maximum of [`steps`](Self::steps) for segments in any order, including expiry
    /// and eviction: 160 per segment, and 4 per byte of payload. A benign segment costs 3. If no
    /// boundary is known, a segment costs the labels of a name, up to 128; a piece, which has at
    /// least one byte, is inserted, processed, and given up once.
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
