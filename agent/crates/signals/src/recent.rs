//! Exchanges that a worker saw a moment ago.

use tap53_base::prefetch::prefetch;

use crate::signal::Signals;

/// Number of sets of cells.
const SETS: usize = 2_048;

/// Number of cells of a set. With one, a fifth of the exchanges misses in a table that is a quarter full, since
/// two of them alternate in a cell; with four, one in fifty does.
const WAYS: usize = 4;

/// Bits of a cell that contain signals; the others identify the exchange.
const SIGNAL_BITS: u64 = 0xff;

/// Exchanges of the current interval by the hash of client, name, type and response code. A set contains
/// the last ones that were stored there, the newest first, in half a cache line.
pub(crate) struct Recent {
    sets: Box<[Set; SETS]>,
}

#[derive(Clone, Copy)]
#[repr(align(32))]
struct Set([u64; WAYS]);

impl Recent {
    /// Memory in bytes.
    pub(crate) const BYTES: usize = size_of::<Set>() * SETS;

    pub(crate) fn new() -> Self {
        Self { sets: Box::new([Set([0; WAYS]); SETS]) }
    }

    /// Fetches the set of a hash into the cache.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        prefetch(&raw const self.sets[index(hash)]);
    }

    /// Returns the signals that were stored for the exchange with this hash in this interval.
    #[inline]
    pub(crate) fn get(&self, hash: u64, interval: u32) -> Option<Signals> {
        let Set(cells) = &self.sets[index(hash)];
        let tag = tag(hash, interval);
        let cell = cells.iter().find(|cell| (*cell ^ tag) & !SIGNAL_BITS == 0)?;
        #[expect(clippy::cast_possible_truncation, reason = "the bits of signals")]
        Some(Signals::from_bits(*cell as u8))
    }

    /// Stores an exchange with the signals that its repetitions have too.
    #[inline]
    pub(crate) fn put(&mut self, hash: u64, interval: u32, signals: Signals) {
        let Set([newest, second, third, oldest]) = &mut self.sets[index(hash)];
        (*oldest, *third, *second) = (*third, *second, *newest);
        *newest = tag(hash, interval) & !SIGNAL_BITS | u64::from(signals.bits());
    }
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are meant")]
const fn index(hash: u64) -> usize {
    hash as usize & (SETS - 1)
}

/// Mixes the interval in, so that cells of an earlier one do not match.
#[inline]
fn tag(hash: u64, interval: u32) -> u64 {
    (hash ^ (u64::from(interval) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).rotate_left(17)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Signal;

    #[test]
    fn an_exchange_is_recent_within_its_interval() {
        let mut recent = Recent::new();
        let tunnel = Signals::NONE.with(Signal::Tunnel, true);
        assert_eq!(recent.get(0, 0), None);
        recent.put(0, 0, Signals::NONE);
        recent.put(77, 0, tunnel);
        assert_eq!(recent.get(0, 0), Some(Signals::NONE));
        assert_eq!(recent.get(77, 0), Some(tunnel));
        assert_eq!(recent.get(77, 1), None);
        assert_eq!(recent.get(77 + SETS as u64, 0), None, "another exchange in the same set");
    }

    #[test]
    fn a_set_contains_the_last_ones() {
        let mut recent = Recent::new();
        let hash = |number: usize| 77 + (number * SETS) as u64;
        for number in 0..WAYS + 1 {
            recent.put(hash(number), 0, Signals::NONE.with(Signal::Dga, number == WAYS));
        }
        assert_eq!(recent.get(hash(0), 0), None);
        for number in 1..WAYS {
            assert_eq!(recent.get(hash(number), 0), Some(Signals::NONE), "{number}");
        }
        assert_eq!(recent.get(hash(WAYS), 0), Some(Signals::NONE.with(Signal::Dga, true)));
    }
}
