//! A running replay, from its start to its ledger.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tap53_ledger::{Ledger, Published, Sources, WorkerCounts, snapshot};
use tap53_records::encode;
use tap53_sinks::{self as sink, Named, Summaries};
use tokio::sync::Notify;

use super::{
    Error, STANDARD_INPUT, Speed,
    player::{Control, Counts, Player},
};
use crate::{
    config::Config,
    ending::{self, EndWait, Verdict},
    pipeline::random_bytes,
    tail::Selection,
};

/// Minimum time for a sink to deliver what it holds, even if another one has used up the timeout.
const MIN_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The files of a replay, and its options.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Paths, in the order of replay; `-` is standard input.
    pub files: Vec<PathBuf>,
    /// Speed of the replay.
    pub speed: Speed,
    /// Set to print a line of JSON for each message on standard output, instead of using the sinks of
    /// the configuration.
    pub messages: bool,
    /// Transactions to record; checked by [`Selection::check`].
    pub selection: Selection,
}

/// An error that keeps a replay from starting.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file cannot be opened.
    #[error(transparent)]
    File(#[from] Error),
    /// A sink could not be opened.
    #[error(transparent)]
    Sink(#[from] sink::Error),
    /// The thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// The reason why a replay ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It has ended by itself.
    Ended,
    /// A signal ends it.
    Interrupted,
}

/// The outcome of a replay.
#[derive(Debug)]
pub struct Outcome {
    /// The account of every frame, message and record.
    pub ledger: Ledger,
    /// Errors of the files, in their order.
    pub errors: Vec<Error>,
    /// Set if it was stopped before everything was read.
    pub stopped: bool,
}

/// A running replay.
pub struct Replay {
    node: String,
    run: [u8; 8],
    sinks: Vec<Named>,
    summaries: Summaries,
    control: Arc<Control>,
    published: Published<Counts>,
    /// `None` once joined.
    thread: Option<JoinHandle<Result<Vec<Error>, encode::Error>>>,
    total_bytes: Option<u64>,
}

impl Replay {
    /// Checks the files, opens the sinks and starts. `ended` is notified when everything has been
    /// replayed, or when a sink's reader has closed its pipe.
    ///
    /// # Errors
    /// See [`StartError`]. Nothing has been replayed then.
    pub fn start(config: &Config, plan: &Plan, ended: &Arc<Notify>) -> Result<Self, StartError> {
        let total_bytes = total_size(&plan.files)?;
        let sinks = if plan.messages {
            vec![sink::messages(ended)]
        } else {
            sink::build_without_queues(&config.sinks, &config.node, ended)?
        };
        Self::start_checked(config, plan, sinks, ended, total_bytes)
    }

    /// Does the same as [`start`](Self::start), with these sinks instead of the configured ones.
    ///
    /// # Errors
    /// See [`StartError`]. Nothing has been replayed then.
    pub fn start_with_sinks(
        config: &Config,
        plan: &Plan,
        sinks: Vec<Named>,
        ended: &Arc<Notify>,
    ) -> Result<Self, StartError> {
        let total_bytes = total_size(&plan.files)?;
        Self::start_checked(config, plan, sinks, ended, total_bytes)
    }

    fn start_checked(
        config: &Config,
        plan: &Plan,
        sinks: Vec<Named>,
        ended: &Arc<Notify>,
        total_bytes: Option<u64>,
    ) -> Result<Self, StartError> {
        let run = random_bytes();
        let player = Player::new(config, plan, sinks.clone(), run);
        let (control, published) = (player.control.clone(), player.published.clone());
        let ended = ended.clone();
        let thread = thread::Builder::new().name("replay".to_owned()).spawn(move || {
            let _ended = Ended(ended);
            player.run()
        });
        Ok(Self {
            node: config.node.clone(),
            run,
            summaries: Summaries::begin(&sinks, Instant::now()),
            sinks,
            control,
            published,
            thread: Some(thread.map_err(StartError::Thread)?),
            total_bytes,
        })
    }

    #[cfg(test)]
    pub(super) fn control(&self) -> Arc<Control> {
        self.control.clone()
    }

    /// Returns the numbers of frames and bytes read so far.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        (
            self.control.frames.load(Ordering::Relaxed),
            self.control.read_bytes.load(Ordering::Relaxed),
        )
    }

    /// Returns the size of all files in bytes; `None` if it is unknown, as of a pipe.
    #[must_use]
    pub const fn total_bytes(&self) -> Option<u64> {
        self.total_bytes
    }

    /// Does what is due with time alone.
    pub fn tick(&mut self, now: Instant) {
        for sink in &self.sinks {
            sink.sink.tick(now);
        }
        if self.summaries.is_due(now) {
            let ledger = self.ledger();
            self.summaries.write(&ledger, now);
        }
    }

    /// Returns the ledger now.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.read_ledger(false, false)
    }

    /// Stops reading, delivers what was read, and returns the final ledger.
    ///
    /// # Errors
    /// When an encoder could not be created.
    pub fn finish(
        mut self,
        flush_timeout: Duration,
        ending: Ending,
    ) -> Result<Outcome, encode::Error> {
        let deadline = Instant::now() + flush_timeout;
        let stopped = !self.control.complete.load(Ordering::Acquire);
        let (mut errors, mut is_abandoned) = (Vec::new(), false);
        if let Some(thread) = self.thread.take() {
            self.control.stop.store(true, Ordering::Release);
            thread.thread().unpark();
            let mut wait = EndWait::new(Instant::now(), deadline);
            while !thread.is_finished() {
                match wait.look(Instant::now(), self.thread_progress()) {
                    Verdict::Wait | Verdict::Release => {}
                    Verdict::PastDeadline => tracing::warn!(
                        event = "worker_slow_at_stop",
                        "the flush timeout is over and the replay still makes progress: waiting for it"
                    ),
                    Verdict::Abandon => break,
                }
                thread::park_timeout(ending::POLL_INTERVAL);
            }
            is_abandoned = !thread.is_finished();
            if is_abandoned {
                tracing::error!(
                    event = "worker_abandoned",
                    "the replay is held up by a file or sink; what it holds is counted as lost"
                );
            } else if let Ok(outcome) = thread.join() {
                errors = outcome?;
            } else {
                is_abandoned = true;
                tracing::error!(
                    event = "worker_abandoned",
                    "the replay panicked; what it held is counted as lost"
                );
            }
        }
        for sink in &self.sinks {
            let left = deadline.saturating_duration_since(Instant::now()).max(MIN_FLUSH_TIMEOUT);
            match ending {
                Ending::Interrupted if stopped => sink.sink.close_interrupted(left),
                Ending::Interrupted | Ending::Ended => sink.sink.close(left),
            }
        }
        let mut ledger = self.read_ledger(true, is_abandoned);
        if std::mem::take(&mut self.summaries).end(&ledger) {
            // With the outcome of the summaries.
            ledger = self.read_ledger(true, is_abandoned);
        }
        Ok(Outcome { ledger, errors, stopped })
    }

    /// Returns a value that changes whenever the thread makes progress.
    fn thread_progress(&self) -> (u64, u64, WorkerCounts) {
        let (frames, bytes) = self.progress();
        (frames, bytes, self.published.with(|counts| counts.worker.read()))
    }

    fn read_ledger(&self, ended: bool, is_abandoned: bool) -> Ledger {
        let sinks = self.sinks.iter().map(|sink| sink.sink.counts());
        let (files, (workers, last_numbers, counts)) =
            self.published.with(|counts| (counts.files.clone(), snapshot([&counts.worker], sinks)));
        let names = self.sinks.iter().map(|sink| sink.name.clone());
        let mut sources = Sources {
            node: self.node.clone(),
            run: self.run,
            taken_at_us: jiff::Timestamp::now().as_microsecond(),
            ended,
            is_abandoned: false,
            interfaces: files,
            workers,
            last_numbers,
            sinks: names.zip(counts).collect(),
        };
        if is_abandoned {
            sources.abandon();
        }
        Ledger::new(&sources)
    }
}

/// Notifies also when the thread unwinds.
struct Ended(Arc<Notify>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Returns the size of all files in bytes; `None` if one is not a regular file.
fn total_size(files: &[PathBuf]) -> Result<Option<u64>, Error> {
    let sizes: Vec<Option<u64>> = files.iter().map(|path| size(path)).collect::<Result<_, _>>()?;
    Ok(sizes.into_iter().sum())
}

/// Returns the size of a regular file in bytes; `None` for others. A file that cannot be opened is
/// reported here, before any is replayed.
fn size(path: &Path) -> Result<Option<u64>, Error> {
    if path == Path::new(STANDARD_INPUT) {
        return Ok(None);
    }
    let cannot_open = |cause| Error::Open { file: path.to_owned(), cause };
    let metadata = fs::metadata(path).map_err(cannot_open)?;
    if metadata.is_dir() {
        return Err(cannot_open(std::io::ErrorKind::IsADirectory.into()));
    }
    if !metadata.is_file() {
        // Opening and closing a pipe would end it for its writer.
        return Ok(None);
    }
    File::open(path).map_err(cannot_open)?;
    Ok(Some(metadata.len()))
}
