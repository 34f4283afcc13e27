//! Delivers summaries of the ledger to their topic, with the producer of the records.
//!
//! They wait in order until they are acknowledged, in a [backlog](super::backlog) of their own: on
//! disk in the directory of the records' spool, or without a spool in memory, for a day. Each tick
//! sends them, so no worker waits for them.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rdkafka::{error::KafkaError, producer::Producer as _};
use tap53_ledger::{
    Evidence, Progress, SUMMARY_SCHEMA_VERSION, Summary, SummaryCounts, SummaryEncoder,
    chain::Chains,
};
use tap53_spool::{self as spool, Fsync, Spool};

use super::{
    admin::TopicCreator,
    backlog::{Backlog, Buffer, Owner, QueuedMessage},
    context::{SinkContext, is_topic_missing},
    delivery::Delivery,
    events::Outcome,
    origin::Origin,
    producer::{Message, Producer, Transport as _, is_purged},
};
use crate::{
    OpenError, SummarySink,
    config::{KafkaConfig, SummaryConfig},
};

/// The most summaries in memory: a day of them, of some 3 KiB each.
const IN_MEMORY: usize = 1_440;

/// The most bytes in memory: with `chain`, a summary has up to half a megabyte.
const IN_MEMORY_BYTES: usize = 16 << 20;

/// Their directory in that of the records' spool.
const DIRECTORY: &str = "summaries";

/// The most bytes on disk, enough for days.
const ON_DISK_BYTES: u64 = 16 << 20;

/// The intervals at which the shutdown checks whether all are delivered, while some are in flight
/// and while none is.
const FLUSH_POLL_INTERVAL: Duration = Duration::from_millis(50);
const SHUTDOWN_POLL_INTERVAL: Duration = Duration::from_millis(5);

pub(super) struct Summaries {
    config: SummaryConfig,
    context: Arc<SinkContext>,
    delivery: Arc<Delivery>,
    producer: Arc<Producer>,
    encoder: SummaryEncoder,
    backlog: Mutex<Backlog<WaitingSummary>>,
    directory: Option<PathBuf>,
    topic_creator: Option<TopicCreator>,
    /// True after a failed delivery report, so that each outage is logged once.
    pub(super) is_failing: AtomicBool,
    evidence: Option<Evidence>,
}

/// The guard of a summary. It does nothing: a summary counts as waiting until it is delivered or lost.
pub(super) struct WaitingSummary;

impl Owner for WaitingSummary {
    const SCHEMA_VERSION: u32 = SUMMARY_SCHEMA_VERSION.unsigned_abs();

    fn messages(&self) -> u32 {
        1
    }

    fn in_memory(&self) -> Origin {
        Origin::Summary { id: None }
    }

    fn on_disk(id: u64) -> Origin {
        Origin::Summary { id: Some(id) }
    }

    fn hand_over(self) {}

    fn reject(self) {}
}

pub(super) struct SummaryReport {
    /// Its id in the spool.
    pub(super) id: Option<u64>,
    pub(super) outcome: Outcome,
    pub(super) error: Option<KafkaError>,
    pub(super) summary: QueuedMessage<WaitingSummary>,
}

impl Summaries {
    /// Opens the backlog; `None` if no topic is configured.
    pub(super) fn open(
        config: &KafkaConfig,
        context: &Arc<SinkContext>,
        delivery: &Arc<Delivery>,
        producer: &Arc<Producer>,
    ) -> Result<Option<Self>, OpenError> {
        let Some(summary) = &config.summary else { return Ok(None) };
        let encoder = SummaryEncoder::new().map_err(OpenError::Encode)?;
        let topic = KafkaConfig { topic: summary.topic.clone(), ..config.clone() };
        let summaries = Self {
            config: summary.clone(),
            context: context.clone(),
            delivery: delivery.clone(),
            producer: producer.clone(),
            encoder,
            backlog: Mutex::new(memory()),
            directory: config.spool.as_ref().map(|spool| spool.directory.clone()),
            topic_creator: TopicCreator::start(&topic),
            is_failing: AtomicBool::new(false),
            evidence: summary.chain.then(|| Evidence {
                chains: Chains::of(&config.name),
                key: summary.signing.as_ref().map(|signing| signing.key.clone()),
            }),
        };
        let acquired = summaries.acquire_spool(&mut summaries.backlog.lock());
        match acquired {
            Ok(()) | Err(spool::Error::Locked(_)) => Ok(Some(summaries)),
            Err(cause) => Err(OpenError::Spool(cause)),
        }
    }

    /// Appends a summary, and counts those that are dropped for it.
    fn put(&self, backlog: &mut Backlog<WaitingSummary>, summary: QueuedMessage<WaitingSummary>) {
        let sink = &self.context.sink;
        match push(backlog, summary) {
            Ok(0) => {}
            Ok(dropped) => {
                self.lose(dropped);
                tracing::warn!(
                    event = "summaries_dropped",
                    sink,
                    dropped,
                    "too many summaries wait, dropped the oldest"
                );
            }
            Err(error) => {
                self.lose(1);
                tracing::error!(event = "summary_lost", sink, %error, "a summary cannot be put into its spool and is lost");
            }
        }
    }

    /// Logs the first error of an outage, and requests a missing topic.
    fn note(&self, error: Option<&KafkaError>) {
        let Some(error) = error else {
            self.is_failing.store(false, Ordering::Relaxed);
            return;
        };
        let code = error.rdkafka_error_code();
        let is_missing = code.is_some_and(is_topic_missing);
        if is_missing {
            self.topic_creator.iter().for_each(TopicCreator::want);
        }
        if is_purged(code) || self.is_failing.swap(true, Ordering::Relaxed) {
            return;
        }
        let (sink, topic) = (&self.context.sink, &self.config.topic);
        if is_missing {
            tracing::error!(
                event = "summary_topic_missing",
                sink,
                topic,
                "the topic of summaries does not exist: create it, or set create_topic"
            );
        } else {
            tracing::error!(event = "summaries_failing", sink, topic, %error, "cannot deliver summaries of the ledger");
        }
    }

    /// Applies delivery reports, and sends the backlog; true if nothing waits any more.
    pub(super) fn send(&self) -> bool {
        let mut backlog = self.backlog.lock();
        // Reports are taken and applied under one lock, so no caller sees the state in between.
        let reports = std::mem::take(&mut *self.context.summary_reports.lock());
        let have_come = !reports.is_empty();
        for report in reports {
            self.apply(&mut backlog, report);
        }
        if let Backlog::Disk(spool) = &mut *backlog
            && have_come
            && let Err(error) = spool.checkpoint(false)
        {
            let sink = &self.context.sink;
            tracing::warn!(event = "summaries_checkpoint_failed", sink, %error, "cannot write which summaries have arrived: they come again after a crash");
        }
        // A spool that is locked, or cannot be opened, is tried again by the next tick.
        let _ = self.acquire_spool(&mut backlog);
        let current = self.producer.current();
        let drained = backlog.drain(usize::MAX, |origin, version, message| {
            self.producer.send(&current, origin, version, message)
        });
        self.lose(drained.rejected as u64 + take_losses(&mut backlog));
        self.context.counts().read().summaries.waiting == 0
    }

    fn apply(&self, backlog: &mut Backlog<WaitingSummary>, report: SummaryReport) {
        let SummaryReport { id, outcome, error, summary } = report;
        self.note(error.as_ref());
        // There is one a minute, so batches are not divided for it.
        let is_rejected = matches!(outcome, Outcome::Rejected | Outcome::TooLarge);
        let is_delivered = outcome == Outcome::Delivered;
        match (&mut *backlog, id) {
            // One that was dropped meanwhile has been counted as lost.
            (Backlog::Disk(spool), Some(id)) if is_delivered => {
                if spool.acknowledge(id).is_some() {
                    self.count_delivered();
                }
            }
            (Backlog::Disk(spool), Some(id)) if is_rejected => spool.reject(id),
            (Backlog::Disk(spool), Some(id)) => spool.fail(id),
            _ if is_delivered => self.count_delivered(),
            _ if is_rejected => self.lose(1),
            _ => self.put(backlog, summary),
        }
    }

    fn count_delivered(&self) {
        self.count(|counts| {
            counts.delivered += 1;
            counts.waiting = counts.waiting.saturating_sub(1);
        });
    }

    /// Moves the backlog to the disk, unless another agent has locked the spool.
    fn acquire_spool(&self, backlog: &mut Backlog<WaitingSummary>) -> Result<(), spool::Error> {
        let (Backlog::Memory(buffer), Some(directory)) = (&mut *backlog, &self.directory) else {
            return Ok(());
        };
        let spool = open_spool(directory)?;
        let waiting = buffer.take_all();
        *backlog = Backlog::Disk(Box::new(spool));
        let inherited = backlog.waiting();
        self.count(|counts| {
            counts.carried = inherited;
            counts.waiting += inherited;
        });
        waiting.into_iter().for_each(|summary| self.put(backlog, summary));
        Ok(())
    }

    fn lose(&self, summaries: u64) {
        self.count(|counts| {
            counts.lost += summaries;
            counts.waiting = counts.waiting.saturating_sub(summaries);
        });
    }

    fn count(&self, change: impl FnOnce(&mut SummaryCounts)) {
        self.context.counts().update(|counts| change(&mut counts.summaries));
    }
}

impl SummarySink for Summaries {
    fn interval(&self) -> Duration {
        self.config.interval
    }

    fn records_topic(&self) -> &str {
        &self.context.topic
    }

    fn evidence(&self) -> Option<&Evidence> {
        self.evidence.as_ref()
    }

    fn begin_window(&self, window: i64) -> Progress {
        let progress = self.delivery.progress();
        let (acknowledged_id, carried_lost) = progress.unwrap_or_default();
        let settled_window = self.context.accounts.windows.begin_window(window, acknowledged_id);
        // While another agent has locked the spool, its content is unknown, so nothing is settled.
        Progress { settled_window: settled_window.filter(|_| progress.is_some()), carried_lost }
    }

    fn take(&self, summary: &Summary) {
        let sink = &self.context.sink;
        self.count(|counts| {
            counts.written += 1;
            counts.waiting += 1;
        });
        match self.encoder.encode(summary) {
            Ok(value) => {
                let timestamp_ms = summary.window_ended_at.div_euclid(1_000);
                let message = Message { timestamp_ms, key: summary.node.as_bytes(), value: &value };
                self.put(&mut self.backlog.lock(), QueuedMessage::new(WaitingSummary, &message));
            }
            Err(error) => {
                self.lose(1);
                tracing::error!(event = "summary_lost", sink, %error, "a summary is lost");
            }
        }
        self.send();
    }

    fn end(&self, deadline: Duration) {
        let end = Instant::now() + deadline;
        while !self.send() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            // Reports arrive meanwhile. With nothing in flight, for instance while a schema id is
            // missing, this returns at once.
            if self.producer.current().flush(left.min(FLUSH_POLL_INTERVAL)).is_ok() {
                thread::park_timeout(left.min(SHUTDOWN_POLL_INTERVAL));
            }
        }
        let sink = &self.context.sink;
        let mut backlog = self.backlog.lock();
        let kept = match &mut *backlog {
            Backlog::Memory(_) => 0,
            Backlog::Disk(spool) => {
                spool.fail_all();
                if let Err(error) = spool.close() {
                    tracing::error!(event = "spool_close_failed", sink, %error, "cannot close the summaries' spool in good order");
                }
                backlog.waiting()
            }
        };
        let waiting = self.context.counts().read().summaries.waiting;
        let summaries = waiting.saturating_sub(kept);
        if summaries > 0 {
            self.lose(summaries);
            tracing::error!(
                event = "summaries_lost",
                sink,
                summaries,
                "the last summaries were not delivered and are lost"
            );
        }
    }
}

/// Inserts a summary by its timestamp; returns how many of the oldest were dropped for it.
fn push(
    backlog: &mut Backlog<WaitingSummary>,
    summary: QueuedMessage<WaitingSummary>,
) -> Result<u64, spool::AppendError> {
    match backlog {
        Backlog::Memory(buffer) => Ok(buffer.insert_for_oldest(summary, Instant::now())),
        Backlog::Disk(spool) => {
            let now_ms = jiff::Timestamp::now().as_millisecond();
            spool.append(std::iter::once(summary.record()), now_ms)?;
            Ok(take_losses(backlog))
        }
    }
}

/// Returns how many summaries the spool has lost or rejected since the last call.
fn take_losses(backlog: &mut Backlog<WaitingSummary>) -> u64 {
    match backlog {
        Backlog::Memory(_) => 0,
        Backlog::Disk(spool) => spool.take_losses().iter().map(|lost| lost.records).sum(),
    }
}

fn memory() -> Backlog<WaitingSummary> {
    Backlog::Memory(Buffer::new(IN_MEMORY_BYTES, IN_MEMORY))
}

fn open_spool(directory: &Path) -> Result<Spool, spool::Error> {
    Spool::open(&spool::Config {
        directory: directory.join(DIRECTORY),
        max_bytes: ON_DISK_BYTES,
        max_age: None,
        // Only when it is closed: totals count from the start of the run, so the next summary makes
        // up for one that was lost with the node's power.
        fsync: Fsync::Interval(Duration::MAX),
        schema_version: SUMMARY_SCHEMA_VERSION.unsigned_abs(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(timestamp_ms: i64) -> QueuedMessage<WaitingSummary> {
        QueuedMessage::new(
            WaitingSummary,
            &Message { timestamp_ms, key: b"node", value: b"summary" },
        )
    }

    #[test]
    fn the_last_days_summaries_wait_in_memory_in_order_those_that_failed_among_them() {
        let mut backlog = memory();
        for number in 0..IN_MEMORY as i64 {
            assert_eq!(push(&mut backlog, summary(number)).unwrap(), 0);
        }
        let mut sent = Vec::new();
        let drained = backlog.drain(2, |origin, _, message| {
            assert_eq!(origin, Origin::Summary { id: None });
            sent.push(message.timestamp_ms);
            Ok(())
        });
        assert_eq!((drained.taken, &sent[..]), (2, &[0, 1][..]));
        for number in [1, 0] {
            let message = Message { timestamp_ms: number, key: b"node", value: b"summary" };
            let failed = QueuedMessage::new(WaitingSummary, &message);
            assert_eq!(push(&mut backlog, failed).unwrap(), 0);
        }
        assert_eq!(push(&mut backlog, summary(IN_MEMORY as i64)).unwrap(), 1);
        backlog.drain(2, |_, _, message| {
            sent.push(message.timestamp_ms);
            Ok(())
        });
        assert_eq!(sent, [0, 1, 1, 2], "the oldest was dropped");
        assert_eq!(backlog.waiting(), IN_MEMORY as u64 - 2);
    }

    #[test]
    fn many_long_summaries_take_no_more_memory_than_a_day_of_short_ones() {
        let mut backlog = memory();
        let value = vec![0; 500_000];
        let message = Message { timestamp_ms: 0, key: b"node", value: &value };
        let size = size_of::<QueuedMessage<WaitingSummary>>() + b"node".len() + value.len();
        let summaries = (0..100).map(|_| QueuedMessage::new(WaitingSummary, &message));
        let dropped: u64 =
            summaries.map(|summary| push(&mut backlog, summary).expect("memory")).sum();
        assert_eq!(backlog.waiting(), (IN_MEMORY_BYTES / size) as u64);
        assert_eq!(dropped, 100 - backlog.waiting());
    }
}
