//! The destination of a result: standard output, or a file that gets its name when the result is whole.

use std::{
    fs::Permissions,
    io::{self, BufWriter, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use tempfile::NamedTempFile;

/// Size of the buffer for writing, in bytes.
const WRITE_BYTES: usize = 1 << 16;

/// A destination.
pub(super) struct ResultFile(Option<(NamedTempFile, PathBuf)>);

impl ResultFile {
    /// Creates a file beside `path`, or selects standard output without a path.
    pub(super) fn create(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self(None)) };
        let shown = path.display();
        if path.is_dir() {
            bail!("cannot write the result to {shown}: it is a directory");
        }
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        // Records may be confidential: by default, only the user can read the file.
        let partial = tempfile::Builder::new()
            .prefix(".tap53-result-")
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(directory)
            .with_context(|| format!("cannot write the result to {shown}"))?;
        Ok(Self(Some((partial, path.to_owned()))))
    }

    /// Returns a buffered writer to it.
    pub(super) fn writer(&self) -> anyhow::Result<Box<dyn Write + Send>> {
        Ok(match &self.0 {
            None => Box::new(BufWriter::with_capacity(WRITE_BYTES, io::stdout())),
            Some((partial, path)) => {
                let file = partial.as_file().try_clone();
                let file = file.with_context(|| format!("cannot write to {}", path.display()))?;
                Box::new(BufWriter::with_capacity(WRITE_BYTES, file))
            }
        })
    }

    /// Gives the file its name, after the writer is flushed.
    pub(super) fn keep(self) -> anyhow::Result<()> {
        let Some((partial, path)) = self.0 else { return Ok(()) };
        partial
            .persist(&path)
            .map(drop)
            .map_err(|error| error.error)
            .with_context(|| format!("cannot write the result to {}", path.display()))
    }
}
