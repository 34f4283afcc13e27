//! The bounded queue of messages that wait for the producer, in memory or on disk.
//!
//! One queue for all that waits: records in the spool, records while another agent has locked the
//! spool, records whose schema has no id yet, and summaries of the ledger with and without a spool.
//! `push` appends; `drain` hands what waits to the producer,
//! oldest first.
//!
//! - **On disk** an entry stays until its delivery report acknowledges it, and is sent again after
//!   any other report.
//! - **In memory** it leaves with the producer's taking it, which has a copy then: together they
//!   would need twice the memory. Its delivery report brings it back if it failed.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tap53_ledger::SinkLoss;
use tap53_records::encode::SCHEMA_VERSION;
use tap53_spool::{AppendError, Record, Spool};

use super::{
    flight::{Accounts, Flight},
    origin::Origin,
    producer::{Message, Refusal},
};

/// Bytes that are moved to the spool at once, about, as with the batches that come from workers:
/// so the spool stays within its limit, and others get at it in between.
const PIECE_BYTES: usize = 1 << 20;

/// The guard of a message that waits.
pub(super) trait Owner {
    /// Version of the schema that messages in memory are of.
    const SCHEMA_VERSION: u32;

    /// Messages of DNS that it stands for.
    fn messages(&self) -> u32;

    /// Returns the origin of a message in memory.
    fn in_memory(&self) -> Origin;

    /// Returns the origin of the entry with this id on disk.
    fn on_disk(id: u64) -> Origin;

    /// The producer has it.
    fn hand_over(self);

    /// The producer will never take it.
    fn reject(self);
}

impl Owner for Flight {
    const SCHEMA_VERSION: u32 = SCHEMA_VERSION.unsigned_abs();

    fn messages(&self) -> u32 {
        u32::try_from(self.amount().messages).unwrap_or(u32::MAX)
    }

    fn in_memory(&self) -> Origin {
        Origin::Memory { messages: self.messages(), answered_at_ms: 0, slot: self.slot() }
    }

    fn on_disk(id: u64) -> Origin {
        Origin::Spool { id }
    }

    fn hand_over(mut self) {
        let messages = self.messages();
        Self::hand_over(&mut self, messages);
    }

    fn reject(self) {
        self.lost(SinkLoss::Rejected);
    }
}

/// A message in memory, and who answers for it.
#[derive(Debug)]
pub(super) struct QueuedMessage<T> {
    pub(super) owner: T,
    pub(super) timestamp_ms: i64,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

impl<T: Owner> QueuedMessage<T> {
    /// A copy of a message.
    pub(super) fn new(owner: T, message: &Message<'_>) -> Self {
        let Message { timestamp_ms, key, value } = *message;
        Self { owner, timestamp_ms, key: key.to_vec(), value: value.to_vec() }
    }

    /// Bytes that it takes in memory, about.
    const fn size(&self) -> usize {
        size_of::<Self>() + self.key.len() + self.value.len()
    }

    fn message(&self) -> Message<'_> {
        Message { timestamp_ms: self.timestamp_ms, key: &self.key, value: &self.value }
    }

    pub(super) fn record(&self) -> Record<'_> {
        Record {
            timestamp_ms: self.timestamp_ms,
            messages: self.owner.messages(),
            key: &self.key,
            value: &self.value,
        }
    }

    /// Hands it to the producer, past all that waits; the same one if that does not take it.
    pub(super) fn send_by(
        self,
        send: impl FnOnce(Origin, &Message<'_>) -> Result<(), Refusal>,
    ) -> Result<(), Self> {
        match send(self.owner.in_memory(), &self.message()) {
            Ok(()) => self.owner.hand_over(),
            Err(Refusal::Never) => self.owner.reject(),
            Err(_) => return Err(self),
        }
        Ok(())
    }
}

/// The part of a backlog that is in memory, oldest first.
pub(super) struct Buffer<T> {
    waiting: VecDeque<(Instant, QueuedMessage<T>)>,
    bytes: usize,
    max_bytes: usize,
    max_messages: usize,
}

impl<T: Owner> Buffer<T> {
    pub(super) const fn new(max_bytes: usize, max_messages: usize) -> Self {
        Self { waiting: VecDeque::new(), bytes: 0, max_bytes, max_messages }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Appends a message.
    ///
    /// # Errors
    /// The same message, if there is no room.
    pub(super) fn push(
        &mut self,
        queued: QueuedMessage<T>,
        now: Instant,
    ) -> Result<(), QueuedMessage<T>> {
        let bytes = self.bytes + queued.size();
        if bytes > self.max_bytes || self.waiting.len() >= self.max_messages {
            return Err(queued);
        }
        self.bytes = bytes;
        self.waiting.push_back((now, queued));
        Ok(())
    }

    /// Inserts a message by its timestamp, and drops the oldest ones for it where there is no room;
    /// how many. A message that is larger than the buffer is kept, alone.
    pub(super) fn insert_for_oldest(&mut self, queued: QueuedMessage<T>, now: Instant) -> u64 {
        let place = self.waiting.partition_point(|(_, w)| w.timestamp_ms <= queued.timestamp_ms);
        self.bytes += queued.size();
        self.waiting.insert(place, (now, queued));
        let mut dropped = 0;
        while self.len() > self.max_messages || self.bytes > self.max_bytes && self.len() > 1 {
            drop(self.pop());
            dropped += 1;
        }
        dropped
    }

    fn pop(&mut self) -> Option<QueuedMessage<T>> {
        let (_, queued) = self.waiting.pop_front()?;
        self.bytes -= queued.size();
        Some(queued)
    }

    /// Takes the oldest out if it has waited for as long as `age`.
    pub(super) fn pop_older(&mut self, age: Duration, now: Instant) -> Option<QueuedMessage<T>> {
        let (since, _) = self.waiting.front()?;
        if now.saturating_duration_since(*since) < age {
            return None;
        }
        self.pop()
    }

    pub(super) fn take_all(&mut self) -> VecDeque<QueuedMessage<T>> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting).into_iter().map(|(_, queued)| queued).collect()
    }
}

/// The messages that wait for the producer.
pub(super) enum Backlog<T> {
    /// In memory.
    Memory(Buffer<T>),
    /// In a spool.
    Disk(Box<Spool>),
}

/// The outcome of a [`Backlog::drain`].
#[derive(Debug, Default)]
pub(super) struct DrainOutcome {
    /// Messages that were handed over, or rejected.
    pub(super) taken: usize,
    pub(super) rejected: usize,
    /// The reason why the producer took no more, if it did not.
    pub(super) refusal: Option<Refusal>,
}

impl<T: Owner> Backlog<T> {
    /// The next message to send. On disk there may be none though some wait: see [`Spool::peek`].
    fn peek(&mut self) -> Option<(Origin, u32, Message<'_>)> {
        match self {
            Self::Memory(buffer) => {
                let (_, queued) = buffer.waiting.front()?;
                Some((queued.owner.in_memory(), T::SCHEMA_VERSION, queued.message()))
            }
            Self::Disk(spool) => {
                let entry = spool.peek()?;
                let Record { timestamp_ms, key, value, .. } = entry.record;
                let message = Message { timestamp_ms, key, value };
                Some((T::on_disk(entry.id), entry.schema_version, message))
            }
        }
    }

    pub(super) fn has_next(&mut self) -> bool {
        self.peek().is_some()
    }

    /// Hands up to `limit` messages to `send`, oldest first, until that refuses one.
    pub(super) fn drain(
        &mut self,
        limit: usize,
        mut send: impl FnMut(Origin, u32, &Message<'_>) -> Result<(), Refusal>,
    ) -> DrainOutcome {
        let mut drained = DrainOutcome::default();
        while drained.taken < limit
            && let Some((origin, version, message)) = self.peek()
        {
            match send(origin, version, &message) {
                Ok(()) => self.take_next(false),
                Err(Refusal::Never) => {
                    self.take_next(true);
                    drained.rejected += 1;
                }
                Err(refusal) => {
                    drained.refusal = Some(refusal);
                    break;
                }
            }
            drained.taken += 1;
        }
        drained
    }

    fn take_next(&mut self, is_rejected: bool) {
        match self {
            Self::Memory(buffer) => match buffer.pop() {
                Some(queued) if is_rejected => queued.owner.reject(),
                Some(queued) => queued.owner.hand_over(),
                None => {}
            },
            Self::Disk(spool) => {
                let id = spool.mark_sent();
                id.filter(|_| is_rejected).into_iter().for_each(|id| spool.reject(id));
            }
        }
    }

    /// True once all that waited was handed over, and none is to be sent again.
    pub(super) fn is_drained(&self) -> bool {
        match self {
            Self::Memory(buffer) => buffer.len() == 0,
            Self::Disk(spool) => spool.is_read(),
        }
    }

    /// Entries on disk that were sent and not reported on.
    pub(super) fn sent(&self) -> usize {
        match self {
            Self::Memory(_) => 0,
            Self::Disk(spool) => spool.sent(),
        }
    }

    /// Messages that are not known to have arrived, those in memory that the producer has left out.
    pub(super) fn waiting(&self) -> u64 {
        match self {
            Self::Memory(buffer) => buffer.len() as u64,
            Self::Disk(spool) => spool.held().records,
        }
    }
}

/// Moves the oldest of `records` to the spool, a piece that others may wait for.
///
/// # Errors
/// When the spool cannot be written to; all records are as they were.
pub(super) fn move_piece(
    records: &mut VecDeque<QueuedMessage<Flight>>,
    spool: &mut Spool,
    accounts: &Accounts,
    now_ms: i64,
) -> Result<(), AppendError> {
    let mut bytes = 0;
    let fits = records.iter().take_while(|record| {
        let fits = bytes < PIECE_BYTES;
        bytes += record.size();
        fits
    });
    let count = fits.count();
    let piece = &records.make_contiguous()[..count];
    spool.append(piece.iter().map(QueuedMessage::record), now_ms)?;
    accounts.requeue(records.drain(..count).map(|record| record.owner), spool);
    Ok(())
}
