//! Counts of fragments by their fate.

use tap53_reasons::reasons;

reasons! {
    /// Why a fragment is not needed.
    pub enum FragmentIgnored {
        /// The fragment was there already, byte for byte.
        Duplicate = "duplicate", Ignored;
    }
}

reasons! {
    /// Why a fragment is in no datagram.
    pub enum FragmentLoss {
        /// Fragments of its datagram overlap, or disagree on where it ends: the datagram is refused, with
        /// what comes of it later (RFC 5722 §4).
        Overlap = "overlap", Lost, "look for who sends it; usually hostile";
        /// It has no data, or is not the last one and not a multiple of 8 bytes long (RFC 8200 §4.5).
        Malformed = "malformed", Lost, "look for who sends it; usually hostile";
        /// Its data would end after byte 65,535, the most that a datagram can have.
        TooLong = "too_long", Lost, "look for who sends it; usually hostile";
        /// Its datagram has more fragments than are kept, and is refused.
        TooMany = "too_many", Lost, "look for who sends it; usually hostile";
        /// The other fragments of its datagram did not come in time.
        TimedOut = "timed_out", Lost, "look for packet loss on the network, or another path";
        /// Its datagram made room for others.
        Evicted = "evicted", Lost, "look for a flood of fragments";
        /// It waited when capture ended.
        Ended = "ended", Lost;
    }
}

/// Counts of one [`Fragments`](super::Fragments). They are exact between any two calls:
/// `received = joined + waiting + duplicates + Σ lost`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentCounts {
    /// Received fragments.
    pub received: u64,
    /// Fragments of reassembled datagrams.
    pub joined: u64,
    /// Fragments that wait for others.
    pub waiting: u64,
    /// Fragments that repeat an earlier one byte for byte; ignored.
    pub duplicates: u64,
    /// Fragments in no datagram, by [`FragmentLoss`].
    pub lost: [u64; FragmentLoss::ALL.len()],
    /// Reassembled datagrams.
    pub datagrams: u64,
    /// Datagrams refused, for an overlap or too many fragments.
    pub datagrams_refused: u64,
    /// Datagrams evicted to make room for others.
    pub datagrams_evicted: u64,
    /// Datagrams and fragment entries that were visited or moved. Not part of the sum; at most
    /// [`most_steps`](Self::most_steps).
    pub steps: u64,
}

impl FragmentCounts {
    /// Returns the sum over all outcomes of fragments; equal to `received` unless there is a
    /// defect.
    #[must_use]
    pub fn accounted(&self) -> u64 {
        self.joined + self.waiting + self.duplicates + self.lost.iter().sum::<u64>()
    }

    /// Returns the maximum of [`steps`](Self::steps) for datagrams of at most that number of fragments, in
    /// any order, including expiry and eviction. A benign fragment costs some 4 steps; one that
    /// arrives before all others of lower offsets moves their entries, of 24 bytes each.
    #[must_use]
    pub const fn most_steps(&self, fragments: usize) -> u64 {
        self.received * (fragments as u64 + 8)
    }

    /// Adds the counts of another worker.
    pub fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.joined += other.joined;
        self.waiting += other.waiting;
        self.duplicates += other.duplicates;
        for (sum, lost) in self.lost.iter_mut().zip(other.lost) {
            *sum += lost;
        }
        self.datagrams += other.datagrams;
        self.datagrams_refused += other.datagrams_refused;
        self.datagrams_evicted += other.datagrams_evicted;
        self.steps += other.steps;
    }
}
