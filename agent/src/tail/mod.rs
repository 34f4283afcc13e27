//! Streams records to the followers of a running agent (`tap53 tail`).
//!
//! ```text
//!  worker ─▶ Feed: select, encode once a format ─▶ Queue (bounded) ─▶ Tail ─▶ socket ─▶ terminal
//! ```
//!
//! - **Capture never waits for a follower.** A full queue takes no lines until its follower has read
//!   it; lines are counted then, and not even encoded. The count is in the stream where the lines are
//!   missing.
//! - **A follower may begin in the past** ([`recent`]): each worker keeps its latest records.
//! - **The cost is bounded.** Without a follower it is one atomic load a batch, and a copy of each
//!   record's Avro datum. A follower reads its
//!   queue at most once in [`TAKE_INTERVAL`], so at most [`QUEUE_BYTES`] are encoded in that time,
//!   whatever the load. The memory is [`FOLLOWERS`] queues, their copies on the way to the socket, and
//!   [`PENDING_BYTES`] for each in each worker; 16 MiB with eight workers.
//! - **A follower sees records as a sink does**: after the filter and the privacy rules of the
//!   configuration. It selects by the values that are shown, so that a selection cannot reveal what is
//!   hidden.
//! - **A new follower always gets a place**: beyond [`FOLLOWERS`], the oldest one of the user with the
//!   most of them is displaced. Otherwise, commands whose terminal is gone would keep others out.
//! - **A follower may get counts in place of lines** ([`CountingTail`]): workers count for it, in bounded
//!   memory, and no record is missed.
//! - **A follower is no sink**: its lines are copies, and are not in the ledger.

mod counting;
mod datum;
mod feed;
mod queue;
mod recent;
mod selection;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use counting::Tally;
use datum::Base64Datum;
use queue::Queue;
use tap53_records::encode::{self, Encode, Format, TextOptions};

pub use counting::{COUNTING_FOLLOWERS, CountingTail, TooManyCounting};
pub use datum::datum_of_line;
pub(crate) use feed::Feed;
pub use recent::{Past, Wanted};
pub use selection::{Known, RecordFilter, Refusal, Selection, label, rcode, signal};

/// Maximum number of followers at a time. Each costs memory and the workers' time.
pub const FOLLOWERS: usize = 8;

/// Maximum size of a follower's queue in bytes: some 200 JSON lines or 4,000 text lines.
const QUEUE_BYTES: usize = 512 << 10;

/// Size in bytes of a worker's lines for one follower from which on they are delivered within a batch.
const PENDING_BYTES: usize = 64 << 10;

/// Minimum interval between two reads of a follower's queue.
pub const TAKE_INTERVAL: Duration = Duration::from_millis(20);

/// Format of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineFormat {
    /// One JSON object a line.
    Json,
    /// Aligned columns.
    Text,
    /// Aligned columns with ANSI colours.
    ColoredText,
    /// The part of a record that people read, as one JSON object a line: a follower lays out the
    /// columns.
    Row,
    /// The Avro datum of a record in the full profile, in base64. The answer to the request has its
    /// schema, so that a command reads the records of an agent of another version.
    Avro,
}

impl LineFormat {
    /// All formats, in index order.
    const ALL: [Self; 5] = [Self::Json, Self::Text, Self::ColoredText, Self::Row, Self::Avro];

    /// Returns the encoding of the lines, or of what they have in base64.
    #[must_use]
    pub fn format(self) -> Format {
        match self {
            Self::Json => Format::Json,
            Self::Text => Format::Text(TextOptions::default()),
            Self::ColoredText => Format::Text(TextOptions { color: true, ..Default::default() }),
            Self::Row => Format::Row,
            Self::Avro => Format::AvroDatum,
        }
    }

    /// Returns an encoder of lines.
    fn build(self) -> Result<Box<dyn Encode>, encode::Error> {
        match self {
            Self::Avro => Ok(Box::new(Base64Datum::default())),
            format => format.format().build(),
        }
    }
}

/// The followers; shared by the workers and the control socket.
#[derive(Clone, Debug, Default)]
pub struct Tails(Arc<Followed>);

#[derive(Debug, Default)]
struct Followed {
    /// Changes with `queues` and `tallies`, so that a worker sees without the lock that nothing has changed.
    version: AtomicU64,
    queues: Mutex<Vec<Arc<Queue>>>,
    tallies: Mutex<Vec<Arc<Tally>>>,
    lines_lost: AtomicU64,
    /// Size in bytes of each worker's recent records; 0 if they are not kept.
    recent_bytes: usize,
    /// Number of workers.
    workers: AtomicUsize,
}

/// The owner of a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowerOwner {
    /// A user of the control socket.
    User {
        /// The user's ID.
        uid: u32,
        /// Maximum number of followers of this user.
        limit: usize,
    },
    /// A probe of the telemetry port. There are few, they end soon, and they are not displaced.
    Probe,
}

impl Tails {
    /// Creates the followers of an agent whose workers keep recent records of `recent_bytes` each.
    #[must_use]
    pub fn new(recent_bytes: usize) -> Self {
        Self(Arc::new(Followed { recent_bytes, ..Followed::default() }))
    }

    /// Follows the records that match `selection`, from now on; with `past`, those of the past before
    /// them. Displaces an older follower if the limit of all or of its owner is reached.
    #[must_use]
    pub fn follow(
        &self,
        owner: FollowerOwner,
        format: LineFormat,
        selection: &Selection,
        past: Option<Wanted>,
    ) -> Tail {
        let filter = RecordFilter::new(selection);
        let queue = Arc::new(Queue::new(owner, format, filter, past.is_some()));
        let mut queues = self.queues();
        if let Some(oldest) = displaced(&queues, owner) {
            queues.remove(oldest).displaced.send_replace(true);
        }
        queues.push(queue.clone());
        self.0.version.fetch_add(1, Ordering::Release);
        drop(queues);
        Tail { tails: self.clone(), queue, past }
    }

    /// Returns true if the workers keep recent records.
    #[must_use]
    pub fn keeps_recent(&self) -> bool {
        self.0.recent_bytes > 0
    }

    /// Adds a worker; returns the size in bytes of its recent records if it keeps any.
    fn join(&self) -> Option<usize> {
        self.0.workers.fetch_add(1, Ordering::Relaxed);
        Some(self.0.recent_bytes).filter(|bytes| *bytes > 0)
    }

    /// Removes a worker.
    fn leave(&self) {
        self.0.workers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns the number of followers.
    #[must_use]
    pub fn followers(&self) -> usize {
        self.queues().len()
    }

    /// Returns the number of lines that followers of this run have lost, including former ones.
    #[must_use]
    pub fn lines_lost(&self) -> u64 {
        self.0.lines_lost.load(Ordering::Relaxed)
    }

    /// Returns the size in bytes of the lines that wait in the queues.
    #[must_use]
    pub fn bytes_waiting(&self) -> usize {
        self.queues().iter().map(|queue| queue.bytes()).sum()
    }

    fn version(&self) -> u64 {
        self.0.version.load(Ordering::Relaxed)
    }

    fn queues(&self) -> MutexGuard<'_, Vec<Arc<Queue>>> {
        // A panic cannot leave the list inconsistent.
        self.0.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tallies(&self) -> MutexGuard<'_, Vec<Arc<Tally>>> {
        self.0.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the index of the follower that a new one of `owner` displaces, if a limit is reached: the
/// oldest one of this owner at its own limit, or else of the user with the most followers, so that no
/// user can displace all others.
fn displaced(queues: &[Arc<Queue>], owner: FollowerOwner) -> Option<usize> {
    let count = |uid| queues.iter().filter(|queue| queue.owner.uid() == Some(uid)).count();
    let first = |uid| queues.iter().position(|queue| queue.owner.uid() == Some(uid));
    if let FollowerOwner::User { uid, limit } = owner
        && count(uid) >= limit
    {
        return first(uid);
    }
    if queues.len() < FOLLOWERS {
        return None;
    }
    let uids = queues.iter().filter_map(|queue| queue.owner.uid());
    // The first of several maxima has the oldest follower.
    uids.rev().max_by_key(|uid| count(*uid)).and_then(first)
}

impl FollowerOwner {
    fn uid(self) -> Option<u32> {
        match self {
            Self::User { uid, .. } => Some(uid),
            Self::Probe => None,
        }
    }
}

/// A follower's end of its queue. Dropping it removes the follower.
#[derive(Debug)]
pub struct Tail {
    tails: Tails,
    queue: Arc<Queue>,
    past: Option<Wanted>,
}

/// Time for all workers to copy their recent records. An idle one wakes four times a second.
const PAST_TIMEOUT: Duration = Duration::from_secs(2);

impl Tail {
    /// Returns the records of the past that the follower wants; `None` if it wants none. A worker that
    /// does not copy its records within [`PAST_TIMEOUT`] is left out, and the past is not complete.
    pub async fn past(&mut self) -> Option<Past> {
        let wanted = self.past.take()?;
        let workers = self.tails.0.workers.load(Ordering::Relaxed);
        let all = async {
            while self.queue.snapshot_count() < workers {
                self.queue.filled.notified().await;
            }
        };
        let all_have = tokio::time::timeout(PAST_TIMEOUT, all).await.is_ok();
        let queue = self.queue.clone();
        let selected = tokio::task::spawn_blocking(move || {
            Past::new(queue.take_snapshots(), wanted, &queue.filter, queue.format)
        });
        // Lines may have arrived in the meantime.
        self.queue.filled.notify_one();
        let past = selected.await.ok()?;
        Some(if all_have { past } else { past.incomplete() })
    }

    /// Waits until the queue has lines.
    pub async fn filled(&self) {
        self.queue.filled.notified().await;
    }

    /// Returns a receiver that turns true once a newer follower takes this one's place.
    #[must_use]
    pub fn displacement(&self) -> watch::Receiver<bool> {
        self.queue.displaced.subscribe()
    }

    /// Takes the queue's lines: replaces `lines` by them, and returns the number of lines that were
    /// lost after them.
    pub fn take(&self, lines: &mut Vec<u8>) -> u64 {
        lines.clear();
        let lost = self.queue.take(lines);
        self.tails.0.lines_lost.fetch_add(lost, Ordering::Relaxed);
        lost
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.take(&mut Vec::new());
        let mut queues = self.tails.queues();
        queues.retain(|queue| !Arc::ptr_eq(queue, &self.queue));
        self.tails.0.version.fetch_add(1, Ordering::Release);
    }
}
