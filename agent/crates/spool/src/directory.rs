//! Scans a directory without reading more than one segment of it.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions, TryLockError},
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use tap53_base::files::{check_directory, is_foreign, open_own, read_own};

use super::{
    checkpoint::Checkpoint,
    error::Error,
    loss::{History, Loss},
    reader::Reader,
    segment::{HEADER_BYTES, Header, Name, Position, between},
};

const LOCK: &str = "lock";

/// The file of a segment, as far as it is known without reading it.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) name: Name,
    pub(super) path: PathBuf,
    pub(super) first: Position,
    pub(super) schema_version: u32,
    pub(super) created_at_ms: i64,
    /// Upper bound of the entries' append times; `None` if the start of the next segment gives it.
    pub(super) newest_at_ms: Option<i64>,
    /// Offset of the end of its entries.
    pub(super) length: u64,
}

impl Segment {
    /// Opens the segment for reading.
    pub(super) fn reader(&self) -> std::io::Result<Reader> {
        Ok(Reader::new(read_own(&self.path)?, self.name.seed(), self.schema_version))
    }
}

/// The content of a directory.
#[derive(Debug)]
pub(super) struct Scan {
    /// Oldest first.
    pub(super) segments: VecDeque<Segment>,
    /// All entries before this position have left the queue.
    pub(super) done: Position,
    /// Position of the next record.
    pub(super) end: Position,
    /// Totals of all records before `done`.
    pub(super) history: History,
    /// Number of bytes after the last whole entry of the last segment.
    pub(super) torn_bytes: u64,
    /// Trailing segments without any entry, which are not in `segments`.
    pub(super) empty: Vec<PathBuf>,
}

/// Creates the directory if it is missing, readable only by this user: records show who queried
/// what. A directory in which others can write is refused: they could replace a segment by a link
/// or a pipe.
pub(super) fn create(directory: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(Error::io("create directory", directory))?;
    check_directory(directory).map_err(Error::io("use directory", directory))
}

/// Locks a directory while the returned file is open.
pub(super) fn lock(directory: &Path) -> Result<File, Error> {
    let path = directory.join(LOCK);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = open_own(&path, &mut options).map_err(Error::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked(directory.to_owned())),
        Err(TryLockError::Error(cause)) => Err(Error::Io { action: "lock", path, cause }),
    }
}

/// Scans a directory without changing anything.
pub(super) fn scan(directory: &Path) -> Result<Scan, Error> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(Error::io("list", directory))? {
        let entry = entry.map_err(Error::io("list", directory))?;
        names.extend(entry.file_name().to_str().and_then(Name::parse));
    }
    names.sort();
    let mut segments = VecDeque::with_capacity(names.len());
    for name in names {
        segments.extend(segment(directory, name)?);
    }
    let checkpoint = Checkpoint::read(directory)?;
    let mut end = checkpoint.map_or_else(Position::default, |checkpoint| checkpoint.end);
    let (mut torn_bytes, mut empty) = (0, Vec::new());
    while let Some(last) = segments.back_mut() {
        let file_end = last.length;
        let tail = tail(last)?;
        // A process ended between creating a segment and writing to it.
        let is_empty = last.length <= start();
        if tail.messages != u64::MAX {
            end = later(end, tail);
        }
        if !is_empty {
            torn_bytes = file_end - last.length;
            break;
        }
        empty.extend(segments.pop_back().map(|segment| segment.path));
    }
    // The start of the next segment provides what is unknown of one, so go backwards.
    let mut messages = end.messages;
    for segment in segments.iter_mut().rev() {
        segment.first.messages = segment.first.messages.min(messages);
        messages = segment.first.messages;
    }
    let oldest = segments.front().map_or(end, |segment| segment.first);
    let done = checkpoint.map_or(oldest, |checkpoint| later(checkpoint.done, oldest));
    let done = if done.id > end.id { end } else { done };
    let history = checkpoint.and_then(|checkpoint| {
        let mut history = checkpoint.history?;
        // A process that was killed had dropped them, and had no time to record it. Deliveries are
        // recorded before their segment is removed.
        history.lost[Loss::DroppedOldest as usize] += between(checkpoint.done, done);
        Some(history)
    });
    let history = history.unwrap_or(History { from: done, ..History::default() });
    Ok(Scan { segments, done, end, history, torn_bytes, empty })
}

fn later(one: Position, other: Position) -> Position {
    if other.id > one.id { other } else { one }
}

/// Returns `None` if the file does not exist any more, since the writer may run meanwhile, or if it
/// is a link, a pipe or a device.
fn segment(directory: &Path, name: Name) -> Result<Option<Segment>, Error> {
    let path = directory.join(name.to_string());
    let file = match read_own(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        // Treat it like a removed segment: its records are counted as lost when they are due.
        Err(error) if is_foreign(&error) => {
            tracing::error!(event = "spool_file_ignored", %error, path = %path.display(), "a file of the spool is no segment; ignored it");
            return Ok(None);
        }
        Err(cause) => return Err(Error::Io { action: "open", path, cause }),
    };
    let length = file.metadata().map_err(Error::io("look at", &path))?.len();
    // The header of another version may be longer.
    let mut bytes = [0; 4 * HEADER_BYTES];
    let read = read_up_to(&file, &mut bytes).map_err(Error::io("read", &path))?;
    let header = Header::decode(&path, &bytes[..read])?;
    let header = header.filter(|header| header.first.id == name.first_id);
    let mut segment = Segment {
        name,
        first: Position { id: name.first_id, messages: u64::MAX },
        schema_version: 0,
        created_at_ms: i64::MAX,
        newest_at_ms: None,
        length,
        path,
    };
    if let Some(header) = header {
        segment.first = header.first;
        segment.schema_version = header.schema_version;
        segment.created_at_ms = header.created_at_ms;
    } else if let Ok(Some(found)) = segment
        .reader()
        .and_then(|mut reader| reader.find(start(), length, name.first_id..u64::MAX))
    {
        // The messages before it are then counted with the segments before it.
        segment.first.messages = found.header.position.messages;
        segment.created_at_ms = found.header.appended_at_ms;
    }
    Ok(Some(segment))
}

fn read_up_to(mut file: &File, buffer: &mut [u8]) -> std::io::Result<usize> {
    use std::io::Read;
    let mut filled = 0;
    loop {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => return Ok(filled),
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Returns the offset of a segment's first entry.
pub(super) const fn start() -> u64 {
    HEADER_BYTES as u64
}

/// Reads the last segment up to its last whole entry, and truncates its length there. Returns the
/// position after it.
fn tail(segment: &mut Segment) -> Result<Position, Error> {
    let mut reader = segment.reader().map_err(Error::io("open", &segment.path))?;
    let (mut end, mut offset) = (segment.first, start().min(segment.length));
    // An error of the disk ends the readable part.
    while let Ok(Some(found)) = reader.find(offset, segment.length, end.id..u64::MAX) {
        end = found.header.after();
        offset = found.end();
        segment.newest_at_ms = segment.newest_at_ms.max(Some(found.header.appended_at_ms));
    }
    segment.length = offset;
    Ok(end)
}
