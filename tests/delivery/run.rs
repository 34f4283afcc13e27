//! An agent that is fed numbered exchanges, and the records that were delivered.

use std::{
    fs::{self, File},
    io::Write,
    net::SocketAddr,
    ops::Range,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::sys::{signal::Signal, stat::Mode};
use serde_json::Value;
use tap53_harness::{
    account::Ledger,
    agent, dns,
    kafka::{Kafka, Message},
    namespace::Namespace,
    numbered::{Consumed, name},
    pcap::Pcap,
    process::Process,
    scratch, wait,
};
use tempfile::TempDir;

/// Exit status of a replay that SIGTERM ended before its input did: 128 and the number of the signal.
pub(super) const INTERRUPTED: i32 = 128 + Signal::SIGTERM as i32;

pub(super) const DEADLINE: Duration = Duration::from_secs(60);
pub(super) const TOPIC: &str = "dns-transactions";

/// Bytes of a pcap file before its first packet.
const PCAP_HEADER: usize = 24;
/// Exchanges written to the FIFO at once.
const CHUNK: u32 = 200;

/// The section with the flush timeout.
const FLUSHING: &str = "shutdown: {flush_timeout_ms: 30000}";

/// Configuration keys of the Kafka sink, without `spool`.
pub(super) const QUICK: &str = "message_timeout_ms: 1000\n    queue_bytes: 4194304";

pub(super) fn spool(mode: &str, directory: &Path, more: &str) -> String {
    let directory = directory.display();
    format!("spool: {{mode: {mode}, directory: {directory}, {more}}}")
}

/// A running agent.
pub(super) struct Run {
    process: Process,
    directory: TempDir,
    fifo: Option<File>,
    next: u32,
    /// Number of clients that take turns.
    clients: u8,
}

/// The result of a run that has ended.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// The exit status if nothing is lost.
    expected: i32,
    pub(super) ledger: Value,
    pub(super) log: String,
    pub(super) stdout: String,
}

/// A namespace with nothing but its loopback.
pub(super) fn namespace() -> Result<Namespace> {
    let namespace = Namespace::new()?;
    namespace.ip(&["link", "set", "lo", "up"])?;
    Ok(namespace)
}

impl Run {
    /// Starts an agent that writes to `broker`; the numbers of its exchanges begin at `next`.
    pub(super) fn start(
        namespace: &Namespace,
        broker: &str,
        keys: &str,
        next: u32,
    ) -> Result<Self> {
        Self::start_prepared(namespace, broker, keys, next, |_| {})
    }

    /// Does the same as [`start`](Self::start), with another flush timeout.
    pub(super) fn start_flushing_for(
        namespace: &Namespace,
        broker: &str,
        keys: &str,
        next: u32,
        flush_timeout_ms: u32,
    ) -> Result<Self> {
        let sections = format!("shutdown: {{flush_timeout_ms: {flush_timeout_ms}}}");
        Self::start_with(namespace, (broker, TOPIC), keys, next, &sections, |_| {})
    }

    /// Does the same as [`start`](Self::start), with records in the flat profile, and their topic.
    pub(super) fn start_flat(
        namespace: &Namespace,
        to: (&str, &str),
        keys: &str,
        next: u32,
    ) -> Result<Self> {
        let sections = format!("{FLUSHING}\nrecord: {{profile: flat}}");
        Self::start_with(namespace, to, keys, next, &sections, |_| {})
    }

    pub(super) fn start_prepared(
        namespace: &Namespace,
        broker: &str,
        keys: &str,
        next: u32,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        Self::start_with(namespace, (broker, TOPIC), keys, next, FLUSHING, prepare)
    }

    fn start_with(
        namespace: &Namespace,
        (broker, topic): (&str, &str),
        keys: &str,
        next: u32,
        sections: &str,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let directory = scratch::directory("spool")?;
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU)?;
        // The agent must reconnect soon, unless a test sets something else.
        let options = match keys.contains("options:") {
            true => "",
            false => "options: {reconnect.backoff.max.ms: 250}",
        };
        let configuration = directory.path().join("tap53.yaml");
        fs::write(
            &configuration,
            format!(
                "node: test\n\
                 interfaces: {{include: [lo]}}\n\
                 sinks:\n\
                 \x20 - type: kafka\n    brokers: [\"{broker}\"]\n    topic: {topic}\n    \
                 linger_ms: 5\n    {keys}\n    {options}\n\
                 \x20 - type: stdout\n    format: json\n\
                 {sections}\n"
            ),
        )?;
        let mut command = namespace.command(agent::binary()?);
        command.args(["replay", "--config"]).arg(&configuration).arg("--ledger");
        command.arg(directory.path().join("ledger.json")).arg(&fifo);
        prepare(&mut command);
        let mut process = Process::spawn("tap53", command)?;
        let fifo = open_for_writing(&fifo, &mut process)?;
        let mut run = Self { process, directory, fifo: Some(fifo), next, clients: 1 };
        run.write(&Pcap::default().bytes()[..PCAP_HEADER])?;
        Ok(run)
    }

    /// Sets the number of clients from now on; each queries the numbers whose remainder is its own.
    pub(super) fn ask_as(&mut self, clients: u8) {
        self.clients = clients;
    }

    /// Feeds this many exchanges, and waits until all their records are accepted.
    pub(super) fn feed(&mut self, count: u32) -> Result<Range<u32>> {
        let begin = self.next;
        for first in (begin..begin + count).step_by(CHUNK as usize) {
            let from = self.process.stdout().len();
            self.feed_unseen(CHUNK.min(begin + count - first))?;
            let last = format!("{:?}", name(self.next - 1));
            self.process
                .stdout()
                .wait_for_line(&last, from, DEADLINE)
                .with_context(|| format!("the agent's log:\n{}", self.process.stderr().text()))?;
        }
        Ok(begin..self.next)
    }

    /// Feeds this many exchanges, without waiting until they are accepted.
    pub(super) fn feed_unseen(&mut self, count: u32) -> Result<()> {
        let mut packets = Pcap::default();
        for number in self.next..self.next + count {
            // It fits in the lowest byte.
            let [.., client] = (number % u32::from(self.clients)).to_be_bytes();
            push_exchange(&mut packets, number, client);
        }
        self.next += count;
        self.write(&packets.bytes()[PCAP_HEADER..])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let fifo = self.fifo.as_mut().context("the feed has ended")?;
        fifo.write_all(bytes).context("feed the agent")
    }

    pub(super) const fn next(&self) -> u32 {
        self.next
    }

    /// The configuration file that it runs with.
    pub(super) fn configuration(&self) -> PathBuf {
        self.directory.path().join("tap53.yaml")
    }

    pub(super) fn process(&self) -> &Process {
        &self.process
    }

    /// Numbers of the records that were accepted so far.
    pub(super) fn accepted(&self) -> Result<Vec<u32>> {
        let lines = self.process.stdout().lines();
        // A kill may truncate the last one. Parsing each would take longer than all the rest.
        let lines = lines.iter().filter(|line| line.ends_with('}'));
        let digits = |line: &str| -> Option<u32> {
            let (_, rest) = line.split_once("\"qname\":\"q")?;
            rest.split('.').next()?.parse().ok()
        };
        lines.map(|line| digits(line).with_context(|| format!("a number in {line}"))).collect()
    }

    /// Kills it with SIGKILL; returns the numbers of the records that it had accepted.
    pub(super) fn kill(self) -> Result<Vec<u32>> {
        let (accepted, log) = self.kill_however_full()?;
        // It had no time to count them in a ledger.
        ensure!(!log.contains("spool_dropped"), "the spool was too small for the test: {log}");
        Ok(accepted)
    }

    /// Does the same as [`kill`](Self::kill) for a spool that may be too small; returns its log too.
    pub(super) fn kill_however_full(mut self) -> Result<(Vec<u32>, String)> {
        self.process.kill();
        // All its output has been read once the process is reaped and the output has ended.
        let _ = self.process.wait(DEADLINE);
        Ok((self.accepted()?, self.process.stderr().text()))
    }

    /// Ends the feed, and waits until the agent has delivered its records and ended.
    pub(super) fn finish(mut self) -> Result<Ended> {
        self.fifo = None;
        self.ended(0)
    }

    /// Sends SIGTERM and waits for the agent to end.
    pub(super) fn terminate(self) -> Result<Ended> {
        self.process.signal(Signal::SIGTERM)?;
        self.ended(INTERRUPTED)
    }

    fn ended(mut self, expected: i32) -> Result<Ended> {
        let status = self.process.wait(DEADLINE)?;
        let log = self.process.stderr().text();
        let ledger = fs::read(self.directory.path().join("ledger.json"))
            .with_context(|| format!("{status}, and no ledger; its log:\n{log}"))?;
        let stdout = self.process.stdout().text();
        Ok(Ended { status, expected, ledger: serde_json::from_slice(&ledger)?, log, stdout })
    }
}

impl Ended {
    /// A number of the Kafka sink's records.
    pub(super) fn records(&self, key: &str) -> Result<u64> {
        Ledger(&self.ledger).number(&format!("/agent/sinks/0/records/{key}"))
    }

    pub(super) fn lost(&self) -> Result<u64> {
        Ledger(&self.ledger).sum("/agent/sinks/0/records/lost")
    }

    /// Fails unless the ledger balances and nothing is lost.
    pub(super) fn require_nothing_lost(&self) -> Result<()> {
        Ledger(&self.ledger).require_balance().with_context(|| self.log.clone())?;
        ensure!(self.lost()? == 0, "{}\n{}", self.ledger["agent"]["sinks"][0], self.log);
        ensure!(self.status.code() == Some(self.expected), "{}: {}", self.status, self.log);
        Ok(())
    }
}

/// Waits for the agent to open the FIFO for reading, or to end.
fn open_for_writing(fifo: &PathBuf, process: &mut Process) -> Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = wait::until("the agent to open its input", DEADLINE, || {
        let mut options = fs::OpenOptions::new();
        match options.write(true).custom_flags(libc::O_NONBLOCK).open(fifo) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
                ensure!(process.is_running()?, "it ended: {}", process.stderr().text());
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    })?;
    // From here on, writes wait while the pipe is full.
    nix::fcntl::fcntl(&file, nix::fcntl::F_SETFL(nix::fcntl::OFlag::empty()))?;
    Ok(file)
}

fn push_exchange(packets: &mut Pcap, number: u32, client: u8) {
    let client = SocketAddr::from(([192, 0, 2, 1 + client], 40_000 + (number >> 16) as u16));
    let server = SocketAddr::from(([192, 0, 2, 53], 53));
    let at = Duration::from_millis(u64::from(number) * 2);
    // Text that fills a record up to a usual size.
    let mut query = dns::query((number & 0xffff) as u16, &name(number), "A");
    packets.udp_at(at, client, server, &query);
    query[2] |= 0x80;
    packets.udp_at(at + Duration::from_millis(1), server, client, &query);
}

pub(super) use tap53_harness::numbered::number;

pub(super) fn consume(kafka: &Kafka<'_>) -> Result<Consumed> {
    Consumed::read(kafka, TOPIC)
}

pub(super) fn read(messages: &[Message]) -> Result<Consumed> {
    Consumed::of(messages)
}

/// Waits until this many different records are in the topic.
pub(super) fn wait_for(kafka: &Kafka<'_>, records: u32) -> Result<()> {
    wait::until("the records to arrive", DEADLINE, || {
        // Counting is fast, and decoding is slow.
        let is_enough = kafka.consume(TOPIC)?.len() >= records as usize;
        Ok((is_enough && consume(kafka)?.times.len() == records as usize).then_some(()))
    })
}
