//! The origin of a message, in the number that librdkafka carries for us.

use tap53_records::encode::{Entry, WindowSlot};

use super::windows;

/// The origin of a message, which comes back with its report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It is nowhere else.
    Memory {
        /// Messages that the record stands for.
        messages: u32,
        /// When its response was captured, CLOCK_MONOTONIC milliseconds modulo 2^24 (4.6 hours); 0
        /// without one.
        answered_at_ms: u32,
        /// The window slot of its batch.
        slot: WindowSlot,
    },
    /// It is in the spool.
    Spool {
        /// Its id there.
        id: u64,
    },
    /// It is a summary of the ledger.
    Summary {
        /// Its id in their spool; `None` for one that is in memory alone.
        id: Option<u64>,
    },
}

/// The highest bits of what librdkafka carries for us say which of these it is.
const SPOOLED: usize = 1 << 63;
const SUMMARY: usize = 1 << 62;
const _: () = assert!(usize::BITS == 64);

/// The id of a summary that has none.
const NO_ID: usize = SUMMARY - 1;

/// Masks the bits of a time in milliseconds that there is room for.
pub(super) const TIME_MS: u64 = (1 << 24) - 1;

/// Above those, what the sink gave for the batch: 6 bits.
const TICKET_BIT: u32 = 56;
const _: () = assert!(windows::SLOTS <= 1 << 6);

impl Origin {
    pub(super) fn memory(entry: &Entry, slot: WindowSlot) -> Self {
        let at_ms = match entry.answered_at_ns {
            0 => 0,
            // Not 0, which says that there is none.
            at_ns => ((at_ns / 1_000_000) & TIME_MS).max(1),
        };
        // Below 2^24.
        let answered_at_ms = u32::try_from(at_ms).unwrap_or(0);
        Self::Memory { messages: entry.messages, answered_at_ms, slot }
    }

    pub(super) fn to_opaque(self) -> usize {
        match self {
            Self::Memory { messages, answered_at_ms, slot } => {
                usize::from(slot.0) << TICKET_BIT
                    | (answered_at_ms as usize) << 32
                    | messages as usize
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
                slot: WindowSlot(u8::try_from(opaque >> TICKET_BIT).unwrap_or(0)),
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
