//! The `sinks` section: where records go.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueEnum;
use rdkafka::ClientConfig;
use serde::Serialize;

use super::{
    Overrides,
    tree::{Section, Value, choice, label, milliseconds, seconds, text, whole_number},
};
use crate::spool::{self, Fsync};

/// One sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum SinkConfig {
    /// One line for each transaction on standard output.
    Stdout(StdoutConfig),
    /// Avro object container files in a directory.
    File(FileConfig),
    /// A Kafka topic.
    Kafka(KafkaConfig),
}

impl SinkConfig {
    /// Name of the sink in logs and in the ledger.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Stdout(stdout) => &stdout.name,
            Self::File(file) => &file.name,
            Self::Kafka(kafka) => &kafka.name,
        }
    }
}

/// One line for each transaction on standard output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StdoutConfig {
    /// Name of the sink; `stdout` unless set.
    pub name: String,
    /// Format of a line.
    pub format: TextFormat,
    /// When to colour text.
    pub color: ColorChoice,
}

/// Format of a line on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TextFormat {
    /// Aligned columns for people.
    Text,
    /// One JSON object a line, for programs.
    Json,
}

/// When to colour text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ColorChoice {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Avro object container files in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileConfig {
    /// Name of the sink; `file` unless set.
    pub name: String,
    /// Existing directory of the files.
    pub directory: PathBuf,
    /// First part of the files' names.
    pub prefix: String,
    /// Size at which a file is finished and the next one begun, bytes.
    pub rotate_bytes: u64,
    /// Age at which a file is finished and the next one begun.
    #[serde(rename = "rotate_after_s", serialize_with = "super::as_seconds")]
    pub rotate_after: Duration,
    /// Compression of a file's blocks.
    pub codec: FileCodec,
}

/// Compression of an Avro file's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum FileCodec {
    /// Avro codec `null`.
    None,
    /// Avro codec `deflate`.
    Deflate,
}

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
    #[serde(rename = "linger_ms", serialize_with = "super::as_milliseconds")]
    pub linger: Duration,
    /// How long a message may take from the queue to its acknowledgement.
    #[serde(rename = "message_timeout_ms", serialize_with = "super::as_milliseconds")]
    pub message_timeout: Duration,
    /// Bytes that the producer's queue holds at most.
    pub queue_bytes: u64,
    /// Where records are kept while the broker does not take them; `None`: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spool: Option<SpoolConfig>,
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
    #[serde(rename = "fsync_interval_ms", serialize_with = "super::as_milliseconds")]
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

/// The `sinks` list, with what the flags add; standard output where there is neither.
pub(super) fn read(root: &mut Section<'_>, overrides: &Overrides) -> Vec<SinkConfig> {
    let mut taken = Vec::new();
    let sinks = root.sections("sinks", |section| {
        let sink = read_one(section);
        if let Some(sink) = &sink {
            refuse_clash(section, sink, &taken);
            taken.push(sink.clone());
        }
        sink
    });
    let mut sinks: Vec<_> = sinks.into_iter().flatten().collect();
    let format = overrides.stdout.or_else(|| sinks.is_empty().then_some(TextFormat::Text));
    if let Some(format) = format {
        let present = sinks.iter_mut().find_map(|sink| match sink {
            SinkConfig::Stdout(stdout) => Some(stdout),
            _ => None,
        });
        match present {
            Some(stdout) => stdout.format = format,
            None => sinks.push(SinkConfig::Stdout(StdoutConfig {
                name: unused_name("stdout", &sinks),
                format,
                color: ColorChoice::Auto,
            })),
        }
    }
    sinks
}

/// A name for the sink that a flag adds, in case a sink of the file took the usual one.
fn unused_name(usual: &str, sinks: &[SinkConfig]) -> String {
    let mut name = usual.to_owned();
    while sinks.iter().any(|sink| sink.name() == name) {
        name.push_str("-flag");
    }
    name
}

fn read_one(section: &mut Section<'_>) -> Option<SinkConfig> {
    /// The `type` key.
    #[derive(Clone, Copy, ValueEnum)]
    enum SinkType {
        Stdout,
        File,
        Kafka,
    }

    let Some(sink_type) = section.require("type", choice::<SinkType>) else {
        section.skip_rest();
        return None;
    };
    match sink_type {
        SinkType::Stdout => Some(SinkConfig::Stdout(StdoutConfig::read(section))),
        SinkType::File => FileConfig::read(section).map(SinkConfig::File),
        SinkType::Kafka => KafkaConfig::read(section).map(SinkConfig::Kafka),
    }
}

fn refuse_clash(section: &mut Section<'_>, sink: &SinkConfig, taken: &[SinkConfig]) {
    let name = sink.name();
    for other in taken {
        match (sink, other) {
            (SinkConfig::Stdout(_), SinkConfig::Stdout(_)) => section.refuse(
                "type",
                Some("\"stdout\"".to_owned()),
                "there is a stdout sink already, and their lines would mix",
            ),
            (SinkConfig::File(file), SinkConfig::File(other))
                if (&file.directory, &file.prefix) == (&other.directory, &other.prefix) =>
            {
                section.refuse(
                    "prefix",
                    Some(format!("{:?}", file.prefix)),
                    format!(
                        "sink {:?} writes files of this name in the same directory",
                        other.name
                    ),
                );
            }
            (SinkConfig::Kafka(kafka), SinkConfig::Kafka(other))
                if kafka.spool.is_some() && kafka.spool_directory() == other.spool_directory() =>
            {
                section.refuse(
                    "spool.directory",
                    kafka.spool_directory().map(|directory| format!("{directory:?}")),
                    format!("sink {:?} has its spool there: give each its own", other.name),
                );
            }
            _ if name == other.name() => section.refuse(
                "name",
                Some(format!("{name:?}")),
                "another sink has this name: give each its own",
            ),
            _ => {}
        }
    }
}

fn name(section: &mut Section<'_>, usual: &str) -> String {
    section.read("name", text(label)).unwrap_or_else(|| usual.to_owned())
}

impl StdoutConfig {
    fn read(section: &mut Section<'_>) -> Self {
        Self {
            name: name(section, "stdout"),
            format: section.read("format", choice).unwrap_or(TextFormat::Text),
            color: section.read("color", choice).unwrap_or(ColorChoice::Auto),
        }
    }
}

impl FileConfig {
    fn read(section: &mut Section<'_>) -> Option<Self> {
        let name = name(section, "file");
        let directory = section.require("directory", text(directory));
        let prefix = section.read("prefix", text(file_prefix));
        // A block of the container format is written whole: below a few KiB the size of a file
        // says nothing any more.
        let rotate_bytes = section.read("rotate_bytes", whole_number(4 << 10..=1 << 40));
        let rotate_after = section.read("rotate_after_s", seconds(1..=7 * 24 * 3600));
        let codec = section.read("codec", choice);
        Some(Self {
            name,
            directory: directory?,
            prefix: prefix.unwrap_or_else(|| "transactions".to_owned()),
            rotate_bytes: rotate_bytes.unwrap_or(128 << 20),
            rotate_after: rotate_after.unwrap_or(Duration::from_secs(300)),
            codec: codec.unwrap_or(FileCodec::None),
        })
    }
}

fn directory(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(path),
        Ok(_) => Err("is not a directory".to_owned()),
        Err(error) => Err(format!("cannot be used: {error}")),
    }
}

/// File names are `<prefix>-<16 characters of time>-<6 digits>.avro.partial` and the usual limit
/// is 255 bytes.
fn file_prefix(text: &str) -> Result<String, String> {
    const MAX_BYTES: usize = 200;
    if text.is_empty() {
        Err("must not be empty".to_owned())
    } else if text.len() > MAX_BYTES {
        Err(format!("must not be longer than {MAX_BYTES} bytes"))
    } else if text.contains(['/', '\0']) || text.starts_with('.') {
        Err("must be the start of a file name: no slash, no leading dot".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

impl KafkaConfig {
    fn read(section: &mut Section<'_>) -> Option<Self> {
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
        Some(Self {
            name,
            brokers: brokers?,
            topic: topic?,
            compression: compression.unwrap_or(KafkaCompression::Lz4),
            linger,
            message_timeout,
            queue_bytes: queue_bytes.unwrap_or(32 << 20),
            spool,
        })
    }

    fn spool_directory(&self) -> Option<&Path> {
        self.spool.as_ref().map(|spool| spool.directory.as_path())
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
    super::as_seconds(&duration.unwrap_or_default(), serializer)
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
