//! Domains that were seen before: a table of fixed size without locks.
//!
//! A slot of eight bytes has 44 bits of the domain's keyed hash, the day when it was last seen, and a check
//! of both. A bucket is a cache line of eight slots. A full bucket replaces the domain that was seen
//! least recently, by day, which is then new when it comes again.

use std::sync::atomic::{AtomicU64, Ordering};

/// Slots of a bucket.
const WAYS: usize = 8;

/// Size of a page of the state file in bytes, and in slots.
pub(crate) const PAGE_BYTES: usize = 4_096;
const PAGE_SLOTS: usize = PAGE_BYTES / size_of::<u64>();

const CHECK_BITS: u32 = 8;
const DAY_BITS: u32 = 12;
const DAYS: u64 = 1 << DAY_BITS;
const FINGERPRINT_SHIFT: u32 = CHECK_BITS + DAY_BITS;

/// The table.
pub(crate) struct FirstSeen {
    slots: Box<[AtomicU64]>,
    /// Number of buckets less 1: a power of two less 1.
    mask: u64,
    /// A bit for each page that the state file does not have yet.
    dirty: Box<[AtomicU64]>,
    occupied: AtomicU64,
    replaced: AtomicU64,
}

impl FirstSeen {
    /// Creates an empty table of at most `bytes`, but at least a page.
    pub(crate) fn new(bytes: usize) -> Self {
        let pages = (bytes / PAGE_BYTES).max(1);
        let pages = if pages.is_power_of_two() { pages } else { pages.next_power_of_two() / 2 };
        let slots = (0..pages * PAGE_SLOTS).map(|_| AtomicU64::new(0)).collect::<Box<_>>();
        Self {
            mask: (slots.len() / WAYS - 1) as u64,
            slots,
            dirty: (0..pages.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            occupied: AtomicU64::new(0),
            replaced: AtomicU64::new(0),
        }
    }

    /// Returns the size of the table in bytes.
    pub(crate) const fn bytes(&self) -> usize {
        self.slots.len() * size_of::<u64>()
    }

    /// Returns the number of domains in the table.
    pub(crate) fn occupied(&self) -> u64 {
        self.occupied.load(Ordering::Relaxed)
    }

    /// Returns the number of domains that others replaced.
    pub(crate) fn replaced(&self) -> u64 {
        self.replaced.load(Ordering::Relaxed)
    }

    /// Notes that the domain with this hash was seen on this day; returns true if it is new. Of several
    /// workers that note a new domain at once, one gets true.
    #[inline]
    pub(crate) fn note(&self, hash: u64, day: u64) -> bool {
        let fingerprint = (hash >> FINGERPRINT_SHIFT).max(1);
        let start = self.bucket(fingerprint);
        let Some(bucket) = self.slots.get(start..start + WAYS) else { return false };
        let day = day.min(DAYS - 1);
        for (way, slot) in bucket.iter().enumerate() {
            let found = slot.load(Ordering::Relaxed);
            if found >> FINGERPRINT_SHIFT == fingerprint {
                if day_of(found) < day {
                    // It fails if another worker has set the day, or has replaced the domain meanwhile:
                    // that one must not be overwritten.
                    let new = slot_of(fingerprint, day);
                    let _ = slot.compare_exchange(found, new, Ordering::Relaxed, Ordering::Relaxed);
                    self.mark(start + way);
                }
                return false;
            }
        }
        self.insert(bucket, start, fingerprint, day)
    }

    #[cold]
    fn insert(&self, bucket: &[AtomicU64], start: usize, fingerprint: u64, day: u64) -> bool {
        let new = slot_of(fingerprint, day);
        // Another worker may take the slot meanwhile; each attempt fails only if another one succeeds.
        for _ in 0..64 {
            let slots = bucket.iter().map(|slot| slot.load(Ordering::Relaxed));
            let mut victim = (u64::MAX, 0, 0);
            for (way, found) in slots.enumerate() {
                if found >> FINGERPRINT_SHIFT == fingerprint {
                    return false;
                }
                let age = if found == 0 { 0 } else { day_of(found) + 1 };
                victim = victim.min((age, way, found));
            }
            let (_, way, found) = victim;
            let exchange =
                bucket[way].compare_exchange(found, new, Ordering::Relaxed, Ordering::Relaxed);
            if exchange.is_ok() {
                let counter = if found == 0 { &self.occupied } else { &self.replaced };
                counter.fetch_add(1, Ordering::Relaxed);
                self.mark(start + way);
                return true;
            }
        }
        false
    }

    #[expect(clippy::cast_possible_truncation, reason = "the mask is the length of a slice")]
    const fn bucket(&self, fingerprint: u64) -> usize {
        (fingerprint & self.mask) as usize * WAYS
    }

    fn mark(&self, slot: usize) {
        let page = slot / PAGE_SLOTS;
        if let Some(word) = self.dirty.get(page / 64) {
            // After the slot, so that whoever takes the mark writes it.
            word.fetch_or(1 << (page % 64), Ordering::Release);
        }
    }

    /// Passes the number and content of each page that has changed since the last call to `write`. If
    /// that fails, the page stays marked.
    ///
    /// # Errors
    /// The error of `write`, which is not called again.
    pub(crate) fn write_dirty<E>(
        &self,
        mut write: impl FnMut(usize, &[u8; PAGE_BYTES]) -> Result<(), E>,
    ) -> Result<(), E> {
        for (index, word) in self.dirty.iter().enumerate() {
            let mut marks = word.swap(0, Ordering::Acquire);
            while marks != 0 {
                let bit = marks.trailing_zeros();
                let page = index * 64 + bit as usize;
                if let Err(error) = write(page, &self.page(page)) {
                    word.fetch_or(marks, Ordering::Release);
                    return Err(error);
                }
                marks &= marks - 1;
            }
        }
        Ok(())
    }

    fn page(&self, page: usize) -> [u8; PAGE_BYTES] {
        let mut content = [0; PAGE_BYTES];
        let slots = self.slots.iter().skip(page * PAGE_SLOTS);
        for (octets, slot) in content.chunks_exact_mut(size_of::<u64>()).zip(slots) {
            octets.copy_from_slice(&slot.load(Ordering::Relaxed).to_le_bytes());
        }
        content
    }

    /// Adds the slots of a saved table, which may have had another size. Returns false if one of them is
    /// damaged; the table must not be used then.
    #[must_use]
    pub(crate) fn restore(&self, content: &[u8]) -> bool {
        let (slots, rest) = content.as_chunks::<8>();
        let is_whole = rest.is_empty();
        is_whole
            && slots.iter().map(|octets| u64::from_le_bytes(*octets)).filter(|slot| *slot != 0).all(
                |slot| {
                    let fingerprint = slot >> FINGERPRINT_SHIFT;
                    let is_valid = slot_of(fingerprint, day_of(slot)) == slot;
                    if is_valid {
                        let start = self.bucket(fingerprint);
                        if let Some(bucket) = self.slots.get(start..start + WAYS) {
                            self.insert(bucket, start, fingerprint, day_of(slot));
                        }
                    }
                    is_valid
                },
            )
    }
}

const fn day_of(slot: u64) -> u64 {
    slot >> CHECK_BITS & (DAYS - 1)
}

/// Returns the slot of a domain, with its check in the low bits.
const fn slot_of(fingerprint: u64, day: u64) -> u64 {
    let content = fingerprint << DAY_BITS | day;
    // The high bits of a product depend on all bits of the content.
    let check = content.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - CHECK_BITS);
    content << CHECK_BITS | check
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// Hashes that are spread.
    fn hash(number: u64) -> u64 {
        (number + 1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(31)
            .wrapping_mul(0xd6e8_feb8_6659_fd93)
    }

    fn saved(table: &FirstSeen) -> Vec<u8> {
        let mut content = vec![0; table.bytes()];
        let written: Result<(), Infallible> = table.write_dirty(|page, octets| {
            content[page * PAGE_BYTES..][..PAGE_BYTES].copy_from_slice(octets);
            Ok(())
        });
        assert!(written.is_ok());
        content
    }

    #[test]
    fn a_domain_is_new_once() {
        let table = FirstSeen::new(1 << 20);
        for number in 0..10_000 {
            assert!(table.note(hash(number), 0), "{number}");
        }
        for number in 0..10_000 {
            assert!(!table.note(hash(number), 1), "{number}");
        }
        assert_eq!((table.occupied(), table.replaced()), (10_000, 0));
    }

    #[test]
    fn a_full_table_replaces_what_was_seen_least_recently() {
        let table = FirstSeen::new(PAGE_BYTES);
        for number in 0..100_000 {
            table.note(hash(number), 1);
        }
        assert_eq!(table.occupied(), PAGE_SLOTS as u64);
        assert_eq!(table.occupied() + table.replaced(), 100_000);
        table.note(hash(1_000_000), 9);
        // One after another in each bucket, and none of a later day.
        for number in 0..500 {
            table.note(hash(number), 2);
        }
        assert!(!table.note(hash(1_000_000), 9));
    }

    #[test]
    fn a_saved_table_is_restored_in_any_size() {
        let table = FirstSeen::new(1 << 16);
        for number in 0..2_000 {
            table.note(hash(number), number % 9);
        }
        let content = saved(&table);
        for bytes in [1 << 15, 1 << 16, 1 << 20] {
            let restored = FirstSeen::new(bytes);
            assert!(restored.restore(&content));
            assert_eq!(restored.occupied() + restored.replaced(), 2_000);
            if bytes >= 1 << 16 {
                assert!((0..2_000).all(|number| !restored.note(hash(number), 9)));
            }
            assert!(restored.note(hash(2_000), 9));
        }
    }

    #[test]
    fn each_damaged_bit_is_found() {
        let table = FirstSeen::new(PAGE_BYTES);
        table.note(hash(3), 7);
        let content = saved(&table);
        let slot = content.chunks(8).position(|slot| slot != [0; 8]).expect("it is saved");
        for bit in 0..64 {
            let mut damaged = content.clone();
            damaged[slot * 8 + bit / 8] ^= 1 << (bit % 8);
            assert!(!FirstSeen::new(PAGE_BYTES).restore(&damaged), "bit {bit}");
        }
        assert!(!FirstSeen::new(PAGE_BYTES).restore(&content[1..]));
    }

    #[test]
    fn a_page_stays_marked_until_it_is_written() {
        let table = FirstSeen::new(1 << 16);
        assert!(table.write_dirty(|_, _| Err(())).is_ok(), "nothing to write");
        table.note(hash(1), 0);
        table.note(hash(1), 0);
        assert!(table.write_dirty(|_, _| Err(())).is_err());
        let mut pages = 0;
        let mut count = |_: usize, _: &[u8; PAGE_BYTES]| {
            pages += 1;
            Ok::<_, ()>(())
        };
        assert!(table.write_dirty(&mut count).is_ok());
        assert!(table.write_dirty(&mut count).is_ok());
        assert_eq!(pages, 1);
    }

    #[test]
    fn of_several_workers_one_sees_a_domain_first() {
        let table = FirstSeen::new(1 << 20);
        let new = std::thread::scope(|scope| {
            let count = || (0..20_000).filter(|number| table.note(hash(*number), 0)).count();
            let threads = [0; 4].map(|_| scope.spawn(count));
            threads.map(|thread| thread.join().expect("it ends")).iter().sum::<usize>()
        });
        assert_eq!(new, 20_000);
    }
}
