//! Tracks the age of the oldest record without reading the record.

use std::collections::VecDeque;

/// Initial interval between two marks, in milliseconds.
const INITIAL_INTERVAL_MS: i64 = 1_000;

/// Maximum number of marks, 16 bytes each. When it is reached, every other mark is dropped and the
/// interval doubles: the age of the oldest record is then exact to a few thousandths.
const MAX_MARKS: usize = 1_024;

/// Append times of some of the records, in the order of ids.
#[derive(Debug)]
pub(super) struct Ages {
    /// The first id of the mark, and its append time in milliseconds since 1970 UTC. Records up to
    /// the next mark are no older.
    marks: VecDeque<(u64, i64)>,
    step_ms: i64,
}

impl Default for Ages {
    fn default() -> Self {
        Self { marks: VecDeque::new(), step_ms: INITIAL_INTERVAL_MS }
    }
}

impl Ages {
    /// Adds a mark for the record with this id, which is appended now, if the interval is over.
    pub(super) fn note(&mut self, id: u64, now_ms: i64) {
        let latest = self.marks.back().map(|(_, at_ms)| *at_ms);
        // A clock that was set back starts a new mark.
        let is_near = |at_ms: i64| {
            now_ms.checked_sub(at_ms).is_some_and(|passed| (0..self.step_ms).contains(&passed))
        };
        if latest.is_some_and(is_near) {
            return;
        }
        self.marks.push_back((id, now_ms));
        if self.marks.len() > MAX_MARKS {
            let mut is_kept = false;
            self.marks.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
            self.step_ms *= 2;
        }
    }

    /// Returns the earliest time at which the record with this id was appended, if anything has
    /// been appended. Drops the marks before it.
    pub(super) fn since(&mut self, id: u64) -> Option<i64> {
        while self.marks.get(1).is_some_and(|(next, _)| *next <= id) {
            self.marks.pop_front();
        }
        if self.marks.len() < MAX_MARKS / 4 {
            self.step_ms = INITIAL_INTERVAL_MS;
        }
        self.marks.front().map(|(_, at_ms)| *at_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_of_the_oldest_is_known_to_a_second_or_a_hundredth_and_memory_is_bounded() {
        let mut ages = Ages::default();
        assert_eq!(ages.since(0), None);
        // Ten records per second for a day, none of them acknowledged.
        for id in 0..864_000_u64 {
            ages.note(id, i64::try_from(id).unwrap() * 100);
            assert!(ages.marks.len() <= MAX_MARKS);
        }
        assert_eq!(ages.since(0), Some(0));
        for id in (0..864_000).step_by(997) {
            let (at_ms, true_ms) = (ages.since(id).unwrap(), i64::try_from(id).unwrap() * 100);
            assert!((true_ms - 864_000..=true_ms).contains(&at_ms), "{id}: {at_ms} {true_ms}");
        }
        // All have left the queue; the next one is exact to the second again.
        ages.note(864_000, 90_000_000);
        ages.since(864_000);
        ages.note(864_010, 90_001_500);
        assert_eq!(ages.since(864_010), Some(90_001_500));
        // A clock that is set back.
        ages.note(864_020, 5);
        assert_eq!(ages.since(864_020), Some(5));
    }
}
