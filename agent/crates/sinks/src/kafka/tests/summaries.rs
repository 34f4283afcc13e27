//! Summaries of the ledger, and the windows that they report as settled.

use nix::time::{ClockId, clock_gettime};
use tap53_ledger::{Kind, Ledger, Moment, Sources, SummaryCounts, Windows};

use super::{
    framing::{away, registry},
    *,
};
use crate::config::SummaryConfig;

fn summaries(kafka: &Kafka) -> &dyn SummarySink {
    kafka.summaries().unwrap()
}

fn with_summaries(config: KafkaConfig) -> KafkaConfig {
    let summary = SummaryConfig {
        topic: "ledger".to_owned(),
        interval: Duration::from_secs(60),
        chain: false,
        signing: None,
    };
    KafkaConfig { summary: Some(summary), ..config }
}

/// Writes a summary for each window, like the pipeline.
struct Summarising(Windows);

impl Summarising {
    fn begin() -> Self {
        Self(Windows::begin("dns", Moment { utc_us: 0, monotonic_ns: 0 }))
    }

    /// The window that the sink reports as settled.
    fn take(&mut self, kafka: &Kafka) -> Option<i64> {
        let ledger = Ledger::new(&Sources {
            node: NODE.to_owned(),
            run: [7; 8],
            taken_at_us: 0,
            ended: false,
            is_abandoned: false,
            interfaces: Vec::new(),
            workers: Default::default(),
            last_numbers: Vec::new(),
            sinks: vec![("kafka".to_owned(), kafka.counts().read())],
        });
        let progress = summaries(kafka).begin_window(self.0.current() + 1);
        let moment = Moment { utc_us: 0, monotonic_ns: 0 };
        let summary = self.0.end(Kind::Window, "kafka", &ledger, progress, moment);
        summaries(kafka).take(&summary.unwrap());
        progress.settled_window
    }
}

fn wait_for_summaries(kafka: &Kafka, condition: impl Fn(&SummaryCounts) -> bool) {
    wait_until("summaries", kafka, |counts| {
        kafka.tick(Instant::now());
        let summaries = counts.summaries;
        let accounted = summaries.delivered + summaries.lost + summaries.waiting;
        // The next call counts what was sent or reported meanwhile.
        accounted == summaries.written + summaries.carried && condition(&summaries)
    });
}

#[test]
fn summaries_wait_for_a_broker_and_for_the_next_run_where_there_is_a_spool() {
    for has_spool in [false, true] {
        let (cluster, directory) = (cluster(), tempfile::tempdir().unwrap());
        cluster.create_topic("ledger", 1, 1).unwrap();
        let spool = spool(directory.path(), SpoolMode::Durable).filter(|_| has_spool);
        let config = with_summaries(config(&cluster, spool));
        let kafka = open(&config, false).unwrap();
        let mut summarising = Summarising::begin();
        summarising.take(&kafka);
        wait_for_summaries(&kafka, |summaries| summaries.delivered == 1);
        if has_spool {
            // A kill now would not send it again.
            let left = spool::contents(&directory.path().join("summaries")).unwrap();
            assert_eq!(left.waiting().records, 0);
        }
        cluster.broker_down(1).unwrap();
        for _ in 0..5 {
            summarising.take(&kafka);
        }
        // Longer than the message timeout.
        wait_until("a failure", &kafka, |_| {
            kafka.tick(Instant::now());
            kafka.summaries.as_ref().unwrap().is_failing.load(Ordering::Relaxed)
        });
        assert_eq!(kafka.counts().read().summaries.delivered, 1);
        cluster.broker_up(1).unwrap();
        wait_for_summaries(&kafka, |summaries| summaries.delivered == 6);
        cluster.broker_down(1).unwrap();
        summarising.take(&kafka);
        kafka.close(Duration::from_millis(10));
        summaries(&kafka).end(Duration::from_millis(10));
        let left = kafka.counts().read().summaries;
        assert_eq!((left.written, left.delivered), (7, 6));
        assert_eq!((left.waiting, left.lost), if has_spool { (1, 0) } else { (0, 1) });
        drop(kafka);
        cluster.broker_up(1).unwrap();
        let kafka = open(&config, false).unwrap();
        let carried = kafka.counts().read().summaries.carried;
        assert_eq!(carried, left.waiting);
        wait_for_summaries(&kafka, |summaries| summaries.delivered == carried);
    }
}

#[test]
fn a_window_is_settled_once_its_records_are_delivered_or_lost() {
    for mode in [Some(SpoolMode::Durable), Some(SpoolMode::Fast), None] {
        let (cluster, directory) = (cluster(), tempfile::tempdir().unwrap());
        cluster.create_topic("ledger", 1, 1).unwrap();
        let spool = mode.and_then(|mode| spool(directory.path(), mode));
        let mut config = with_summaries(config(&cluster, spool));
        if mode.is_none() {
            // More than the first ones take on a busy machine.
            config.message_timeout = Duration::from_secs(5);
        }
        let kafka = open(&config, false).unwrap();
        let mut summarising = Summarising::begin();
        assert_eq!(summarising.take(&kafka), Some(0));
        write(&kafka, 100);
        wait_until("the first", &kafka, |counts| counts.delivered.records == 100);
        assert_eq!(settled(&mut summarising, &kafka, 1), 1, "{mode:?}");
        cluster.broker_down(1).unwrap();
        let window = summarising.0.current();
        write(&kafka, 50);
        assert_eq!(summarising.take(&kafka), Some(window - 1), "{mode:?}");
        write(&kafka, 50);
        assert_eq!(summarising.take(&kafka), Some(window - 1), "{mode:?}");
        if mode.is_some() {
            wait_until("failures", &kafka, |counts| {
                is_failing(&kafka) && counts.in_flight.records == 0
            });
            assert_eq!(summarising.take(&kafka), Some(window - 1), "{mode:?}");
            cluster.broker_up(1).unwrap();
            wait_until("all", &kafka, |counts| counts.delivered.records == 200);
        } else {
            wait_until("a verdict", &kafka, |counts| {
                counts.lost[SinkLoss::Expired as usize].records == 100
            });
        }
        let last = summarising.0.current();
        assert!(settled(&mut summarising, &kafka, last) >= last, "{mode:?}");
        // Records that this run leaves in the spool are before all windows of the next.
        if mode.is_some() {
            cluster.broker_down(1).unwrap();
            write(&kafka, 10);
            kafka.close(Duration::from_millis(100));
            drop(kafka);
            let kafka = open(&config, false).unwrap();
            let mut summarising = Summarising::begin();
            assert_eq!(summarising.take(&kafka), None, "{mode:?}");
            cluster.broker_up(1).unwrap();
            wait_until("the carried", &kafka, |counts| counts.delivered.records == 10);
            assert!(settled(&mut summarising, &kafka, 1) >= 1);
        }
    }
}

/// Writes records like a worker.
fn write(kafka: &Kafka, records: u64) {
    let mut batch = batch(records);
    batch.set_slot(kafka.announce(records));
    kafka.write(&batch);
}

/// Waits until window `least` is settled: a report is counted a moment before that.
fn settled(summarising: &mut Summarising, kafka: &Kafka, least: i64) -> i64 {
    let end = Instant::now() + DEADLINE;
    loop {
        match summarising.take(kafka) {
            Some(window) if window >= least => return window,
            window => assert!(Instant::now() < end, "{window:?}"),
        }
        thread::park_timeout(Duration::from_millis(2));
    }
}

#[test]
fn the_end_waits_for_the_id_of_the_summaries_without_keeping_a_processor_busy() {
    let (cluster, stub) = (cluster(), away());
    cluster.create_topic("ledger", 1, 1).unwrap();
    let config = KafkaConfig { registry: registry(&stub), ..config(&cluster, None) };
    let kafka = open(&with_summaries(config), false).unwrap();
    Summarising::begin().take(&kafka);
    let busy = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    let (began, before) = (Instant::now(), busy());
    summaries(&kafka).end(Duration::from_millis(500));
    assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
    assert!(busy() - before < Duration::from_millis(100), "{:?}", busy() - before);
    assert_eq!(kafka.counts().read().summaries.lost, 1);
}
