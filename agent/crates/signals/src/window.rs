//! Time of an entry: the interval of its counts, and until when it is marked.

/// Length of an interval in seconds. Counts are halved at its end.
pub(crate) const INTERVAL_S: u32 = 32;

/// Time for which an entry stays marked after it last had the score, in seconds.
pub(crate) const MARK_S: u32 = 120;

/// Number of halvings after which a count is 0: counts are below 2¹⁵.
const MAX_HALVINGS: u32 = 15;

/// The time of an entry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    interval: u32,
    marked_until_s: u32,
}

impl Window {
    /// Advances to the interval of `now_s`. Returns how often counts must be halved; 0 within an interval.
    ///
    /// Workers may be an interval apart: time does not go back then. If it goes back further, as after a
    /// correction of the clock or in an earlier capture, the entry begins again.
    #[inline]
    pub(crate) fn advance(&mut self, now_s: u32) -> u32 {
        let interval = now_s / INTERVAL_S;
        if interval + 1 < self.interval {
            *self = Self { interval, marked_until_s: 0 };
            return MAX_HALVINGS;
        }
        let passed = interval.saturating_sub(self.interval);
        self.interval += passed;
        passed.min(MAX_HALVINGS)
    }

    /// Marks the entry.
    pub(crate) fn mark(&mut self, now_s: u32) {
        self.marked_until_s = now_s.saturating_add(MARK_S);
    }

    /// Returns true if the entry is marked.
    #[inline]
    pub(crate) const fn is_marked(&self, now_s: u32) -> bool {
        now_s < self.marked_until_s
    }

    /// Returns how much an entry with this count is worth: a marked one is worth more than all others.
    pub(crate) fn worth(&self, count: u16, now_s: u32) -> u32 {
        let passed = (now_s / INTERVAL_S).saturating_sub(self.interval).min(MAX_HALVINGS);
        u32::from(count >> passed) + if self.is_marked(now_s) { 1 << 16 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_halved_once_an_interval() {
        let mut window = Window::default();
        assert_eq!(window.advance(1_000), MAX_HALVINGS);
        assert_eq!(window.advance(1_000), 0);
        assert_eq!(window.advance(1_000 + INTERVAL_S), 1);
        assert_eq!(window.advance(1_000), 0, "another worker is a little behind");
        assert_eq!(window.advance(1_000 + 4 * INTERVAL_S), 3);
    }

    #[test]
    fn a_clock_that_is_set_back_begins_again() {
        let mut window = Window::default();
        window.advance(10_000);
        window.mark(10_000);
        assert!(window.is_marked(10_000 + MARK_S - 1));
        assert!(!window.is_marked(10_000 + MARK_S));
        assert_eq!(window.advance(5_000), MAX_HALVINGS);
        assert!(!window.is_marked(5_000));
        assert_eq!(window.advance(5_000 + INTERVAL_S), 1);
    }

    #[test]
    fn a_mark_is_worth_more_than_any_count() {
        let mut marked = Window::default();
        marked.mark(0);
        assert!(marked.worth(0, 1) > Window::default().worth(u16::MAX, 1));
        assert_eq!(Window::default().worth(8, 2 * INTERVAL_S), 2);
    }
}
