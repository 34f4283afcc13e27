//! Measures the cost of a broker that acknowledges slowly, and of an idle agent, with a real broker behind
//! a proxy that delays its answers. `cargo xtask bench` runs it.
//!
//! Figures of one run compare; those of two machines do not.

mod feed;
mod traffic;

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use feed::Feed;
use tap53_harness::{
    agent::{self, Agent},
    delay::DelayingProxy,
    dns,
    kafka::Kafka,
    namespace::{CLIENT_END, Namespace, SERVER_END, join},
    scratch,
    usage::Usage,
};

const DELAYS_MS: [u64; 5] = [0, 10, 50, 100, 200];
/// Exchanges at once, and their interval: 2,000 a second.
const CHUNK: u16 = 20;
const INTERVAL: Duration = Duration::from_millis(10);
const WARM_UP: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(8);

/// Throughput: small batches, so that many of them are in flight.
const ROUND_TRIP_MS: u64 = 100;
const BATCH: u32 = 100;
const TRANSACTIONS: u32 = 20_000;

fn main() -> Result<()> {
    let (client, namespace) = (Namespace::new()?, Namespace::new()?);
    join((&client, CLIENT_END), (&namespace, SERVER_END), 1_500)?;
    let proxy = DelayingProxy::listen(&namespace)?;
    let kafka = Kafka::start_behind(&namespace, &proxy)?;
    println!("agent: {}", agent::binary()?.display());
    let mut exchanges = Exchanges::between(&client, &namespace)?;
    acknowledgements(&mut exchanges, &namespace, &proxy, &kafka)?;
    throughput(&namespace, &proxy, &kafka)?;
    proxy.set_delay(Duration::ZERO);
    idle(&namespace, &kafka)
}

/// CPU at a steady load, by the delay of the broker's answers.
fn acknowledgements(
    exchanges: &mut Exchanges,
    namespace: &Namespace,
    proxy: &DelayingProxy,
    kafka: &Kafka<'_>,
) -> Result<()> {
    println!("acknowledged after   CPU ms/s   times that after 0 ms   most requests unanswered");
    let mut first = None;
    for ms in DELAYS_MS {
        let topic = format!("after-{ms}");
        kafka.create_topic(&topic)?;
        proxy.set_delay(Duration::from_millis(ms));
        let agent = start(namespace, &format!("{}, topic: {topic}", sink(kafka)))?;
        exchanges.make(WARM_UP)?;
        let _ = proxy.take_most_unanswered();
        let before = Usage::of(agent.process().pid())?;
        exchanges.make(MEASURED)?;
        let cpu = (&Usage::of(agent.process().pid())? - &before).cpu_ms_per_s();
        let unanswered = proxy.take_most_unanswered();
        agent.stop()?;
        let ratio = cpu / *first.get_or_insert(cpu);
        println!("{ms:>15} ms   {cpu:>8.1}   {ratio:>21.2}   {unanswered:>24}");
    }
    Ok(())
}

fn sink(kafka: &Kafka<'_>) -> String {
    format!("type: kafka, brokers: ['{}']", kafka.address())
}

/// An agent that captures at the server's end.
fn start(namespace: &Namespace, sink: &str) -> Result<Agent> {
    let yaml = format!("node: bench\ninterfaces: {{include: [s0]}}\nsinks:\n  - {{{sink}}}\n");
    Agent::start(namespace, &yaml, &[])
}

/// Queries and responses on the wire.
struct Exchanges {
    client: UdpSocket,
    server: UdpSocket,
    next: u16,
}

impl Exchanges {
    fn between(client: &Namespace, server: &Namespace) -> Result<Self> {
        let bind = |ip: Ipv4Addr, port: u16| {
            let socket = UdpSocket::bind((ip, port))?;
            socket.set_read_timeout(Some(feed::DEADLINE))?;
            Ok(socket)
        };
        let of_client = client.enter(|| bind(CLIENT_END.ipv4, 0))?;
        of_client.connect((SERVER_END.ipv4, 53))?;
        Ok(Self { client: of_client, server: server.enter(|| bind(SERVER_END.ipv4, 53))?, next: 0 })
    }

    /// Creates exchanges at the steady rate for this time.
    fn make(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        let mut due = Instant::now();
        while due < end {
            self.chunk()?;
            due += INTERVAL;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }

    fn chunk(&mut self) -> Result<()> {
        let mut message = [0; 512];
        for _ in 0..CHUNK {
            self.next = self.next.wrapping_add(1);
            self.client.send(&dns::query(self.next, "www.example.com", "A"))?;
        }
        for _ in 0..CHUNK {
            let (length, from) = self.server.recv_from(&mut message)?;
            // QR, RFC 1035 §4.1.1.
            message[2] |= 0x80;
            self.server.send_to(&message[..length], from)?;
        }
        for _ in 0..CHUNK {
            self.client.recv(&mut message)?;
        }
        Ok(())
    }
}

/// Number of batches of one partition in a round trip.
fn throughput(namespace: &Namespace, proxy: &DelayingProxy, kafka: &Kafka<'_>) -> Result<()> {
    let topic = "throughput";
    kafka.create_topic(topic)?;
    proxy.set_delay(Duration::from_millis(ROUND_TRIP_MS));
    let keys = format!("compression: lz4, batch_records: {BATCH}");
    let mut feed = Feed::start(namespace, &kafka.address(), topic, &keys)?;
    // Wait for the connection.
    feed.write(BATCH)?;
    feed.wait_for_log(kafka, topic)?;
    let (began, before) = (Instant::now(), Usage::of(feed.pid())?);
    feed.write(TRANSACTIONS)?;
    let (records, _, _) = feed.wait_for_log(kafka, topic)?;
    let took = began.elapsed();
    let cpu = (&Usage::of(feed.pid())? - &before).cpu;
    feed.end()?;
    let round_trips = took.as_secs_f64() * 1e3 / f64::from(u32::try_from(ROUND_TRIP_MS)?);
    let batches = f64::from(u32::try_from(records)? - BATCH) / f64::from(BATCH);
    println!(
        "one partition, acknowledged after {ROUND_TRIP_MS} ms, batches of {BATCH}: {:.2} batches a \
         round trip, {:.0} records/s, CPU {:.1} µs a record",
        batches / round_trips,
        f64::from(u32::try_from(records)?) / took.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / f64::from(u32::try_from(records)?)
    );
    Ok(())
}

/// An agent that captures an interface without traffic.
fn idle(namespace: &Namespace, kafka: &Kafka<'_>) -> Result<()> {
    println!("idle, sink                    CPU ms/s   waits/s   of which");
    kafka.create_topic("idle")?;
    let spool = scratch::directory("idle")?;
    let kafka = format!("{}, topic: idle", sink(kafka));
    let spooled = |mode: &str| {
        let directory = spool.path().join(mode);
        fs::create_dir_all(&directory)?;
        anyhow::Ok(format!("{kafka}, spool: {{mode: {mode}, directory: {}}}", directory.display()))
    };
    let sinks = [
        ("standard output", "type: stdout".to_owned()),
        ("kafka", kafka.clone()),
        ("kafka, fast spool", spooled("fast")?),
        ("kafka, durable spool", spooled("durable")?),
    ];
    for (name, keys) in sinks {
        let agent = start(namespace, &keys)?;
        thread::sleep(WARM_UP);
        let before = Usage::of(agent.process().pid())?;
        thread::sleep(MEASURED);
        let used = &Usage::of(agent.process().pid())? - &before;
        let mut threads: Vec<_> = used.waits.iter().filter(|(_, waits)| **waits > 0).collect();
        threads.sort_by_key(|(_, waits)| std::cmp::Reverse(**waits));
        let threads: Vec<_> =
            threads.iter().take(4).map(|((_, name), waits)| format!("{name} {waits}")).collect();
        println!(
            "{name:<28} {:>9.2}   {:>7.1}   in {MEASURED:?}: {}",
            used.cpu_ms_per_s(),
            used.waits_per_s(),
            threads.join(", ")
        );
        agent.stop()?;
    }
    Ok(())
}
