//! Accounts for every fragment.

/// Reasons why a fragment is in no datagram.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FragmentLoss {
    /// Fragments of its datagram overlap, or disagree on its end: the datagram is refused,
    /// including later fragments (RFC 5722 §4).
    Overlap,
    /// It has no data, or it is not the last one and its length is not a multiple of 8 bytes (RFC
    /// 8200 §4.5).
    Malformed,
    /// Its data would end after byte 65,535, the maximum length of a datagram.
    TooLong,
    /// Its datagram has more fragments than are kept, and is refused in the same way.
    TooMany,
    /// Other fragments of its datagram did not arrive in time.
    TimedOut,
    /// Its datagram was evicted.
    Evicted,
    /// It was waiting when the capture ended.
    Ended,
}

impl FragmentLoss {
    /// All reasons, in index order.
    pub const ALL: [Self; 7] = [
        Self::Overlap,
        Self::Malformed,
        Self::TooLong,
        Self::TooMany,
        Self::TimedOut,
        Self::Evicted,
        Self::Ended,
    ];

    /// Returns its name in the ledger and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Overlap => "overlap",
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
            Self::TooMany => "too_many",
            Self::TimedOut => "timed_out",
            Self::Evicted => "evicted",
            Self::Ended => "ended",
        }
    }
}

/// Counts of one [`Fragments`](super::Fragments). Between any two calls, `received = joined +
/// waiting + duplicates + Σ lost` holds exactly.
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

    /// Returns the maximum of [`steps`](Self::steps) for datagrams of at most so many fragments, in
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
