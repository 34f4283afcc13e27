//! Summaries of the ledger on their way to their topic, by the producer of the records.
//!
//! They wait in order until their delivery report says that they arrived: on disk, in a small spool
//! inside of the records' one, where there is one; else in memory, the last day's. They are sent by
//! whoever ticks, so nothing waits for them.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    producer::Producer as _,
};

use super::{
    link::Framing,
    mailbox::Outcome,
    origin::Origin,
    producer::{Message, Producer, Refusal},
    spooling::now_ms,
    topic::Maker,
};
use crate::{
    config::KafkaConfig,
    encode::SummaryEncoder,
    ledger::{
        Evidence, Published, SUMMARY_SCHEMA_VERSION, SinkCounts, Summary, SummaryCounts,
        chain::Chains,
    },
    sink::{
        Error,
        registry::{Registry, Schema},
    },
    spool::{self, Fsync, Loss, Record, Spool},
};

/// Summaries that wait in memory at most: a day of them, at 3 KiB or so each.
const IN_MEMORY: usize = 1_440;

/// Bytes of summaries that wait in memory at most: with `chain` one takes up to half a megabyte.
const IN_MEMORY_BYTES: usize = 16 << 20;

/// Directory inside of the records' spool.
const DIRECTORY: &str = "summaries";

/// What they take on disk at most: days of them.
const ON_DISK_BYTES: u64 = 16 << 20;

/// How often the ending is looked at, while summaries are on their way and while none is.
const ENDING_LOOK: Duration = Duration::from_millis(50);
const ENDING_PAUSE: Duration = Duration::from_millis(5);

/// Those of one sink.
pub(super) struct Summaries {
    pub(super) interval: Duration,
    pub(super) records_topic: String,
    sink: String,
    topic: String,
    encoder: SummaryEncoder,
    counts: Published<SinkCounts>,
    queue: Mutex<Queue>,
    /// The records' spool, if there is one.
    directory: Option<PathBuf>,
    maker: Option<Maker>,
    reports: Mutex<Vec<(u64, Outcome)>>,
    /// Whether the last that was heard of them is a failure: each outage is logged once.
    is_failing: AtomicBool,
    framing: Option<Framing>,
    /// What they are sealed with, if they are.
    pub(super) evidence: Option<Evidence>,
    /// Ends with this.
    _registry: Option<Registry>,
}

/// Where they wait.
enum Queue {
    Memory {
        waiting: VecDeque<Waiting>,
        next_id: u64,
        /// Reports that are to come, on those that were dropped meanwhile as well.
        reports_due: usize,
    },
    Disk(Box<Spool>),
}

struct Waiting {
    id: u64,
    timestamp_ms: i64,
    key: Vec<u8>,
    value: Vec<u8>,
    is_sent: bool,
}

impl Summaries {
    /// `None` where the sink has no topic for them.
    pub(super) fn open(
        config: &KafkaConfig,
        counts: &Published<SinkCounts>,
    ) -> Result<Option<Self>, Error> {
        let Some(summary) = &config.summary else { return Ok(None) };
        let sink = config.name.clone();
        let encoder =
            SummaryEncoder::new().map_err(|cause| Error::Encode { sink: sink.clone(), cause })?;
        let schemas =
            Schema::of_summaries().map_err(|cause| Error::Encode { sink: sink.clone(), cause })?;
        let registry = config.registry.as_ref().map(|registry| {
            Registry::new(registry, &sink, &summary.topic, schemas.clone(), counts.clone())
        });
        let framing = registry.as_ref().map(|registry| Framing {
            ids: registry.ids().clone(),
            fingerprint: encoder.fingerprint(),
        });
        let registry = registry
            .map(|mut registry| registry.start().map(|()| registry))
            .transpose()
            .map_err(|cause| Error::Registry { sink: sink.clone(), cause })?;
        let queue = match &config.spool {
            None => Queue::memory(),
            Some(spool) => match open_spool(&spool.directory) {
                Ok(spool) => Queue::Disk(Box::new(spool)),
                // Another agent has it, and it is asked for again.
                Err(spool::Error::Locked(_)) => Queue::memory(),
                Err(cause) => return Err(Error::Spool { sink, cause }),
            },
        };
        let maker = Maker::start(&KafkaConfig { topic: summary.topic.clone(), ..config.clone() });
        let summaries = Self {
            interval: summary.interval,
            records_topic: config.topic.clone(),
            sink,
            topic: summary.topic.clone(),
            encoder,
            counts: counts.clone(),
            queue: Mutex::new(queue),
            directory: config.spool.as_ref().map(|spool| spool.directory.clone()),
            maker,
            reports: Mutex::default(),
            is_failing: AtomicBool::new(false),
            framing,
            evidence: summary.chain.then(|| Evidence {
                chains: Chains::of(&config.name),
                key: summary.signing.as_ref().map(|signing| signing.key.clone()),
            }),
            _registry: registry,
        };
        let carried = summaries.lock().waiting();
        summaries.count(|counts| counts.carried = carried);
        Ok(Some(summaries))
    }

    /// Where the id comes from that they are framed with, if they are.
    pub(super) const fn framing(&self) -> Option<&Framing> {
        self.framing.as_ref()
    }

    /// Takes one, behind those that wait.
    pub(super) fn take(&self, summary: &Summary) {
        let sink = &self.sink;
        self.count(|counts| counts.written += 1);
        let value = match self.encoder.encode(summary) {
            Ok(value) => value,
            Err(error) => {
                self.count(|counts| counts.lost += 1);
                tracing::error!(sink, %error, "a summary is lost");
                return;
            }
        };
        let timestamp_ms = summary.window_ended_at.div_euclid(1_000);
        self.put(&mut self.lock(), timestamp_ms, summary.node.as_bytes(), &value);
    }

    /// Appends one, and counts what is lost by that.
    fn put(&self, queue: &mut Queue, timestamp_ms: i64, key: &[u8], value: &[u8]) {
        let sink = &self.sink;
        match queue.push(timestamp_ms, key, value) {
            Ok(0) => {}
            Ok(dropped) => {
                self.count(|counts| counts.lost += dropped);
                tracing::warn!(sink, dropped, "too many summaries wait: dropped the oldest");
            }
            Err(error) => {
                self.count(|counts| counts.lost += 1);
                tracing::error!(sink, %error, "a summary cannot be put into its spool and is lost");
            }
        }
    }

    /// To be called by the delivery report: does not wait.
    pub(super) fn report(&self, id: u64, outcome: Outcome, error: Option<&KafkaError>) {
        match error {
            None => self.is_failing.store(false, Ordering::Relaxed),
            Some(error) => self.tell(error),
        }
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).push((id, outcome));
    }

    /// Whether the last that was heard of them is a failure.
    #[cfg(test)]
    pub(super) fn has_failed(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    /// Takes in what became of those that were sent, and sends what waits; true if none is left.
    pub(super) fn send(&self, producer: &Producer) -> bool {
        let reports =
            std::mem::take(&mut *self.reports.lock().unwrap_or_else(PoisonError::into_inner));
        let mut queue = self.lock();
        let have_come = !reports.is_empty();
        for (id, outcome) in reports {
            // One that was dropped meanwhile has been counted by that.
            let is_known = queue.report(id, outcome);
            match outcome {
                Outcome::Arrived if is_known => self.count(|counts| counts.delivered += 1),
                Outcome::Rejected if is_known => self.count(|counts| counts.lost += 1),
                Outcome::Arrived
                | Outcome::Rejected
                | Outcome::TooLarge
                | Outcome::Again
                | Outcome::Failed => {}
            }
        }
        if have_come && let Err(error) = queue.checkpoint() {
            let sink = &self.sink;
            tracing::warn!(sink, %error, "cannot write down which summaries have arrived: they come again after a crash");
        }
        self.take_over(&mut queue);
        let threaded = producer.current();
        let version = SUMMARY_SCHEMA_VERSION.unsigned_abs();
        while let Some((id, message)) = queue.next() {
            match producer.send(&threaded, Origin::Summary { id }, version, &message) {
                Ok(()) => queue.mark_sent(),
                Err(Refusal::Never) => {
                    queue.mark_sent();
                    queue.report(id, Outcome::Rejected);
                    self.count(|counts| counts.lost += 1);
                }
                Err(Refusal::QueueFull | Refusal::NotNow | Refusal::NoId) => break,
            }
        }
        let waiting = queue.waiting();
        self.count(|counts| counts.waiting = waiting);
        waiting == 0
    }

    /// Moves to the disk, once no other agent has it any more.
    fn take_over(&self, queue: &mut Queue) {
        let (Queue::Memory { waiting, reports_due, .. }, Some(directory)) =
            (&*queue, &self.directory)
        else {
            return;
        };
        // Reports name them by where they wait.
        if *reports_due > 0 {
            return;
        }
        let Ok(spool) = open_spool(directory) else { return };
        let mut disk = Queue::Disk(Box::new(spool));
        let carried = disk.waiting();
        for Waiting { timestamp_ms, key, value, .. } in waiting {
            self.put(&mut disk, *timestamp_ms, key, value);
        }
        self.count(|counts| counts.carried = carried);
        *queue = disk;
    }

    /// Delivers what waits within `deadline`. The rest stays on disk for the next run, or is lost.
    pub(super) fn end(&self, producer: &Producer, deadline: Duration) {
        let end = Instant::now() + deadline;
        while !self.send(producer) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            // Reports come meanwhile; that not all have is no news. Where none is to come, as while
            // they wait for the id of their schema, it returns at once.
            if producer.current().flush(left.min(ENDING_LOOK)).is_ok() {
                thread::park_timeout(left.min(ENDING_PAUSE));
            }
        }
        let sink = &self.sink;
        match &mut *self.lock() {
            Queue::Memory { waiting, .. } if !waiting.is_empty() => {
                let summaries = std::mem::take(waiting).len() as u64;
                self.count(|counts| {
                    counts.lost += summaries;
                    counts.waiting = 0;
                });
                tracing::error!(
                    sink,
                    summaries,
                    "the last summaries were not delivered and are lost"
                );
            }
            Queue::Memory { .. } => {}
            Queue::Disk(spool) => {
                spool.fail_all();
                if let Err(error) = spool.close() {
                    tracing::error!(sink, %error, "cannot close the summaries' spool in good order");
                }
            }
        }
    }

    /// Logs the first error of an outage.
    fn tell(&self, error: &KafkaError) {
        let is_missing = matches!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)
        );
        if let Some(maker) = &self.maker
            && is_missing
        {
            maker.want();
        }
        let is_ours = matches!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight)
        );
        if is_ours || self.is_failing.swap(true, Ordering::Relaxed) {
            return;
        }
        let (sink, topic) = (&self.sink, &self.topic);
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                tracing::error!(
                    sink,
                    topic,
                    "the topic of summaries does not exist: create it, or set create_topic"
                );
            }
            _ => tracing::error!(sink, topic, %error, "summaries of the ledger do not arrive"),
        }
    }

    fn count(&self, change: impl FnOnce(&mut SummaryCounts)) {
        self.counts.update(|counts| change(&mut counts.summaries));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        // It changes within calls that do not panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

/// How many of the oldest have no room in memory.
fn surplus(waiting: &VecDeque<Waiting>) -> usize {
    let mut bytes = 0;
    let fits = |summary: &&Waiting| {
        bytes += summary.key.len() + summary.value.len();
        bytes <= IN_MEMORY_BYTES
    };
    let kept = waiting.iter().rev().take(IN_MEMORY).take_while(fits).count();
    waiting.len() - kept
}

impl Queue {
    const fn memory() -> Self {
        Self::Memory { waiting: VecDeque::new(), next_id: 0, reports_due: 0 }
    }

    /// Appends one; how many of the oldest were dropped for it.
    fn push(
        &mut self,
        timestamp_ms: i64,
        key: &[u8],
        value: &[u8],
    ) -> Result<u64, spool::AppendError> {
        match self {
            Self::Memory { waiting, next_id, .. } => {
                let (key, value) = (key.to_vec(), value.to_vec());
                waiting.push_back(Waiting {
                    id: *next_id,
                    timestamp_ms,
                    key,
                    value,
                    is_sent: false,
                });
                *next_id += 1;
                let dropped = surplus(waiting);
                waiting.drain(..dropped);
                Ok(dropped as u64)
            }
            Self::Disk(spool) => {
                let record = Record { timestamp_ms, messages: 1, key, value };
                spool.append(std::iter::once(record), now_ms())?;
                let losses = spool.take_losses();
                // One that the broker refused has been counted by its report.
                let lost = [Loss::DroppedOldest, Loss::TooOld, Loss::Unreadable];
                Ok(lost.map(|reason| losses[reason as usize].records).iter().sum())
            }
        }
    }

    /// The next one to be sent, if there is one.
    fn next(&mut self) -> Option<(u64, Message<'_>)> {
        match self {
            Self::Memory { waiting, .. } => {
                let next = waiting.iter().find(|waiting| !waiting.is_sent)?;
                let Waiting { id, timestamp_ms, key, value, .. } = next;
                Some((*id, Message { timestamp_ms: *timestamp_ms, key, value }))
            }
            Self::Disk(spool) => {
                let entry = spool.peek()?;
                let Record { timestamp_ms, key, value, .. } = entry.record;
                Some((entry.id, Message { timestamp_ms, key, value }))
            }
        }
    }

    /// That one was handed to the producer.
    fn mark_sent(&mut self) {
        match self {
            Self::Memory { waiting, reports_due, .. } => {
                if let Some(next) = waiting.iter_mut().find(|waiting| !waiting.is_sent) {
                    next.is_sent = true;
                    *reports_due += 1;
                }
            }
            Self::Disk(spool) => spool.mark_sent(),
        }
    }

    /// Takes in what became of one; false if it does not wait here any more.
    fn report(&mut self, id: u64, outcome: Outcome) -> bool {
        match self {
            Self::Memory { waiting, reports_due, .. } => {
                *reports_due = reports_due.saturating_sub(1);
                let Some(index) = waiting.iter().position(|waiting| waiting.id == id) else {
                    return false;
                };
                match outcome {
                    Outcome::Arrived | Outcome::TooLarge | Outcome::Rejected => {
                        drop(waiting.remove(index));
                    }
                    Outcome::Again | Outcome::Failed => waiting[index].is_sent = false,
                }
                true
            }
            Self::Disk(spool) => {
                match outcome {
                    Outcome::Arrived => return spool.acknowledge(id).is_some(),
                    Outcome::Again | Outcome::Failed => spool.fail(id),
                    Outcome::TooLarge | Outcome::Rejected => spool.reject(id),
                }
                true
            }
        }
    }

    /// Writes down which have arrived.
    fn checkpoint(&mut self) -> Result<(), spool::Error> {
        match self {
            Self::Memory { .. } => Ok(()),
            Self::Disk(spool) => spool.checkpoint(false),
        }
    }

    /// Those that have not arrived.
    fn waiting(&self) -> u64 {
        match self {
            Self::Memory { waiting, .. } => waiting.len() as u64,
            Self::Disk(spool) => spool.held().records,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_long_ones_take_no_more_memory_than_a_day_of_short_ones() {
        let mut queue = Queue::memory();
        let long = vec![0; 500_000];
        let dropped: u64 = (0..100).map(|_| queue.push(0, b"node", &long).unwrap()).sum();
        assert_eq!(queue.waiting(), IN_MEMORY_BYTES as u64 / 500_004);
        assert_eq!(dropped, 100 - queue.waiting());
    }

    #[test]
    fn one_that_was_dropped_while_it_was_on_its_way_is_not_counted_again_by_its_report() {
        for outcome in [Outcome::Arrived, Outcome::Rejected, Outcome::Failed] {
            let mut queue = Queue::memory();
            assert_eq!(queue.push(0, b"node", b"first").unwrap(), 0);
            queue.mark_sent();
            for _ in 1..IN_MEMORY {
                assert_eq!(queue.push(0, b"node", b"other").unwrap(), 0);
            }
            assert_eq!(queue.push(0, b"node", b"last").unwrap(), 1);
            let due = |queue: &Queue| matches!(queue, Queue::Memory { reports_due, .. } if *reports_due == 1);
            assert!(due(&queue), "nothing may move to the disk before its report");
            assert!(!queue.report(0, outcome));
            assert!(!due(&queue));
            assert_eq!(queue.waiting(), IN_MEMORY as u64);
            queue.mark_sent();
            assert!(queue.report(1, outcome));
        }
    }
}
