//! Summaries of the ledger on their way to their topic, by the producer of the records.
//!
//! They wait in order until their delivery report says that they arrived: in a [backlog](super::backlog)
//! of their own, on disk inside of the records' spool, where there is one; else in memory, the last
//! day's. They are sent by each tick, so no worker waits for them.

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
use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    producer::Producer as _,
};
use tap53_ledger::{
    Evidence, Progress, SUMMARY_SCHEMA_VERSION, Summary, SummaryCounts, SummaryEncoder,
    chain::Chains,
};
use tap53_spool::{self as spool, Fsync, Spool};

use super::{
    admin::TopicCreator,
    backlog::{Backlog, Buffer, Owner, QueuedMessage},
    context::SinkContext,
    delivery::Delivery,
    events::Outcome,
    origin::Origin,
    producer::{Message, Producer, Transport as _, is_purged},
    storage::now_ms,
};
use crate::{Error, SummarySink, config::KafkaConfig};

/// Summaries that wait in memory at most: a day of them, at 3 KiB or so each.
const IN_MEMORY: usize = 1_440;

/// Bytes of summaries that wait in memory at most: with `chain` one takes up to half a megabyte.
const IN_MEMORY_BYTES: usize = 16 << 20;

/// Directory inside of the records' spool.
const DIRECTORY: &str = "summaries";

/// The most bytes that they take on disk: days of them.
const ON_DISK_BYTES: u64 = 16 << 20;

/// The intervals at which the shutdown checks whether all are delivered, while some are in flight
/// and while none is.
const FLUSH_POLL_INTERVAL: Duration = Duration::from_millis(50);
const SHUTDOWN_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The summaries of one sink.
pub(super) struct Summaries {
    interval: Duration,
    records_topic: String,
    topic: String,
    context: Arc<SinkContext>,
    delivery: Arc<Delivery>,
    producer: Arc<Producer>,
    encoder: SummaryEncoder,
    backlog: Mutex<Backlog<WaitingSummary>>,
    /// The records' spool, if there is one.
    directory: Option<PathBuf>,
    topic_creator: Option<TopicCreator>,
    /// True after a failed delivery report: each outage is logged once.
    is_failing: AtomicBool,
    /// Seals them, where they are to be sealed.
    evidence: Option<Evidence>,
}

/// A summary that waits: the counts have it among those that wait until it is delivered or lost.
#[derive(Debug)]
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

/// A delivery report of a summary.
#[derive(Debug)]
pub(super) struct SummaryReport {
    /// Its id in the spool.
    id: Option<u64>,
    outcome: Outcome,
    error: Option<KafkaError>,
    /// Without an id, what comes back if it failed.
    summary: Option<QueuedMessage<WaitingSummary>>,
}

impl SummaryReport {
    pub(super) fn new(
        id: Option<u64>,
        outcome: Outcome,
        error: Option<&KafkaError>,
        message: &Message<'_>,
    ) -> Self {
        // One a minute: whatever it was refused with, nothing is divided for it.
        let outcome = if outcome == Outcome::TooLarge { Outcome::Rejected } else { outcome };
        let comes_back = id.is_none() && matches!(outcome, Outcome::Failed | Outcome::Innocent);
        let error = error.cloned();
        Self {
            id,
            outcome,
            error,
            summary: comes_back.then(|| QueuedMessage::new(WaitingSummary, message)),
        }
    }
}

impl Summaries {
    /// `None` where the sink has no topic for them.
    pub(super) fn open(
        config: &KafkaConfig,
        context: &Arc<SinkContext>,
        delivery: &Arc<Delivery>,
        producer: &Arc<Producer>,
    ) -> Result<Option<Self>, Error> {
        let Some(summary) = &config.summary else { return Ok(None) };
        let sink = || config.name.clone();
        let encoder =
            SummaryEncoder::new().map_err(|cause| Error::Encode { sink: sink(), cause })?;
        let directory = config.spool.as_ref().map(|spool| spool.directory.clone());
        let backlog = match directory.as_deref().map(open_spool) {
            Some(Ok(spool)) => Backlog::Disk(Box::new(spool)),
            // Another agent has it; it is tried again with each round.
            None | Some(Err(spool::Error::Locked(_))) => memory(),
            Some(Err(cause)) => return Err(Error::Spool { sink: sink(), cause }),
        };
        let topic = KafkaConfig { topic: summary.topic.clone(), ..config.clone() };
        let inherited = backlog.waiting();
        let summaries = Self {
            interval: summary.interval,
            records_topic: config.topic.clone(),
            topic: summary.topic.clone(),
            context: context.clone(),
            delivery: delivery.clone(),
            producer: producer.clone(),
            encoder,
            backlog: Mutex::new(backlog),
            directory,
            topic_creator: TopicCreator::start(&topic),
            is_failing: AtomicBool::new(false),
            evidence: summary.chain.then(|| Evidence {
                chains: Chains::of(&config.name),
                key: summary.signing.as_ref().map(|signing| signing.key.clone()),
            }),
        };
        summaries.count(|counts| {
            counts.carried = inherited;
            counts.waiting = inherited;
        });
        Ok(Some(summaries))
    }

    /// Appends one, and counts what is lost by that.
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

    /// Logs the first error of an outage, and has a missing topic created.
    fn note(&self, error: Option<&KafkaError>) {
        let Some(error) = error else {
            self.is_failing.store(false, Ordering::Relaxed);
            return;
        };
        let code = error.rdkafka_error_code();
        let is_missing = matches!(
            code,
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)
        );
        if is_missing {
            self.topic_creator.iter().for_each(TopicCreator::want);
        }
        if is_purged(code) || self.is_failing.swap(true, Ordering::Relaxed) {
            return;
        }
        let (sink, topic) = (&self.context.sink, &self.topic);
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

    /// True after a failed delivery report.
    #[cfg(test)]
    pub(super) fn has_failed(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    /// Applies delivery reports, and sends what waits; true if none is left.
    pub(super) fn send(&self) -> bool {
        let mut backlog = self.backlog.lock();
        // With the backlog locked: a report that is taken is applied before anybody else looks.
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
        self.acquire_spool(&mut backlog);
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
        match (&mut *backlog, id, outcome, summary) {
            (Backlog::Disk(spool), Some(id), Outcome::Delivered, _) => {
                // One that was dropped meanwhile has been counted by that.
                if spool.acknowledge(id).is_some() {
                    self.count_delivered();
                }
            }
            (Backlog::Disk(spool), Some(id), Outcome::Rejected | Outcome::TooLarge, _) => {
                spool.reject(id);
            }
            (Backlog::Disk(spool), Some(id), ..) => spool.fail(id),
            (_, _, Outcome::Delivered, _) => self.count_delivered(),
            (_, _, _, Some(summary)) => self.put(backlog, summary),
            (_, _, _, None) => self.lose(1),
        }
    }

    fn count_delivered(&self) {
        self.count(|counts| {
            counts.delivered += 1;
            counts.waiting = counts.waiting.saturating_sub(1);
        });
    }

    /// Moves to the disk, once no other agent has locked it any more.
    fn acquire_spool(&self, backlog: &mut Backlog<WaitingSummary>) {
        let (Backlog::Memory(buffer), Some(directory)) = (&mut *backlog, &self.directory) else {
            return;
        };
        let Ok(spool) = open_spool(directory) else { return };
        let waiting = buffer.take_all();
        *backlog = Backlog::Disk(Box::new(spool));
        let inherited = backlog.waiting();
        self.count(|counts| {
            counts.carried = inherited;
            counts.waiting += inherited;
        });
        for summary in waiting {
            self.put(backlog, summary);
        }
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
        self.interval
    }

    fn records_topic(&self) -> &str {
        &self.records_topic
    }

    fn evidence(&self) -> Option<&Evidence> {
        self.evidence.as_ref()
    }

    fn begin_window(&self, window: i64) -> Progress {
        let progress = self.delivery.progress();
        let (acknowledged_id, carried_lost) = progress.unwrap_or_default();
        let settled_window = self.context.accounts.windows.begin_window(window, acknowledged_id);
        // What is in a spool that another agent has locked is before all windows of this one.
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

    /// Summaries that are not delivered stay on disk for the next run, or are lost.
    fn end(&self, deadline: Duration) {
        let end = Instant::now() + deadline;
        while !self.send() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            // Reports come meanwhile; that not all have is no news. Where none is to come, as while
            // they wait for the id of their schema, it returns at once.
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

/// Appends a summary, by its timestamp; how many of the oldest were dropped for it.
fn push(
    backlog: &mut Backlog<WaitingSummary>,
    summary: QueuedMessage<WaitingSummary>,
) -> Result<u64, spool::AppendError> {
    match backlog {
        Backlog::Memory(buffer) => Ok(buffer.insert_for_oldest(summary, Instant::now())),
        Backlog::Disk(spool) => {
            spool.append(std::iter::once(summary.record()), now_ms())?;
            Ok(take_losses(backlog))
        }
    }
}

/// Summaries that the spool has lost since the last call, those that brokers rejected included.
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
        // When it is closed. One in a minute is not worth a wait for the disk, and one that the
        // node's power takes is made good by the next.
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
            let report = SummaryReport::new(None, Outcome::Failed, None, &message);
            assert_eq!(push(&mut backlog, report.summary.unwrap()).unwrap(), 0);
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
