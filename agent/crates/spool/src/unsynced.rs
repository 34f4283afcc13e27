//! What was appended and is not yet synced to the disk.

use std::{fs::File, io, sync::Arc};

/// Files that were written to. To be synced apart from the queue, which others can use
/// meanwhile.
#[derive(Debug, Default)]
#[must_use = "nothing is on the disk before this was synced"]
pub struct Unsynced {
    /// With the first id of each one's segment.
    files: Vec<(u64, Arc<File>)>,
    /// The directory, where it has new files.
    pub(super) directory: Option<Arc<File>>,
}

impl Unsynced {
    /// The file of the segment that begins with an id was written to.
    pub(super) fn push(&mut self, first_id: u64, file: Arc<File>) {
        if !self.files.iter().any(|(_, other)| Arc::ptr_eq(other, &file)) {
            self.files.push((first_id, file));
        }
    }

    /// That segment is gone, and its file with it once nobody has it open.
    pub(super) fn forget(&mut self, first_id: u64) {
        self.files.retain(|(other, _)| *other != first_id);
    }

    /// True if there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.directory.is_none()
    }

    /// Forces them to the disk, and waits until they are there.
    ///
    /// # Errors
    /// What the operating system says. The kernel may have thrown the data away then, and would say
    /// that all is well the next time (fsync(2)): see
    /// [`seal_active`](super::Spool::seal_active).
    pub fn sync(&self) -> io::Result<()> {
        for (_, file) in &self.files {
            file.sync_data()?;
        }
        self.directory.as_ref().map_or(Ok(()), |directory| directory.sync_all())
    }
}
