//! Records and batches that are too large for the producer or the broker.

use tap53_records::encode::Record;
use tap53_transactions::pair::{Exchange, Observation, Transaction};

use super::*;

/// librdkafka fails all records of such a batch.
#[test]
fn records_of_a_batch_that_is_too_long_for_the_broker_arrive_in_smaller_ones() {
    for mode in MODES {
        let (cluster, directory) = (cluster(), tempfile::tempdir().unwrap());
        let mut config = config(&cluster, spool(directory.path(), mode));
        config.message_timeout = DEADLINE;
        let kafka = open(&config, true).unwrap();
        let too_large = Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
        // All twenty are in one batch, since all are in the producer when the broker is back.
        cluster.broker_down(1).unwrap();
        kafka.write(&batch(20));
        let queued = |_: &SinkCounts| kafka.producer.current().in_flight_count() == 20;
        wait_until("all in the producer", &kafka, queued);
        // 20, 10, 5, 2, and one that is too large alone; fewer if a group takes two requests.
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

/// Records of which every second one is too large for the producer.
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
        // Eight megabytes of too large records, for a spool of four.
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
        config.message_timeout = DEADLINE;
        config.options.insert("message.max.bytes".to_owned(), "10000".to_owned());
        (config.headers, config.key) = (headers, key);
        let kafka = open(&config, true).unwrap();
        let size = |wire| {
            let batch = batch_with_long_ones(1, wire);
            batch.bytes().len() + if key == Key::None { 0 } else { "192.0.2.1".len() }
        };
        // A record of exactly the limit.
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
