//! The checkpoint file, which stores the entries that have left the queue.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use tap53_base::{
    amount::Amount,
    files::{open_own, read_own},
};

use super::{
    error::Error,
    loss::{History, Loss},
    segment::{HEADER_BYTES, Position, decode_frame, encode_frame, u32_at, u64_at},
};

const HISTORY_MAGIC: [u8; 8] = *b"tap53his";
const HISTORY_VERSION: u16 = 1;
/// Magic, version, length and checksum, a position, and an amount per reason.
const HISTORY_BYTES: usize = 32 + 16 * Loss::ALL.len();
const HISTORY_LENGTH: [u8; 2] = 96u16.to_le_bytes();
const _: () = assert!(u16::from_le_bytes(HISTORY_LENGTH) as usize == HISTORY_BYTES);

const MAGIC: [u8; 8] = *b"tap53ack";
const NAME: &str = "acknowledged";
const NEW_NAME: &str = "acknowledged.new";

/// The content of a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// All entries before this position have left the queue.
    pub(super) done: Position,
    /// Position of the next record when the checkpoint was written.
    pub(super) end: Position,
    /// Totals of all records before `done`; `None` if they cannot be read.
    pub(super) history: Option<History>,
}

impl Checkpoint {
    /// Reads the checkpoint of a directory. Returns `None` if there is no valid one.
    ///
    /// # Errors
    /// Returns [`Error::Version`], or the error of the file system.
    pub(super) fn read(directory: &Path) -> Result<Option<Self>, Error> {
        let path = directory.join(NAME);
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        let file = match read_own(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(Error::Io { action: "open", path, cause }),
        };
        // A longer file is of another version; read no more than a page of it.
        file.take(4096).read_to_end(&mut bytes).map_err(Error::io("read", &path))?;
        let Some(fields) = decode_frame(MAGIC, &path, &bytes)? else { return Ok(None) };
        let position = |at| Position { id: u64_at(fields, at), messages: u64_at(fields, at + 8) };
        let (done, end) = (position(0), position(16));
        // The checksum of the file is valid, so this would be a defect; treat it like damage.
        let history = read_history(&bytes);
        Ok((done <= end).then_some(Self { done, end, history }))
    }

    /// Replaces the checkpoint of a directory atomically.
    pub(super) fn write(&self, directory: &Path, sync: bool) -> Result<(), Error> {
        let mut fields = [0; HEADER_BYTES - 16];
        fields[0..8].copy_from_slice(&self.done.id.to_le_bytes());
        fields[8..16].copy_from_slice(&self.done.messages.to_le_bytes());
        fields[16..24].copy_from_slice(&self.end.id.to_le_bytes());
        fields[24..32].copy_from_slice(&self.end.messages.to_le_bytes());
        let (path, new) = (directory.join(NAME), directory.join(NEW_NAME));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = open_own(&new, &mut options).map_err(Error::io("create", &new))?;
        let mut bytes = encode_frame(MAGIC, &fields).to_vec();
        push_history(&mut bytes, &self.history.unwrap_or_default());
        file.write_all(&bytes).map_err(Error::io("write", &new))?;
        if sync {
            file.sync_data().map_err(Error::io("sync", &new))?;
        }
        fs::rename(&new, &path).map_err(Error::io("rename", &new))
    }
}

/// Appends the history to the bytes of a checkpoint. Its checksum also covers these bytes, so that
/// it cannot be combined with another checkpoint.
fn push_history(bytes: &mut Vec<u8>, history: &History) {
    let start = bytes.len();
    bytes.extend_from_slice(&HISTORY_MAGIC);
    bytes.extend_from_slice(&HISTORY_VERSION.to_le_bytes());
    bytes.extend_from_slice(&HISTORY_LENGTH);
    bytes.extend_from_slice(&[0; 4]);
    for number in [history.from.id, history.from.messages] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for amount in history.lost {
        bytes.extend_from_slice(&amount.records.to_le_bytes());
        bytes.extend_from_slice(&amount.messages.to_le_bytes());
    }
    let crc = history_crc(&bytes[..start], &bytes[start..]);
    bytes[start + 12..start + 16].copy_from_slice(&crc.to_le_bytes());
}

/// Reads the history after a checkpoint. Returns `None` if an older version wrote the file. A
/// history of another version is ignored too: it is no reason to refuse the queue.
fn read_history(bytes: &[u8]) -> Option<History> {
    let (checkpoint, history) = bytes.split_at_checked(HEADER_BYTES)?;
    let history = history.get(..HISTORY_BYTES)?;
    let is_whole = history[..8] == HISTORY_MAGIC
        && history[8..10] == HISTORY_VERSION.to_le_bytes()
        && history[10..12] == HISTORY_LENGTH
        && u32_at(history, 12) == history_crc(checkpoint, history);
    is_whole.then(|| History {
        from: Position { id: u64_at(history, 16), messages: u64_at(history, 24) },
        lost: Loss::ALL.map(|reason| {
            let at = 32 + 16 * reason as usize;
            Amount { records: u64_at(history, at), messages: u64_at(history, at + 8) }
        }),
    })
}

fn history_crc(checkpoint: &[u8], history: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(checkpoint), &history[..12]);
    crc32c::crc32c_append(crc, &history[16..])
}
