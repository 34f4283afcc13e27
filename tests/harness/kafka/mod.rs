//! The broker: a real Apache Kafka (KRaft, one node), started from its jars.

mod admin;
mod jars;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{
    namespace::Namespace,
    process::{Process, run},
    scratch,
};

pub use jars::directory as jars;

/// A JVM on a loaded two-core machine takes several seconds.
const START_DEADLINE: Duration = Duration::from_secs(90);
const CONSUME_DEADLINE: Duration = Duration::from_secs(60);

/// Small heap, quick start: it carries a few thousand messages, and lives for seconds.
const JVM_OPTIONS: [&str; 4] = [
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=info",
];

/// A broker on 127.0.0.1 of a namespace; dropping it kills it and removes its files.
pub struct Kafka<'a> {
    namespace: &'a Namespace,
    jars: PathBuf,
    directory: TempDir,
    address: SocketAddr,
    process: Option<Process>,
}

impl<'a> Kafka<'a> {
    /// Formats an empty log directory, starts the broker and waits until it answers.
    ///
    /// # Errors
    /// When the jars cannot be had, or the broker does not start; the message ends with its log.
    pub fn start(namespace: &'a Namespace) -> Result<Self> {
        let jars = jars()?;
        let directory = scratch::directory("kafka")?;
        let [broker, controller] = free_addresses(namespace)?;
        let properties = directory.path().join("server.properties");
        fs::write(&properties, configuration(broker, controller, directory.path()))
            .with_context(|| format!("write {}", properties.display()))?;
        let mut kafka = Self { namespace, jars, directory, address: broker, process: None };
        // The cluster id is any 16 bytes in URL-safe base64 without padding.
        let cluster_id = "dGFwNTMtdGVzdC1jbHVzdA";
        #[rustfmt::skip]
        run(kafka.java("kafka.tools.StorageTool").args([
            "format", "--standalone", "--cluster-id", cluster_id, "--config",
        ]).arg(&properties))?;
        kafka.restart()?;
        Ok(kafka)
    }

    /// `host:port` of the broker, for `bootstrap.servers`.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Ends the broker with SIGKILL. What it had acknowledged stays on disk.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Sends the broker a signal, as SIGSTOP, which makes it hang.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.as_ref().context("no broker runs")?.signal(signal)
    }

    /// Starts the broker again on what it had, at the same address.
    ///
    /// # Errors
    /// When it does not answer before the deadline.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let mut command = self.java("kafka.Kafka");
        command.arg(self.directory.path().join("server.properties"));
        let process = Process::spawn("Kafka", command)?;
        process.wait_for_line("Kafka Server started", 0, START_DEADLINE)?;
        self.process = Some(process);
        Ok(())
    }

    /// Creates a topic with one partition, and waits until it has a leader. Topics are never created
    /// by themselves.
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn create_topic(&self, topic: &str) -> Result<()> {
        let stream = self.namespace.enter(|| Ok(std::net::TcpStream::connect(self.address)?))?;
        admin::create_topic(stream, topic)
    }

    /// Everything in partition 0 of `topic`, from the beginning to its end, read by kcat.
    ///
    /// # Errors
    /// When kcat is not installed, or fails.
    pub fn consume(&self, topic: &str) -> Result<Vec<Message>> {
        let broker = self.address();
        let mut command = self.namespace.command("timeout");
        #[rustfmt::skip]
        command.arg(CONSUME_DEADLINE.as_secs().to_string()).args([
            "kcat", "-q", "-b", &broker, "-C", "-t", topic, "-p", "0", "-o", "beginning", "-e",
            // Timestamp in ms as text, length as four big-endian bytes, value.
            "-f", "%T %R%s",
        ]);
        let output = command.stdin(Stdio::null()).output().context("start kcat")?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr);
            bail!("kcat could not read topic {topic}: {}: {}", output.status, message.trim_end());
        }
        parse_consumed(&output.stdout)
    }

    fn java(&self, class: &str) -> Command {
        let mut command = self.namespace.command("java");
        command.args(JVM_OPTIONS).arg("-cp").arg(self.jars.join("*")).arg(class);
        command
    }
}

/// A consumed message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Kafka timestamp, milliseconds since 1970 UTC.
    pub timestamp_ms: i64,
    /// The value, byte for byte.
    pub value: Vec<u8>,
}

fn parse_consumed(mut rest: &[u8]) -> Result<Vec<Message>> {
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let space = rest.iter().position(|byte| *byte == b' ');
        let space = space.context("kcat's output ends in a timestamp")?;
        let timestamp_ms = std::str::from_utf8(&rest[..space])?.parse()?;
        rest = &rest[space + 1..];
        let (length, after) =
            rest.split_first_chunk::<4>().context("kcat's output ends in a length")?;
        let (value, after) = after
            .split_at_checked(u32::from_be_bytes(*length) as usize)
            .context("kcat's output ends in a value")?;
        rest = after;
        messages.push(Message { timestamp_ms, value: value.to_vec() });
    }
    Ok(messages)
}

/// Two addresses of the namespace's loopback where nothing listens.
fn free_addresses(namespace: &Namespace) -> Result<[SocketAddr; 2]> {
    namespace.enter(|| {
        // Both are open before either is closed, so they differ.
        let listeners = [
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
        ];
        Ok([listeners[0].local_addr()?, listeners[1].local_addr()?])
    })
}

fn configuration(broker: SocketAddr, controller: SocketAddr, directory: &Path) -> String {
    let log_directory = directory.join("log");
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.bootstrap.servers={controller}\n\
         controller.listener.names=CONTROLLER\n\
         listeners=PLAINTEXT://{broker},CONTROLLER://{controller}\n\
         advertised.listeners=PLAINTEXT://{broker}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         log.dirs={}\n\
         auto.create.topics.enable=false\n\
         offsets.topic.replication.factor=1\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         share.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\n",
        log_directory.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consumed_values_may_hold_any_byte() {
        let output = b"12 \0\0\0\x03 \n\x00-1 \0\0\0\0";
        let messages = parse_consumed(output).expect("well-formed");
        assert_eq!(messages.len(), 2);
        assert_eq!((messages[0].timestamp_ms, &messages[0].value[..]), (12, &b" \n\0"[..]));
        assert_eq!((messages[1].timestamp_ms, &messages[1].value[..]), (-1, &b""[..]));
        assert!(parse_consumed(b"12 \0\0\0\x03ab").is_err());
    }
}
