//! The origin of a message, encoded in librdkafka's opaque number of the message.

use tap53_ledger::WindowTracker;
use tap53_records::encode::{Entry, WindowSlot};

/// The origin of a message, which its delivery report returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A record that is in memory alone.
    Memory {
        /// Messages that the record stands for.
        messages: u32,
        /// When its response was captured, CLOCK_MONOTONIC milliseconds modulo 2^24 (4.6 hours); 0
        /// without one.
        answered_at_ms: u32,
        slot: WindowSlot,
    },
    /// A record in the spool, with its id there.
    Spool { id: u64 },
    /// A summary of the ledger.
    Summary {
        /// Its id in the spool of summaries; `None` if it is in memory alone.
        id: Option<u64>,
    },
}

/// The highest bits of the opaque number: the kind of origin.
const SPOOLED: usize = 1 << 63;
const SUMMARY: usize = 1 << 62;
const _: () = assert!(usize::BITS == 64);

/// The id of a summary that has none.
const NO_ID: usize = SUMMARY - 1;

/// Mask of the bits that a time in milliseconds has.
pub(super) const TIME_MS: u64 = (1 << 24) - 1;

/// The window slot is above the time, in 6 bits.
const SLOT_BIT: u32 = 56;
const _: () = assert!(WindowTracker::SLOTS <= 1 << 6);

impl Origin {
    pub(super) fn memory(entry: &Entry, slot: WindowSlot) -> Self {
        let at_ms = match entry.answered_at_ns {
            0 => 0,
            // At least 1, since 0 stands for none.
            at_ns => ((at_ns / 1_000_000) & TIME_MS).max(1),
        };
        // Below 2^24.
        let answered_at_ms = u32::try_from(at_ms).unwrap_or(0);
        Self::Memory { messages: entry.messages, answered_at_ms, slot }
    }

    pub(super) fn to_opaque(self) -> usize {
        match self {
            Self::Memory { messages, answered_at_ms: at, slot } => {
                usize::from(slot.0) << SLOT_BIT | (at as usize) << 32 | messages as usize
            }
            Self::Spool { id } => SPOOLED | usize::try_from(id).unwrap_or(usize::MAX),
            Self::Summary { id } => {
                SUMMARY | id.and_then(|id| usize::try_from(id).ok()).unwrap_or(NO_ID)
            }
        }
    }

    pub(super) fn from_opaque(opaque: usize) -> Self {
        if opaque & SPOOLED != 0 {
            Self::Spool { id: (opaque & !SPOOLED) as u64 }
        } else if opaque & SUMMARY != 0 {
            let id = opaque & !SUMMARY;
            Self::Summary { id: (id != NO_ID).then_some(id as u64) }
        } else {
            // Of 32, 24 and 6 bits.
            let time = (opaque as u64 >> 32) & TIME_MS;
            Self::Memory {
                messages: u32::try_from(opaque & 0xffff_ffff).unwrap_or(u32::MAX),
                answered_at_ms: u32::try_from(time).unwrap_or(0),
                slot: WindowSlot(u8::try_from(opaque >> SLOT_BIT).unwrap_or(0)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_survive_the_way_through_librdkafka() {
        for origin in [
            Origin::Memory { messages: 0, answered_at_ms: 0, slot: WindowSlot(63) },
            Origin::Memory { messages: u32::MAX, answered_at_ms: 1, slot: WindowSlot(0) },
            Origin::Memory { messages: 2, answered_at_ms: (1 << 24) - 1, slot: WindowSlot(1) },
            Origin::Spool { id: 0 },
            Origin::Spool { id: u64::MAX >> 1 },
            Origin::Summary { id: Some(0) },
            Origin::Summary { id: None },
        ] {
            assert_eq!(Origin::from_opaque(origin.to_opaque()), origin);
        }
    }
}
