//! A follower that gets counts in place of lines (`tap53 top`): workers count for it while it follows, so
//! that no record is missed, however many there are.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tap53_insight::{
    DnsCounter, DnsMetrics, Reading, TopReading,
    config::{ClientLabel, DnsMetricsConfig},
};
use tap53_records::encode::{Record, Row};

use super::{RecordFilter, Selection, Tails};

/// Maximum number of followers that get counts, at a time. Each takes some 0.4 MB in each worker.
pub const COUNTING_FOLLOWERS: usize = 4;

/// What is counted for a follower; `dns_metrics` configures what is counted all the time.
const COUNTED: DnsMetricsConfig = DnsMetricsConfig {
    enabled: true,
    by: ClientLabel::Workload,
    max_series: 2_000,
    names: true,
    clients: true,
    top: 256,
};

/// The error of one follower too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are {COUNTING_FOLLOWERS} followers that get counts already, which is the limit")]
pub struct TooManyCounting;

/// The counts for one follower.
#[derive(Debug)]
pub(super) struct Tally {
    filter: RecordFilter,
    selects_all: bool,
    metrics: DnsMetrics,
}

/// The counts of one worker for one follower.
pub(super) struct WorkerTally {
    pub(super) tally: Arc<Tally>,
    counter: DnsCounter,
}

impl WorkerTally {
    /// Starts to count for a follower.
    pub(super) fn new(tally: Arc<Tally>) -> Self {
        let counter = tally.metrics.counter();
        Self { tally, counter }
    }

    /// Passes the counts to the follower.
    pub(super) fn publish(&mut self) {
        self.counter.publish();
    }
}

/// Counts a record for each follower that selects it.
pub(super) fn count(tallies: &mut [WorkerTally], record: &Record<'_>) {
    let row = tallies.iter().any(|it| !it.tally.selects_all).then(|| Row::of(record));
    for WorkerTally { tally, counter } in tallies {
        if tally.selects_all || row.as_ref().is_some_and(|row| tally.filter.matches(row)) {
            counter.count(record);
        }
    }
}

/// A follower's end of its counts. Dropping it removes the follower.
#[derive(Debug)]
pub struct CountingTail {
    tails: Tails,
    tally: Arc<Tally>,
    began: Instant,
}

impl Tails {
    /// Counts the records that match `selection`, from now on.
    ///
    /// # Errors
    /// [`TooManyCounting`].
    pub fn count(&self, selection: &Selection) -> Result<CountingTail, TooManyCounting> {
        let mut tallies = self.tallies();
        if tallies.len() >= COUNTING_FOLLOWERS {
            return Err(TooManyCounting);
        }
        let tally = Arc::new(Tally {
            filter: RecordFilter::new(selection),
            selects_all: selection.is_everything(),
            metrics: DnsMetrics::new(COUNTED),
        });
        tallies.push(tally.clone());
        self.0.version.fetch_add(1, Ordering::Release);
        drop(tallies);
        Ok(CountingTail { tails: self.clone(), tally, began: Instant::now() })
    }

    /// Returns the number of followers that get counts.
    #[must_use]
    pub fn counting(&self) -> usize {
        self.tallies().len()
    }
}

impl CountingTail {
    /// Returns the counts so far.
    #[must_use]
    pub fn read(&self) -> (Reading, TopReading) {
        (self.tally.metrics.read(), self.tally.metrics.read_top())
    }

    /// Returns the time since counting began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

impl Drop for CountingTail {
    fn drop(&mut self) {
        self.tails.tallies().retain(|tally| !Arc::ptr_eq(tally, &self.tally));
        self.tails.0.version.fetch_add(1, Ordering::Release);
    }
}
