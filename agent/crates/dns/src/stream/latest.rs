//! The latest bytes that one side has taken, to compare those with that come again.

/// Bytes kept. A query and most responses over TCP are shorter; of longer ones the end is compared.
/// A connection keeps them from its first byte on: 16 MiB a worker for both sides of 32,768.
pub(super) const LATEST_BYTES: usize = 256;

/// Up to [`LATEST_BYTES`] bytes before the next position.
pub(super) struct Latest(Vec<u8>);

impl Latest {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Keeps the end of what was taken.
    #[inline]
    pub(super) fn push(&mut self, taken: &[u8]) {
        let kept = &taken[taken.len().saturating_sub(LATEST_BYTES)..];
        if self.0.capacity() == 0 {
            self.0.reserve_exact(LATEST_BYTES);
        }
        let surplus = (self.0.len() + kept.len()).saturating_sub(LATEST_BYTES);
        self.0.drain(..surplus);
        self.0.extend_from_slice(kept);
    }

    /// Forgets all: what comes next does not follow it.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// True if `again`, which begins so many bytes before the next position and does not go beyond
    /// it, is not what was taken there, as far as that is kept.
    pub(super) fn differs(&self, back: u64, again: &[u8]) -> bool {
        let Ok(back) = usize::try_from(back) else { return false };
        // What of it is too far back.
        let unknown = back.saturating_sub(self.0.len());
        let again = again.get(unknown..).unwrap_or_default();
        let from = self.0.len() - (back - unknown);
        self.0.get(from..from + again.len()).is_some_and(|taken| taken != again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_compared_as_far_as_they_are_kept() {
        let mut latest = Latest::new();
        assert!(!latest.differs(3, b"abc"), "nothing is known");
        latest.push(b"abcdef");
        assert!(!latest.differs(6, b"abcdef") && !latest.differs(4, b"cd"));
        assert!(latest.differs(6, b"abcdeX") && latest.differs(4, b"Xd"));
        assert!(!latest.differs(8, b"??abcdef") && latest.differs(8, b"??Xbcdef"));
        assert!(!latest.differs(8, b"??"), "too far back");
        latest.push(&[7; 2 * LATEST_BYTES]);
        assert!(!latest.differs(LATEST_BYTES as u64 + 1, &[8; 1]));
        assert!(latest.differs(LATEST_BYTES as u64, &[8; 1]));
        latest.push(b"end");
        assert_eq!(latest.0.len(), LATEST_BYTES);
        assert!(!latest.differs(5, b"\x07\x07end") && latest.differs(5, b"\x07\x07eNd"));
        latest.clear();
        assert!(!latest.differs(3, b"???"));
    }
}
