//! The latest bytes that one side has processed, to compare retransmissions with.

/// Number of stored bytes. A query and most responses over TCP are shorter; of longer ones the end
/// is compared. A connection stores them from its first byte on: 16 MiB per worker for both sides
/// of 32,768 connections.
pub(super) const LATEST_BYTES: usize = 256;

/// Up to [`LATEST_BYTES`] bytes before the next position.
pub(super) struct Latest(Vec<u8>);

impl Latest {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Stores the end of the processed bytes.
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

    /// Drops all bytes: the next ones do not follow them.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns true if `again`, which starts `back` bytes before the next position and does not go
    /// beyond it, differs from the bytes that were processed there, as far as they are stored.
    pub(super) fn differs(&self, back: u64, again: &[u8]) -> bool {
        let Ok(back) = usize::try_from(back) else { return false };
        // The number of bytes that are too far back.
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
