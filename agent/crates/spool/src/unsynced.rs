//! Appended data that is not yet synced to the disk.

use std::{fs::File, io, sync::Arc};

/// Files that were written to. They can be synced while other threads use the queue.
#[derive(Debug, Default)]
#[must_use = "nothing is on the disk before this was synced"]
pub struct Unsynced {
    /// Each with the first id of its segment.
    files: Vec<(u64, Arc<File>)>,
    /// The directory, if it has new files.
    pub(super) directory: Option<Arc<File>>,
}

impl Unsynced {
    /// Adds the file of the segment that begins with an id.
    pub(super) fn push(&mut self, first_id: u64, file: Arc<File>) {
        if !self.files.iter().any(|(_, other)| Arc::ptr_eq(other, &file)) {
            self.files.push((first_id, file));
        }
    }

    /// Removes the file of a removed segment, so that it is not kept open.
    pub(super) fn remove(&mut self, first_id: u64) {
        self.files.retain(|(other, _)| *other != first_id);
    }

    /// Returns true if there is nothing to sync.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.directory.is_none()
    }

    /// Syncs the files, and blocks until they are on the disk.
    ///
    /// # Errors
    /// Returns the error of the operating system. The kernel may have discarded the data then, and
    /// report success the next time (fsync(2)): see [`seal_active`](super::Spool::seal_active).
    pub fn sync(&self) -> io::Result<()> {
        for (_, file) in &self.files {
            file.sync_data()?;
        }
        self.directory.as_ref().map_or(Ok(()), |directory| directory.sync_all())
    }
}
