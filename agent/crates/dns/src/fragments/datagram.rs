//! The fragments of one datagram.

use super::Part;

/// Bytes charged for a fragment besides its data: a box from the allocator (16), and its place in a
/// vector that at most doubles (2 × 24).
const PART_BYTES: usize = 64;

/// What a fragment did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It is kept; others are missing.
    Waits,
    /// It is kept; none is missing.
    Completes,
    /// It was there.
    Duplicate,
    /// It contradicts another one.
    Overlaps,
    /// There are too many.
    TooMany,
}

struct Kept {
    offset: u32,
    bytes: Box<[u8]>,
}

impl Kept {
    fn end(&self) -> usize {
        self.offset as usize + self.bytes.len()
    }
}

/// The fragments of a datagram that came, by offset, none overlapping.
#[derive(Default)]
pub(super) struct Parts {
    kept: Vec<Kept>,
    bytes: usize,
    /// Where the datagram ends, once its last fragment came.
    end: Option<usize>,
}

impl Parts {
    pub(super) const fn len(&self) -> usize {
        self.kept.len()
    }

    /// Bytes of memory.
    pub(super) const fn memory(&self) -> usize {
        self.bytes + self.kept.len() * PART_BYTES
    }

    /// The beginning of the datagram, if it came.
    pub(super) fn first(&self) -> Option<&[u8]> {
        self.kept.first().filter(|first| first.offset == 0).map(|first| &*first.bytes)
    }

    /// Adds a fragment, of at most `limit`; adds the entries moved for it to `steps`.
    pub(super) fn add(&mut self, part: &Part<'_>, limit: usize, steps: &mut u64) -> Added {
        let end = part.offset as usize + part.data.len();
        let place = match self.kept.binary_search_by_key(&part.offset, |kept| kept.offset) {
            Ok(place) => {
                // The last fragment is also the last of those kept.
                let was_last = self.end == Some(end) && place + 1 == self.kept.len();
                let same = *self.kept[place].bytes == *part.data && was_last != part.more;
                return if same { Added::Duplicate } else { Added::Overlaps };
            }
            Err(place) => place,
        };
        let before = place.checked_sub(1).and_then(|place| self.kept.get(place));
        let overlaps_before = before.is_some_and(|before| before.end() > part.offset as usize);
        let after = self.kept.get(place);
        let overlaps_after = after.is_some_and(|after| (after.offset as usize) < end);
        let ends_early = !part.more && after.is_some();
        let goes_on = self.end.is_some_and(|known| end > known);
        if overlaps_before || overlaps_after || ends_early || goes_on {
            return Added::Overlaps;
        }
        if self.kept.len() >= limit {
            return Added::TooMany;
        }
        if !part.more {
            self.end = Some(end);
        }
        self.bytes += part.data.len();
        *steps += (self.kept.len() - place) as u64;
        self.kept.insert(place, Kept { offset: part.offset, bytes: part.data.into() });
        // Without overlaps, as many bytes as there are places is all of them (RFC 815 §2 keeps a
        // list of holes instead).
        if self.end == Some(self.bytes) { Added::Completes } else { Added::Waits }
    }

    /// Puts the datagram into `joined`.
    pub(super) fn join(&self, joined: &mut Vec<u8>) {
        joined.clear();
        joined.reserve_exact(self.bytes);
        for kept in &self.kept {
            joined.extend_from_slice(&kept.bytes);
        }
    }
}
