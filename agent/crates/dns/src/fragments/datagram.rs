//! The fragments of one datagram.

use super::Part;

/// Memory charged for a fragment besides its data, in bytes: a box from the allocator (16), and its
/// entry in a vector that at most doubles (2 × 24).
const PART_BYTES: usize = 64;

/// The result of adding a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It is stored; others are missing.
    Waits,
    /// It is stored; none is missing.
    Completes,
    /// It repeats a stored one.
    Duplicate,
    /// It contradicts a stored one.
    Overlaps,
    /// The maximum number of fragments is reached.
    TooMany,
}

struct StoredFragment {
    offset: u32,
    bytes: Box<[u8]>,
}

impl StoredFragment {
    fn end(&self) -> usize {
        self.offset as usize + self.bytes.len()
    }
}

/// The received fragments of a datagram, by offset, without overlaps.
#[derive(Default)]
pub(super) struct Parts {
    fragments: Vec<StoredFragment>,
    bytes: usize,
    /// Length of the datagram, once its last fragment has arrived.
    end: Option<usize>,
}

impl Parts {
    pub(super) const fn len(&self) -> usize {
        self.fragments.len()
    }

    /// Returns the memory in bytes.
    pub(super) const fn memory(&self) -> usize {
        self.bytes + self.fragments.len() * PART_BYTES
    }

    /// Returns the start of the datagram, if it has arrived.
    pub(super) fn first(&self) -> Option<&[u8]> {
        self.fragments.first().filter(|first| first.offset == 0).map(|first| &*first.bytes)
    }

    /// Adds a fragment, up to `limit` fragments; adds the number of moved entries to `steps`.
    pub(super) fn add(&mut self, part: &Part<'_>, limit: usize, steps: &mut u64) -> Added {
        let end = part.offset as usize + part.data.len();
        let index = match self.fragments.binary_search_by_key(&part.offset, |stored| stored.offset)
        {
            Ok(index) => {
                // The last fragment must also be the last of the stored ones.
                let was_last = self.end == Some(end) && index + 1 == self.fragments.len();
                let same = *self.fragments[index].bytes == *part.data && was_last != part.more;
                return if same { Added::Duplicate } else { Added::Overlaps };
            }
            Err(index) => index,
        };
        let before = index.checked_sub(1).and_then(|index| self.fragments.get(index));
        let overlaps_before = before.is_some_and(|before| before.end() > part.offset as usize);
        let after = self.fragments.get(index);
        let overlaps_after = after.is_some_and(|after| (after.offset as usize) < end);
        let ends_early = !part.more && after.is_some();
        let goes_on = self.end.is_some_and(|known| end > known);
        if overlaps_before || overlaps_after || ends_early || goes_on {
            return Added::Overlaps;
        }
        if self.fragments.len() >= limit {
            return Added::TooMany;
        }
        if !part.more {
            self.end = Some(end);
        }
        self.bytes += part.data.len();
        *steps += (self.fragments.len() - index) as u64;
        self.fragments
            .insert(index, StoredFragment { offset: part.offset, bytes: part.data.into() });
        // Without overlaps, the datagram is complete when its bytes add up to its length (RFC 815
        // §2 keeps a list of holes instead).
        if self.end == Some(self.bytes) { Added::Completes } else { Added::Waits }
    }

    /// Writes the datagram to `joined`.
    pub(super) fn join(&self, joined: &mut Vec<u8>) {
        joined.clear();
        joined.reserve_exact(self.bytes);
        for fragment in &self.fragments {
            joined.extend_from_slice(&fragment.bytes);
        }
    }
}
