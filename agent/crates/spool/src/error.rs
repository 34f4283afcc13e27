//! Errors of the queue.

use std::{io, path::PathBuf};

/// Errors of opening or reading a queue. Each message contains its cause, so none is a `source()`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has locked it.
    #[error("spool {}: in use by another process, which holds its lock", .0.display())]
    Locked(PathBuf),
    /// A newer program has written it.
    #[error(
        "{}: written in version {version} of the spool's format, and this program knows version {}: \
         let the newer tap53 deliver it, or move the file away", path.display(), super::segment::VERSION
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version of its format.
        version: u16,
    },
    /// The file system returned an error.
    #[error("spool: cannot {action} {}: {cause}", path.display())]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the file system.
        cause: io::Error,
    },
}

impl Error {
    /// Returns a function for `map_err`.
    pub(super) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |cause| Self::Io { action, path, cause }
    }
}

/// Errors of appending records. The queue contains none of them then.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// A single record is too long for an entry.
    #[error("a record of {0} bytes is too long")]
    TooLong(usize),
    /// The disk is full, and no segment is left to drop.
    #[error("no space left, and nothing left to drop")]
    NoSpace,
    /// The file system returned an error.
    #[error("{0}")]
    Io(#[from] Error),
}
