//! A Kafka sink's keys.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueEnum;
use rdkafka::{ClientConfig, error::KafkaError};
use serde::Serialize;

use super::{
    super::tree::{
        Section, Value, boolean, choice, label, milliseconds, seconds, text, whole_number,
    },
    name,
};
use crate::{
    encode::Key,
    spool::{self, Fsync},
};

/// A Kafka topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KafkaConfig {
    /// Name of the sink; `kafka` unless set.
    pub name: String,
    /// Brokers to start from, `host:port` each; at least one.
    pub brokers: Vec<String>,
    /// Topic.
    pub topic: String,
    /// Compression of message batches.
    pub compression: KafkaCompression,
    /// How long a message may wait for others to share a request with.
    #[serde(rename = "linger_ms", serialize_with = "super::super::as_milliseconds")]
    pub linger: Duration,
    /// How long a message may take from the queue to its acknowledgement.
    #[serde(rename = "message_timeout_ms", serialize_with = "super::super::as_milliseconds")]
    pub message_timeout: Duration,
    /// Bytes that the producer's queue holds at most.
    pub queue_bytes: u64,
    /// What a message's key is, by which the broker chooses its partition.
    pub key: Key,
    /// Whether messages carry the schema's version and the node's name as headers.
    pub headers: bool,
    /// TLS; `None`: in the clear.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// Who the agent says it is; `None`: nobody, or whom its certificate names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sasl: Option<SaslConfig>,
    /// Settings of librdkafka by its names, over those that the other keys make.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// Where records are kept while the broker does not take them; `None`: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spool: Option<SpoolConfig>,
    /// Where summaries of the ledger go; `None`: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<SummaryConfig>,
}

/// A topic of summaries of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SummaryConfig {
    /// Topic.
    pub topic: String,
    /// How often one is written.
    #[serde(rename = "interval_s", serialize_with = "super::super::as_seconds")]
    pub interval: Duration,
}

/// A queue on disk between the agent and a broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SpoolConfig {
    /// Which records go there.
    pub mode: SpoolMode,
    /// Its directory; of this sink alone.
    pub directory: PathBuf,
    /// Bytes that it holds at most; the oldest records are dropped for more.
    pub max_bytes: u64,
    /// How old a record may get there, if there is a limit.
    #[serde(rename = "max_age_s", serialize_with = "seconds_or_zero")]
    pub max_age: Option<Duration>,
    /// When records are forced to the disk.
    pub fsync: FsyncChoice,
    /// How often they are, with [`FsyncChoice::Interval`].
    #[serde(rename = "fsync_interval_ms", serialize_with = "super::super::as_milliseconds")]
    pub fsync_interval: Duration,
    /// How many of the records that wait there are sent a second, beside what comes in, if there is
    /// a limit.
    #[serde(serialize_with = "number_or_zero")]
    pub replay_records_per_s: Option<u32>,
}

impl SpoolConfig {
    /// When records are forced to the disk, as the spool takes it.
    #[must_use]
    pub const fn fsync(&self) -> Fsync {
        match self.fsync {
            FsyncChoice::Batch => Fsync::Batch,
            FsyncChoice::Interval => Fsync::Interval(self.fsync_interval),
            FsyncChoice::Never => Fsync::Never,
        }
    }
}

/// Which records go to the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum SpoolMode {
    /// Those that the broker does not take, or not in time.
    Fast,
    /// All, before they count as accepted.
    Durable,
}

/// When records in the spool are forced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum FsyncChoice {
    /// Each batch, before it counts as accepted.
    Batch,
    /// At intervals.
    Interval,
    /// Whenever the kernel likes.
    Never,
}

/// Compression of Kafka message batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum KafkaCompression {
    /// None.
    None,
    /// gzip.
    Gzip,
    /// LZ4.
    Lz4,
    /// Snappy.
    Snappy,
    /// Zstandard, where librdkafka was built with it.
    Zstd,
}

/// TLS to the brokers. Files are PEM, and looked at while the agent runs: new ones are used from then
/// on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TlsConfig {
    /// Certificates of the authorities to trust; `None`: those of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The agent's certificate, where brokers ask for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_file: Option<PathBuf>,
    /// The key of that certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// Holds the password of that key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_password_file: Option<PathBuf>,
    /// Whether a broker's certificate must name the host that was connected to.
    pub verify_hostname: bool,
}

/// Who the agent says it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SaslConfig {
    /// How it proves that.
    pub mechanism: SaslMechanism,
    /// Name.
    pub username: String,
    /// Holds the password. Looked at while the agent runs: a new password is used from then on.
    pub password_file: PathBuf,
}

/// How a password is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SaslMechanism {
    /// By sending it.
    Plain,
    /// SCRAM with SHA-256 (RFC 7677).
    #[value(name = "scram-sha-256")]
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// SCRAM with SHA-512.
    #[value(name = "scram-sha-512")]
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
}

impl KafkaConfig {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let name = name(section, "kafka");
        if !section.has("brokers") {
            section.refuse("brokers", None, "missing: name at least one, host:port");
        }
        let brokers = section.read_some("brokers", text(broker));
        let topic = section.require("topic", text(topic));
        let compression = section.read("compression", compression);
        // The limits of these four are librdkafka's own.
        let linger = section
            .read("linger_ms", milliseconds(0..=900_000))
            .unwrap_or(Duration::from_millis(20));
        let message_timeout = section
            .read("message_timeout_ms", milliseconds(1..=i32::MAX as u64))
            .unwrap_or(Duration::from_secs(300));
        if linger >= message_timeout {
            let value = Some(message_timeout.as_millis().to_string());
            let reason = format!("must be more than linger_ms, which is {}", linger.as_millis());
            section.refuse("message_timeout_ms", value, reason);
        }
        let queue_bytes = section.read("queue_bytes", whole_number(1 << 20..=i32::MAX as u64));
        let spool =
            section.has("spool").then(|| section.section("spool", SpoolConfig::read)).flatten();
        let key = section.read("key", choice);
        let headers = section.read("headers", boolean);
        let tls = section.has("tls").then(|| section.section("tls", TlsConfig::read));
        let sasl = section.has("sasl").then(|| section.section("sasl", SaslConfig::read)).flatten();
        let options = section.section("options", options);
        let summary = section
            .has("summary")
            .then(|| {
                section.section("summary", |section| SummaryConfig::read(section, topic.as_deref()))
            })
            .flatten();
        Some(Self {
            name,
            brokers: brokers?,
            topic: topic?,
            compression: compression.unwrap_or(KafkaCompression::Lz4),
            linger,
            message_timeout,
            queue_bytes: queue_bytes.unwrap_or(32 << 20),
            key: key.unwrap_or(Key::None),
            headers: headers.unwrap_or(false),
            tls,
            sasl,
            options,
            spool,
            summary,
        })
    }

    pub(super) fn spool_directory(&self) -> Option<&Path> {
        self.spool.as_ref().map(|spool| spool.directory.as_path())
    }
}

impl SummaryConfig {
    fn read(section: &mut Section<'_>, records: Option<&str>) -> Option<Self> {
        let topic = section.require("topic", text(topic));
        let interval = section.read("interval_s", seconds(1..=3_600));
        if topic.is_some() && topic.as_deref() == records {
            let value = topic.as_ref().map(|topic| format!("{topic:?}"));
            section.refuse("topic", value, "has the records: give summaries a topic of their own");
        }
        Some(Self { topic: topic?, interval: interval.unwrap_or(Duration::from_secs(60)) })
    }
}

impl SpoolConfig {
    /// `None` where it is switched off, or something is missing.
    fn read(section: &mut Section<'_>) -> Option<Self> {
        /// The `mode` key.
        #[derive(Clone, Copy, PartialEq, ValueEnum)]
        enum Mode {
            Fast,
            Durable,
            Off,
        }

        let mode = section.read("mode", choice::<Mode>).unwrap_or(Mode::Fast);
        let directory = match mode {
            Mode::Off => section.read("directory", text(spool_directory)),
            _ => section.require("directory", text(spool_directory)),
        };
        let max_bytes =
            section.read("max_bytes", whole_number(spool::Config::LEAST_BYTES..=1 << 42));
        // Ten years, or no limit.
        let max_age = section.read("max_age_s", seconds(0..=10 * 365 * 24 * 3600));
        let fsync = section.read("fsync", choice);
        let fsync_interval = section.read("fsync_interval_ms", milliseconds(10..=3_600_000));
        let replay = section.read("replay_records_per_s", whole_number(0..=10_000_000));
        let mode = match mode {
            Mode::Fast => SpoolMode::Fast,
            Mode::Durable => SpoolMode::Durable,
            Mode::Off => return None,
        };
        Some(Self {
            mode,
            directory: directory?,
            max_bytes: max_bytes.unwrap_or(1 << 30),
            max_age: max_age.filter(|age| !age.is_zero()),
            fsync: fsync.unwrap_or(match mode {
                SpoolMode::Fast => FsyncChoice::Interval,
                SpoolMode::Durable => FsyncChoice::Batch,
            }),
            fsync_interval: fsync_interval.unwrap_or(Duration::from_secs(1)),
            replay_records_per_s: match replay {
                None => Some(10_000),
                Some(0) => None,
                limit => limit,
            },
        })
    }
}

/// It need not exist: it is made at the start.
fn spool_directory(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if !path.is_absolute() {
        Err("must be an absolute path".to_owned())
    } else if path.exists() && !path.is_dir() {
        Err("is not a directory".to_owned())
    } else {
        Ok(path)
    }
}

fn seconds_or_zero<S: serde::Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    super::super::as_seconds(&duration.unwrap_or_default(), serializer)
}

fn number_or_zero<S: serde::Serializer>(
    number: &Option<u32>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_u32(number.unwrap_or(0))
}

/// `host:port`, where an IPv6 address stands in brackets.
fn broker(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').ok_or("must be host:port, such as broker:9092")?;
    let bare_host = match host.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .filter(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
            .ok_or("must be [address]:port, with an IPv6 address in the brackets")?,
        None if host.contains(':') => return Err("an IPv6 address stands in brackets".to_owned()),
        None => host,
    };
    if bare_host.is_empty() || bare_host.contains([',', '/']) {
        return Err("must be host:port, such as broker:9092".to_owned());
    }
    label(bare_host)?;
    match port.parse::<u16>() {
        Ok(1..) => Ok(text.to_owned()),
        _ => Err("the port must be a whole number from 1 to 65535".to_owned()),
    }
}

/// The rule of the broker, `org.apache.kafka.common.internals.Topic`.
fn topic(text: &str) -> Result<String, String> {
    const MAX_CHARACTERS: usize = 249;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.is_empty() || text == "." || text == ".." {
        Err("must not be empty, \".\" or \"..\"".to_owned())
    } else if text.len() > MAX_CHARACTERS {
        Err(format!("must not be longer than {MAX_CHARACTERS} characters"))
    } else if let Some(illegal) = text.chars().find(|c| !legal(*c)) {
        Err(format!("must not contain {illegal:?}: Kafka takes letters, digits, '.', '_' and '-'"))
    } else {
        Ok(text.to_owned())
    }
}

/// Which codecs there are depends on how librdkafka was built, so librdkafka is asked.
fn compression(value: &Value) -> Result<KafkaCompression, String> {
    let compression = choice::<KafkaCompression>(value)?;
    let name = compression.to_possible_value().ok_or("is not a compression")?.get_name().to_owned();
    ClientConfig::new()
        .set("compression.codec", name)
        .create_native_config()
        .map(|_| compression)
        .map_err(|_| "librdkafka was built without it".to_owned())
}

impl TlsConfig {
    fn read(section: &mut Section<'_>) -> Self {
        let mut file = |key| section.read(key, text(readable_file));
        let read = Self {
            ca_file: file("ca_file"),
            certificate_file: file("certificate_file"),
            key_file: file("key_file"),
            key_password_file: file("key_password_file"),
            verify_hostname: section.read("verify_hostname", boolean).unwrap_or(true),
        };
        if read.certificate_file.is_some() != read.key_file.is_some() {
            section.refuse_all("certificate_file and key_file belong together");
        }
        read
    }
}

impl SaslConfig {
    fn read(section: &mut Section<'_>) -> Option<Self> {
        let mechanism = section.require("mechanism", choice);
        let username = section.require("username", text(|name| Ok(name.to_owned())));
        let password_file = section.require("password_file", text(readable_file));
        Some(Self { mechanism: mechanism?, username: username?, password_file: password_file? })
    }
}

/// A file that can be read now; its content is nobody's business here.
fn readable_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let metadata = File::open(&path).and_then(|file| file.metadata());
    match metadata {
        Ok(metadata) if metadata.is_file() => Ok(path),
        Ok(_) => Err("is not a file".to_owned()),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

/// Settings that a key of ours makes, and which.
const OURS: [(&str, &str); 21] = [
    ("bootstrap.servers", "brokers"),
    ("metadata.broker.list", "brokers"),
    ("compression.codec", "compression"),
    ("compression.type", "compression"),
    ("linger.ms", "linger_ms"),
    ("queue.buffering.max.ms", "linger_ms"),
    ("message.timeout.ms", "message_timeout_ms"),
    ("delivery.timeout.ms", "message_timeout_ms"),
    ("queue.buffering.max.kbytes", "queue_bytes"),
    ("queue.buffering.max.messages", "queue_bytes"),
    ("security.protocol", "tls and sasl"),
    ("ssl.ca.location", "tls.ca_file"),
    ("ssl.certificate.location", "tls.certificate_file"),
    ("ssl.key.location", "tls.key_file"),
    ("ssl.key.password", "tls.key_password_file"),
    ("ssl.endpoint.identification.algorithm", "tls.verify_hostname"),
    ("sasl.mechanisms", "sasl.mechanism"),
    ("sasl.mechanism", "sasl.mechanism"),
    ("sasl.username", "sasl.username"),
    ("sasl.password", "sasl.password_file"),
    // Transactions need calls that nobody makes.
    ("transactional.id", "nothing: records are not sent in transactions"),
];

/// The `options` section: librdkafka is asked about each setting.
fn options(section: &mut Section<'_>) -> BTreeMap<String, String> {
    let mut options = BTreeMap::new();
    for name in section.keys() {
        let checked = section.read(&name, |value| {
            let value = match value {
                Value::Text(text) => text.clone(),
                Value::Boolean(_) | Value::Integer(_) | Value::Real(_) => value.to_string(),
                _ => return Err("must be a text or a number".to_owned()),
            };
            if let Some((_, key)) = OURS.iter().find(|(ours, _)| *ours == name) {
                return Err(format!("is made by {key}"));
            }
            ClientConfig::new().set(name.as_str(), value.as_str()).create_native_config().map_err(
                |error| match error {
                    KafkaError::ClientConfig(_, why, ..) => format!("librdkafka says: {why}"),
                    error => format!("librdkafka says: {error}"),
                },
            )?;
            Ok(value)
        });
        if let Some(value) = checked {
            options.insert(name, value);
        }
    }
    options
}
