//! A hash table whose entries are also linked in lists by age.
//!
//! ```text
//!  index: hash ─▶ slot number      slots: [ entry | list | older | newer ] …
//!                                  lists: oldest ─▶ … ─▶ newest, each entry in one of them
//! ```
//!
//! Every operation takes constant time. Slots are reused, so memory stays at the maximum that the
//! entries needed at one time.

use hashbrown::{HashTable, hash_table::Entry};

/// Marks the end of a list.
const NONE: u32 = u32::MAX;

struct Slot<T> {
    /// `None` if the slot is free.
    entry: Option<T>,
    hash: u64,
    list: usize,
    older: u32,
    newer: u32,
}

#[derive(Clone, Copy)]
struct List {
    oldest: u32,
    newest: u32,
}

/// A table of entries in `LISTS` lists. The caller compares keys and limits the number of entries.
pub(super) struct AgedTable<T, const LISTS: usize> {
    index: HashTable<u32>,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    lists: [List; LISTS],
}

impl<T, const LISTS: usize> AgedTable<T, LISTS> {
    /// Memory of one entry besides what it owns, in bytes: its slot, its number in the free list,
    /// and a number and a tag in the index, whose load is at least 7/16 after growth.
    pub(super) const ENTRY_BYTES: usize = size_of::<Slot<T>>() + 4 + (4 + 1) * 16 / 7;

    pub(super) const fn new() -> Self {
        Self {
            index: HashTable::new(),
            slots: Vec::new(),
            free: Vec::new(),
            lists: [List { oldest: NONE, newest: NONE }; LISTS],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Returns the number of slots, including free ones.
    pub(super) const fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Returns the number of the entry with this hash that `is_it` accepts.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<u32> {
        let eq = |number: &u32| self.get(*number).is_some_and(&is_it);
        self.index.find(hash, eq).copied()
    }

    #[inline]
    pub(super) fn get(&self, number: u32) -> Option<&T> {
        self.slots.get(number as usize)?.entry.as_ref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.slots.get_mut(number as usize)?.entry.as_mut()
    }

    /// Returns the number of the oldest entry of a list.
    pub(super) fn oldest(&self, list: usize) -> Option<u32> {
        Some(self.lists[list].oldest).filter(|number| *number != NONE)
    }

    /// Adds an entry as the newest of its list.
    pub(super) fn insert(&mut self, hash: u64, list: usize, entry: T) -> u32 {
        let slot = Slot { entry: Some(entry), hash, list, older: NONE, newer: NONE };
        let number = match self.free.pop() {
            Some(number) => {
                self.slots[number as usize] = slot;
                number
            }
            None => {
                self.slots.push(slot);
                // The callers limit entries far below u32::MAX.
                u32::try_from(self.slots.len() - 1).unwrap_or(NONE)
            }
        };
        self.link(number, list);
        let slots = &self.slots;
        self.index.insert_unique(hash, number, |slot| slots[*slot as usize].hash);
        number
    }

    /// Makes an entry the newest of a list.
    #[inline]
    pub(super) fn renew(&mut self, number: u32, list: usize) {
        if self.lists[list].newest != number {
            self.unlink(number);
            self.link(number, list);
        }
    }

    /// Removes an entry.
    pub(super) fn remove(&mut self, number: u32) -> Option<T> {
        let slot = self.slots.get_mut(number as usize)?;
        let entry = slot.entry.take()?;
        let hash = slot.hash;
        self.unlink(number);
        let slots = &self.slots;
        let found =
            self.index.entry(hash, |slot| *slot == number, |slot| slots[*slot as usize].hash);
        if let Entry::Occupied(found) = found {
            found.remove();
        }
        self.free.push(number);
        Some(entry)
    }

    fn link(&mut self, number: u32, list: usize) {
        let ends = &mut self.lists[list];
        let slot = &mut self.slots[number as usize];
        (slot.list, slot.older, slot.newer) = (list, ends.newest, NONE);
        match self.slots.get_mut(ends.newest as usize) {
            Some(newest) => newest.newer = number,
            None => ends.oldest = number,
        }
        ends.newest = number;
    }

    fn unlink(&mut self, number: u32) {
        let slot = &self.slots[number as usize];
        let (list, older, newer) = (slot.list, slot.older, slot.newer);
        let ends = &mut self.lists[list];
        match self.slots.get_mut(older as usize) {
            Some(slot) => slot.newer = newer,
            None => ends.oldest = newer,
        }
        match self.slots.get_mut(newer as usize) {
            Some(slot) => slot.older = older,
            None => ends.newest = older,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ages<const LISTS: usize>(aged: &mut AgedTable<u32, LISTS>, list: usize) -> Vec<u32> {
        std::iter::from_fn(|| aged.remove(aged.oldest(list)?)).collect()
    }

    #[test]
    fn lists_return_the_oldest_first() {
        let mut aged = AgedTable::<u32, 2>::new();
        let numbers: Vec<u32> = (0..6).map(|entry| aged.insert(7, 0, entry)).collect();
        aged.renew(numbers[2], 0);
        aged.renew(numbers[0], 1);
        aged.renew(numbers[5], 1);
        aged.renew(numbers[5], 1);
        assert_eq!(aged.find(7, |entry| *entry == 4), Some(numbers[4]));
        assert_eq!(aged.remove(numbers[3]), Some(3));
        assert_eq!(aged.remove(numbers[3]), None);
        assert_eq!(aged.find(7, |entry| *entry == 3), None);
        assert_eq!(aged.len(), 5);
        assert_eq!(ages(&mut aged, 0), [1, 4, 2]);
        assert_eq!(ages(&mut aged, 1), [0, 5]);
        assert_eq!((aged.len(), aged.slots()), (0, 6));
    }

    #[test]
    fn slots_are_reused() {
        let mut aged = AgedTable::<u32, 1>::new();
        for round in 0..1_000 {
            let number = aged.insert(round.into(), 0, round);
            assert_eq!(aged.remove(number), Some(round));
        }
        assert_eq!(aged.slots(), 1);
    }
}
