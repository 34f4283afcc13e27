//! A broker that lost the end of its log, which it had acknowledged to an idempotent producer.

use std::fs::{self, File};

use anyhow::{Result, ensure};
use tap53_harness::{kafka::Kafka, namespace::Namespace, scratch, wait};

use super::run::{DEADLINE, Run, TOPIC, consume, spool};

/// The broker then expects an older sequence number than the producer's next one, which may be fatal
/// for an idempotent producer. With Kafka 4.4 and librdkafka 2.12, later records arrive without a new
/// producer. The replacement after a fatal error is tested with librdkafka's mock.
#[test]
fn a_broker_that_lost_the_end_of_its_log_gets_all_that_comes() -> Result<()> {
    let namespace = Namespace::new()?;
    namespace.ip(&["link", "set", "lo", "up"])?;
    for mode in [Some("durable"), None] {
        let mut kafka = Kafka::start(&namespace)?;
        kafka.create_topic(TOPIC)?;
        let directory = scratch::directory("queue")?;
        let keys = mode.map_or(String::new(), |mode| spool(mode, directory.path(), ""));
        let mut run = Run::start(&namespace, &kafka.address(), &keys, 0)?;
        // More than one batch.
        for fed in [100, 1_000] {
            run.feed(fed - run.next())?;
            wait::until("records to arrive", DEADLINE, || {
                Ok((consume(&kafka)?.times.len() == fed as usize).then_some(()))
            })?;
        }
        kafka.kill();
        forget_the_end(&kafka)?;
        kafka.restart()?;
        let kept = consume(&kafka)?.times.len();
        ensure!((1..1_000).contains(&kept), "{kept} are left");
        run.feed(100)?;
        let ended = run.finish()?;
        ended.require_nothing_lost()?;
        let consumed = consume(&kafka)?;
        assert!(consumed.missing(1_000..1_100).is_empty());
        assert_eq!((consumed.numbers.len(), consumed.duplicates()), (kept + 100, 0), "{mode:?}");
    }
    Ok(())
}

/// Truncates the log, as a file system would that did not write its end. The broker itself drops a
/// truncated batch.
fn forget_the_end(kafka: &Kafka<'_>) -> Result<()> {
    for file in kafka.partition_files(TOPIC)? {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("log") => {
                let log = File::options().write(true).open(&file)?;
                log.set_len(log.metadata()?.len() / 2)?;
            }
            // The broker creates it again from the log.
            Some("index" | "timeindex" | "snapshot") => fs::remove_file(file)?,
            _ => {}
        }
    }
    Ok(())
}
