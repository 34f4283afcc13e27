//! Records that come back from the producer, on their way to the spool.
//!
//! As many as its queue holds may come at once. They are appended in pieces, so that the spool stays
//! within its limit, and others get at it in between.

use std::sync::MutexGuard;

use super::{mailbox::Returned, settling::Settling, spooling::Inner};
use crate::{
    ledger::{Amount, SinkLoss},
    spool::{AppendError, Record, Spool},
};

/// Bytes that are appended at once, about: as with the batches that come from the workers.
const PIECE_BYTES: usize = 1 << 20;

/// What a record takes beside its bytes, about.
const OVERHEAD: usize = size_of::<Returned>();

/// What it takes in memory, about.
pub(super) fn size(record: &Returned) -> usize {
    OVERHEAD + record.key.len() + record.value.len()
}

/// Appends the first of `records`, which leave memory by that; how many they are.
pub(super) fn append_piece(
    spool: &mut Spool,
    settling: &Settling,
    records: &[Returned],
    now_ms: i64,
) -> Result<(usize, Amount), AppendError> {
    let mut bytes = 0;
    let fit = records.iter().take_while(|record| {
        let fits = bytes < PIECE_BYTES;
        bytes += size(record);
        fits
    });
    let piece = &records[..fit.count()];
    let amount = spool.append(piece.iter().map(as_record), now_ms)?;
    for record in piece {
        settling.spool(record.ticket, spool.next_id());
        settling.leave(record.ticket, 1);
    }
    Ok((piece.len(), amount))
}

fn as_record(record: &Returned) -> Record<'_> {
    Record {
        timestamp_ms: record.timestamp_ms,
        messages: record.messages,
        key: &record.key,
        value: &record.value,
    }
}

impl Inner {
    /// Puts records into the spool that were in flight. Where it cannot be written to, those that are
    /// left are lost.
    pub(super) fn take_back<'a>(
        &'a self,
        mut spool: MutexGuard<'a, Spool>,
        mut returned: &[Returned],
    ) {
        loop {
            let (link, now_ms) = (&self.link, self.clock.now_ms());
            match append_piece(&mut spool, &link.settling, returned, now_ms) {
                Ok((count, amount)) => {
                    self.account(&mut spool, |counts| counts.in_flight -= amount);
                    self.appended(spool, 0);
                    returned = &returned[count..];
                }
                Err(error) => {
                    let mut lost = Amount::default();
                    for record in returned {
                        lost += Amount::record(u64::from(record.messages));
                        link.settling.leave(record.ticket, 1);
                    }
                    self.account(&mut spool, |counts| {
                        counts.in_flight -= lost;
                        counts.lose(SinkLoss::SpoolFailed, lost);
                    });
                    drop(spool);
                    self.disk_failed(&error);
                    return;
                }
            }
            match self.lock() {
                Some(again) if !returned.is_empty() => spool = again,
                _ => return,
            }
        }
    }
}
