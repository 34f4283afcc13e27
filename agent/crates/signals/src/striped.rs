//! Tables that workers share: stripes with a lock each, buckets of a few entries.

use parking_lot::Mutex;

/// Entries of a bucket.
const WAYS: usize = 8;

/// Stripes of a table, so that workers seldom wait for each other.
const STRIPES: usize = 64;

/// An entry of a table.
pub(crate) trait Entry: Clone + Default {
    /// Returns how much the entry is worth at the time `now_s`: of a full bucket, the one that is worth
    /// least is replaced.
    fn worth(&self, now_s: u32) -> u32;
}

/// Entries by hash. The table never grows.
pub(crate) struct Striped<E> {
    stripes: Box<[Stripe<E>]>,
}

type Stripe<E> = Mutex<Box<[Bucket<E>]>>;

#[derive(Clone, Default)]
struct Bucket<E> {
    /// Parts of the hashes; 0 for an entry that is not used.
    keys: [u32; WAYS],
    entries: [E; WAYS],
}

impl<E: Entry> Striped<E> {
    /// Creates a table of at most `bytes`, but at least a bucket for each stripe.
    pub(crate) fn new(bytes: usize) -> Self {
        let buckets = (bytes / STRIPES / size_of::<Bucket<E>>()).max(1);
        let stripe = || Mutex::new(vec![Bucket::default(); buckets].into_boxed_slice());
        Self { stripes: (0..STRIPES).map(|_| stripe()).collect() }
    }

    /// Returns the memory in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let buckets: usize = self.stripes.iter().map(|stripe| stripe.lock().len()).sum();
        buckets * size_of::<Bucket<E>>()
    }

    /// Calls `update` with the entry of this hash, which is a new one if there is none.
    #[inline]
    pub(crate) fn update<R>(&self, hash: u64, now_s: u32, update: impl FnOnce(&mut E) -> R) -> R {
        #[expect(clippy::cast_possible_truncation, reason = "parts of the hash are meant")]
        let (stripe, bucket, key) =
            (hash as usize % STRIPES, (hash >> 6) as u32, ((hash >> 32) as u32).max(1));
        let mut buckets = self.stripes[stripe].lock();
        // Multiplication in place of a division.
        let index = (u64::from(bucket) * buckets.len() as u64) >> 32;
        let Bucket { keys, entries } = &mut buckets[index as usize];
        let way = keys.iter().position(|it| *it == key).unwrap_or_else(|| {
            let worth = |way: usize| if keys[way] == 0 { 0 } else { entries[way].worth(now_s) + 1 };
            let way = (0..WAYS).min_by_key(|way| worth(*way)).unwrap_or(0);
            keys[way] = key;
            entries[way] = E::default();
            way
        });
        update(&mut entries[way])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Count(u32);

    impl Entry for Count {
        fn worth(&self, _: u32) -> u32 {
            self.0
        }
    }

    #[test]
    fn an_entry_that_is_worth_more_survives_a_flood() {
        let table = Striped::<Count>::new(1 << 14);
        let bytes = table.bytes();
        let spread = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        let add = |hash| {
            table.update(hash, 0, |count| {
                count.0 += 1;
                count.0
            })
        };
        for _ in 0..5 {
            add(spread(1));
        }
        for number in 2..100_000 {
            add(spread(number));
        }
        assert_eq!(add(spread(1)), 6);
        assert!(bytes <= 1 << 15);
        assert_eq!(table.bytes(), bytes);
    }
}
