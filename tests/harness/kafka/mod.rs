//! The broker: a real Apache Kafka (KRaft, one node, or a cluster of some), started from its jars.

mod admin;
mod cluster;
mod jars;
mod security;
mod tokens;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{sys::signal::Signal, unistd::Pid};
use tempfile::TempDir;

use crate::{
    delay::DelayingProxy,
    namespace::Namespace,
    process::{Process, run},
    scratch,
};

pub use cluster::Cluster;
pub use jars::{directory as jars, version};
pub use security::{PLAIN_PASSWORD, SCRAM_PASSWORD, Security, USER};
pub use tokens::{CLIENT_ID, CLIENT_SECRET, Issuer, SCOPE, SUBJECT, TokenEndpoint};

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

/// Any 16 bytes in URL-safe base64 without padding.
const CLUSTER_ID: &str = "dGFwNTMtdGVzdC1jbHVzdA";

/// A broker on 127.0.0.1 of a namespace; dropping it kills it and removes its files.
pub struct Kafka<'a> {
    namespace: &'a Namespace,
    jars: PathBuf,
    directory: TempDir,
    /// Directory of its topics, with the metadata.
    log_directory: PathBuf,
    controller: SocketAddr,
    session_timeout_ms: u32,
    address: SocketAddr,
    listeners: security::Listeners,
    jvm_option: Option<String>,
    process: Option<Process>,
}

impl<'a> Kafka<'a> {
    /// Formats an empty log directory, starts the broker and waits until it answers.
    ///
    /// # Errors
    /// When the jars cannot be had, or the broker does not start; the message ends with its log.
    pub fn start(namespace: &'a Namespace) -> Result<Self> {
        Self::start_with(namespace, Place::default(), None, "")
    }

    /// Does the same as [`start`](Self::start), elsewhere than on loopback, or on a disk of the caller's.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub fn start_at(namespace: &'a Namespace, place: Place) -> Result<Self> {
        Self::start_with(namespace, place, None, "")
    }

    /// Does the same as [`start`](Self::start), with two more listeners that require authentication.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub fn start_secure(namespace: &'a Namespace, security: &Security) -> Result<Self> {
        Self::start_with(namespace, Place::default(), Some(security), "")
    }

    /// Does the same as [`start`](Self::start), with more properties; of two with one name the last one counts.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub fn start_with_properties(namespace: &'a Namespace, properties: &str) -> Result<Self> {
        Self::start_with(namespace, Place::default(), None, properties)
    }

    /// Does the same as [`start`](Self::start), after `proxy`, whose address it advertises.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub fn start_behind(namespace: &'a Namespace, proxy: &DelayingProxy) -> Result<Self> {
        let advertised = format!("advertised.listeners=PLAINTEXT://{}\n", proxy.address());
        let kafka = Self::start_with(namespace, Place::default(), None, &advertised)?;
        proxy.forward_to(kafka.address);
        Ok(kafka)
    }

    fn start_with(
        namespace: &'a Namespace,
        place: Place,
        security: Option<&Security>,
        more: &str,
    ) -> Result<Self> {
        let jars = jars()?;
        let directory = scratch::directory("kafka")?;
        let session_timeout_ms = place.session_timeout_ms;
        let log_directory = place.log_directory.unwrap_or_else(|| directory.path().join("log"));
        // On loopback, so that the broker has its controller whatever becomes of its link.
        let [controller] = free_addresses(namespace, Ipv4Addr::LOCALHOST)?;
        let [broker, sasl_ssl, ssl, token, cleartext] = free_addresses(namespace, place.ip)?;
        let listeners = security::Listeners { sasl_ssl, ssl, token, cleartext };
        let jvm_option = security.map(|security| security.issuer().jvm_option());
        let properties = directory.path().join("server.properties");
        let mut text = configuration(broker, controller, &log_directory, session_timeout_ms);
        if let Some(security) = security {
            text.push_str(&security.configuration(broker, controller, listeners));
        }
        text.push_str(more);
        fs::write(&properties, text).with_context(|| format!("write {}", properties.display()))?;
        let mut kafka = Self {
            namespace,
            jars,
            directory,
            log_directory,
            controller,
            session_timeout_ms,
            address: broker,
            listeners,
            jvm_option,
            process: None,
        };
        let mut format = kafka.java("kafka.tools.StorageTool");
        #[rustfmt::skip]
        format.args([
            "format", "--standalone", "--cluster-id", CLUSTER_ID, "--config",
        ]).arg(&properties);
        if security.is_some() {
            for credentials in security::credentials() {
                format.args(["--add-scram", &credentials]);
            }
        }
        run(&mut format)?;
        kafka.restart()?;
        Ok(kafka)
    }

    /// `host:port` of the broker, for `bootstrap.servers`.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// `host:port` of the listener with TLS and SASL, where the broker is secure.
    #[must_use]
    pub fn sasl_ssl_address(&self) -> String {
        self.listeners.sasl_ssl.to_string()
    }

    /// Returns `host:port` of the listener that requires a certificate, if the broker is secure.
    #[must_use]
    pub fn ssl_address(&self) -> String {
        self.listeners.ssl.to_string()
    }

    /// Returns `host:port` of the listener with TLS that requires a token, if the broker is secure.
    #[must_use]
    pub fn token_address(&self) -> String {
        self.listeners.token.to_string()
    }

    /// `host:port` of the listener that takes a password in the clear, where the broker is secure.
    #[must_use]
    pub fn cleartext_address(&self) -> String {
        self.listeners.cleartext.to_string()
    }

    /// Ends the broker with SIGKILL. What it had acknowledged stays on disk.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Sends the broker a signal, such as SIGSTOP, which suspends it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.as_ref().context("no broker runs")?.signal(signal)
    }

    /// Starts the broker again with its data, at the same address.
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

    /// An address beside the broker's own where nothing listens, for
    /// [`restart_at`](Self::restart_at).
    ///
    /// # Errors
    /// When there is none.
    pub fn spare_address(&self) -> Result<SocketAddr> {
        let SocketAddr::V4(own) = self.address else { bail!("not IPv4") };
        let [spare] = free_addresses(self.namespace, *own.ip())?;
        Ok(spare)
    }

    /// Does the same as [`restart`](Self::restart), at another address, where it
    /// listens and which it advertises. For brokers without [`Security`].
    ///
    /// # Errors
    /// See [`restart`](Self::restart).
    pub fn restart_at(&mut self, address: SocketAddr) -> Result<()> {
        self.kill();
        self.address = address;
        let properties = self.directory.path().join("server.properties");
        let (log_directory, session_timeout_ms) = (&self.log_directory, self.session_timeout_ms);
        let text = configuration(address, self.controller, log_directory, session_timeout_ms);
        fs::write(properties, text)?;
        self.restart()
    }

    /// Waits for the broker to end by itself.
    ///
    /// # Errors
    /// When it goes on, or does not run.
    pub fn wait_until_ended(&mut self) -> Result<()> {
        self.process.as_mut().context("no broker runs")?.wait(START_DEADLINE)?;
        self.process = None;
        Ok(())
    }

    /// Creates a topic with one partition, and waits until it has a leader. Topics are never created
    /// by themselves.
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn create_topic(&self, topic: &str) -> Result<()> {
        self.create_topic_of(topic, 1)
    }

    /// Does the same as [`create_topic`](Self::create_topic), with a new name, which is returned.
    ///
    /// # Errors
    /// See there.
    pub fn create_numbered_topic(&self) -> Result<String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let topic = format!("numbered-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.create_topic(&topic)?;
        Ok(topic)
    }

    /// Does the same as [`create_topic`](Self::create_topic), with so many partitions.
    ///
    /// # Errors
    /// See there.
    pub fn create_topic_of(&self, topic: &str, partitions: i32) -> Result<()> {
        let stream = self.namespace.enter(|| Ok(std::net::TcpStream::connect(self.address)?))?;
        admin::create_topic(stream, topic, admin::Shape { partitions, replicas: 1, settings: &[] })
    }

    /// Returns the end offset of partition 0 of `topic`, read by kcat.
    ///
    /// # Errors
    /// When kcat is not installed, or fails.
    pub fn end_offset(&self, topic: &str) -> Result<u64> {
        let mut command = self.namespace.command("kcat");
        command.args(["-q", "-Q", "-b", &self.address(), "-t", &format!("{topic}:0:-1")]);
        let answer = run(&mut command)?;
        let offset = answer.trim().rsplit(' ').next().and_then(|offset| offset.parse().ok());
        offset.with_context(|| format!("kcat answered {answer:?}"))
    }

    /// The broker's process id.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self) -> Result<Pid> {
        Ok(self.process.as_ref().context("no broker runs")?.pid())
    }

    /// Produces messages as they are, in this order, to a partition of a topic, by kcat.
    ///
    /// # Errors
    /// When kcat is not installed, or the broker refuses one.
    pub fn produce(&self, topic: &str, partition: u32, values: &[Vec<u8>]) -> Result<()> {
        let directory = scratch::directory("messages")?;
        let mut command = self.namespace.command("kcat");
        let partition = partition.to_string();
        command.args(["-P", "-b", &self.address(), "-t", topic, "-p", &partition]);
        for (number, value) in values.iter().enumerate() {
            let path = directory.path().join(number.to_string());
            fs::write(&path, value)?;
            command.arg(path);
        }
        run(&mut command).map(drop)
    }

    /// Produces a message that has a key and no value.
    ///
    /// # Errors
    /// See [`produce`](Self::produce).
    pub fn produce_tombstone(&self, topic: &str, partition: u32, key: &str) -> Result<()> {
        let directory = scratch::directory("messages")?;
        let path = directory.path().join("lines");
        fs::write(&path, format!("{key}:\n"))?;
        let mut command = self.namespace.command("kcat");
        let partition = partition.to_string();
        command.args(["-P", "-Z", "-K", ":", "-b", &self.address(), "-t", topic, "-p", &partition]);
        run(command.arg("-l").arg(path)).map(drop)
    }

    /// Everything in `topic`, from the beginning to the end of each partition, read by kcat. What is in
    /// one partition is in its order.
    ///
    /// # Errors
    /// When kcat is not installed, or fails.
    pub fn consume(&self, topic: &str) -> Result<Vec<Message>> {
        read_topic(self.namespace, &self.address(), topic)
    }

    /// The files of a topic's partitions, as they are now.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn partition_files(&self, topic: &str) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.directory.path().join("log"))? {
            let directory = entry?.path();
            let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let number = name.strip_prefix(topic).and_then(|rest| rest.strip_prefix('-'));
            if number.is_some_and(|number| number.parse::<u32>().is_ok()) {
                for file in fs::read_dir(directory)? {
                    files.push(file?.path());
                }
            }
        }
        Ok(files)
    }

    /// Deletes a topic.
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn delete_topic(&self, topic: &str) -> Result<()> {
        let stream = self.namespace.enter(|| Ok(std::net::TcpStream::connect(self.address)?))?;
        admin::delete_topic(stream, topic)
    }

    fn java(&self, class: &str) -> Command {
        java(self.namespace, &self.jars, &self.directory, self.jvm_option.as_deref(), class)
    }
}

/// Address and directory of a broker.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its address in its namespace.
    pub ip: Ipv4Addr,
    /// Directory of its topics; `None` for a temporary one.
    pub log_directory: Option<PathBuf>,
    /// Time after which a killed broker is considered gone; it can be restarted only after that.
    pub session_timeout_ms: u32,
}

impl Default for Place {
    fn default() -> Self {
        Self { ip: Ipv4Addr::LOCALHOST, log_directory: None, session_timeout_ms: 9_000 }
    }
}

/// A program of Kafka's. The libraries that it unpacks stay where it is killed, so they go to `directory`,
/// which is removed.
fn java(
    namespace: &Namespace,
    jars: &Path,
    directory: &TempDir,
    jvm_option: Option<&str>,
    class: &str,
) -> Command {
    let mut command = namespace.command("java");
    command.arg(scratch::jvm_option(directory.path()));
    command.args(JVM_OPTIONS).args(jvm_option).arg("-cp").arg(jars.join("*")).arg(class);
    command
}

/// Names of the topics that clients see, with their numbers of partitions.
///
/// # Errors
/// When kcat is not installed, or fails.
pub fn topics(namespace: &Namespace, broker: &str) -> Result<Vec<String>> {
    let mut command = namespace.command("timeout");
    command
        .arg(CONSUME_DEADLINE.as_secs().to_string())
        .args(["kcat", "-q", "-L", "-J", "-b", broker]);
    let told: serde_json::Value = serde_json::from_str(&run(&mut command)?)?;
    let topics = told["topics"].as_array().context("no topics")?.iter();
    let named = topics.filter_map(|topic| {
        Some((topic["topic"].as_str()?, topic["partitions"].as_array()?.len()))
    });
    // The others are the brokers' own.
    let clients = named.filter(|(name, _)| !name.starts_with("__"));
    Ok(clients.map(|(name, count)| format!("{name} with {count} partitions")).collect())
}

/// See [`Kafka::consume`].
fn read_topic(namespace: &Namespace, broker: &str, topic: &str) -> Result<Vec<Message>> {
    let mut command = namespace.command("timeout");
    #[rustfmt::skip]
        command.arg(CONSUME_DEADLINE.as_secs().to_string()).args([
            "kcat", "-q", "-b", broker, "-C", "-t", topic, "-o", "beginning", "-e",
            // Partition, timestamp in ms and the key's length as text, headers, which may hold spaces, up
            // to a unit separator, the value's length as four big-endian bytes, key, value.
            "-f", "%p %T %K %h\\x1f%R%k%s",
        ]);
    let output = command.stdin(Stdio::null()).output().context("start kcat")?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!("kcat could not read topic {topic}: {}: {}", output.status, message.trim_end());
    }
    parse_consumed(&output.stdout)
}

/// A consumed message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Number of its partition.
    pub partition: u32,
    /// Kafka timestamp, milliseconds since 1970 UTC.
    pub timestamp_ms: i64,
    /// The key; empty if there is none.
    pub key: Vec<u8>,
    /// Headers as kcat writes them: `name=value`, with commas between.
    pub headers: String,
    /// The value, byte for byte; empty if there is none.
    pub value: Vec<u8>,
}

fn parse_consumed(mut rest: &[u8]) -> Result<Vec<Message>> {
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let partition = word(&mut rest)?.parse()?;
        let timestamp_ms = word(&mut rest)?.parse()?;
        // -1: none.
        let key_length = usize::try_from(word(&mut rest)?.parse::<i64>()?).unwrap_or(0);
        let headers = text_before(b'\x1f', &mut rest)?.to_owned();
        let (length, after) =
            rest.split_first_chunk::<4>().context("kcat's output ends in a length")?;
        let (key, after) =
            after.split_at_checked(key_length).context("kcat's output ends in a key")?;
        // -1: none.
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
        let (value, after) =
            after.split_at_checked(length).context("kcat's output ends in a value")?;
        rest = after;
        messages.push(Message {
            partition,
            timestamp_ms,
            key: key.to_vec(),
            headers,
            value: value.to_vec(),
        });
    }
    Ok(messages)
}

/// Returns the text before the next space.
fn word<'a>(rest: &mut &'a [u8]) -> Result<&'a str> {
    text_before(b' ', rest)
}

/// Returns the text before the next `end`.
fn text_before<'a>(end: u8, rest: &mut &'a [u8]) -> Result<&'a str> {
    let at = rest.iter().position(|byte| *byte == end).context("kcat's output ends early")?;
    let text = std::str::from_utf8(&rest[..at])?;
    *rest = &rest[at + 1..];
    Ok(text)
}

/// Addresses with this IP of the namespace's where nothing listens.
pub(crate) fn free_addresses<const COUNT: usize>(
    namespace: &Namespace,
    ip: Ipv4Addr,
) -> Result<[SocketAddr; COUNT]> {
    namespace.enter(|| {
        let mut addresses = [SocketAddr::from((ip, 0)); COUNT];
        // All are open before any is closed, so they differ.
        let mut listeners = Vec::with_capacity(COUNT);
        for address in &mut addresses {
            let listener = TcpListener::bind(*address)?;
            *address = listener.local_addr()?;
            listeners.push(listener);
        }
        Ok(addresses)
    })
}

/// Nothing is deleted for its age: messages have the times of the captures that they are from, which
/// may be years ago, and the broker looks for the first time after half a minute.
fn configuration(
    broker: SocketAddr,
    controller: SocketAddr,
    log_directory: &Path,
    session_timeout_ms: u32,
) -> String {
    let heartbeat_ms = session_timeout_ms / 4;
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.bootstrap.servers={controller}\n\
         controller.listener.names=CONTROLLER\n\
         listeners=PLAINTEXT://{broker},CONTROLLER://{controller}\n\
         advertised.listeners=PLAINTEXT://{broker}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         log.dirs={}\n\
         broker.session.timeout.ms={session_timeout_ms}\n\
         broker.heartbeat.interval.ms={heartbeat_ms}\n\
         auto.create.topics.enable=false\n\
         log.retention.ms=-1\n\
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
        let output = b"0 12 -1 \x1f\0\0\0\x03 \n\x003 -1 2 a=b c,d=e\x1f\0\0\0\0k ";
        let messages = parse_consumed(output).expect("well-formed");
        assert_eq!(messages.len(), 2);
        assert_eq!((messages[0].partition, messages[1].partition), (0, 3));
        assert_eq!((messages[0].timestamp_ms, &messages[0].value[..]), (12, &b" \n\0"[..]));
        assert_eq!((messages[1].timestamp_ms, &messages[1].value[..]), (-1, &b""[..]));
        assert_eq!((&messages[1].key[..], messages[1].headers.as_str()), (&b"k "[..], "a=b c,d=e"));
        assert!(parse_consumed(b"0 12 -1 \x1f\0\0\0\x03ab").is_err());
    }
}
