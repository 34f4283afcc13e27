//! Measures compression by batch size: bytes and requests to a real broker, and the agent's CPU. `cargo
//! xtask bench` runs it.
//!
//! Figures of one run compare; those of two machines do not. The traffic is synthetic, modelled on a
//! cluster's: few names are queried often, many rarely, with search lists and one to four answers. A
//! request has one batch of one partition, so the batches in the broker's log are the requests, and their
//! bytes are those on the wire, less some forty for each request.

mod feed;
mod traffic;

use std::fs;

use anyhow::{Context as _, Result};

use feed::Feed;
use tap53_harness::{agent, kafka::Kafka, namespace::Namespace};

const TRANSACTIONS: u32 = 50_000;
/// Written to the FIFO at once.
const CHUNK: u32 = 500;

/// Compression and the most records of a batch: at 5,000 records a second for a partition, 20 ms of
/// linger give a hundred.
const CASES: [(&str, u32); 12] = [
    ("none", 10),
    ("none", 100),
    ("none", 1_000),
    ("lz4", 10),
    ("lz4", 100),
    ("lz4", 1_000),
    ("lz4", 10_000),
    ("zstd", 100),
    ("zstd", 1_000),
    ("zstd", 10_000),
    ("snappy", 100),
    ("gzip", 100),
];

fn main() -> Result<()> {
    let namespace = Namespace::new()?;
    namespace.ip(&["link", "set", "lo", "up"])?;
    let kafka = Kafka::start(&namespace)?;
    println!("agent: {}", agent::binary()?.display());
    println!("producer: batches of          bytes/record   records/request   CPU µs/record");
    for (number, (compression, most)) in CASES.iter().enumerate() {
        let topic = format!("case-{number}");
        kafka.create_topic(&topic)?;
        let keys = format!("compression: {compression}, batch_records: {most}");
        let figures = measure(&namespace, &kafka, &topic, &keys)?;
        println!(
            "{most:>6} records, {compression:<10} {:>14.1}   {:>15.1}   {:>13.1}",
            figures.bytes, figures.records, figures.cpu_us
        );
    }
    Ok(())
}

/// Per record, and records per request.
struct Figures {
    bytes: f64,
    records: f64,
    cpu_us: f64,
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn measure(namespace: &Namespace, kafka: &Kafka<'_>, topic: &str, keys: &str) -> Result<Figures> {
    let mut feed = Feed::start(namespace, &kafka.address(), topic, keys)?;
    for _ in 0..TRANSACTIONS / CHUNK {
        feed.write(CHUNK)?;
    }
    let (records, batches, bytes) = feed.wait_for_log(kafka, topic)?;
    let cpu_us = cpu_us(feed.pid().as_raw())?;
    feed.end()?;
    Ok(Figures {
        bytes: bytes as f64 / records as f64,
        records: records as f64 / batches as f64,
        cpu_us: cpu_us as f64 / records as f64,
    })
}

fn cpu_us(pid: i32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("a name in parentheses")?;
    let ticks = |index: usize| -> Result<u64> {
        Ok(fields.split_whitespace().nth(index).context("a field")?.parse()?)
    };
    // utime and stime, in hundredths of a second.
    Ok((ticks(11)? + ticks(12)?) * 10_000)
}
