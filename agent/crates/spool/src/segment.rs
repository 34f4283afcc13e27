//! Encoding of a segment: its name, its header and its entries.

use tap53_base::amount::Amount;

use super::error::Error;
use std::path::Path;

/// Version of the format that this program writes and reads.
pub(super) const VERSION: u16 = 1;

/// Size of a segment's header, and of a checkpoint's first part, in bytes.
pub(super) const HEADER_BYTES: usize = 48;
const HEADER_LENGTH: [u8; 2] = 48u16.to_le_bytes();
const _: () = assert!(u16::from_le_bytes(HEADER_LENGTH) as usize == HEADER_BYTES);

/// Size of an entry's header in bytes.
pub(super) const ENTRY_BYTES: usize = 52;

/// Maximum size of key and value together in bytes. Brokers accept 1 MiB by default; the limit
/// keeps a damaged length field from causing an allocation of gigabytes.
pub(super) const MAX_ENTRY_BYTES: usize = 16 << 20;

const MAGIC: [u8; 8] = *b"tap53spl";
const SUFFIX: &str = ".seg";

/// Name of a segment: the id of its first record, and its salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) first_id: u64,
    pub(super) salt: u32,
}

impl Name {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (first_id, salt) = text.strip_suffix(SUFFIX)?.split_once('-')?;
        let digits = |text: &str, count| {
            let lower = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
            text.len() == count && text.as_bytes().iter().all(lower)
        };
        (digits(first_id, 16) && digits(salt, 8)).then_some(())?;
        Some(Self {
            first_id: u64::from_str_radix(first_id, 16).ok()?,
            salt: u32::from_str_radix(salt, 16).ok()?,
        })
    }

    /// Returns the start value of the checksum of each entry's header.
    pub(super) fn seed(self) -> u32 {
        crc32c::crc32c(&self.salt.to_le_bytes())
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}-{:08x}{SUFFIX}", self.first_id, self.salt)
    }
}

/// A position between two records: the id of the next one, and the number of messages before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) id: u64,
    pub(super) messages: u64,
}

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) first: Position,
    pub(super) created_at_ms: i64,
    pub(super) schema_version: u32,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut fields = [0; HEADER_BYTES - 16];
        fields[0..8].copy_from_slice(&self.first.id.to_le_bytes());
        fields[8..16].copy_from_slice(&self.first.messages.to_le_bytes());
        fields[16..24].copy_from_slice(&self.created_at_ms.to_le_bytes());
        fields[24..28].copy_from_slice(&self.schema_version.to_le_bytes());
        encode_frame(MAGIC, &fields)
    }

    /// Decodes a header; returns `None` if it is damaged.
    ///
    /// # Errors
    /// Returns [`Error::Version`] for a valid header of another version.
    pub(super) fn decode(path: &Path, bytes: &[u8]) -> Result<Option<Self>, Error> {
        let Some(fields) = decode_frame(MAGIC, path, bytes)? else { return Ok(None) };
        Ok(Some(Self {
            first: Position { id: u64_at(fields, 0), messages: u64_at(fields, 8) },
            created_at_ms: u64_at(fields, 16).cast_signed(),
            schema_version: u32_at(fields, 24),
        }))
    }
}

/// Prepends magic, version, length and checksum to `fields`.
pub(super) fn encode_frame(magic: [u8; 8], fields: &[u8; HEADER_BYTES - 16]) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[0..8].copy_from_slice(&magic);
    bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
    bytes[10..12].copy_from_slice(&HEADER_LENGTH);
    bytes[16..].copy_from_slice(fields);
    let crc = frame_crc(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Returns the fields of a frame; `None` if it is damaged.
///
/// # Errors
/// Returns [`Error::Version`] for a valid frame of another version. Its length field states how
/// many bytes the checksum covers, so that it can be distinguished from a damaged one.
pub(super) fn decode_frame<'a>(
    magic: [u8; 8],
    path: &Path,
    bytes: &'a [u8],
) -> Result<Option<&'a [u8]>, Error> {
    if bytes.len() < HEADER_BYTES || bytes[0..8] != magic {
        return Ok(None);
    }
    let version = u16::from_le_bytes([bytes[8], bytes[9]]);
    let length = usize::from(u16::from_le_bytes([bytes[10], bytes[11]]));
    let Some(whole) = bytes.get(..length).filter(|whole| whole.len() >= 16) else {
        return Ok(None);
    };
    if u32_at(bytes, 12) != frame_crc(whole) {
        return Ok(None);
    }
    if version != VERSION || length != HEADER_BYTES {
        return Err(Error::Version { path: path.to_owned(), version });
    }
    Ok(Some(&bytes[16..HEADER_BYTES]))
}

fn frame_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..])
}

/// A record to be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The Kafka timestamp in milliseconds since 1970 UTC.
    pub timestamp_ms: i64,
    /// Number of messages that the record stands for.
    pub messages: u32,
    /// The Kafka key; empty if there is none.
    pub key: &'a [u8],
    /// The Kafka value.
    pub value: &'a [u8],
}

/// A record in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its id, one more than that of the previous record.
    pub id: u64,
    /// Time of the append in milliseconds since 1970 UTC.
    pub appended_at_ms: i64,
    /// Version of its schema; zero if the segment's header cannot be read.
    pub schema_version: u32,
    /// The record.
    pub record: Record<'a>,
}

/// The header of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryHeader {
    pub(super) position: Position,
    pub(super) appended_at_ms: i64,
    pub(super) timestamp_ms: i64,
    pub(super) messages: u32,
    pub(super) length: usize,
    pub(super) key_length: usize,
    body_crc: u32,
}

impl EntryHeader {
    /// Decodes the header at the start of `bytes`; returns `None` if there is no valid one.
    pub(super) fn decode(seed: u32, bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; ENTRY_BYTES] = bytes.first_chunk()?;
        let (length, key_length) = (u32_at(bytes, 0) as usize, u32_at(bytes, 4) as usize);
        // This cheap check rejects most offsets of a damaged range.
        if length > MAX_ENTRY_BYTES || key_length > length {
            return None;
        }
        if u32_at(bytes, 48) != crc32c::crc32c_append(seed, &bytes[..48]) {
            return None;
        }
        Some(Self {
            position: Position { id: u64_at(bytes, 8), messages: u64_at(bytes, 16) },
            appended_at_ms: u64_at(bytes, 24).cast_signed(),
            timestamp_ms: u64_at(bytes, 32).cast_signed(),
            messages: u32_at(bytes, 40),
            length,
            key_length,
            body_crc: u32_at(bytes, 44),
        })
    }

    /// Returns the size of the whole entry in bytes.
    pub(super) const fn size(&self) -> u64 {
        (ENTRY_BYTES + self.length) as u64
    }

    /// Returns the position after the entry.
    pub(super) const fn after(&self) -> Position {
        Position {
            id: self.position.id.saturating_add(1),
            messages: self.position.messages.saturating_add(self.messages as u64),
        }
    }

    pub(super) fn is_body(&self, body: &[u8]) -> bool {
        body.len() == self.length && crc32c::crc32c(body) == self.body_crc
    }

    pub(super) fn entry<'a>(&self, schema_version: u32, body: &'a [u8]) -> Entry<'a> {
        let (key, value) = body.split_at(self.key_length.min(body.len()));
        Entry {
            id: self.position.id,
            appended_at_ms: self.appended_at_ms,
            schema_version,
            record: Record { timestamp_ms: self.timestamp_ms, messages: self.messages, key, value },
        }
    }
}

/// Appends an entry to `out`.
pub(super) fn push_entry(
    out: &mut Vec<u8>,
    seed: u32,
    position: Position,
    appended_at_ms: i64,
    record: &Record<'_>,
) {
    let start = out.len();
    // The queue has checked that it is at most MAX_ENTRY_BYTES.
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
    let body_crc = crc32c::crc32c_append(crc32c::crc32c(record.key), record.value);
    out.extend_from_slice(&length(record.key.len() + record.value.len()));
    out.extend_from_slice(&length(record.key.len()));
    out.extend_from_slice(&position.id.to_le_bytes());
    out.extend_from_slice(&position.messages.to_le_bytes());
    out.extend_from_slice(&appended_at_ms.to_le_bytes());
    out.extend_from_slice(&record.timestamp_ms.to_le_bytes());
    out.extend_from_slice(&record.messages.to_le_bytes());
    out.extend_from_slice(&body_crc.to_le_bytes());
    let crc = crc32c::crc32c_append(seed, &out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(record.key);
    out.extend_from_slice(record.value);
}

/// Reads a little-endian integer; returns zero if `bytes` is too short.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// Reads a little-endian integer; returns zero if `bytes` is too short.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Returns the records and messages between two positions of the queue.
pub(super) fn between(from: Position, to: Position) -> Amount {
    Amount {
        records: to.id.saturating_sub(from.id),
        messages: to.messages.saturating_sub(from.messages),
    }
}
