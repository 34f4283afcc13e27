//! With librdkafka's own mock of a cluster, which can fail in ways that a real broker does not on
//! demand. The integration tests have a real one.

mod framing;
mod hostile;
mod in_flight;
mod model;
mod replacement;
mod summaries;
mod takeover;
mod too_large;

use std::{path::Path, sync::atomic::Ordering, thread};

use rdkafka::{
    bindings::rd_kafka_resp_err_t as Code,
    mocking::MockCluster,
    producer::{DefaultProducerContext, Producer as _},
    types::RDKafkaApiKey,
};
use tap53_records::encode::{SingleObject, samples};

use super::{route::Route, *};
use crate::config::{FsyncChoice, SpoolConfig, SpoolMode};

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

fn open(config: &KafkaConfig, watches: bool) -> Result<Kafka, OpenError> {
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

/// Checks that the counts add up, which they must at every moment.
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
        let outage = kafka.state().outage.unwrap();
        assert!(outage.starts_with("broker unreachable, buffering to spool: "), "{outage}");
        kafka.write(&batch(100));
        assert_eq!(kafka.counts().read().spooled.records, 1_100, "{mode:?}");
        cluster.broker_up(1).unwrap();
        wait_until("all", &kafka, |counts| counts.delivered.records == 1_200);
        wait_until("the end of the outage", &kafka, |_| kafka.state().outage.is_none());
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
fn errors_that_may_pass_are_tried_again_and_those_that_cannot_are_counted() {
    let (cluster, directory) = (cluster(), tempfile::tempdir().unwrap());
    let mut config = config(&cluster, spool(directory.path(), SpoolMode::Durable));
    config.message_timeout = DEADLINE;
    let kafka = open(&config, true).unwrap();
    let refused = Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    cluster.request_errors(RDKafkaApiKey::Produce, &[refused; 3]);
    kafka.write(&batch(20));
    wait_until("all", &kafka, |counts| counts.delivered.records == 20);
    // First in a batch with others, and then alone.
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

#[test]
fn without_a_spool_what_the_broker_does_not_take_is_counted() {
    let cluster = cluster();
    cluster.broker_down(1).unwrap();
    let kafka = open(&config(&cluster, None), true).unwrap();
    kafka.write(&batch(30));
    wait_until("a verdict", &kafka, |counts| counts.lost[SinkLoss::Expired as usize].records == 30);
    kafka.close(Duration::from_millis(10));
}
