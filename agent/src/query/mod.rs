//! Reads records for questions: from Avro files, from capture files by a replay, and from a running agent.
//!
//! ```text
//!  Avro files ─▶ container ────────────────┐ blocks of records with their schema
//!                                          ├─▶ tap53_query::Query
//!  captures ─▶ replay ─▶ collector (sink) ─┤
//!  running agent ─▶ control socket ────────┘
//! ```

mod agent;
mod collector;
mod files;
mod kinds;

use std::path::PathBuf;

use tap53_query::{
    avro, query,
    row::{FlatField, Projection},
};
use tap53_records::encode::Profile;

use crate::{control::client, replay};

pub use agent::{Window, read_agent};
pub use files::{Outcome, read_files};
pub use kinds::{Kind, kind_of};

/// The reason why a question cannot be answered from a file, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened.
    #[error("{}: cannot be opened: {cause}", file.display())]
    Open {
        /// The file.
        file: PathBuf,
        /// The operating system's error.
        cause: std::io::Error,
    },
    /// The file cannot be read.
    #[error("{}: {cause}", file.display())]
    Container {
        /// The file.
        file: PathBuf,
        /// The cause.
        cause: avro::Error,
    },
    /// The records do not fit their schema.
    #[error("{}: {cause}", file.display())]
    Records {
        /// The file.
        file: PathBuf,
        /// The cause.
        cause: avro::Damaged,
    },
    /// The expression needs a field in another form.
    #[error("{}: {cause}", file.display())]
    Flat {
        /// The file.
        file: PathBuf,
        /// The cause.
        cause: FlatField,
    },
    /// The file has other data.
    #[error("{}: has {name}, and not records ({})", file.display(), Profile::Full.record_name())]
    Foreign {
        /// The file.
        file: PathBuf,
        /// Full name of its data.
        name: String,
    },
    /// A capture file cannot be read to its end.
    #[error(transparent)]
    Capture(#[from] replay::Error),
    /// A replay cannot start.
    #[error(transparent)]
    Start(#[from] replay::StartError),
    /// The schema of this program does not parse.
    #[error("the records of a replay: {0}")]
    Schema(String),
    /// The agent refuses, or the connection to it fails.
    #[error(transparent)]
    Agent(#[from] client::Error),
    /// The connection to the agent cannot be kept.
    #[error("cannot follow the agent: {0}")]
    Connection(std::io::Error),
    /// The agent sends something else than records.
    #[error("the agent at {agent}: {cause}")]
    Protocol {
        /// The place of the agent.
        agent: String,
        /// The cause.
        cause: String,
    },
    /// Records of the agent are missing in the result.
    #[error(
        "{0} records of the agent were missed because this reader was slow: write the result to a file, \
         or query files of the agent"
    )]
    Missed(u64),
    /// The agent ended the connection for a newer follower, so later records are missing in the result.
    #[error("{0}")]
    Displaced(String),
    /// The result cannot be written.
    #[error("cannot write the result: {0}")]
    Output(std::io::Error),
}

/// Receives blocks of records.
pub trait Receiver: Send {
    /// Returns true if the question needs a field.
    fn reads(&self, field: &str) -> bool;

    /// Prepares to read records of a shape.
    ///
    /// # Errors
    /// When the expression needs a field in another form.
    fn projection(&self, shape: &avro::Shape) -> Result<Projection, FlatField>;

    /// Takes a block.
    ///
    /// # Errors
    /// See [`query::Error`].
    fn take(
        &mut self,
        projection: &Projection,
        block: &[u8],
        records: u64,
    ) -> Result<(), query::Error>;

    /// Passes on what is written so far, before a pause.
    ///
    /// # Errors
    /// When it cannot be written.
    fn flush(&mut self) -> Result<(), query::Error>;
}

impl<C: query::Consumer + Send> Receiver for query::Query<C> {
    fn reads(&self, field: &str) -> bool {
        Self::reads(self, field)
    }

    fn projection(&self, shape: &avro::Shape) -> Result<Projection, FlatField> {
        Self::projection(self, shape)
    }

    fn take(
        &mut self,
        projection: &Projection,
        block: &[u8],
        records: u64,
    ) -> Result<(), query::Error> {
        Self::take(self, projection, block, records)
    }

    fn flush(&mut self) -> Result<(), query::Error> {
        Self::flush(self)
    }
}
