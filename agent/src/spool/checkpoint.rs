//! The file that says what is done with.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::{
    error::Error,
    segment::{HEADER_BYTES, Place, frame, u64_at, unframe},
};

const MAGIC: [u8; 8] = *b"tap53ack";
const NAME: &str = "acknowledged";
const NEW_NAME: &str = "acknowledged.new";

/// What a checkpoint says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// All before it is done with.
    pub(super) done: Place,
    /// Where the next record was to go.
    pub(super) end: Place,
}

impl Checkpoint {
    /// The checkpoint of a directory; `None` if there is none that is whole.
    ///
    /// # Errors
    /// [`Error::Version`], and what the file system says.
    pub(super) fn read(directory: &Path) -> Result<Option<Self>, Error> {
        let path = directory.join(NAME);
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        let file = match File::open(&path) {
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
        Ok((done <= end).then_some(Self { done, end }))
    }

    /// Replaces the checkpoint of a directory, whole or not at all.
    pub(super) fn write(&self, directory: &Path, force_to_disk: bool) -> Result<(), Error> {
        let mut fields = [0; HEADER_BYTES - 16];
        fields[0..8].copy_from_slice(&self.done.id.to_le_bytes());
        fields[8..16].copy_from_slice(&self.done.messages.to_le_bytes());
        fields[16..24].copy_from_slice(&self.end.id.to_le_bytes());
        fields[24..32].copy_from_slice(&self.end.messages.to_le_bytes());
        let (path, new) = (directory.join(NAME), directory.join(NEW_NAME));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&new).map_err(Error::io("create", &new))?;
        file.write_all(&frame(MAGIC, &fields)).map_err(Error::io("write", &new))?;
        if force_to_disk {
            file.sync_data().map_err(Error::io("force to disk", &new))?;
        }
        fs::rename(&new, &path).map_err(Error::io("rename", &new))
    }
}
