//! Guards of the records that are in memory alone.
//!
//! A [`Flight`] ends as [`delivered`](Flight::delivered), [`lost`](Flight::lost), or
//! [requeued](Accounts::requeue) into the spool. Dropping it counts its records as lost, so no path
//! can leave them uncounted. While librdkafka has a record ([`Flight::hand_over`]), the guard is the
//! opaque number of the message; the delivery report turns it into a guard again
//! ([`Flight::landing`]).

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tap53_base::amount::Amount;
use tap53_ledger::{Published, SinkCounts, SinkLoss, WindowTracker};
use tap53_records::encode::{Batch, WindowSlot};
use tap53_spool::{Loss, Losses, Spool};

/// The account of a sink's records.
#[derive(Default)]
pub(super) struct Accounts {
    pub(super) counts: Published<SinkCounts>,
    pub(super) windows: WindowTracker,
    /// The time since when the oldest record of the spool waits, milliseconds since 1970 UTC. It
    /// is here since the spool is locked during writes to the disk.
    pub(super) oldest_at_ms: Published<Option<i64>>,
    /// True once all records in flight have been counted as lost: later reports are ignored. It is
    /// set with the counts locked.
    is_written_off: AtomicBool,
}

impl Accounts {
    pub(super) fn new(counts: Published<SinkCounts>) -> Self {
        Self { counts, ..Self::default() }
    }

    /// Changes the counts and publishes what the spool holds and has lost, in one step: they add up
    /// at every moment.
    pub(super) fn reconcile(&self, spool: &mut Spool, change: impl FnOnce(&mut SinkCounts)) {
        let (losses, held, bytes) = (spool.take_losses(), spool.held(), spool.bytes());
        let totals = spool.totals();
        self.oldest_at_ms.publish(spool.oldest_at_ms());
        self.counts.update(|counts| {
            change(counts);
            counts.spooled = held;
            counts.spool_bytes = bytes;
            counts.spool_totals = Some(totals);
            add_losses(counts, &losses);
        });
    }

    /// Counts records as spooled, which were appended to `spool` under the same lock.
    pub(super) fn requeue<A: Deref<Target = Self>>(
        &self,
        flights: impl IntoIterator<Item = Flight<A>>,
        spool: &mut Spool,
    ) {
        let (mut accepted, mut landed) = (Amount::default(), Amount::default());
        for mut flight in flights {
            let amount = std::mem::take(&mut flight.amount);
            // First the spool, so that their window is unsettled throughout.
            self.windows.spool(flight.slot, spool.next_id());
            self.windows.leave(flight.slot, amount.records);
            *if flight.is_launched { &mut landed } else { &mut accepted } += amount;
        }
        self.reconcile(spool, |counts| {
            counts.in_flight -= landed;
            counts.offer(accepted);
        });
    }

    /// Counts all records in flight as lost (`unflushed`).
    pub(super) fn write_off(&self) {
        self.counts.update(|counts| {
            self.is_written_off.store(true, Ordering::Release);
            let rest = std::mem::take(&mut counts.in_flight);
            counts.lose(SinkLoss::Unflushed, rest);
        });
        self.windows.give_up_memory();
    }
}

fn add_losses(counts: &mut SinkCounts, losses: &Losses) {
    for (reason, lost) in Loss::ALL.into_iter().zip(losses) {
        let reason = match reason {
            Loss::DroppedOldest => SinkLoss::DroppedOldest,
            Loss::TooOld => SinkLoss::TooOld,
            Loss::Unreadable => SinkLoss::Unreadable,
            Loss::Rejected => SinkLoss::Rejected,
        };
        counts.lose(reason, *lost);
    }
}

/// The guard of records of one window that are in memory alone; see the [module](self).
#[must_use = "records whose guard is dropped count as lost"]
pub(super) struct Flight<A: Deref<Target = Accounts> = Arc<Accounts>> {
    accounts: A,
    slot: WindowSlot,
    amount: Amount,
    /// True once they are counted as in flight; before, they are in the worker's batch.
    is_launched: bool,
}

impl<'a> Flight<&'a Accounts> {
    /// Guards a batch that a worker hands over.
    pub(super) fn accept(accounts: &'a Accounts, batch: &Batch) -> Self {
        Self::accept_part(accounts, batch.slot(), crate::amount(batch))
    }

    /// Guards a part of such a batch.
    pub(super) const fn accept_part(
        accounts: &'a Accounts,
        slot: WindowSlot,
        amount: Amount,
    ) -> Self {
        Self { accounts, slot, amount, is_launched: false }
    }

    /// Guards one record that librdkafka reports on.
    pub(super) const fn landing(accounts: &'a Accounts, slot: WindowSlot, messages: u32) -> Self {
        let amount = Amount::record(messages as u64);
        Self { accounts, slot, amount, is_launched: true }
    }

    /// Returns a guard that owns the accounts, for records that wait in memory.
    pub(super) fn keep(mut self, accounts: &Arc<Accounts>) -> Flight {
        let (slot, is_launched) = (self.slot, self.is_launched);
        let amount = std::mem::take(&mut self.amount);
        Flight { accounts: accounts.clone(), slot, amount, is_launched }
    }
}

impl<A: Deref<Target = Accounts>> Flight<A> {
    pub(super) const fn amount(&self) -> Amount {
        self.amount
    }

    pub(super) const fn slot(&self) -> WindowSlot {
        self.slot
    }

    /// Counts them as in flight. This comes before the first is handed over, because its delivery
    /// report may come before that call returns.
    pub(super) fn launch(&mut self) {
        if !self.is_launched {
            self.is_launched = true;
            let amount = self.amount;
            self.accounts.counts.update(|counts| {
                counts.offer(amount);
                counts.in_flight += amount;
            });
        }
    }

    /// Splits off the guard of a part.
    pub(super) fn split(&mut self, part: Amount) -> Flight<&Accounts> {
        self.amount -= part;
        let (slot, is_launched) = (self.slot, self.is_launched);
        Flight { accounts: &*self.accounts, slot, amount: part, is_launched }
    }

    /// librdkafka has accepted one of them: from now on, its opaque number is the guard.
    pub(super) fn hand_over(&mut self, messages: u32) {
        debug_assert!(self.is_launched, "a report may come before it counts as in flight");
        self.amount -= Amount::record(u64::from(messages));
    }

    pub(super) fn delivered(mut self) {
        self.settle(|counts, amount| counts.delivered += amount);
    }

    pub(super) fn lost(mut self, reason: SinkLoss) {
        self.settle(|counts, amount| counts.lose(reason, amount));
    }

    fn settle(&mut self, count: impl FnOnce(&mut SinkCounts, Amount)) {
        let amount = std::mem::take(&mut self.amount);
        if amount.records == 0 {
            return;
        }
        let accounts = &*self.accounts;
        accounts.counts.update(|counts| {
            match self.is_launched {
                true if accounts.is_written_off.load(Ordering::Acquire) => return,
                true => counts.in_flight -= amount,
                false => counts.offer(amount),
            }
            count(counts, amount);
        });
        // Last: a window is settled once its records are counted.
        accounts.windows.leave(self.slot, amount.records);
    }
}

impl<A: Deref<Target = Accounts>> Drop for Flight<A> {
    /// Counts records without an outcome as lost: there is a defect, or a thread panicked.
    fn drop(&mut self) {
        let records = self.amount.records;
        if records > 0 {
            if !self.accounts.is_written_off.load(Ordering::Acquire) {
                tracing::error!(
                    event = "records_dropped",
                    records,
                    "records were dropped in memory; they are lost and counted"
                );
            }
            self.settle(|counts, amount| counts.lose(SinkLoss::Unflushed, amount));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tap53_records::encode::{SingleObject, samples};
    use tap53_spool::{Config, Fsync, Record};

    fn batch(accounts: &Accounts, records: u64) -> Batch {
        let (mut batch, mut encoder) = (Batch::default(), SingleObject::new().unwrap());
        for _ in 0..records {
            samples::with_record(samples::NAMES[0], |record| {
                batch.push(&mut encoder, record).unwrap();
            });
        }
        batch.set_slot(accounts.windows.enter(records));
        accounts.counts.update(|counts| {
            counts.in_batches = Amount { records, messages: batch.messages() };
        });
        batch
    }

    fn lost(counts: &SinkCounts, reason: SinkLoss) -> u64 {
        counts.lost[reason as usize].records
    }

    #[test]
    fn each_record_is_counted_by_what_its_guard_was_told_and_the_rest_by_its_drop() {
        let accounts = Arc::new(Accounts::default());
        let batch = batch(&accounts, 5);
        let per_record = batch.iter().next().unwrap().1.messages;
        let mut flight = Flight::accept(&accounts, &batch);
        assert_eq!(accounts.counts.read().in_batches.records, 5, "nobody has taken them");
        flight.launch();
        assert_eq!(accounts.counts.read().in_flight.records, 5);
        let one = Amount::record(u64::from(per_record));
        flight.split(one).lost(SinkLoss::Rejected);
        flight.hand_over(per_record);
        let kept = flight.split(one).keep(&accounts);
        drop(flight);
        let counts = accounts.counts.read();
        assert_eq!((lost(&counts, SinkLoss::Unflushed), counts.in_flight.records), (2, 2));
        Flight::landing(&accounts, batch.slot(), per_record).delivered();
        assert_eq!(accounts.windows.begin_window(1, 0), None, "one is in memory yet");
        kept.lost(SinkLoss::Expired);
        let counts = accounts.counts.read();
        assert_eq!((counts.delivered.records, lost(&counts, SinkLoss::Expired)), (1, 1));
        assert_eq!((counts.in_flight, counts.offered.records), (Amount::default(), 5));
        assert_eq!(accounts.windows.begin_window(2, 0), Some(1));
    }

    #[test]
    fn what_was_written_off_is_counted_once_however_late_its_report_is() {
        let accounts = Accounts::default();
        let batch = batch(&accounts, 2);
        let mut flight = Flight::accept(&accounts, &batch);
        flight.launch();
        let per_record = batch.iter().next().unwrap().1.messages;
        flight.hand_over(per_record);
        accounts.write_off();
        Flight::landing(&accounts, batch.slot(), per_record).delivered();
        drop(flight);
        let counts = accounts.counts.read();
        assert_eq!((lost(&counts, SinkLoss::Unflushed), counts.delivered.records), (2, 0));
    }

    #[test]
    fn what_is_requeued_is_in_the_spool_and_in_no_other_count() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(&Config {
            directory: directory.path().to_owned(),
            max_bytes: Config::MIN_BYTES,
            max_age: None,
            fsync: Fsync::Never,
            schema_version: 1,
        })
        .unwrap();
        let accounts = Accounts::default();
        let batch = batch(&accounts, 3);
        let record = |(value, entry): (_, tap53_records::encode::Entry)| Record {
            timestamp_ms: 1,
            messages: entry.messages,
            key: b"",
            value,
        };
        let flight = Flight::accept(&accounts, &batch);
        spool.append(batch.iter().map(record), 1).unwrap();
        accounts.requeue([flight], &mut spool);
        let counts = accounts.counts.read();
        assert_eq!((counts.spooled, counts.offered), (spool.held(), spool.held()));
        assert_eq!((counts.in_flight, counts.in_batches), Default::default());
        assert_eq!(accounts.windows.begin_window(1, 0), None, "it is not settled");
        assert_eq!(accounts.windows.begin_window(2, 3), Some(1));
    }
}
