//! What compression makes of batches of a size: bytes and requests to a real broker, and the agent's
//! CPU. `cargo xtask bench` runs it.
//!
//! Figures of one run compare; those of two machines do not. The traffic is made, after a cluster's:
//! few names asked often, many asked seldom, search lists, one to four answers. A request carries one
//! batch of one partition, so batches in the broker's log are requests, and their bytes are what went
//! over the wire but for some forty a request.

use std::{
    fs::{self, File},
    io::Write as _,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::{signal::Signal, stat::Mode};
use tap53_harness::{
    agent, dns, kafka::Kafka, namespace::Namespace, pcap::Pcap, process::Process, scratch, wait,
};

const DEADLINE: Duration = Duration::from_secs(60);
/// Bytes of a pcap file before its first packet.
const PCAP_HEADER: usize = 24;

const TRANSACTIONS: u32 = 50_000;
/// Written to the FIFO at once.
const CHUNK: u32 = 500;

/// Compression and the most records that go together: at 5,000 records a second for a partition, 20 ms
/// of linger make a hundred.
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
    let directory = scratch::directory("bench")?;
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU)?;
    let file = directory.path().join("tap53.yaml");
    let broker = kafka.address();
    fs::write(
        &file,
        format!(
            "node: bench\ninterfaces: {{include: [lo]}}\nsinks:\n\
             \x20 - {{type: kafka, brokers: ['{broker}'], topic: {topic}, {keys}}}\n\
             shutdown: {{flush_timeout_ms: 30000}}\n"
        ),
    )?;
    let mut command = namespace.command(agent::binary()?);
    command.args(["replay", "--config"]).arg(&file).arg(&fifo);
    let mut process = Process::spawn("tap53", command)?;
    let mut input = wait::until("the agent to open its input", DEADLINE, || {
        let opened = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(&fifo);
        ensure!(process.is_running()?, "it ended: {}", process.stderr().text());
        Ok(opened.ok())
    })?;
    nix::fcntl::fcntl(&input, nix::fcntl::F_SETFL(nix::fcntl::OFlag::empty()))?;
    input.write_all(&Pcap::default().bytes()[..PCAP_HEADER])?;
    let mut random = Random(0x5eed);
    for first in (0..TRANSACTIONS).step_by(CHUNK as usize) {
        let mut packets = Pcap::default();
        for number in first..first + CHUNK {
            push_transaction(&mut packets, number, &mut random);
        }
        input.write_all(&packets.bytes()[PCAP_HEADER..])?;
    }
    let (records, batches, bytes) = wait::until("all records to be in the log", DEADLINE, || {
        let (records, batches, bytes) = log(kafka, topic)?;
        // The last few wait for more input.
        let is_all = records >= u64::from(TRANSACTIONS - TRANSACTIONS / 50);
        Ok(is_all.then_some((records, batches, bytes)))
    })?;
    let cpu_us = cpu_us(process.pid().as_raw())?;
    drop(input);
    process.signal(Signal::SIGTERM)?;
    process.wait(DEADLINE)?;
    Ok(Figures {
        bytes: bytes as f64 / records as f64,
        records: records as f64 / batches as f64,
        cpu_us: cpu_us as f64 / records as f64,
    })
}

/// Records, batches and bytes of a topic with one partition (Kafka's record batch, version 2).
fn log(kafka: &Kafka<'_>, topic: &str) -> Result<(u64, u64, u64)> {
    let (mut records, mut batches, mut bytes) = (0, 0, 0);
    for file in kafka.partition_files(topic)? {
        if file.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        let log = fs::read(file)?;
        let mut rest = log.as_slice();
        while let Some(header) = rest.first_chunk::<61>() {
            let field = |at: usize| -> [u8; 4] {
                [header[at], header[at + 1], header[at + 2], header[at + 3]]
            };
            let length = 12 + u32::from_be_bytes(field(8)) as usize;
            let Some(after) = rest.get(length..).filter(|_| header[16] == 2) else { break };
            records += u64::from(u32::from_be_bytes(field(57)));
            batches += 1;
            bytes += length as u64;
            rest = after;
        }
    }
    Ok((records, batches, bytes))
}

fn cpu_us(pid: i32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("a name in parentheses")?;
    let ticks = |index: usize| -> Result<u64> {
        Ok(fields.split_whitespace().nth(index).context("a field")?.parse()?)
    };
    // utime and stime, of which there are a hundred a second.
    Ok((ticks(11)? + ticks(12)?) * 10_000)
}

/// xorshift64: the same numbers each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as u32 % limit
    }

    /// Of so many, the first ones far more often.
    fn popular(&mut self, limit: u32) -> u32 {
        let share = f64::from(self.below(1_000_000)) / 1e6;
        // The logarithm of a rank is spread evenly: Zipf's law with exponent 1.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below limit")]
        let rank = (f64::from(limit)).powf(share) as u32;
        rank.min(limit - 1)
    }
}

const WORDS: [&str; 24] = [
    "api",
    "auth",
    "billing",
    "cache",
    "cart",
    "catalog",
    "checkout",
    "db",
    "events",
    "gateway",
    "images",
    "inventory",
    "login",
    "mail",
    "metrics",
    "orders",
    "payments",
    "profile",
    "queue",
    "search",
    "session",
    "static",
    "tracking",
    "users",
];
const ZONES: [&str; 10] = [
    "com",
    "net",
    "org",
    "io",
    "co.uk",
    "amazonaws.com",
    "cloudfront.net",
    "example.com",
    "akamaiedge.net",
    "azure.com",
];

fn name(rank: u32) -> (String, bool) {
    let word = |at: u32| WORDS[(at as usize) % WORDS.len()];
    let namespace = word(rank / 7);
    match rank % 5 {
        0 | 1 => (format!("{}.{namespace}.svc.cluster.local", word(rank)), true),
        // A search list's.
        2 => (
            format!("{}.{}.{namespace}.svc.cluster.local", word(rank), ZONES[rank as usize % 10]),
            false,
        ),
        _ => (
            format!("{}-{rank}.{}.{}", word(rank), word(rank / 3), ZONES[rank as usize % 10]),
            true,
        ),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "each is below what it is cut to")]
fn push_transaction(packets: &mut Pcap, number: u32, random: &mut Random) {
    let (name, exists) = name(random.popular(5_000));
    let pod = random.popular(60);
    let (id, port) = (random.below(65_536) as u16, 32_768 + random.below(28_000) as u16);
    let client = SocketAddr::from(([10, 244, (pod / 16) as u8, 10 + (pod % 16) as u8], port));
    let server = SocketAddr::from(([10, 96, 0, 10], 53));
    let at = Duration::from_micros(u64::from(number) * 200 + u64::from(random.below(200)));
    let qtype = if random.below(2) == 0 { "A" } else { "AAAA" };
    let mut message = dns::query(id, &name, qtype);
    packets.udp_at(at, client, server, &message);
    message[2] |= 0x80;
    message[3] |= 0x80;
    if !exists {
        message[3] |= 3;
    } else if qtype == "A" {
        let answers = 1 + random.below(4) as u8;
        message[7] = answers;
        let mut records = Vec::new();
        for _ in 0..answers {
            records.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00");
            records.push(30);
            records.extend(b"\x00\x04");
            records.extend(random.below(u32::MAX).to_be_bytes());
        }
        // Behind the question; what a query has behind it, EDNS, is left out.
        message[10] = 0;
        message[11] = 0;
        message.truncate(12 + name.len() + 2 + 4);
        message.extend(records);
    }
    let latency = Duration::from_micros(100 + u64::from(random.popular(50_000)));
    packets.udp_at(at + latency, server, client, &message);
}
