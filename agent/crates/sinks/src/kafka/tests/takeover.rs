//! A spool that another agent has locked.

use super::*;

#[test]
fn a_spool_that_another_process_has_is_taken_over_once_it_is_free() {
    let (cluster, directory) = (cluster(), tempfile::tempdir().unwrap());
    let config = config(&cluster, spool(directory.path(), SpoolMode::Durable));
    let first = open(&config, true).unwrap();
    let second = open(&config, true).unwrap();
    second.write(&batch(10));
    wait_until("records that went directly", &second, |counts| counts.delivered.records == 10);
    // Nothing is delivered: records wait in memory, and never in the other agent's files.
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
    // Nothing listens at this address.
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
