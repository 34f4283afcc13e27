//! A bounded set of keys with values, which never gives a key up.

use std::{hash::Hash, sync::OnceLock};

use hashbrown::HashMap;
use parking_lot::Mutex;

/// Admits keys until it is full. A full one does not change any more, so it is read without a lock.
#[derive(Debug)]
pub(crate) struct Admission<K, V> {
    capacity: usize,
    open: Mutex<HashMap<K, V>>,
    full: OnceLock<HashMap<K, V>>,
}

impl<K: Eq + Hash, V> Admission<K, V> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, open: Mutex::default(), full: OnceLock::new() }
    }

    /// Returns true if `key` is admitted, now or before. `value` creates the value of a new key.
    pub(crate) fn admit(&self, key: K, value: impl FnOnce() -> V) -> bool {
        if let Some(full) = self.full.get() {
            return full.contains_key(&key);
        }
        let mut open = self.open.lock();
        // Another worker may have filled it meanwhile.
        if let Some(full) = self.full.get() {
            return full.contains_key(&key);
        }
        open.entry(key).or_insert_with(value);
        if open.len() >= self.capacity {
            // It is set only here, under the lock.
            let _ = self.full.set(std::mem::take(&mut open));
        }
        true
    }

    /// Calls `look` with the keys and values.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&HashMap<K, V>) -> R) -> R {
        if let Some(full) = self.full.get() {
            return look(full);
        }
        let open = self.open.lock();
        look(self.full.get().unwrap_or(&open))
    }

    pub(crate) const fn capacity(&self) -> usize {
        self.capacity
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_full_set_keeps_its_keys_and_refuses_others() {
        let set = Admission::new(2);
        assert!(set.admit(1, || "one"));
        assert!(set.admit(1, || "again"));
        assert!(set.admit(2, || "two"));
        assert!(!set.admit(3, || "three"));
        assert!(set.admit(1, || "again"));
        assert_eq!(set.with(|all| (all.len(), all[&1])), (2, "one"));
    }

    #[test]
    fn threads_admit_the_same_keys_and_no_more_than_fit() {
        let set = Admission::new(50);
        let admit = || (0..100).filter(|key| set.admit(*key, || ())).count();
        thread::scope(|scope| {
            let threads = [scope.spawn(admit), scope.spawn(admit), scope.spawn(admit)];
            for thread in threads {
                assert_eq!(thread.join().unwrap(), 50);
            }
        });
        assert_eq!(set.with(HashMap::len), 50);
    }
}
