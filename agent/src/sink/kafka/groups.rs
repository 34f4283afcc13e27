//! Batches that the broker refuses as too long.
//!
//! A topic's `max.message.bytes` holds for a whole batch. librdkafka does not divide one that is
//! longer, but has all its records fail, of which each may be far below the limit. So the sender
//! sends those again in groups: one at a time, halved with each refusal. A record is refused for
//! ever only if it was alone. Groups that arrive make the next ones larger again.

/// Groups of this size that arrive, one after the other, before the next ones are twice as large.
const ARRIVALS: u32 = 64;

/// How many records may be on their way together.
#[derive(Debug)]
pub(super) struct Groups {
    /// `usize::MAX`: any number, as long as no batch is refused.
    size: usize,
    /// How many were allowed when records were last sent.
    last: usize,
    /// Groups that were sent since the last refusal.
    arrived: u32,
}

impl Default for Groups {
    fn default() -> Self {
        Self { size: usize::MAX, last: usize::MAX, arrived: 0 }
    }
}

impl Groups {
    /// Size from which on groups are given up: more records than a batch has by default.
    const WHOLE: usize = 1 << 14;

    /// True where any number may be on its way.
    pub(super) const fn is_whole(&self) -> bool {
        self.size == usize::MAX
    }

    /// True where what was sent last was alone in its batch. Reports of a larger group may come in
    /// parts, the last of them when the next one is to be of one record.
    pub(super) const fn is_alone(&self) -> bool {
        self.last == 1
    }

    /// How many records may be sent now.
    pub(super) fn next(&mut self, under_way: bool) -> usize {
        if self.is_whole() {
            self.last = self.size;
            return self.size;
        }
        if under_way {
            return 0;
        }
        self.arrived += 1;
        if self.arrived > ARRIVALS {
            self.arrived = 0;
            self.size = if self.size >= Self::WHOLE { usize::MAX } else { 2 * self.size };
        }
        self.last = self.size;
        self.size
    }

    /// Takes note that a batch was refused; true if that is the first time. `most` is the number of
    /// records that it has at most: those that were reported, and those that are still to be. Reports
    /// of one batch come in parts, so the number of a part says nothing of the batch.
    pub(super) fn divide(&mut self, most: usize) -> bool {
        let is_first = self.is_whole();
        let group = if self.last == usize::MAX { most.min(self.size) } else { self.last };
        // For the parts that are still to come.
        self.last = group;
        self.size = self.size.min((group / 2).max(1));
        self.arrived = 0;
        is_first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_halved_until_one_is_alone_and_grow_again() {
        let mut groups = Groups::default();
        assert_eq!((groups.next(true), groups.is_whole()), (usize::MAX, true));
        assert!(groups.divide(10));
        assert!(!groups.is_whole());
        // The rest of the ten.
        assert!(!groups.divide(3));
        assert_eq!((groups.next(true), groups.next(false)), (0, 5), "one after the other");
        // In parts, of which the later ones say nothing new.
        assert!(!groups.divide(5) && !groups.divide(2));
        assert_eq!(groups.next(false), 2);
        groups.divide(1);
        assert!(!groups.is_alone(), "the rest of the two may be refused yet");
        assert_eq!(groups.next(false), 1);
        assert!(groups.is_alone());
        groups.divide(1);
        assert!(groups.is_alone(), "there is no less");
        let sizes: Vec<_> = (0..1_200).map(|_| groups.next(false)).collect();
        assert_eq!(sizes[..64], [1; 64]);
        assert!(sizes.is_sorted() && groups.is_whole(), "in the end all go together again");
    }
}
