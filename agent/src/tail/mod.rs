//! Records as they are made, for who follows a running agent (`tap53 tail`).
//!
//! ```text
//!  worker ─▶ Feed: chosen? encode once a format ─▶ Queue (bounded) ─▶ Tail ─▶ socket ─▶ terminal
//! ```
//!
//! - **Capture never waits for a follower.** A queue that is full takes nothing more until its
//!   follower has taken what it holds; what comes meanwhile is counted, and is not even encoded.
//!   The count stands in the stream where the lines are missing.
//! - **What it costs is bounded.** Without a follower: one atomic load a batch. With one: it takes
//!   its queue at most once in [`TAKE_INTERVAL`], so at most [`QUEUE_BYTES`] are encoded in that
//!   time, whatever the load. Memory: [`FOLLOWERS`] queues, their copies on the way to the socket,
//!   and [`PENDING_BYTES`] for each in each worker; 16 MiB with eight workers.
//! - **A follower sees records as any sink does**: after the filter of the configuration, through
//!   its privacy rules. What it chooses from is what is shown, so that choosing cannot find out
//!   what is hidden.
//! - **It is no sink**: its lines are copies for looking at. They are in no line of the ledger; what
//!   is lost here is lost to nobody else.

mod feed;
mod queue;
mod selection;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};

use queue::Queue;
use selection::Chosen;
use tap53_records::encode::Format;

pub(crate) use feed::Feed;
pub use selection::{Refusal, Selection, rcode};

/// Followers at a time. Each costs memory and the workers' time.
pub const FOLLOWERS: usize = 8;

/// Bytes that wait for one follower at most: some 200 JSON lines or 4,000 text lines.
const QUEUE_BYTES: usize = 512 << 10;

/// Bytes that a worker gathers for one follower before it hands them over within a batch.
const PENDING_BYTES: usize = 64 << 10;

/// How often a follower takes its queue at most.
pub const TAKE_INTERVAL: Duration = Duration::from_millis(20);

/// What lines are written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineFormat {
    /// One JSON object a line.
    Json,
    /// Aligned columns.
    Text,
    /// Aligned columns with ANSI colours.
    ColoredText,
}

impl LineFormat {
    /// All formats, in index order.
    const ALL: [Self; 3] = [Self::Json, Self::Text, Self::ColoredText];

    const fn format(self) -> Format {
        match self {
            Self::Json => Format::Json,
            Self::Text => Format::Text { color: false },
            Self::ColoredText => Format::Text { color: true },
        }
    }
}

/// Whoever follows; shared by the workers and the control socket.
#[derive(Clone, Debug, Default)]
pub struct Tails(Arc<Followed>);

#[derive(Debug, Default)]
struct Followed {
    /// Changes with `queues`, so that a worker need not take the lock to see that nothing did.
    version: AtomicU64,
    queues: Mutex<Vec<Arc<Queue>>>,
    lines_lost: AtomicU64,
}

/// Why nobody more can follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{FOLLOWERS} follow already, which is the most there can be")]
pub struct TooMany;

impl Tails {
    /// Follows the records that `selection` chooses, from now on.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn follow(&self, format: LineFormat, selection: &Selection) -> Result<Tail, TooMany> {
        let mut queues = self.queues();
        if queues.len() >= FOLLOWERS {
            return Err(TooMany);
        }
        let queue = Arc::new(Queue::new(format, Chosen::new(selection)));
        queues.push(queue.clone());
        self.0.version.fetch_add(1, Ordering::Release);
        drop(queues);
        Ok(Tail { tails: self.clone(), queue })
    }

    /// How many follow.
    #[must_use]
    pub fn followers(&self) -> usize {
        self.queues().len()
    }

    /// Lines that followers of this run have lost, those that have left included.
    #[must_use]
    pub fn lines_lost(&self) -> u64 {
        self.0.lines_lost.load(Ordering::Relaxed)
    }

    /// Bytes of lines that followers have yet to take.
    #[must_use]
    pub fn bytes_waiting(&self) -> usize {
        self.queues().iter().map(|queue| queue.bytes()).sum()
    }

    fn version(&self) -> u64 {
        self.0.version.load(Ordering::Relaxed)
    }

    fn queues(&self) -> MutexGuard<'_, Vec<Arc<Queue>>> {
        // A list is pushed to and removed from whole.
        self.0.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One follower's end. Dropping it ends the following.
#[derive(Debug)]
pub struct Tail {
    tails: Tails,
    queue: Arc<Queue>,
}

impl Tail {
    /// Waits until there is something to take.
    pub async fn filled(&self) {
        self.queue.filled.notified().await;
    }

    /// Takes what there is: whole lines into `lines`, which is emptied first, and the number of
    /// those that are missing behind them.
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
