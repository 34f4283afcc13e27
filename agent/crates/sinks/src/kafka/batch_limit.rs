//! Batches that the broker refuses as too large.
//!
//! A topic's `max.message.bytes` holds for a whole batch. librdkafka does not divide one that is
//! larger, but has all its records fail, of which each may be far below the limit. So the sender
//! sends those again in smaller batches: one at a time, halved with each refusal. A record is refused
//! for good only if it was alone. Batches that arrive make the next ones larger again.

/// Batches of one size that arrive, one after the other, before the next ones are twice as large.
const ARRIVALS: u32 = 64;

/// Limits how many records are in flight together.
#[derive(Debug)]
pub(super) struct BatchLimit {
    /// `usize::MAX`: any number, as long as no batch is refused.
    size: usize,
    /// The limit when records were last sent.
    last: usize,
    /// Batches that were sent since the last refusal.
    arrived: u32,
}

impl Default for BatchLimit {
    fn default() -> Self {
        Self { size: usize::MAX, last: usize::MAX, arrived: 0 }
    }
}

impl BatchLimit {
    /// Size from which on batches are given up: more records than a batch has by default.
    const UNLIMITED_FROM: usize = 1 << 14;

    /// True where any number may be in flight.
    pub(super) const fn is_unlimited(&self) -> bool {
        self.size == usize::MAX
    }

    /// True where what was sent last was alone in its batch. Reports of a larger batch may come in
    /// parts, the last of them when the next one is to be of one record.
    pub(super) const fn is_alone(&self) -> bool {
        self.last == 1
    }

    /// Returns the number of records that may be sent now.
    pub(super) fn next(&mut self, is_in_flight: bool) -> usize {
        if self.is_unlimited() {
            self.last = self.size;
            return self.size;
        }
        if is_in_flight {
            return 0;
        }
        self.arrived += 1;
        if self.arrived > ARRIVALS {
            self.arrived = 0;
            self.size = if self.size >= Self::UNLIMITED_FROM { usize::MAX } else { 2 * self.size };
        }
        self.last = self.size;
        self.size
    }

    /// Takes note that a batch was refused; true if that is the first time. `most` is the number of
    /// records that it has at most: those that were reported, and those that are still to be. Reports
    /// of one batch come in parts, so the number of a part says nothing of the batch.
    pub(super) fn divide(&mut self, most: usize) -> bool {
        let is_first = self.is_unlimited();
        let batch = if self.last == usize::MAX { most.min(self.size) } else { self.last };
        // For the parts that are still to come.
        self.last = batch;
        self.size = self.size.min((batch / 2).max(1));
        self.arrived = 0;
        is_first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_halved_until_one_is_alone_and_grow_again() {
        let mut limit = BatchLimit::default();
        assert_eq!((limit.next(true), limit.is_unlimited()), (usize::MAX, true));
        assert!(limit.divide(10));
        assert!(!limit.is_unlimited());
        // The rest of the ten.
        assert!(!limit.divide(3));
        assert_eq!((limit.next(true), limit.next(false)), (0, 5), "one after the other");
        // In parts, of which the later ones say nothing new.
        assert!(!limit.divide(5) && !limit.divide(2));
        assert_eq!(limit.next(false), 2);
        limit.divide(1);
        assert!(!limit.is_alone(), "the rest of the two may be refused yet");
        assert_eq!(limit.next(false), 1);
        assert!(limit.is_alone());
        limit.divide(1);
        assert!(limit.is_alone(), "there is no less");
        let sizes: Vec<_> = (0..1_200).map(|_| limit.next(false)).collect();
        assert_eq!(sizes[..64], [1; 64]);
        assert!(sizes.is_sorted() && limit.is_unlimited(), "in the end all go together again");
    }
}
