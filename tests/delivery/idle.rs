//! An agent with nothing to do. The test counts the wake-ups of its threads, and measures no time: each
//! wait that begins is the end of a wake-up.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use tap53_harness::{agent::Agent, kafka::Kafka, scratch, usage::Usage, wait};

use super::run::{DEADLINE, TOPIC, namespace};

/// Long compared with every period of the agent.
const INTERVAL: Duration = Duration::from_secs(4);

/// Waits a second of all threads together. Four of each worker, two of the spool's sender, a few of
/// the loop's tick, and up to two of each thread of librdkafka.
const MOST_WAITS_PER_S: f64 = 40.0;
/// Maximum wake-ups a second of each worker, and of the thread that receives delivery reports.
const MOST_OF_WORKER: f64 = 6.0;
const MOST_OF_REPORTS: f64 = 1.0;

#[test]
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn an_idle_agent_sleeps() -> Result<()> {
    let namespace = namespace()?;
    let kafka = Kafka::start(&namespace)?;
    kafka.create_topic(TOPIC)?;
    let (broker, directory) = (kafka.address(), scratch::directory("queue")?);
    for mode in ["none", "fast", "durable"] {
        let queue = directory.path().join(mode);
        fs::create_dir_all(&queue)?;
        let spool = match mode {
            "none" => String::new(),
            mode => format!(", spool: {{mode: {mode}, directory: {}}}", queue.display()),
        };
        let yaml = format!(
            "node: test\ninterfaces: {{include: [lo]}}\nsinks:\n\
             \x20 - {{type: kafka, brokers: ['{broker}'], topic: {TOPIC}{spool}}}\n"
        );
        let agent = Agent::start(&namespace, &yaml, &[])?;
        // The best of several intervals, since it connects first, and sometimes requests metadata.
        let used = wait::until("an interval in which the agent sleeps", DEADLINE, || {
            let before = Usage::of(agent.process().pid())?;
            let end = Instant::now() + INTERVAL;
            while Instant::now() < end {
                thread::park_timeout(INTERVAL);
            }
            let used = &Usage::of(agent.process().pid())? - &before;
            println!("{mode}: {:.1} waits a second: {:?}", used.waits_per_s(), used.waits);
            let all_sleep = |name: &str, most: f64| {
                let mut threads =
                    used.waits.iter().filter(|((_, thread), _)| thread.starts_with(name));
                threads.all(|(_, waits)| *waits as f64 <= most * used.time.as_secs_f64())
            };
            let sleeps = used.waits_per_s() <= MOST_WAITS_PER_S
                && all_sleep("worker-", MOST_OF_WORKER)
                && all_sleep("kafka-reports", MOST_OF_REPORTS);
            Ok(sleeps.then_some(used))
        })?;
        let threads: Vec<_> = used.waits.keys().map(|(_, name)| name.as_str()).collect();
        for name in ["worker-0", "kafka-reports"] {
            assert!(threads.contains(&name), "{name} is not among {threads:?}");
        }
        agent.stop()?;
    }
    Ok(())
}
