//! Encoded records on their way to a sink.

use super::{Encode, Error, Key, Record};

/// What a sink gives for a batch that is announced to it, and finds on the batch when it gets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowSlot(pub u8);

/// One record of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where the record ends in the batch's bytes.
    end: usize,
    /// Where its key ends among the keys.
    key_end: usize,
    /// When the transaction began, milliseconds since 1970 UTC: the Kafka timestamp.
    pub timestamp_ms: i64,
    /// When its response was captured, nanoseconds of the clock that packets are stamped by; 0
    /// without one.
    pub answered_at_ns: u64,
    /// Messages that the record stands for.
    pub messages: u32,
}

/// Records of one format, back to back in one buffer that is used again.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    key: Key,
    /// The keys, back to back.
    keys: Vec<u8>,
    slot: WindowSlot,
    /// Bytes of the longest record with its key.
    longest: usize,
}

impl Batch {
    /// An empty batch whose records have such keys.
    #[must_use]
    pub fn keyed(key: Key) -> Self {
        Self { key, ..Self::default() }
    }

    /// Appends a record.
    ///
    /// # Errors
    /// Those of the encoder; the batch is then as it was.
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

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.keys.clear();
        self.longest = 0;
    }

    /// Appends the records of another batch, which are keyed alike; its slot stays with it.
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

    /// Bytes that the batch has memory for.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Puts what the sink gave for it on the batch.
    pub const fn set_slot(&mut self, slot: WindowSlot) {
        self.slot = slot;
    }

    /// What the sink gave for it.
    #[must_use]
    pub const fn slot(&self) -> WindowSlot {
        self.slot
    }

    /// Bytes of the longest record with its key.
    #[must_use]
    pub const fn longest(&self) -> usize {
        self.longest
    }

    /// The records that take at most `bytes` with their keys.
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

    /// True without records.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Number of records, as an index behind the last one.
    #[must_use]
    pub const fn entries(&self) -> usize {
        self.entries.len()
    }

    /// Number of records.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Messages that the records stand for.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.entries.iter().map(|entry| u64::from(entry.messages)).sum()
    }

    /// All records, back to back.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where the first so many records end in [`bytes`](Self::bytes).
    #[must_use]
    pub fn end_of(&self, records: usize) -> usize {
        let last = records.checked_sub(1).and_then(|index| self.entries.get(index));
        last.map_or(0, |entry| entry.end)
    }

    /// Each record's bytes and what is known of it, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Entry)> + Clone {
        let mut start = 0;
        self.entries.iter().map(move |entry| {
            let bytes = &self.bytes[start..entry.end];
            start = entry.end;
            (bytes, *entry)
        })
    }

    /// Each record's [`Entry::answered_at_ns`], in order.
    pub fn answered_at_ns(&self) -> impl Iterator<Item = u64> {
        self.entries.iter().map(|entry| entry.answered_at_ns)
    }

    /// Each record's key, which may be empty, its bytes, and what is known of it, in order.
    pub fn iter_keyed(&self) -> impl Iterator<Item = (&[u8], &[u8], Entry)> + Clone {
        let mut key_start = 0;
        self.iter().map(move |(bytes, entry)| {
            let key = &self.keys[key_start..entry.key_end];
            key_start = entry.key_end;
            (key, bytes, entry)
        })
    }
}
