//! Exchanges that a worker saw a moment ago.

use crate::signal::Signals;

/// Number of cells of a worker: 64 KiB.
const CELLS: usize = 8_192;

/// Bits of a cell that contain signals; the others identify the exchange.
const SIGNAL_BITS: u64 = 0xff;

/// Exchanges of the current interval by the hash of client, name, type and response code. A cell contains
/// the last one that was stored there, so that a lookup reads eight bytes.
pub(crate) struct Recent {
    cells: Box<[u64; CELLS]>,
}

impl Recent {
    /// Memory in bytes.
    pub(crate) const BYTES: usize = size_of::<u64>() * CELLS;

    pub(crate) fn new() -> Self {
        Self { cells: Box::new([0; CELLS]) }
    }

    /// Returns the signals that were stored for the exchange with this hash in this interval.
    #[inline]
    pub(crate) fn get(&self, hash: u64, interval: u32) -> Option<Signals> {
        let cell = self.cells[index(hash)];
        let is_same = (cell ^ tag(hash, interval)) & !SIGNAL_BITS == 0;
        #[expect(clippy::cast_possible_truncation, reason = "the bits of signals")]
        is_same.then(|| Signals::from_bits(cell as u8))
    }

    /// Stores an exchange with the signals that its repetitions have too.
    #[inline]
    pub(crate) fn put(&mut self, hash: u64, interval: u32, signals: Signals) {
        self.cells[index(hash)] = tag(hash, interval) & !SIGNAL_BITS | u64::from(signals.bits());
    }
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are meant")]
const fn index(hash: u64) -> usize {
    hash as usize & (CELLS - 1)
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
        assert_eq!(recent.get(77 + CELLS as u64, 0), None, "another exchange in the same cell");
    }
}
