//! Reads files, one after the other.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, Receiver as Blocks},
    },
    thread,
};

use tap53_ledger::Ledger;
use tap53_query::{
    avro::{Container, Shape},
    query,
};
use tap53_records::encode::Profile;
use tokio::sync::Notify;

use super::{
    Error, Kind, Receiver,
    collector::{Block, Collector},
    kind_of,
};
use crate::{
    config::{Config, SignalsConfig},
    replay::{Ending, Plan, Replay, Speed},
    tail::Selection,
};

/// Batches between the replay and the question: enough that neither waits for a single slow batch.
const QUEUED_BLOCKS: usize = 16;

/// Size of the buffer for reading, in bytes.
const READ_BYTES: usize = 1 << 20;

/// The outcome of reading files.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Errors of files, in their order. The files after one are read all the same.
    pub errors: Vec<Error>,
    /// The account of each replay of capture files.
    pub ledgers: Vec<Ledger>,
    /// Files with ledger summaries, which are no records.
    pub summaries: Vec<PathBuf>,
    /// Remarks about the records of an agent, for people.
    pub notes: Vec<String>,
    /// Set if the question ended before the files did: by its limit, or because the reader of the result is gone.
    pub ended_early: bool,
}

/// Reads the records of all files. Capture files next to each other are replayed as one capture.
///
/// # Errors
/// When a file cannot be opened, a replay cannot start, or the result cannot be written. Other errors are in
/// the outcome.
pub fn read_files(
    files: &[PathBuf],
    config: &Config,
    receiver: &mut dyn Receiver,
) -> Result<Outcome, Error> {
    let mut kinds = Vec::new();
    for path in files {
        kinds.push((kind_of(path)?, path));
    }
    let mut outcome = Outcome::default();
    for group in kinds.chunk_by(|one, other| (one.0, other.0) == (Kind::Capture, Kind::Capture)) {
        let ended = match group {
            [(Kind::Capture, _), ..] => {
                let captures = group.iter().map(|(_, path)| (*path).clone()).collect();
                replay(captures, config, receiver, &mut outcome)
            }
            [(Kind::Records(_), path), ..] => read_container(path, receiver),
            [(Kind::Summaries, path), ..] => {
                outcome.summaries.push((*path).clone());
                Ok(())
            }
            [] => Ok(()),
        };
        match ended {
            Ok(()) => {}
            Err(End::Early) => {
                outcome.ended_early = true;
                break;
            }
            Err(End::Failed(error @ (Error::Output(_) | Error::Start(_)))) => return Err(error),
            Err(End::Failed(error)) => outcome.errors.push(error),
        }
    }
    Ok(outcome)
}

/// Why a file is not read further.
pub(super) enum End {
    /// The question needs no more records.
    Early,
    Failed(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl End {
    pub(super) fn of(error: query::Error, file: &Path) -> Self {
        match error {
            query::Error::Limit => Self::Early,
            query::Error::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                Self::Early
            }
            query::Error::Output(cause) => Self::Failed(Error::Output(cause)),
            query::Error::Damaged(cause) => {
                Self::Failed(Error::Records { file: file.to_owned(), cause })
            }
        }
    }
}

fn read_container(path: &Path, receiver: &mut dyn Receiver) -> Result<(), End> {
    let file = || path.to_owned();
    let opened = File::open(path).map_err(|cause| Error::Open { file: file(), cause })?;
    let of_container = |cause| Error::Container { file: file(), cause };
    let input = BufReader::with_capacity(READ_BYTES, opened);
    let mut container = Container::open(input).map_err(of_container)?;
    let projection = receiver.projection(container.shape());
    let projection = projection.map_err(|cause| Error::Flat { file: file(), cause })?;
    let mut block = Vec::new();
    while let Some(records) = container.next_block(&mut block).map_err(of_container)? {
        let taken = receiver.take(&projection, &block, records);
        taken.map_err(|error| End::of(error, path))?;
    }
    Ok(())
}

/// Replays captures, on a thread of the replay, while this thread's scope takes the records.
fn replay(
    files: Vec<PathBuf>,
    config: &Config,
    receiver: &mut dyn Receiver,
    outcome: &mut Outcome,
) -> Result<(), End> {
    let first = files.first().cloned().unwrap_or_default();
    let (sender, blocks) = mpsc::sync_channel(QUEUED_BLOCKS);
    let ended = Arc::new(Notify::new());
    let sinks = vec![Collector::sink(sender, &ended)];
    let plan =
        Plan { files, speed: Speed::AsFast, messages: false, selection: Selection::default() };
    // They take time, and nothing without the field can show them.
    let enabled = receiver.reads("signals");
    let signals = SignalsConfig { enabled, ..config.signals.clone() };
    let config = &Config { signals, ..config.clone() };
    let replay = Replay::start_with_sinks(config, &plan, sinks, &ended).map_err(Error::Start)?;
    let (taken, finished) = thread::scope(|scope| {
        let taker = scope.spawn(|| take_blocks(blocks, receiver, &first));
        let finished =
            wait(&ended).map(|()| replay.finish(config.shutdown.flush_timeout, Ending::Ended));
        (taker.join(), finished)
    });
    match finished.map_err(Error::Output)? {
        Ok(finished) => {
            outcome.ledgers.push(finished.ledger);
            outcome.errors.extend(finished.errors.into_iter().map(Error::Capture));
        }
        Err(error) => return Err(Error::Schema(error.to_string()).into()),
    }
    // A panic goes on in this thread.
    taken.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Waits until everything has been replayed, or the receiver of the records is gone.
fn wait(ended: &Notify) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(ended.notified());
    Ok(())
}

/// Takes blocks until the replay has ended. Dropping `blocks` before stops it.
fn take_blocks(blocks: Blocks<Block>, receiver: &mut dyn Receiver, file: &Path) -> Result<(), End> {
    let shape = Shape::parse(Profile::Full.schema_text());
    let (_, shape) = shape.map_err(|error| Error::Schema(error.to_string()))?;
    let projection = receiver.projection(&shape);
    let projection = projection.map_err(|cause| Error::Flat { file: file.to_owned(), cause })?;
    for Block { records, bytes } in blocks {
        let taken = receiver.take(&projection, &bytes, records);
        taken.map_err(|error| End::of(error, file))?;
    }
    Ok(())
}
