//! Against librdkafka's own mock of a cluster, which can be told to fail in ways that a real broker
//! would not on demand. The real one is in the integration tests.

mod framing;
mod hostile;
mod in_flight;
mod model;

use std::{path::Path, sync::atomic::Ordering, thread};

use rdkafka::{
    bindings::{rd_kafka_resp_err_t as Code, rd_kafka_test_fatal_error},
    mocking::MockCluster,
    producer::{DefaultProducerContext, Producer as _},
    types::RDKafkaApiKey,
};
use tap53_ledger::{Kind as LedgerKind, Ledger, Moment, Sources, SummaryCounts, Windows};
use tap53_records::encode::{Record, SingleObject, samples};
use tap53_transactions::pair::{Exchange, Observation, Transaction};

use super::{route::Route, *};
use crate::config::{FsyncChoice, SpoolConfig, SpoolMode, SummaryConfig};

const NODE: &str = "node-1";
const DEADLINE: Duration = Duration::from_secs(30);
type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster() -> Cluster {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("dns", 1, 1).unwrap();
    cluster
}

fn config(cluster: &Cluster, spool: Option<SpoolConfig>) -> KafkaConfig {
    KafkaConfig {
        message_timeout: Duration::from_millis(400),
        spool,
        ..KafkaConfig::to(&cluster.bootstrap_servers(), "dns")
    }
}

fn spool(directory: &Path, mode: SpoolMode) -> Option<SpoolConfig> {
    Some(SpoolConfig {
        mode,
        directory: directory.to_owned(),
        max_bytes: 64 << 20,
        max_age: None,
        fsync: FsyncChoice::Never,
        fsync_interval: Duration::from_secs(1),
        replay_records_per_s: None,
    })
}

fn batch(records: u64) -> Batch {
    let (mut batch, mut encoder) = (Batch::default(), SingleObject::new().unwrap());
    for _ in 0..records {
        samples::with_record(samples::NAMES[0], |record| {
            batch.push(&mut encoder, record).unwrap();
        });
    }
    batch
}

fn open(config: &KafkaConfig, watches: bool) -> Result<Kafka, Error> {
    Kafka::open(config, NODE, watches, None)
}

fn is_failing(kafka: &Kafka) -> bool {
    kafka.delivery.health.is_failing.load(Ordering::Relaxed)
}

fn is_direct(kafka: &Kafka) -> bool {
    kafka.delivery.router.route() == Route::Direct
}

fn wait_until(what: &str, kafka: &Kafka, condition: impl Fn(&SinkCounts) -> bool) {
    let end = Instant::now() + DEADLINE;
    loop {
        let counts = kafka.counts().read();
        require_balance(&counts);
        if condition(&counts) {
            return;
        }
        assert!(Instant::now() < end, "waited in vain for {what}: {counts:?}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

/// At every moment, whatever happens.
fn require_balance(counts: &SinkCounts) {
    let (mut taken, mut accounted) = (counts.offered, counts.delivered);
    taken += counts.carried;
    accounted += counts.in_flight;
    accounted += counts.spooled;
    counts.lost.iter().for_each(|lost| accounted += *lost);
    assert_eq!(taken, accounted, "{counts:?}");
}

const MODES: [SpoolMode; 2] = [SpoolMode::Durable, SpoolMode::Fast];

#[test]
fn a_broker_that_is_away_for_longer_than_the_message_timeout_loses_nothing() {
    for mode in MODES {
        let (cluster, directory) = (cluster(), tempfile::tempdir().unwrap());
        let kafka = open(&config(&cluster, spool(directory.path(), mode)), true).unwrap();
        kafka.write(&batch(100));
        wait_until("the first", &kafka, |counts| counts.delivered.records == 100);
        cluster.broker_down(1).unwrap();
        for _ in 0..10 {
            kafka.write(&batch(100));
        }
        wait_until("failures", &kafka, |counts| {
            is_failing(&kafka) && counts.in_flight.records == 0
        });
        kafka.write(&batch(100));
        assert_eq!(kafka.counts().read().spooled.records, 1_100, "{mode:?}");
        cluster.broker_up(1).unwrap();
        wait_until("all", &kafka, |counts| counts.delivered.records == 1_200);
        kafka.close(DEADLINE);
        assert_eq!(kafka.counts().read().delivered.records, 1_200);
        require_balance(&kafka.counts().read());
    }
}

#[test]
fn what_is_not_delivered_before_the_end_is_delivered_by_the_next_run() {
    for mode in MODES {
        let (cluster, directory) = (cluster(), tempfile::tempdir().unwrap());
        let config = config(&cluster, spool(directory.path(), mode));
        cluster.broker_down(1).unwrap();
        let kafka = open(&config, true).unwrap();
        kafka.write(&batch(300));
        kafka.close(Duration::from_millis(100));
        let counts = kafka.counts().read();
        require_balance(&counts);
        assert_eq!((counts.spooled.records, counts.in_flight.records), (300, 0), "{mode:?}");
        drop(kafka);
        cluster.broker_up(1).unwrap();
        let kafka = open(&config, true).unwrap();
        assert_eq!(kafka.counts().read().carried, counts.spooled);
        kafka.write(&batch(5));
        wait_until("all", &kafka, |counts| counts.delivered.records == 305);
        kafka.close(DEADLINE);
        let left = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let segments = left.filter(|path| path.extension().is_some());
        assert_eq!(segments.count(), 0);
    }
}

#[test]
fn a_full_producer_queue_is_no_loss_and_no_wait() {
    for mode in MODES {
        let (cluster, directory) = (cluster(), tempfile::tempdir().unwrap());
        let mut config = config(&cluster, spool(directory.path(), mode));
        config.message_timeout = DEADLINE;
        let kafka = open(&config, true).unwrap();
        kafka.write(&batch(1));
        wait_until("a connection", &kafka, |counts| counts.delivered.records == 1);
        cluster.broker_round_trip_time(1, Duration::from_secs(2)).unwrap();
        let batch = batch(1_000);
        let rounds = 8 * (1 << 20) / batch.bytes().len() as u64;
        let began = Instant::now();
        for _ in 0..rounds {
            kafka.write(&batch);
        }
        let took = began.elapsed();
        let counts = kafka.counts().read();
        assert!(counts.spooled.records > 1_000, "{counts:?}");
        let in_memory = counts.in_flight.records * (batch.bytes().len() as u64 / 1_000);
        assert!(in_memory <= config.queue_bytes, "{counts:?}");
        assert!(took < Duration::from_secs(2), "{took:?}");
        cluster.broker_round_trip_time(1, Duration::ZERO).unwrap();
        wait_until("all", &kafka, |counts| counts.delivered.records == 1 + rounds * 1_000);
        assert_eq!(kafka.counts().read().lost, SinkCounts::default().lost);
        kafka.close(DEADLINE);
    }
}

#[test]
fn in_fast_mode_records_are_in_memory_alone_again_once_the_spool_is_worked_off() {
    let (cluster, directory) = (cluster(), tempfile::tempdir().unwrap());
    let config = config(&cluster, spool(directory.path(), SpoolMode::Fast));
    cluster.broker_down(1).unwrap();
    let kafka = open(&config, true).unwrap();
    kafka.write(&batch(10));
    wait_until("the disk", &kafka, |counts| counts.spooled.records == 10);
    cluster.broker_up(1).unwrap();
    wait_until("all", &kafka, |counts| counts.delivered.records == 10);
    let end = Instant::now() + DEADLINE;
    let mut written = 10;
    while kafka.counts().read().spooled.records > 0 || {
        kafka.write(&batch(1));
        written += 1;
        kafka.counts().read().spooled.records > 0
    } {
        assert!(Instant::now() < end);
        thread::park_timeout(Duration::from_millis(10));
    }
    wait_until("all", &kafka, |counts| counts.delivered.records == written);
    kafka.close(DEADLINE);
}

#[test]
fn a_producer_that_is_broken_for_good_is_replaced() {
    for mode in [Some(SpoolMode::Durable), Some(SpoolMode::Fast), None] {
        let (cluster, directory) = (cluster(), tempfile::tempdir().unwrap());
        let spool = mode.and_then(|mode| spool(directory.path(), mode));
        let has_spool = spool.is_some();
        let config = KafkaConfig { message_timeout: DEADLINE, ..config(&cluster, spool) };
        let kafka = open(&config, true).unwrap();
        kafka.write(&batch(10));
        wait_until("the first", &kafka, |counts| counts.delivered.records == 10);
        let producer = kafka.producer.current();
        // SAFETY: the client lives as long as `producer`; the reason is a C string.
        unsafe {
            rd_kafka_test_fatal_error(
                producer.client().native_ptr(),
                Code::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
                c"for the test".as_ptr(),
            );
        }
        drop(producer);
        if !has_spool {
            // What comes before the next look is lost, and counted.
            kafka.tick(Instant::now());
        }
        kafka.write(&batch(10));
        wait_until("the others", &kafka, |counts| counts.delivered.records == 20);
        kafka.close(DEADLINE);
        assert_eq!(kafka.counts().read().lost, SinkCounts::default().lost);
    }
}

/// Of 15 records that no broker has taken, 10 are the replaced producer's.
fn with_replaced_producer(cluster: &Cluster, spool: Option<SpoolConfig>) -> Kafka {
    let config = KafkaConfig { message_timeout: DEADLINE, ..config(cluster, spool) };
    cluster.broker_down(1).unwrap();
    let kafka = open(&config, true).unwrap();
    kafka.write(&batch(10));
    kafka.producer.renew().unwrap();
    kafka.write(&batch(5));
    kafka
}

#[test]
fn a_producer_that_is_replaced_delivers_what_it_has() {
    for mode in [Some(SpoolMode::Fast), None] {
        let (cluster, directory) = (cluster(), tempfile::tempdir().unwrap());
        let spool = mode.and_then(|mode| spool(directory.path(), mode));
        let kafka = with_replaced_producer(&cluster, spool);
        kafka.tick(Instant::now());
        cluster.broker_up(1).unwrap();
        kafka.close(DEADLINE);
        let counts = kafka.counts().read();
        require_balance(&counts);
        assert_eq!(counts.delivered.records, 15, "{mode:?}: {counts:?}");
    }
}

#[test]
fn what_a_replaced_producer_still_has_at_the_end_is_kept_or_counted() {
    for mode in [Some(SpoolMode::Fast), None] {
        let (cluster, directory) = (cluster(), tempfile::tempdir().unwrap());
        let spool = mode.and_then(|mode| spool(directory.path(), mode));
        let kafka = with_replaced_producer(&cluster, spool);
        kafka.close(Duration::from_millis(100));
        let counts = kafka.counts().read();
        require_balance(&counts);
        let (kept, lost) = if mode.is_some() { (15, 0) } else { (0, 15) };
        assert_eq!(counts.spooled.records, kept, "{mode:?}: {counts:?}");
        assert_eq!(counts.lost[SinkLoss::Unflushed as usize].records, lost, "{counts:?}");
        // Nothing is reported any more that was counted as lost.
        cluster.broker_up(1).unwrap();
        drop(kafka);
    }
}

#[test]
fn errors_that_may_pass_are_tried_again_and_those_that_cannot_are_counted() {
    let (cluster, directory) = (cluster(), tempfile::tempdir().unwrap());
    let mut config = config(&cluster, spool(directory.path(), SpoolMode::Durable));
    config.message_timeout = DEADLINE;
    let kafka = open(&config, true).unwrap();
    let refused = Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    cluster.request_errors(RDKafkaApiKey::Produce, &[refused; 3]);
    kafka.write(&batch(20));
    wait_until("all", &kafka, |counts| counts.delivered.records == 20);
    // With others, and then alone.
    let too_large = Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    cluster.request_errors(RDKafkaApiKey::Produce, &[too_large; 2]);
    kafka.write(&batch(1));
    wait_until("a verdict", &kafka, |counts| {
        counts.lost[SinkLoss::Rejected as usize].records == 1 && counts.spooled.records == 0
    });
    kafka.write(&batch(20));
    wait_until("all others", &kafka, |counts| counts.delivered.records == 40);
    kafka.close(DEADLINE);
}

/// librdkafka has all records of such a batch fail.
#[test]
fn records_of_a_batch_that_is_too_long_for_the_broker_arrive_in_smaller_ones() {
    for mode in MODES {
        let (cluster, directory) = (cluster(), tempfile::tempdir().unwrap());
        let mut config = config(&cluster, spool(directory.path(), mode));
        config.message_timeout = DEADLINE;
        let kafka = open(&config, true).unwrap();
        let too_large = Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
        // All twenty go together, since all are in the producer when the broker comes.
        cluster.broker_down(1).unwrap();
        kafka.write(&batch(20));
        let queued = |_: &SinkCounts| kafka.producer.current().in_flight_count() == 20;
        wait_until("all in the producer", &kafka, queued);
        // 20, 10, 5, 2, and one that is too long by itself; fewer where a group goes in two requests.
        cluster.request_errors(RDKafkaApiKey::Produce, &[too_large; 5]);
        cluster.broker_up(1).unwrap();
        let rejected = |counts: &SinkCounts| counts.lost[SinkLoss::Rejected as usize].records;
        wait_until("all of them", &kafka, |counts| {
            counts.delivered.records + rejected(counts) == 20
        });
        let alone = rejected(&kafka.counts().read());
        assert!(alone <= 1, "{alone} refused for ever, {mode:?}");
        kafka.write(&batch(200));
        wait_until("the next", &kafka, |counts| counts.delivered.records == 220 - alone);
        kafka.close(DEADLINE);
        require_balance(&kafka.counts().read());
    }
}

/// Records of which every second one is longer than the producer takes.
fn batch_with_long_ones(records: u64, length: usize) -> Batch {
    let (mut batch, mut encoder) = (Batch::default(), SingleObject::new().unwrap());
    for number in 0..records {
        samples::with_record("unanswered", |record| {
            let Exchange::Query(query) = record.transaction.exchange else { panic!("a query") };
            let wire = vec![0; if number % 2 == 0 { length } else { 1 }];
            let query = Observation { wire, ..query.clone() };
            let exchange = Exchange::Query(&query);
            let transaction = Transaction { exchange, ..*record.transaction };
            let record = Record { transaction: &transaction, ..*record };
            batch.push(&mut encoder, &record).unwrap();
        });
    }
    batch
}

#[test]
fn what_the_producer_never_takes_does_not_take_the_place_of_what_it_does() {
    for mode in [Some(SpoolMode::Durable), Some(SpoolMode::Fast), None] {
        let (cluster, directory) = (cluster(), tempfile::tempdir().unwrap());
        let spool = mode.and_then(|mode| spool(directory.path(), mode));
        let spool = spool.map(|spool| SpoolConfig { max_bytes: 4 << 20, ..spool });
        let mut config = config(&cluster, spool);
        config.message_timeout = DEADLINE;
        config.options.insert("message.max.bytes".to_owned(), "10000".to_owned());
        cluster.broker_down(1).unwrap();
        let kafka = open(&config, true).unwrap();
        // Eight megabytes of what is too long, for a spool of four.
        for _ in 0..8 {
            kafka.write(&batch_with_long_ones(200, 10_000));
            require_balance(&kafka.counts().read());
        }
        let too_large = kafka.counts().read().lost[SinkLoss::TooLarge as usize];
        assert_eq!((too_large.records, too_large.messages), (800, 1_600), "{mode:?}");
        cluster.broker_up(1).unwrap();
        wait_until("all others", &kafka, |counts| counts.delivered.records == 800);
        assert_eq!(kafka.counts().read().lost[SinkLoss::DroppedOldest as usize].records, 0);
        kafka.close(DEADLINE);
    }
}

/// The limit is librdkafka's, to the byte, with keys and headers.
#[test]
fn what_is_counted_as_too_large_is_what_the_producer_refuses() {
    for (headers, key) in [(false, Key::None), (true, Key::ClientAddress)] {
        let cluster = cluster();
        let mut config = config(&cluster, None);
        config.options.insert("message.max.bytes".to_owned(), "10000".to_owned());
        (config.headers, config.key) = (headers, key);
        let kafka = open(&config, true).unwrap();
        let size = |wire| {
            let batch = batch_with_long_ones(1, wire);
            batch.bytes().len() + if key == Key::None { 0 } else { "192.0.2.1".len() }
        };
        // A record of which nothing is left for a byte more.
        let wire = 9_000 + kafka.max_record_bytes - size(9_000);
        assert_eq!(size(wire), kafka.max_record_bytes);
        for (wire, delivered, lost) in [(wire, 1, 0), (wire + 1, 1, 1)] {
            let mut batch = Batch::keyed(key);
            let mut encoder = SingleObject::new().unwrap();
            samples::with_record("unanswered", |record| {
                let Exchange::Query(query) = record.transaction.exchange else { panic!("a query") };
                let query = Observation { wire: vec![0; wire], ..query.clone() };
                let transaction =
                    Transaction { exchange: Exchange::Query(&query), ..*record.transaction };
                let record = Record { transaction: &transaction, ..*record };
                batch.push(&mut encoder, &record).unwrap();
            });
            kafka.write(&batch);
            wait_until("a verdict", &kafka, |counts| {
                counts.delivered.records == delivered
                    && counts.lost[SinkLoss::TooLarge as usize].records == lost
            });
            assert_eq!(kafka.counts().read().lost[SinkLoss::Rejected as usize].records, 0);
        }
        kafka.close(DEADLINE);
    }
}

#[test]
fn without_a_spool_what_the_broker_does_not_take_is_counted() {
    let cluster = cluster();
    cluster.broker_down(1).unwrap();
    let kafka = open(&config(&cluster, None), true).unwrap();
    kafka.write(&batch(30));
    wait_until("a verdict", &kafka, |counts| counts.lost[SinkLoss::Expired as usize].records == 30);
    kafka.close(Duration::from_millis(10));
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

/// Takes a summary of window after window, as the pipeline does.
struct Summarising(Windows);

impl Summarising {
    fn begin() -> Self {
        Self(Windows::begin("dns", Moment { utc_us: 0, monotonic_ns: 0 }))
    }

    /// The window that the sink says is settled.
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
        let progress = kafka.begin_window(self.0.current() + 1);
        let moment = Moment { utc_us: 0, monotonic_ns: 0 };
        let summary = self.0.end(LedgerKind::Window, "kafka", &ledger, progress, moment);
        kafka.take(&summary.unwrap());
        progress.settled_window
    }
}

fn wait_for_summaries(kafka: &Kafka, condition: impl Fn(&SummaryCounts) -> bool) {
    wait_until("summaries", kafka, |counts| {
        kafka.tick(Instant::now());
        let summaries = counts.summaries;
        let accounted = summaries.delivered + summaries.lost + summaries.waiting;
        // What was taken or reported a moment ago is counted by the next look.
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
            // One that is killed now does not send it again.
            let left = spool::contents(&directory.path().join("summaries")).unwrap();
            assert_eq!(left.waiting().records, 0);
        }
        cluster.broker_down(1).unwrap();
        for _ in 0..5 {
            summarising.take(&kafka);
        }
        // Longer than the message timeout.
        wait_until("a failure", &kafka, |_| kafka.context.summaries.get().unwrap().has_failed());
        assert_eq!(kafka.counts().read().summaries.delivered, 1);
        cluster.broker_up(1).unwrap();
        wait_for_summaries(&kafka, |summaries| summaries.delivered == 6);
        cluster.broker_down(1).unwrap();
        summarising.take(&kafka);
        kafka.close(Duration::from_millis(10));
        kafka.end(Duration::from_millis(10));
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
            // What the first ones must not need on a busy machine, to arrive.
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
        // What this run leaves in the spool is before all windows of the next.
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

/// As a worker does.
fn write(kafka: &Kafka, records: u64) {
    let mut batch = batch(records);
    batch.set_slot(kafka.announce(records));
    kafka.write(&batch);
}

/// The window that is settled, once it is `least`: a report is counted a moment before it is settled.
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
fn a_spool_that_another_process_has_is_taken_over_once_it_is_free() {
    let (cluster, directory) = (cluster(), tempfile::tempdir().unwrap());
    let config = config(&cluster, spool(directory.path(), SpoolMode::Durable));
    let first = open(&config, true).unwrap();
    let second = open(&config, true).unwrap();
    second.write(&batch(10));
    wait_until("records that went directly", &second, |counts| counts.delivered.records == 10);
    // Nothing arrives: what is in memory waits there, and never in the files of the other one.
    cluster
        .request_errors(RDKafkaApiKey::Produce, &[Code::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 20]);
    second.write(&batch(10));
    first.close(DEADLINE);
    assert_eq!(first.counts().read().carried.records, 0);
    drop(first);
    let has_spool = || second.delivery.router.has_spool();
    wait_until("the spool", &second, |_| has_spool());
    second.write(&batch(10));
    wait_until("all records", &second, |counts| counts.delivered.records == 30);
    assert_eq!(second.counts().read().lost, SinkCounts::default().lost);
}

#[test]
fn what_does_not_fit_memory_while_another_process_has_the_spool_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = cluster();
    let mut config = config(&cluster, spool(directory.path(), SpoolMode::Fast));
    // Nobody listens.
    config.brokers = vec!["127.0.0.1:9".to_owned()];
    let _first = open(&config, true).unwrap();
    let second = open(&config, true).unwrap();
    for _ in 0..20 {
        second.write(&batch(1_000));
    }
    let lost = |counts: &SinkCounts, reason: SinkLoss| counts.lost[reason as usize].records;
    wait_until("a loss", &second, |counts| lost(counts, SinkLoss::SpoolFailed) > 0);
    second.close(Duration::from_millis(10));
    let counts = second.counts().read();
    require_balance(&counts);
    assert!(lost(&counts, SinkLoss::Unflushed) > 0, "{counts:?}");
    assert_eq!(counts.spooled.records, 0);
}
