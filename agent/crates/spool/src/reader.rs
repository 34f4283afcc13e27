//! Reads the whole entries of a segment, and skips everything else.

use std::{fs::File, io, os::unix::fs::FileExt};

use super::segment::{ENTRY_BYTES, Entry, EntryHeader};

/// Number of bytes read at once.
const CHUNK: usize = 256 << 10;

/// Reads the entries of one segment's file.
pub(super) struct Reader {
    file: File,
    seed: u32,
    schema_version: u32,
    buffer: Vec<u8>,
    /// File offset of the buffer.
    buffer_at: u64,
    /// File offset after the whole entries. The bytes after it are of an append in progress or of a
    /// failed one, and must not stay in the buffer.
    limit: u64,
}

/// An entry and its offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) offset: u64,
    pub(super) header: EntryHeader,
}

impl Found {
    /// Returns the offset of the next entry.
    pub(super) const fn end(&self) -> u64 {
        self.offset + self.header.size()
    }
}

impl Reader {
    pub(super) const fn new(file: File, seed: u32, schema_version: u32) -> Self {
        Self { file, seed, schema_version, buffer: Vec::new(), buffer_at: 0, limit: 0 }
    }

    /// Finds the first whole entry at or after `offset`, before `limit`, with an id within `ids`,
    /// and skips what cannot be read.
    pub(super) fn find(
        &mut self,
        mut offset: u64,
        limit: u64,
        ids: std::ops::Range<u64>,
    ) -> io::Result<Option<Found>> {
        self.limit = limit;
        while offset + ENTRY_BYTES as u64 <= limit {
            let seed = self.seed;
            let bytes = self.bytes(offset, ENTRY_BYTES)?;
            if bytes.len() < ENTRY_BYTES {
                // The file was truncated meanwhile.
                return Ok(None);
            }
            let Some(header) = EntryHeader::decode(seed, bytes) else {
                offset += 1;
                continue;
            };
            let found = Found { offset, header };
            if header.position.id >= ids.end {
                return Ok(None);
            }
            if header.position.id >= ids.start && found.end() <= limit {
                let body = self.bytes(offset + ENTRY_BYTES as u64, header.length)?;
                if header.is_body(body) {
                    return Ok(Some(found));
                }
            }
            offset = found.end();
        }
        Ok(None)
    }

    /// Reads a found entry with key and value.
    pub(super) fn entry(&mut self, found: &Found) -> io::Result<Entry<'_>> {
        let schema_version = self.schema_version;
        let at = found.offset + ENTRY_BYTES as u64;
        let body = self.bytes(at, found.header.length)?;
        if body.len() < found.header.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(found.header.entry(schema_version, body))
    }

    /// Returns `length` bytes of the file from `offset` on, or fewer at its end.
    fn bytes(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        let buffered = offset
            .checked_sub(self.buffer_at)
            .and_then(|start| usize::try_from(start).ok())
            .filter(|start| self.buffer.len().saturating_sub(*start) >= length);
        let start = match buffered {
            Some(start) => start,
            None => {
                let ahead = usize::try_from(self.limit.saturating_sub(offset)).unwrap_or(CHUNK);
                self.fill(offset, length.max(ahead.min(CHUNK)))?;
                0
            }
        };
        let end = (start + length).min(self.buffer.len());
        Ok(&self.buffer[start..end])
    }

    fn fill(&mut self, offset: u64, length: usize) -> io::Result<()> {
        self.buffer.resize(length, 0);
        self.buffer_at = offset;
        let mut filled = 0;
        while filled < length {
            match self.file.read_at(&mut self.buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.buffer.clear();
                    return Err(error);
                }
            }
        }
        self.buffer.truncate(filled);
        // One long entry must not enlarge the buffer for good.
        self.buffer.shrink_to(CHUNK);
        Ok(())
    }
}
