//! Batches of encoded records for a sink.

use super::{Encode, Error, Key, Record};

/// A number that a sink assigns when a batch is announced, and reads when it receives the batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowSlot(pub u8);

/// One record of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// End of the record in the batch's bytes.
    end: usize,
    /// End of its key in the keys.
    key_end: usize,
    /// Start of the transaction in milliseconds since 1970 UTC: the Kafka timestamp.
    pub timestamp_ms: i64,
    /// Capture time of its response in nanoseconds of the packets' clock; 0 without a response.
    pub answered_at_ns: u64,
    /// Number of messages that the record stands for.
    pub messages: u32,
}

/// Records of one format, back to back in one buffer that is reused.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    key: Key,
    /// The keys, back to back.
    keys: Vec<u8>,
    slot: WindowSlot,
    /// Maximum size of a record with its key, in bytes.
    longest: usize,
}

impl Batch {
    /// Creates an empty batch whose records have keys of this kind.
    #[must_use]
    pub fn keyed(key: Key) -> Self {
        Self { key, ..Self::default() }
    }

    /// Appends a record.
    ///
    /// # Errors
    /// Returns the error of the encoder; the batch is unchanged then.
    pub fn push(&mut self, encoder: &mut dyn Encode, record: &Record<'_>) -> Result<(), Error> {
        let before = self.bytes.len() + self.keys.len();
        encoder.encode(record, &mut self.bytes)?;
        record.push_key(self.key, &mut self.keys);
        self.longest = self.longest.max(self.bytes.len() + self.keys.len() - before);
        self.entries.push(Entry {
            end: self.bytes.len(),
            key_end: self.keys.len(),
            timestamp_ms: record.timestamp_ms(),
            answered_at_ns: record.transaction.response().map_or(0, |response| response.at_ns),
            messages: record.transaction.messages(),
        });
        Ok(())
    }

    /// Returns the last record.
    #[inline]
    #[must_use]
    pub fn last(&self) -> Option<&[u8]> {
        let (_, before) = self.entries.split_last()?;
        self.bytes.get(before.last().map_or(0, |entry| entry.end)..)
    }

    /// Empties the batch but keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.keys.clear();
        self.longest = 0;
    }

    /// Appends the records of another batch with the same kind of keys, but not its slot.
    pub fn append(&mut self, other: &Self) {
        let (bytes, keys) = (self.bytes.len(), self.keys.len());
        self.bytes.extend_from_slice(&other.bytes);
        self.keys.extend_from_slice(&other.keys);
        self.entries.extend(other.entries.iter().map(|entry| Entry {
            end: entry.end + bytes,
            key_end: entry.key_end + keys,
            ..*entry
        }));
    }

    /// Returns the capacity of the batch's buffer in bytes.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Stores the slot that the sink has assigned.
    pub const fn set_slot(&mut self, slot: WindowSlot) {
        self.slot = slot;
    }

    /// Returns the slot that the sink has assigned.
    #[must_use]
    pub const fn slot(&self) -> WindowSlot {
        self.slot
    }

    /// Returns the maximum size of a record with its key, in bytes.
    #[must_use]
    pub const fn longest(&self) -> usize {
        self.longest
    }

    /// Returns a batch of the records that take at most `bytes` with their keys.
    #[must_use]
    pub fn up_to(&self, bytes: usize) -> Self {
        let mut rest = Self { key: self.key, slot: self.slot, ..Self::default() };
        for (key, value, entry) in self.iter_keyed() {
            let length = key.len() + value.len();
            if length <= bytes {
                rest.bytes.extend_from_slice(value);
                rest.keys.extend_from_slice(key);
                rest.longest = rest.longest.max(length);
                let (end, key_end) = (rest.bytes.len(), rest.keys.len());
                rest.entries.push(Entry { end, key_end, ..entry });
            }
        }
        rest
    }

    /// Returns true if the batch has no records.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the number of records, as an index after the last one.
    #[must_use]
    pub const fn entries(&self) -> usize {
        self.entries.len()
    }

    /// Returns the number of records.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Returns the number of messages that the records stand for.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.entries.iter().map(|entry| u64::from(entry.messages)).sum()
    }

    /// Returns all records, back to back.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the end of the first `records` records in [`bytes`](Self::bytes).
    #[must_use]
    pub fn end_of(&self, records: usize) -> usize {
        let last = records.checked_sub(1).and_then(|index| self.entries.get(index));
        last.map_or(0, |entry| entry.end)
    }

    /// Iterates over the records' bytes and entries.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Entry)> + Clone {
        let mut start = 0;
        self.entries.iter().map(move |entry| {
            let bytes = &self.bytes[start..entry.end];
            start = entry.end;
            (bytes, *entry)
        })
    }

    /// Iterates over the records' [`Entry::answered_at_ns`].
    pub fn answered_at_ns(&self) -> impl Iterator<Item = u64> {
        self.entries.iter().map(|entry| entry.answered_at_ns)
    }

    /// Iterates over the records' keys, which may be empty, their bytes and their entries.
    pub fn iter_keyed(&self) -> impl Iterator<Item = (&[u8], &[u8], Entry)> + Clone {
        let mut key_start = 0;
        self.iter().map(move |(bytes, entry)| {
            let key = &self.keys[key_start..entry.key_end];
            key_start = entry.key_end;
            (key, bytes, entry)
        })
    }
}
