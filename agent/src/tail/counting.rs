//! A follower that gets counts in place of lines (`tap53 top`): workers count for it while it follows, so
//! that no record is missed, however many there are.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tap53_insight::{
    DnsCounter, DnsMetrics, Reading, TopReading,
    config::{ClientLabel, DnsMetricsConfig},
};
use tap53_records::encode::{Record, Row};
use tap53_signals::Signal;

use super::{RecordFilter, Selection, Tails};

/// Maximum number of followers that get counts, at a time. Each takes some 0.4 MB in each worker.
pub const COUNTING_FOLLOWERS: usize = 4;

/// The counts of a follower; `dns_metrics` configures those of the whole agent.
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
    /// By signal, of all workers: few transactions have one.
    signals: [AtomicU64; Signal::ALL.len()],
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

    fn count(&mut self, record: &Record<'_>) {
        self.counter.count(record);
        for signal in record.signals.unwrap_or_default().iter() {
            self.tally.signals[signal as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Passes the counts to the follower.
    pub(super) fn publish(&mut self) {
        self.counter.publish();
    }
}

/// Counts a transaction for each follower that selects it.
pub(super) fn count(tallies: &mut [WorkerTally], record: &Record<'_>) {
    let row = tallies.iter().any(|it| !it.tally.selects_all).then(|| Row::of(record));
    for worker in tallies {
        let tally = &worker.tally;
        if tally.selects_all || row.as_ref().is_some_and(|row| tally.filter.matches(row)) {
            worker.count(record);
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
            signals: Default::default(),
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

    /// Returns the number of transactions with each signal that occurred.
    #[must_use]
    pub fn signals(&self) -> Vec<(Signal, u64)> {
        let count = |signal: Signal| self.tally.signals[signal as usize].load(Ordering::Relaxed);
        let counts = Signal::ALL.into_iter().map(|signal| (signal, count(signal)));
        counts.filter(|(_, count)| *count > 0).collect()
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
