//! Why the queue cannot be used.

use std::{io, path::PathBuf};

/// Why a queue cannot be opened or read. Each message holds its cause, so none is a `source()`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has it open.
    #[error("spool {}: in use by another process, which holds its lock", .0.display())]
    Locked(PathBuf),
    /// Written by a newer program.
    #[error(
        "{}: written in version {version} of the spool's format, and this program knows version {}: \
         let the newer tap53 deliver it, or move the file away", path.display(), super::segment::VERSION
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u16,
    },
    /// The file system refused.
    #[error("spool: cannot {action} {}: {cause}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
}

impl Error {
    /// To be given to `map_err`.
    pub(super) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |cause| Self::Io { action, path, cause }
    }
}

/// Why records could not be appended. Nothing of them is in the queue then.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// A record alone is too long for an entry.
    #[error("a record of {0} bytes is too long")]
    TooLong(usize),
    /// The disk is full, and nothing in the queue is left to be dropped.
    #[error("no space left, and nothing left to drop")]
    NoSpace,
    /// The file system refused.
    #[error("{0}")]
    Io(#[from] Error),
}
