//! An agent that reads synthetic traffic from a FIFO, and its records in a topic.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    time::Duration,
};

use anyhow::{Result, ensure};
use nix::{
    sys::{signal::Signal, stat::Mode},
    unistd::Pid,
};
use tap53_harness::{
    agent, kafka::Kafka, namespace::Namespace, pcap::Pcap, process::Process, scratch, wait,
};
use tempfile::TempDir;

use super::traffic::{Random, push_transaction};

pub(super) const DEADLINE: Duration = Duration::from_secs(120);
/// Bytes of a pcap file before its first packet.
const PCAP_HEADER: usize = 24;

/// A running `tap53 replay`.
pub(super) struct Feed {
    process: Process,
    input: File,
    random: Random,
    next: u32,
    _directory: TempDir,
}

impl Feed {
    /// Starts it with these keys of the Kafka sink.
    pub(super) fn start(
        namespace: &Namespace,
        broker: &str,
        topic: &str,
        keys: &str,
    ) -> Result<Self> {
        let directory = scratch::directory("bench")?;
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU)?;
        let file = directory.path().join("tap53.yaml");
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
        Ok(Self { process, input, random: Random(0x5eed), next: 0, _directory: directory })
    }

    pub(super) fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Feeds this many transactions.
    pub(super) fn write(&mut self, transactions: u32) -> Result<()> {
        let mut packets = Pcap::default();
        for number in self.next..self.next + transactions {
            push_transaction(&mut packets, number, &mut self.random);
        }
        self.next += transactions;
        self.input.write_all(&packets.bytes()[PCAP_HEADER..])?;
        Ok(())
    }

    /// Waits until nearly all fed transactions are in the log, and returns its size. The last few wait
    /// for more input.
    pub(super) fn wait_for_log(&self, kafka: &Kafka<'_>, topic: &str) -> Result<(u64, u64, u64)> {
        wait::until("all records to be in the log", DEADLINE, || {
            let (records, batches, bytes) = log(kafka, topic)?;
            let is_all = records >= u64::from(self.next - self.next / 50);
            Ok(is_all.then_some((records, batches, bytes)))
        })
    }

    pub(super) fn end(self) -> Result<()> {
        let Self { mut process, input, .. } = self;
        drop(input);
        process.signal(Signal::SIGTERM)?;
        process.wait(DEADLINE)?;
        Ok(())
    }
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
