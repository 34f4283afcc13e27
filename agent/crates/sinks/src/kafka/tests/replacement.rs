//! The replacement of a producer.

use rdkafka::bindings::rd_kafka_test_fatal_error;

use super::*;

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
            // Records before the next tick are lost and counted.
            kafka.tick(Instant::now());
        }
        kafka.write(&batch(10));
        wait_until("the others", &kafka, |counts| counts.delivered.records == 20);
        kafka.close(DEADLINE);
        assert_eq!(kafka.counts().read().lost, SinkCounts::default().lost);
    }
}

/// 15 records that no broker has taken; the replaced producer has 10 of them.
fn with_replaced_producer(cluster: &Cluster, spool: Option<SpoolConfig>) -> Kafka {
    let config = KafkaConfig { message_timeout: DEADLINE, ..config(cluster, spool) };
    cluster.broker_down(1).unwrap();
    let kafka = open(&config, true).unwrap();
    kafka.write(&batch(10));
    kafka.producer.renew(&mut kafka.producer.renewal.lock()).unwrap();
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
        // Reports of records that were counted as lost are ignored.
        cluster.broker_up(1).unwrap();
        drop(kafka);
    }
}
