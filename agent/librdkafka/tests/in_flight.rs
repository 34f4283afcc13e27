//! Against librdkafka's mock of a cluster, whose broker takes its time to answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext, Statistics,
    mocking::MockCluster,
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext},
};

const ROUND_TRIP: Duration = Duration::from_millis(300);
const DEADLINE: Duration = Duration::from_secs(60);
/// More than five messages, and more than five batches.
const MESSAGES: u64 = 200;
const BATCH: u64 = 10;

#[derive(Clone, Default)]
struct Seen(Arc<Counts>);

#[derive(Default)]
struct Counts {
    delivered: AtomicU64,
    most_in_flight: AtomicU64,
    wakeups: AtomicU64,
    requests: AtomicU64,
}

impl ClientContext for Seen {
    fn stats(&self, statistics: Statistics) {
        for broker in statistics.brokers.values().filter(|broker| broker.nodeid == 1) {
            let in_flight = u64::try_from(broker.waitresp_cnt).unwrap_or(0);
            self.0.most_in_flight.fetch_max(in_flight, Ordering::Relaxed);
            self.0.wakeups.store(broker.wakeups.unwrap_or(0), Ordering::Relaxed);
            self.0.requests.store(broker.tx, Ordering::Relaxed);
        }
    }
}

impl ProducerContext for Seen {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        assert!(result.is_ok(), "{result:?}");
        self.0.delivered.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn five_batches_of_a_partition_are_in_flight_and_the_thread_waits_for_their_answers() {
    assert!(tap53_librdkafka::is_mended());
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("dns", 1, 1).unwrap();
    cluster.broker_round_trip_time(1, ROUND_TRIP).unwrap();
    let seen = Seen::default();
    let producer: BaseProducer<Seen> = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("enable.idempotence", "true")
        .set("batch.num.messages", BATCH.to_string())
        .set("linger.ms", "5")
        .set("statistics.interval.ms", "20")
        .create_with_context(seen.clone())
        .unwrap();
    for _ in 0..MESSAGES {
        producer.send(BaseRecord::<(), [u8]>::to("dns").payload(b"x")).unwrap();
    }
    let end = Instant::now() + DEADLINE;
    while seen.0.delivered.load(Ordering::Relaxed) < MESSAGES {
        assert!(Instant::now() < end, "not all were delivered");
        producer.poll(Duration::from_millis(20));
    }
    producer.flush(DEADLINE).unwrap();
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!(count(&seen.0.most_in_flight), 5);
    // For an answer, a request, a batch that is ready; and the timers of the waiting. A thread that
    // polls without waiting wakes a hundred times as often.
    let (wakeups, requests) = (count(&seen.0.wakeups), count(&seen.0.requests));
    assert!(wakeups < 50 * requests, "{wakeups} wake-ups for {requests} requests");
}
