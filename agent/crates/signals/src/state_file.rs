//! The file in which first-seen domains survive the end of the agent.
//!
//! It is an image of the table with a header page before it. Changed pages are written in place from a
//! thread of their own, so that what has been written survives SIGKILL. Each slot has its own check, and
//! the header a CRC: a torn write leaves old or new slots, and anything else is found at the start.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt as _, OpenOptionsExt},
    path::{Path, PathBuf},
};

use tap53_base::files::{check_directory, open_own, read_own};

use crate::first_seen::{FirstSeen, PAGE_BYTES};

const MAGIC: &[u8; 8] = b"tap53\0ds";
const VERSION: u32 = 1;

/// Maximum size of a file that is read: larger ones were not written by this version.
const MAX_BYTES: u64 = 512 << 20;

/// The key of the domains' hashes, and when the table was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) key: [u8; 16],
    pub(crate) created_at_us: i64,
}

/// A saved table that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file or its directory cannot be used.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io { action: &'static str, path: PathBuf, cause: io::Error },
    /// Another process has the file.
    #[error("{} is in use by another agent", .0.display())]
    Locked(PathBuf),
    /// The content is not that of a table.
    #[error("{} is damaged: {what}", path.display())]
    Damaged { path: PathBuf, what: &'static str },
}

impl Error {
    fn io<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> Self + 'a {
        move |cause| Self::Io { action, path: path.to_owned(), cause }
    }
}

/// An open file, which is locked.
pub(crate) struct StateFile {
    file: File,
    path: PathBuf,
}

impl StateFile {
    /// Reads the identity and the table of a file; returns `None` if there is none.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) fn load(path: &Path) -> Result<Option<(Identity, Vec<u8>)>, Error> {
        let length = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        let damaged = |what| Error::Damaged { path: path.to_owned(), what };
        if length > MAX_BYTES {
            return Err(damaged("it is too long"));
        }
        let mut content = Vec::new();
        io::Read::read_to_end(&mut read_own(path).map_err(Error::io("open", path))?, &mut content)
            .map_err(Error::io("read", path))?;
        let (header, table) =
            content.split_at_checked(PAGE_BYTES).ok_or_else(|| damaged("it has no header"))?;
        let (identity, bytes) = Header::read(header).map_err(damaged)?;
        if table.len() as u64 != bytes {
            return Err(damaged("its length is not that of the header"));
        }
        Ok(Some((identity, table.to_vec())))
    }

    /// Replaces the file by one of `table`, and locks it.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) fn create(
        path: &Path,
        identity: Identity,
        table: &FirstSeen,
    ) -> Result<Self, Error> {
        if let Some(directory) = path.parent() {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(directory).map_err(Error::io("create directory", directory))?;
            check_directory(directory).map_err(Error::io("use directory", directory))?;
        }
        Self::refuse_locked(path)?;
        let new = path.with_extension("new");
        let mut options = OpenOptions::new();
        // Truncated after it is locked: another agent may be writing it.
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = open_own(&new, &mut options).map_err(Error::io("create", &new))?;
        file.try_lock().map_err(|_| Error::Locked(new.clone()))?;
        file.set_len(0).map_err(Error::io("truncate", &new))?;
        file.set_len((PAGE_BYTES + table.bytes()) as u64).map_err(Error::io("extend", &new))?;
        let header = Header::page(identity, table.bytes() as u64);
        file.write_all_at(&header, 0).map_err(Error::io("write", &new))?;
        let state = Self { file, path: path.to_owned() };
        state.write(table)?;
        fs::rename(&new, path).map_err(Error::io("replace", path))?;
        Ok(state)
    }

    fn refuse_locked(path: &Path) -> Result<(), Error> {
        let Ok(file) = read_own(path) else { return Ok(()) };
        match file.try_lock() {
            Err(fs::TryLockError::WouldBlock) => Err(Error::Locked(path.to_owned())),
            _ => Ok(()),
        }
    }

    /// Writes the pages of `table` that have changed.
    ///
    /// # Errors
    /// [`Error::Io`]; the pages are written again by the next call.
    pub(crate) fn write(&self, table: &FirstSeen) -> Result<(), Error> {
        table
            .write_dirty(|page, content| {
                self.file.write_all_at(content, ((page + 1) * PAGE_BYTES) as u64)
            })
            .map_err(Error::io("write", &self.path))
    }
}

/// The header: magic, version, size of the table, creation, key, CRC of these.
struct Header;

impl Header {
    const BYTES: usize = 48;

    fn page(identity: Identity, bytes: u64) -> [u8; PAGE_BYTES] {
        let mut header = Vec::with_capacity(Self::BYTES);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&bytes.to_le_bytes());
        header.extend_from_slice(&identity.created_at_us.to_le_bytes());
        header.extend_from_slice(&identity.key);
        header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
        let mut page = [0; PAGE_BYTES];
        page[..Self::BYTES].copy_from_slice(&header);
        page
    }

    fn read(page: &[u8]) -> Result<(Identity, u64), &'static str> {
        let (header, rest) = page.split_at_checked(Self::BYTES - 4).ok_or("it has no header")?;
        let crc = rest.first_chunk().map(|crc| u32::from_le_bytes(*crc));
        if crc != Some(crc32c::crc32c(header)) {
            return Err("its header has a wrong checksum");
        }
        let short = "it has no header";
        let (magic, rest) = header.split_first_chunk::<8>().ok_or(short)?;
        let (version, rest) = rest.split_first_chunk::<4>().ok_or(short)?;
        let (bytes, rest) = rest.split_first_chunk::<8>().ok_or(short)?;
        let (created, rest) = rest.split_first_chunk::<8>().ok_or(short)?;
        let key = rest.first_chunk::<16>().ok_or(short)?;
        if magic != MAGIC {
            return Err("it is not a file of domains");
        }
        if u32::from_le_bytes(*version) != VERSION {
            return Err("it has the version of another release");
        }
        let created_at_us = i64::from_le_bytes(*created);
        Ok((Identity { key: *key, created_at_us }, u64::from_le_bytes(*bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_another_agent_is_creating_stays_as_it_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("domains");
        let new = path.with_extension("new");
        fs::write(&new, "of another agent").expect("it can be written");
        let other = File::open(&new).expect("it is there");
        other.try_lock().expect("nobody has it");
        let (identity, table) = (Identity { key: [7; 16], created_at_us: 1 }, FirstSeen::new(1));
        let create = || StateFile::create(&path, identity, &table);
        assert!(matches!(create(), Err(Error::Locked(_))));
        assert_eq!(fs::read(&new).expect("it is there"), b"of another agent");
        drop(other);
        assert!(create().is_ok());
        let loaded = StateFile::load(&path).expect("it can be read");
        assert_eq!(loaded.map(|(identity, _)| identity), Some(identity));
    }
}
