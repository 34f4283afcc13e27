//! What became of every fragment.

/// Why a fragment is in no datagram.
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FragmentLoss {
    /// Of a datagram in which fragments overlap, or disagree on where it ends: refused whole, with
    /// what comes of it later (RFC 5722 §4).
    Overlap,
    /// Without data, or not the last one and not a multiple of 8 bytes long (RFC 8200 §4.5).
    Malformed,
    /// Its data would end behind byte 65,535, the most that a datagram can have.
    TooLong,
    /// Of a datagram in more fragments than are kept: refused in the same way.
    TooMany,
    /// Others of its datagram did not come in time.
    TimedOut,
    /// Its datagram made room for others.
    Evicted,
    /// Waiting when the capture ended.
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

    /// Name in the ledger and in metrics.
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

/// Counts of one [`Fragments`](super::Fragments). Exact between any two calls:
/// `received = joined + waiting + duplicates + Σ lost`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentCounts {
    /// Fragments handed in.
    pub received: u64,
    /// Fragments of the datagrams handed out.
    pub joined: u64,
    /// Fragments kept.
    pub waiting: u64,
    /// Fragments that were there already, byte for byte; ignored.
    pub duplicates: u64,
    /// Fragments in no datagram, by [`FragmentLoss`].
    pub lost: [u64; FragmentLoss::ALL.len()],
    /// Datagrams handed out.
    pub datagrams: u64,
    /// Datagrams refused, for an overlap or too many fragments.
    pub datagrams_refused: u64,
    /// Datagrams evicted to make room for others.
    pub datagrams_evicted: u64,
    /// What was looked at or moved: datagrams and entries of fragments. Not part of the sum; at
    /// most [`most_steps`](Self::most_steps).
    pub steps: u64,
}

impl FragmentCounts {
    /// Where the fragments received went; equal to `received` unless there is a defect.
    #[must_use]
    pub fn accounted(&self) -> u64 {
        self.joined + self.waiting + self.duplicates + self.lost.iter().sum::<u64>()
    }

    /// The most that [`steps`](Self::steps) may be with datagrams in at most so many fragments,
    /// whatever came in whatever order, expiry and eviction included. A benign fragment costs some 4
    /// steps; one that comes before all others moves their entries, of 24 bytes each.
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
