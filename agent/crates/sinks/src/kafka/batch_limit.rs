//! Batches that the broker refuses as too large.
//!
//! A topic's `max.message.bytes` applies to a whole batch. librdkafka fails all records of a larger
//! one, although each may be far below the limit. So the sender retries them in smaller batches: one
//! at a time, halved after each refusal. A record is rejected only if it was alone. Batches that
//! arrive make the next ones larger.

/// The number of batches of one size that must arrive before the size is doubled.
const ARRIVALS: u32 = 64;

/// Limits how many records are in flight together.
#[derive(Debug)]
pub(super) struct BatchLimit {
    /// `usize::MAX`: no limit, as no batch was refused.
    size: usize,
    /// The limit when records were last sent.
    last: usize,
    /// Batches sent since the last change of the size.
    arrived: u32,
}

impl Default for BatchLimit {
    fn default() -> Self {
        Self { size: usize::MAX, last: usize::MAX, arrived: 0 }
    }
}

impl BatchLimit {
    /// The size from which on there is no limit: more records than a batch has by default.
    const UNLIMITED_FROM: usize = 1 << 14;

    pub(super) const fn is_unlimited(&self) -> bool {
        self.size == usize::MAX
    }

    /// True if the last batch had one record. (`size` may be 1 while reports of a larger batch still
    /// arrive.)
    pub(super) const fn is_alone(&self) -> bool {
        self.last == 1
    }

    /// Returns how many records may be sent now.
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

    /// Halves the size after a refusal; true if there was no limit before. `most` is an upper bound of
    /// the batch's records, reported or not: its reports arrive in parts of any size.
    pub(super) fn divide(&mut self, most: usize) -> bool {
        let is_first = self.is_unlimited();
        let batch = if self.last == usize::MAX { most.min(self.size) } else { self.last };
        // For the parts of its reports that are still to arrive.
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
