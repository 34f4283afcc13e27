//! Records without a spool: another agent has it, as while an upgrade overlaps two of them.
//!
//! - Capture runs, and records go to the producer directly, in either mode. What the broker does not
//!   take waits here and is sent again.
//! - What waits is at most `queue_bytes`, beside what the producer holds; more is lost, and counted
//!   as `spool_failed`. Killing the agent loses both, in mode durable too.
//! - The lock is asked for as long as the agent runs, however long the other one takes to end. The
//!   kernel gives it to one, and keeps it until that process is gone: there is never a second
//!   writer. What waits then goes into the spool, behind what the other agent has left there.
//! - At the shutdown it is asked for once more. What is neither delivered within the deadline nor
//!   can be kept is counted as `unflushed`.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use super::{
    mailbox::Returned,
    origin::Origin,
    producer::{Message, Refusal},
    returned::{append_piece, size},
    settling::Settling,
    spooling::{Inner, add_losses},
};
use crate::{
    config::SpoolMode,
    encode::{Batch, SCHEMA_VERSION},
    ledger::{Amount, SinkLoss},
    sink::registry::Schema,
    spool::{self, AppendError, Spool},
};

/// Records in memory, oldest first; they count as in flight.
pub(super) struct Memory {
    records: VecDeque<Returned>,
    bytes: usize,
    limit: usize,
}

impl Memory {
    pub(super) fn new(limit: u64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self { records: VecDeque::new(), bytes: 0, limit }
    }

    /// Moves all to the spool, or what can be until it fails.
    fn spool(
        &mut self,
        spool: &mut Spool,
        settling: &Settling,
        now_ms: i64,
    ) -> (Amount, Result<(), AppendError>) {
        let mut moved = Amount::default();
        while !self.records.is_empty() {
            let records = self.records.make_contiguous();
            match append_piece(spool, settling, records, now_ms) {
                Ok((count, amount)) => {
                    moved += amount;
                    self.bytes -=
                        self.records.drain(..count).map(|record| size(&record)).sum::<usize>();
                }
                Err(error) => return (moved, Err(error)),
            }
        }
        (moved, Ok(()))
    }

    /// False if there is no room.
    fn push(&mut self, record: Returned) -> bool {
        let bytes = size(&record);
        let fits = self.bytes + bytes <= self.limit;
        if fits {
            self.bytes += bytes;
            self.records.push_back(record);
        }
        fits
    }

    fn pop(&mut self) -> Option<Returned> {
        let record = self.records.pop_front()?;
        self.bytes -= size(&record);
        Some(record)
    }
}

impl Inner {
    pub(super) fn say_that_it_waits(&self) {
        let (sink, directory) = (&self.link.sink, &self.node_directory);
        tracing::warn!(
            sink,
            directory,
            "another agent has the spool: until it ends, records are sent without it, and those \
             that do not arrive wait in memory"
        );
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Records are pushed and taken whole.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps records that came back, which are in flight, for want of a spool.
    pub(super) fn hold(&self, records: Vec<Returned>) {
        let mut lost = Amount::default();
        let mut held = self.memory();
        let mut refused = Amount::default();
        for record in records {
            let amount = Amount::record(u64::from(record.messages));
            let ticket = record.ticket;
            if record.is_too_large {
                // Nobody is here who would send it alone.
                refused += amount;
                self.link.settling.leave(ticket, 1);
            } else if !held.push(record) {
                lost += amount;
                self.link.settling.leave(ticket, 1);
            }
        }
        drop(held);
        if refused.records > 0 {
            self.link.counts.update(|counts| {
                counts.in_flight -= refused;
                counts.lose(SinkLoss::Rejected, refused);
            });
        }
        if lost.records > 0 {
            self.link.counts.update(|counts| {
                counts.in_flight -= lost;
                counts.lose(SinkLoss::SpoolFailed, lost);
            });
            self.disk_failed(&"another agent has it, and memory is full");
        }
    }

    /// As [`hold`](Self::hold), what the producer did not take of a batch.
    pub(super) fn hold_rest(&self, batch: &Batch, from: usize) {
        let rest = batch.iter_keyed().skip(from).map(|(key, value, entry)| Returned {
            timestamp_ms: entry.timestamp_ms,
            messages: entry.messages,
            ticket: batch.ticket(),
            key: key.to_vec(),
            value: value.to_vec(),
            is_again: false,
            is_too_large: false,
        });
        self.hold(rest.collect());
    }

    /// Sends what is held, as far as the producer takes it.
    ///
    /// # Errors
    /// If the producer takes nothing for now.
    pub(super) fn send_held(&self) -> Result<(), Refusal> {
        let version = SCHEMA_VERSION.unsigned_abs();
        let mut held = self.memory();
        if held.records.is_empty() {
            return Ok(());
        }
        let producer = self.producer.current();
        while let Some(record) = held.records.front() {
            let (messages, ticket) = (record.messages, record.ticket);
            let message = Message {
                timestamp_ms: record.timestamp_ms,
                key: &record.key,
                value: &record.value,
            };
            match self.producer.send(
                &producer,
                Origin::Memory { messages, answered_at_ms: 0, ticket },
                version,
                &message,
            ) {
                Ok(()) => {}
                Err(Refusal::QueueFull | Refusal::NoId) => return Ok(()),
                Err(Refusal::NotNow) => return Err(Refusal::NotNow),
                Err(Refusal::Never) => {
                    let amount = Amount::record(u64::from(messages));
                    self.link.counts.update(|counts| {
                        counts.in_flight -= amount;
                        counts.lose(SinkLoss::Rejected, amount);
                    });
                    self.link.settling.leave(ticket, 1);
                }
            }
            held.pop();
        }
        Ok(())
    }

    /// Puts what is held into the spool: a worker may have come too late for [`Self::take_over`].
    pub(super) fn spool_held(&self, spool: &mut Spool) {
        let now_ms = self.clock.now_ms();
        let (kept, outcome) = self.memory().spool(spool, &self.link.settling, now_ms);
        self.account(spool, |counts| counts.in_flight -= kept);
        if let Err(error) = outcome {
            self.disk_failed(&error);
        }
    }

    /// Opens the spool, and puts into it what is held.
    ///
    /// # Errors
    /// [`Locked`](spool::Error::Locked) while another agent has it, and what else the spool says.
    pub(super) fn take_over(&self) -> Result<(), spool::Error> {
        let mut spool = Spool::open(&self.spool_config)?;
        let carried = spool.held();
        if carried.records > 0 {
            self.link.settling.carry(spool.next_id());
        }
        let mut held = self.memory();
        // Where it cannot be written to, they are sent from here, as room in the producer comes.
        let now_ms = self.clock.now_ms();
        let (kept, outcome) = held.spool(&mut spool, &self.link.settling, now_ms);
        // Records of an older version of the schema may wait there.
        if let Some(framing) = &self.link.framing {
            let versions = spool.schema_versions();
            let is_there = |schema: &&Schema| schema.is_expected_in(&versions);
            for schema in self.schemas.iter().filter(is_there) {
                framing.ids.want(schema.fingerprint);
            }
        }
        let losses = spool.take_losses();
        self.oldest_at_ms.publish(spool.oldest_at_ms());
        self.link.counts.update(|counts| {
            counts.carried = carried;
            counts.spooled = spool.held();
            counts.spool_bytes = spool.bytes();
            counts.spool_totals = Some(spool.totals());
            add_losses(counts, &losses);
            counts.in_flight -= kept;
        });
        let is_direct = self.mode == SpoolMode::Fast && spool.held().records == 0;
        // Only this thread sets it, or the one that starts it.
        let _ = self.spool.set(Mutex::new(spool));
        self.is_direct.store(is_direct, Ordering::Release);
        drop(held);
        if kept.records > 0
            && let Some(spool) = self.lock()
        {
            self.appended(spool, usize::try_from(kept.records).unwrap_or(usize::MAX));
        }
        if let Err(error) = outcome {
            self.disk_failed(&error);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        encode::Ticket,
        spool::{Config, Fsync, Loss},
    };

    #[test]
    fn more_than_the_spool_holds_is_moved_to_it_and_the_oldest_of_it_are_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config {
            directory: directory.path().to_owned(),
            max_bytes: Config::LEAST_BYTES,
            max_age: None,
            fsync: Fsync::Never,
            schema_version: 1,
        };
        let mut spool = Spool::open(&config).unwrap();
        let mut memory = Memory::new(16 << 20);
        for _ in 0..8_000 {
            assert!(memory.push(Returned {
                ticket: Ticket(0),
                timestamp_ms: 1,
                messages: 1,
                key: Vec::new(),
                value: vec![b'x'; 1_000],
                is_again: false,
                is_too_large: false,
            }));
        }
        let (moved, outcome) = memory.spool(&mut spool, &Settling::new(), 1);
        assert!(outcome.is_ok());
        assert_eq!((moved.records, memory.records.len(), memory.bytes), (8_000, 0, 0));
        assert!(spool.bytes() <= config.max_bytes, "{}", spool.bytes());
        let dropped = spool.take_losses()[Loss::DroppedOldest as usize].records;
        assert_eq!(dropped + spool.held().records, 8_000);
        assert!(spool.held().records > 2_000, "{dropped}");
    }
}
