//! What a directory holds, found without reading more than a segment of it.

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
    segment::{HEADER_BYTES, Header, Name, Place, between},
};

const LOCK: &str = "lock";

/// A segment's file, as far as it is known without reading it.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) name: Name,
    pub(super) path: PathBuf,
    pub(super) first: Place,
    pub(super) schema_version: u32,
    pub(super) created_at_ms: i64,
    /// No entry is younger; `None` if the next segment's beginning says it.
    pub(super) newest_at_ms: Option<i64>,
    /// Where its entries end.
    pub(super) length: u64,
}

impl Segment {
    /// Opens it for reading.
    pub(super) fn reader(&self) -> std::io::Result<Reader> {
        Ok(Reader::new(read_own(&self.path)?, self.name.seed(), self.schema_version))
    }
}

/// What is in a directory.
#[derive(Debug)]
pub(super) struct Scan {
    /// Oldest first.
    pub(super) segments: VecDeque<Segment>,
    /// All entries before have left.
    pub(super) done: Place,
    /// Where the next record goes.
    pub(super) end: Place,
    /// What is known of all before `done`.
    pub(super) history: History,
    /// Bytes after the last whole entry of the last segment.
    pub(super) torn_bytes: u64,
    /// Last segments without any entry, which are not among the segments.
    pub(super) empty: Vec<PathBuf>,
}

/// Makes the directory where it is missing, for nobody else's eyes: records say who asked what. One
/// in which others can write is refused: they could put a link or a pipe where a segment is looked
/// for.
pub(super) fn make(directory: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(Error::io("create directory", directory))?;
    check_directory(directory).map_err(Error::io("use directory", directory))
}

/// Locks a directory for as long as the file is open.
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

/// Looks at a directory without changing anything.
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
    let mut end = checkpoint.map_or_else(Place::default, |checkpoint| checkpoint.end);
    let (mut torn_bytes, mut empty) = (0, Vec::new());
    while let Some(last) = segments.back_mut() {
        let file_end = last.length;
        let tail = tail(last)?;
        // A process that ended between beginning a segment and writing to it.
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
    // What is not known of one segment is known of the next: backwards, so that it gets there.
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
        // A process that was killed had dropped them, and had no time to say so. What arrives is
        // written down before its segment goes.
        history.lost[Loss::DroppedOldest as usize] += between(checkpoint.done, done);
        Some(history)
    });
    let history = history.unwrap_or(History { from: done, ..History::default() });
    Ok(Scan { segments, done, end, history, torn_bytes, empty })
}

fn later(one: Place, other: Place) -> Place {
    if other.id > one.id { other } else { one }
}

/// `None` if it went away: a reader beside the writer. So too if it is a link, a pipe or a device.
fn segment(directory: &Path, name: Name) -> Result<Option<Segment>, Error> {
    let path = directory.join(name.to_string());
    let file = match read_own(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        // As a segment that was removed: its records are missed, and counted, where they are due.
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
        first: Place { id: name.first_id, messages: u64::MAX },
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
        // The messages of what lies before are then not counted here but with what came before.
        segment.first.messages = found.header.place.messages;
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

/// Where a segment's entries begin.
pub(super) const fn start() -> u64 {
    HEADER_BYTES as u64
}

/// Follows the last segment to its last whole entry, and cuts its length there; the place after it.
fn tail(segment: &mut Segment) -> Result<Place, Error> {
    let mut reader = segment.reader().map_err(Error::io("open", &segment.path))?;
    let (mut end, mut offset) = (segment.first, start().min(segment.length));
    // Where the disk cannot be read is where what can be read ends.
    while let Ok(Some(found)) = reader.find(offset, segment.length, end.id..u64::MAX) {
        end = found.header.after();
        offset = found.end();
        segment.newest_at_ms = segment.newest_at_ms.max(Some(found.header.appended_at_ms));
    }
    segment.length = offset;
    Ok(end)
}
