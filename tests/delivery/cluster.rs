//! Three brokers, which restart under load one after the other.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::signal::Signal;
use tap53_harness::{kafka::Cluster, namespace::Namespace, scratch};

use super::run::{Run, TOPIC, read, spool};

const PARTITIONS: i32 = 6;
const CLIENTS: u8 = 12;

#[test]
fn no_record_is_lost_and_each_client_keeps_its_order_while_brokers_restart_in_turn() -> Result<()> {
    let namespace = Namespace::new()?;
    namespace.ip(&["link", "set", "lo", "up"])?;
    let mut cluster = Cluster::start(&namespace)?;
    cluster.create_topic(TOPIC, PARTITIONS)?;
    assert_eq!(cluster.leaders(TOPIC)?, 3);
    let directory = scratch::directory("queue")?;
    let mut next = 0;
    let mut duplicates_before = 0;
    for mode in [None, Some("durable")] {
        let spool = mode.map_or(String::new(), |mode| {
            spool(mode, &directory.path().join(mode), "fsync: never")
        });
        let keys = format!("key: client_address\n    {spool}");
        // The first address has no broker.
        let brokers = [vec!["127.0.0.1:9".to_owned()], cluster.addresses()].concat();
        let mut run = Run::start(&namespace, &brokers.join("\", \""), &keys, next)?;
        run.ask_as(CLIENTS);
        let begin = next;
        let stop = AtomicBool::new(false);
        let run = thread::scope(|scope| -> Result<Run> {
            let feeding = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    run.feed(400)?;
                }
                anyhow::Ok(run)
            });
            let restarted = restart_each(&mut cluster);
            stop.store(true, Ordering::Relaxed);
            let fed = feeding.join().map_err(|_| anyhow!("the feed panicked"))?;
            restarted?;
            fed
        })?;
        next = run.next();
        let ended = run.finish()?;
        ended.require_nothing_lost().with_context(|| format!("mode {mode:?}"))?;
        let messages = cluster.consume(TOPIC)?;
        let consumed = read(&messages)?;
        consumed.require_exactly(0..next)?;
        assert_eq!(ended.records("delivered")?, u64::from(next - begin));

        // All records of a client must be in one partition and in order; duplicates are left out.
        let mut seen = HashSet::new();
        let mut last: HashMap<&[u8], (u32, u32)> = HashMap::new();
        let mut out_of_order = 0;
        for (message, number) in messages.iter().zip(&consumed.numbers) {
            if *number < begin || !seen.insert(*number) {
                continue;
            }
            let key = message.key.as_slice();
            if let Some((partition, before)) = last.insert(key, (message.partition, *number)) {
                assert_eq!(partition, message.partition, "{key:?}");
                out_of_order += usize::from(before > *number);
            }
        }
        let used: HashSet<_> = last.values().map(|(partition, _)| partition).collect();
        println!(
            "spool {mode:?}: {} records, {} duplicates, {out_of_order} out of order, {} partitions",
            next - begin,
            consumed.duplicates() - duplicates_before,
            used.len(),
        );
        duplicates_before = consumed.duplicates();
        assert_eq!(last.len(), usize::from(CLIENTS));
        ensure!(used.len() >= 3, "{used:?}");
        ensure!(
            out_of_order == 0,
            "{out_of_order} records came before an older one of their client"
        );
    }
    Ok(())
}

/// Two brokers are stopped by an operator, and one crashes.
fn restart_each(cluster: &mut Cluster<'_>) -> Result<()> {
    let signals = [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGTERM];
    for (index, signal) in signals.into_iter().enumerate() {
        cluster.end(index, signal)?;
        cluster.restart(index)?;
        cluster.wait_until_in_sync(TOPIC)?;
    }
    Ok(())
}
