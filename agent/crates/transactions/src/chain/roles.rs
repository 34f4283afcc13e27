//! Small sets of hashes that workers share without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

/// Number of slots, a power of two; 8 bytes each.
const SLOTS: usize = 1 << 14;

/// A set of 64-bit hashes, of which a newer one replaces an older one of the same slot. A member that
/// is noted again and again is therefore missing for a short time at most.
#[derive(Debug)]
pub(super) struct RecentSet(Box<[AtomicU64]>);

impl RecentSet {
    pub(super) fn new() -> Self {
        Self((0..SLOTS).map(|_| AtomicU64::new(0)).collect())
    }

    /// Adds a hash. A slot that has it already is only read, so workers share its cache line.
    #[inline]
    pub(super) fn note(&self, hash: u64) {
        if let Some(slot) = self.slot(hash)
            && slot.load(Ordering::Relaxed) != hash
        {
            slot.store(hash, Ordering::Relaxed);
        }
    }

    /// Returns true if a hash is in the set.
    #[inline]
    pub(super) fn contains(&self, hash: u64) -> bool {
        self.slot(hash).is_some_and(|slot| slot.load(Ordering::Relaxed) == hash)
    }

    #[expect(clippy::cast_possible_truncation, reason = "only the low bits count")]
    fn slot(&self, hash: u64) -> Option<&AtomicU64> {
        self.0.get(hash as usize & (SLOTS - 1))
    }
}
