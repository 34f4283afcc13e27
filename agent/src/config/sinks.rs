//! The `sinks` section: where records go.

use std::{path::PathBuf, time::Duration};

use clap::ValueEnum;
use serde::Serialize;

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
    #[serde(
        rename = "message_timeout_ms",
        serialize_with = "super::as_milliseconds"
    )]
    pub message_timeout: Duration,
    /// Bytes that the producer's queue holds at most.
    pub queue_bytes: u64,
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
