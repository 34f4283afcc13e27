//! The file that says which entries have left the queue.

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
    segment::{HEADER_BYTES, Place, frame, u32_at, u64_at, unframe},
};

const HISTORY_MAGIC: [u8; 8] = *b"tap53his";
const HISTORY_VERSION: u16 = 1;
/// Magic, version, length and checksum, a place, and an amount for each reason.
const HISTORY_BYTES: usize = 32 + 16 * Loss::ALL.len();
const HISTORY_LENGTH: [u8; 2] = 96u16.to_le_bytes();
const _: () = assert!(u16::from_le_bytes(HISTORY_LENGTH) as usize == HISTORY_BYTES);

const MAGIC: [u8; 8] = *b"tap53ack";
const NAME: &str = "acknowledged";
const NEW_NAME: &str = "acknowledged.new";

/// What a checkpoint says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// All entries before it have left.
    pub(super) done: Place,
    /// Where the next record was to go.
    pub(super) end: Place,
    /// What is known of all before `done`; `None` if it cannot be read.
    pub(super) history: Option<History>,
}

impl Checkpoint {
    /// The checkpoint of a directory; `None` if there is none that is whole.
    ///
    /// # Errors
    /// [`Error::Version`], and what the file system says.
    pub(super) fn read(directory: &Path) -> Result<Option<Self>, Error> {
        let path = directory.join(NAME);
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        let file = match read_own(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(Error::Io { action: "open", path, cause }),
        };
        // Longer ones are of another version; no more than a page of them is looked at.
        file.take(4096).read_to_end(&mut bytes).map_err(Error::io("read", &path))?;
        let Some(fields) = unframe(MAGIC, &path, &bytes)? else { return Ok(None) };
        let place = |at| Place { id: u64_at(fields, at), messages: u64_at(fields, at + 8) };
        let (done, end) = (place(0), place(16));
        // It was whole when it was written, so this is a defect; as good as damaged.
        let history = read_history(&bytes);
        Ok((done <= end).then_some(Self { done, end, history }))
    }

    /// Replaces the checkpoint of a directory, whole or not at all.
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
        let mut bytes = frame(MAGIC, &fields).to_vec();
        push_history(&mut bytes, &self.history.unwrap_or_default());
        file.write_all(&bytes).map_err(Error::io("write", &new))?;
        if sync {
            file.sync_data().map_err(Error::io("sync", &new))?;
        }
        fs::rename(&new, &path).map_err(Error::io("rename", &new))
    }
}

/// Appends the history to the bytes of a checkpoint, whose checksum it continues: neither passes for
/// a part of another one.
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

/// The history after a checkpoint. There is none where a version before it wrote the file, and one
/// of another version is none either: it is not worth refusing the queue for.
fn read_history(bytes: &[u8]) -> Option<History> {
    let (checkpoint, history) = bytes.split_at_checked(HEADER_BYTES)?;
    let history = history.get(..HISTORY_BYTES)?;
    let is_whole = history[..8] == HISTORY_MAGIC
        && history[8..10] == HISTORY_VERSION.to_le_bytes()
        && history[10..12] == HISTORY_LENGTH
        && u32_at(history, 12) == history_crc(checkpoint, history);
    is_whole.then(|| History {
        from: Place { id: u64_at(history, 16), messages: u64_at(history, 24) },
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
