//! A broker that acknowledges late.

use std::time::Duration;

use anyhow::Result;
use tap53_harness::{delay::DelayingProxy, kafka::Kafka, scratch};

use super::run::{Run, TOPIC, consume, namespace, spool};

const ROUND_TRIP: Duration = Duration::from_millis(300);
const RECORDS: u32 = 4_000;

#[test]
fn batches_do_not_wait_for_acknowledgements_and_keep_their_order_when_connections_break()
-> Result<()> {
    let namespace = namespace()?;
    let proxy = DelayingProxy::listen(&namespace)?;
    let kafka = Kafka::start_behind(&namespace, &proxy)?;
    kafka.create_topic(TOPIC)?;
    let directory = scratch::directory("queue")?;
    let spool = spool("durable", directory.path(), "");
    let keys = format!("batch_records: 20\n    {spool}");
    let mut run = Run::start(&namespace, &kafka.address(), &keys, 0)?;
    run.feed(RECORDS / 4)?;
    proxy.set_delay(ROUND_TRIP);
    let _ = proxy.take_most_unanswered();
    for _ in 0..3 {
        run.feed(RECORDS / 4)?;
        proxy.wait_for_unanswered(5)?;
        // The broker may have these batches or not, and no report shows which.
        proxy.break_connections();
    }
    let ended = run.finish()?;
    ended.require_nothing_lost()?;
    let consumed = consume(&kafka)?;
    consumed.require_exactly(0..RECORDS)?;
    assert_eq!(consumed.duplicates(), 0);
    assert!(consumed.numbers.is_sorted(), "out of order");
    Ok(())
}
