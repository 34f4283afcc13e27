//! The bounded queue of messages that wait for the producer, in memory or on disk: records, and in
//! a queue of their own the summaries of the ledger.
//!
//! - **On disk** an entry stays until its delivery report acknowledges it, and is sent again after
//!   any other report.
//! - **In memory** a message leaves when the producer accepts it, which has copied it: both would
//!   need twice the memory. It returns if its delivery report is a failure.

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

/// The approximate size of what is appended to the spool at once, as with the workers' batches: so
/// the spool stays within its limit, and the backlog is unlocked in between.
const PIECE_BYTES: usize = 1 << 20;

/// The guard of a waiting message.
pub(super) trait Owner {
    /// The version of the schema of messages in memory.
    const SCHEMA_VERSION: u32;

    /// Returns the number of DNS messages in it.
    fn messages(&self) -> u32;

    fn in_memory(&self) -> Origin;

    /// Returns the origin of the entry with this id on disk.
    fn on_disk(id: u64) -> Origin;

    /// The producer has accepted the message.
    fn hand_over(self);

    /// The producer can never accept it.
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

/// A message in memory, with its guard.
pub(super) struct QueuedMessage<T> {
    pub(super) owner: T,
    pub(super) timestamp_ms: i64,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

impl<T: Owner> QueuedMessage<T> {
    pub(super) fn new(owner: T, message: &Message<'_>) -> Self {
        let Message { timestamp_ms, key, value } = *message;
        Self { owner, timestamp_ms, key: key.to_vec(), value: value.to_vec() }
    }

    /// Returns the approximate number of bytes that a message takes in memory.
    const fn size_of(message: &Message<'_>) -> usize {
        size_of::<Self>() + message.key.len() + message.value.len()
    }

    fn size(&self) -> usize {
        Self::size_of(&self.message())
    }

    pub(super) fn message(&self) -> Message<'_> {
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

    pub(super) fn has_room(&self, message: &Message<'_>) -> bool {
        self.len() < self.max_messages
            && self.bytes + QueuedMessage::<T>::size_of(message) <= self.max_bytes
    }

    /// Appends a message, which there is room for.
    pub(super) fn push(&mut self, queued: QueuedMessage<T>, now: Instant) {
        self.bytes += queued.size();
        self.waiting.push_back((now, queued));
    }

    /// Inserts a message by its timestamp, drops the oldest ones if there is no room, and returns
    /// their number. A message that is larger than the buffer is kept, alone.
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

    /// Removes the oldest message if it has waited for at least `age`.
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

pub(super) enum Backlog<T> {
    Memory(Buffer<T>),
    Disk(Box<Spool>),
}

#[derive(Debug, Default)]
pub(super) struct DrainOutcome {
    /// The number of messages that were handed over or rejected.
    pub(super) taken: usize,
    pub(super) rejected: usize,
    /// The reason why the producer took no more.
    pub(super) refusal: Option<Refusal>,
}

impl<T: Owner> Backlog<T> {
    /// Returns the next message to send. On disk there may be none although some wait: see
    /// [`Spool::peek`].
    pub(super) fn peek(&mut self) -> Option<(Origin, u32, Message<'_>)> {
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

    /// Hands up to `limit` messages to `send`, oldest first, until it refuses one.
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

    /// True once the producer has everything, and nothing must be sent again.
    pub(super) fn is_drained(&self) -> bool {
        match self {
            Self::Memory(buffer) => buffer.len() == 0,
            Self::Disk(spool) => spool.is_read(),
        }
    }

    /// Returns the number of entries on disk that were sent and have no delivery report yet.
    pub(super) fn sent(&self) -> usize {
        match self {
            Self::Memory(_) => 0,
            Self::Disk(spool) => spool.sent(),
        }
    }

    /// Returns the number of messages that are not acknowledged, without those in memory that the
    /// producer has.
    pub(super) fn waiting(&self) -> u64 {
        match self {
            Self::Memory(buffer) => buffer.len() as u64,
            Self::Disk(spool) => spool.held().records,
        }
    }
}

/// Moves about [`PIECE_BYTES`] of the oldest `records` to the spool; none if that fails.
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
