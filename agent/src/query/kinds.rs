//! Detects what a file contains.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use tap53_query::{
    avro::{Container, MAGIC},
    row::profile_of,
};
use tap53_records::encode::Profile;

use super::Error;

/// The content of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Packets, or anything that the replay will refuse.
    Capture,
    /// An Avro object container with records in this profile.
    Records(Profile),
    /// An Avro object container with ledger summaries, which are no records.
    Summaries,
}

/// Full name of ledger summaries.
const SUMMARIES: &str = "tap53.LedgerSummary";

/// Detects the content of a file. Only regular files are looked into: bytes of a pipe can be read once.
///
/// # Errors
/// When the file cannot be opened, or its header is damaged.
pub fn kind_of(path: &Path) -> Result<Kind, Error> {
    let open = |cause| Error::Open { file: path.to_owned(), cause };
    if path == Path::new(crate::replay::STANDARD_INPUT) {
        return Ok(Kind::Capture);
    }
    let metadata = path.metadata().map_err(open)?;
    if !metadata.is_file() {
        return Ok(Kind::Capture);
    }
    let mut magic = Vec::new();
    let file = File::open(path).map_err(open)?;
    file.take(MAGIC.len() as u64).read_to_end(&mut magic).map_err(open)?;
    if magic != MAGIC {
        return Ok(Kind::Capture);
    }
    let file = BufReader::new(File::open(path).map_err(open)?);
    let container = Container::open(file);
    let container = container.map_err(|cause| Error::Container { file: path.to_owned(), cause })?;
    match (profile_of(container.name()), container.name()) {
        (Some(profile), _) => Ok(Kind::Records(profile)),
        (None, SUMMARIES) => Ok(Kind::Summaries),
        (None, name) => Err(Error::Foreign { file: path.to_owned(), name: name.to_owned() }),
    }
}
