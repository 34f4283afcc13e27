//! Accounts for every byte of every stream.

/// Reasons why bytes are in no message, although none is missing.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamIgnored {
    /// The same bytes were processed before, or the position was given up: retransmissions,
    /// overlaps, and copies of a packet that passes a hook twice. Also bytes too far back to be
    /// compared.
    Repeated,
    /// The byte of a keep-alive probe (RFC 9293 §3.8.4).
    KeepAlive,
    /// The text that a RST may carry (RFC 9293 §3.5.3), which is not part of the stream.
    ResetText,
}

impl StreamIgnored {
    /// All reasons, in index order.
    pub const ALL: [Self; 3] = [Self::Repeated, Self::KeepAlive, Self::ResetText];

    /// Returns its name in the ledger and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Repeated => "repeated",
            Self::KeepAlive => "keep_alive",
            Self::ResetText => "reset_text",
        }
    }
}

/// Reasons why bytes of a stream are in no message.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamLoss {
    /// Another part of their message was not captured.
    Gap,
    /// It is unknown at which byte a message begins: after a gap, or in a connection that existed
    /// before the capture.
    Unsynchronised,
    /// Their message is too short for a DNS header (12 bytes, RFC 1035 §4.1.1); includes its length
    /// prefix.
    ShorterThanHeader,
    /// Their message was incomplete when its connection ended.
    Closed,
    /// They were waiting when the idle timeout expired.
    Idle,
    /// They were waiting when the stream was evicted.
    Evicted,
    /// They were waiting when the capture ended.
    Ended,
    /// Other bytes were processed at the same position: the stream is tampered with, or damaged
    /// bytes arrived first.
    Conflict,
}

impl StreamLoss {
    /// All reasons, in index order.
    pub const ALL: [Self; 8] = [
        Self::Gap,
        Self::Unsynchronised,
        Self::ShorterThanHeader,
        Self::Closed,
        Self::Idle,
        Self::Evicted,
        Self::Ended,
        Self::Conflict,
    ];

    /// Returns its name in the ledger and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::Unsynchronised => "unsynchronised",
            Self::ShorterThanHeader => "shorter_than_header",
            Self::Closed => "closed",
            Self::Idle => "idle",
            Self::Evicted => "evicted",
            Self::Ended => "ended",
            Self::Conflict => "conflict",
        }
    }
}

/// Counts of one [`Streams`](super::Streams). Between any two calls, `bytes_received =
/// bytes_in_messages + bytes_waiting + Σ bytes_ignored + Σ bytes_lost` holds exactly.
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
