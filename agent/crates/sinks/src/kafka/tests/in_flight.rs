//! Five requests in flight, of which the first is refused permanently.

use super::*;

const RECORDS: u64 = 25;

/// Sends five requests of five records each, which brokers answer with these errors; returns the counts
/// once all have been answered.
fn first_refused(mode: Option<SpoolMode>, answers: &[Code]) -> SinkCounts {
    let (cluster, directory) = (cluster(), tempfile::tempdir().unwrap());
    let spool = mode.and_then(|mode| spool(directory.path(), mode));
    // The producer waits until a request is full: otherwise the first one may have a single record.
    let linger = Duration::from_millis(200);
    let mut config = KafkaConfig {
        message_timeout: DEADLINE,
        batch_records: 5,
        linger,
        ..config(&cluster, spool)
    };
    config.options.insert("statistics.interval.ms".to_owned(), "20".to_owned());
    let kafka = open(&config, true).unwrap();
    kafka.write(&batch(1));
    wait_until("a connection", &kafka, |counts| counts.delivered.records == 1);
    cluster.broker_round_trip_time(1, Duration::from_secs(2)).unwrap();
    cluster.request_errors(RDKafkaApiKey::Produce, answers);
    kafka.write(&batch(RECORDS));
    wait_until("five requests in flight", &kafka, |_| {
        let statistics = kafka.state().kafka;
        statistics.is_some_and(|s| s.brokers.iter().any(|b| b.requests_in_flight == 5))
    });
    cluster.broker_round_trip_time(1, Duration::ZERO).unwrap();
    let answered = |counts: &SinkCounts| {
        if mode.is_none() {
            // With a spool, the sender does this.
            kafka.tick(Instant::now());
        }
        let lost: u64 = counts.lost.iter().map(|lost| lost.records).sum();
        counts.delivered.records + lost == 1 + RECORDS
    };
    wait_until("all to be answered", &kafka, answered);
    // The producer continues.
    kafka.write(&batch(10));
    let before = kafka.counts().read().delivered.records;
    wait_until("the next", &kafka, |counts| {
        counts.delivered.records >= before && counts.in_flight.records + counts.spooled.records == 0
    });
    kafka.close(DEADLINE);
    let counts = kafka.counts().read();
    require_balance(&counts);
    assert_eq!(counts.offered.records, 1 + RECORDS + 10);
    counts
}

fn rejected(counts: &SinkCounts) -> u64 {
    counts.lost[SinkLoss::Rejected as usize].records
}

/// A request has at most five records.
fn require_one_request_lost(mode: Option<SpoolMode>, counts: &SinkCounts) {
    let (rejected, delivered) = (rejected(counts), counts.delivered.records);
    assert!((1..=5).contains(&rejected), "{mode:?}: {counts:?}");
    assert_eq!(rejected + delivered, 36, "{mode:?}: {counts:?}");
}

#[test]
fn a_permanent_error_for_the_first_of_five_requests_costs_that_request_alone() {
    let refused = Code::RD_KAFKA_RESP_ERR_INVALID_RECORD;
    for mode in [Some(SpoolMode::Durable), Some(SpoolMode::Fast), None] {
        let counts = first_refused(mode, &[refused]);
        require_one_request_lost(mode, &counts);
    }
}

/// A broker that checks sequence numbers also refuses the requests after a gap.
#[test]
fn what_is_out_of_order_after_the_refused_request_is_sent_again() {
    let refused = Code::RD_KAFKA_RESP_ERR_INVALID_RECORD;
    let gap = Code::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    for mode in MODES {
        let counts = first_refused(Some(mode), &[refused, gap, gap, gap, gap]);
        require_one_request_lost(Some(mode), &counts);
    }
    // Without a spool, records that the client gives up are lost and counted.
    let counts = first_refused(None, &[refused, gap, gap, gap, gap]);
    assert_eq!(rejected(&counts) + counts.delivered.records, 36, "{counts:?}");
    assert!(rejected(&counts) >= 5, "{counts:?}");
}
