//! Inspects a queue without opening it, for people, also while the agent runs.

use std::path::{Path, PathBuf};

use tap53_base::amount::Amount;

use super::{
    directory::{self, Segment, start},
    error::Error,
    loss::{History, Totals},
    segment::{Entry, Position},
};

/// The content of a directory.
#[derive(Debug)]
pub struct Contents {
    segments: Vec<Segment>,
    done: Position,
    end: Position,
    history: History,
    torn_bytes: u64,
}

/// A segment in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its file.
    pub path: PathBuf,
    /// Id of its first record.
    pub first_id: u64,
    /// Records in it, readable or not, and the messages that they stand for.
    pub amount: Amount,
    /// Number of its records that are neither acknowledged nor lost.
    pub waiting: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// Creation time in milliseconds since 1970 UTC; `None` if its header cannot be read.
    pub created_at_ms: Option<i64>,
}

/// The result of reading a whole queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Whole records, waiting or not.
    pub readable: Amount,
    /// Readable records that are neither acknowledged nor lost.
    pub waiting: Amount,
    /// Records that wait and cannot be read.
    pub unreadable: Amount,
}

/// Scans a directory. It takes as long as opening the queue, and needs no lock.
///
/// # Errors
/// See [`Error`].
pub fn contents(directory: &Path) -> Result<Contents, Error> {
    let scan = directory::scan(directory)?;
    let directory::Scan { segments, done, end, history, torn_bytes, .. } = scan;
    Ok(Contents { segments: segments.into(), done, end, history, torn_bytes })
}

impl Contents {
    /// Returns the segments, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Listed> {
        let mut rows = Vec::with_capacity(self.segments.len());
        for (index, segment) in self.segments.iter().enumerate() {
            let after = self.after(index);
            rows.push(Listed {
                path: segment.path.clone(),
                first_id: segment.first.id,
                amount: Amount {
                    records: after.id.saturating_sub(segment.first.id),
                    messages: after.messages.saturating_sub(segment.first.messages),
                },
                waiting: after.id.saturating_sub(segment.first.id.max(self.done.id)),
                bytes: segment.length,
                created_at_ms: (segment.created_at_ms != i64::MAX).then_some(segment.created_at_ms),
            });
        }
        rows
    }

    /// Returns the id below which all records have left the queue.
    #[must_use]
    pub const fn acknowledged_id(&self) -> u64 {
        self.done.id
    }

    /// Returns the records that are neither acknowledged nor lost.
    #[must_use]
    pub const fn waiting(&self) -> Amount {
        Amount {
            records: self.end.id.saturating_sub(self.done.id),
            messages: self.end.messages.saturating_sub(self.done.messages),
        }
    }

    /// Returns the totals of all records that ever were in the queue, as of the last checkpoint.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals::new(&self.history, self.end, self.waiting())
    }

    /// Returns the number of bytes after the last whole record: those of an incomplete append.
    #[must_use]
    pub const fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }

    /// Reads all segments, and passes each whole record that waits to `visit`.
    ///
    /// # Errors
    /// Fails if a segment cannot be opened or `visit` fails.
    pub fn read<E: From<Error>>(
        &self,
        mut visit: impl FnMut(&Entry<'_>) -> Result<(), E>,
    ) -> Result<Reading, E> {
        let mut reading = Reading::default();
        for (index, segment) in self.segments.iter().enumerate() {
            let after = self.after(index);
            let mut reader = segment.reader().map_err(Error::io("open", &segment.path))?;
            let (mut offset, mut id) = (start(), segment.first.id);
            // An error of the disk ends the readable part of a segment.
            while let Ok(Some(found)) = reader.find(offset, segment.length, id..after.id) {
                let entry = reader.entry(&found).map_err(Error::io("read", &segment.path))?;
                let amount = Amount::record(u64::from(entry.record.messages));
                reading.readable += amount;
                if entry.id >= self.done.id {
                    reading.waiting += amount;
                    visit(&entry)?;
                }
                offset = found.end();
                id = entry.id + 1;
            }
        }
        let waiting = self.waiting();
        reading.unreadable = Amount {
            records: waiting.records.saturating_sub(reading.waiting.records),
            messages: waiting.messages.saturating_sub(reading.waiting.messages),
        };
        Ok(reading)
    }

    fn after(&self, index: usize) -> Position {
        self.segments.get(index + 1).map_or(self.end, |next| next.first)
    }
}
