//! A Kafka sink's keys. Its sections are in separate files.

mod create_topic;
mod options;
mod sasl;
mod spool;
mod summary;
mod tls;

use std::{collections::BTreeMap, path::Path, time::Duration};

use clap::ValueEnum;
use rdkafka::ClientConfig;
use serde::Serialize;
use tap53_base::settings::{
    Section, Value, boolean, choice, label, milliseconds, text, whole_number,
};
use tap53_records::encode::{Key, Profile};

use super::{RegistryConfig, name};

pub use create_topic::CreateTopic;
pub use sasl::{Credentials, SaslConfig, SaslMechanism, TokenEndpoint};
pub use spool::{FsyncChoice, SpoolConfig, SpoolMode};
pub use summary::SummaryConfig;
pub use tls::TlsConfig;

/// A Kafka topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KafkaConfig {
    /// Name of the sink; `kafka` unless set.
    pub name: String,
    /// Brokers to start from, `host:port` each; at least one.
    pub brokers: Vec<String>,
    /// Topic.
    pub topic: String,
    /// The shape in which the agent creates the topic; `None`: it creates none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create_topic: Option<CreateTopic>,
    /// Compression of message batches.
    pub compression: KafkaCompression,
    /// The longest wait of a message for others that share its request.
    #[serde(rename = "linger_ms", serialize_with = "tap53_base::settings::as_milliseconds")]
    pub linger: Duration,
    /// The most bytes of a batch of messages, before compression.
    pub batch_bytes: u32,
    /// The most messages of a batch.
    pub batch_records: u32,
    /// The longest time from the producer's queue to the acknowledgement.
    #[serde(
        rename = "message_timeout_ms",
        serialize_with = "tap53_base::settings::as_milliseconds"
    )]
    pub message_timeout: Duration,
    /// The most bytes in the producer's queue.
    pub queue_bytes: u64,
    /// The key of messages, by which the broker chooses the partition.
    pub key: Key,
    /// True if messages have the schema's version and the node's name as headers.
    pub headers: bool,
    /// TLS; `None`: in the clear.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// The identity of the agent; `None`: none, or that of its certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sasl: Option<SaslConfig>,
    /// Settings of librdkafka by its names, which override those of the other keys.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// The spool for records that the broker does not accept; `None`: there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spool: Option<SpoolConfig>,
    /// The registry that gives schema ids; `None`: records carry their schema's fingerprint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistryConfig>,
    /// The topic for summaries of the ledger; `None`: none are written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<SummaryConfig>,
    /// The profile that `record.profile` chooses.
    #[serde(skip)]
    pub profile: Profile,
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
    /// Zstandard, if librdkafka was built with it.
    Zstd,
}

#[cfg(any(test, feature = "testing"))]
impl KafkaConfig {
    /// The configuration that a file with these two keys gives, but without linger and compression,
    /// which not every build has.
    pub fn to(brokers: &str, topic: &str) -> Self {
        Self {
            name: "kafka".to_owned(),
            brokers: vec![brokers.to_owned()],
            topic: topic.to_owned(),
            create_topic: None,
            compression: KafkaCompression::None,
            linger: Duration::ZERO,
            batch_bytes: 1_000_000,
            batch_records: 10_000,
            message_timeout: Duration::from_secs(300),
            queue_bytes: 1 << 20,
            key: Key::None,
            headers: false,
            tls: None,
            sasl: None,
            options: BTreeMap::new(),
            spool: None,
            summary: None,
            registry: None,
            profile: Profile::Full,
        }
    }
}

impl KafkaConfig {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let name = name(section, "kafka");
        if !section.has("brokers") {
            section.refuse("brokers", None, "missing: name at least one, host:port");
        }
        let brokers = section.read_some("brokers", text(broker));
        let topic = section.require("topic", text(topic));
        let create_topic = section.optional_section("create_topic", CreateTopic::read);
        let compression = section.read("compression", compression);
        // The limits of these six are librdkafka's own.
        let linger = section
            .read("linger_ms", milliseconds(0..=900_000))
            .unwrap_or(Duration::from_millis(20));
        let batch_bytes = section.read("batch_bytes", whole_number(1..=i32::MAX.unsigned_abs()));
        let batch_records = section.read("batch_records", whole_number(1..=1_000_000));
        let message_timeout = section
            .read("message_timeout_ms", milliseconds(1..=i32::MAX as u64))
            .unwrap_or(Duration::from_secs(300));
        if linger >= message_timeout {
            let value = Some(message_timeout.as_millis().to_string());
            let reason = format!("must be more than linger_ms, which is {}", linger.as_millis());
            section.refuse("message_timeout_ms", value, reason);
        }
        let queue_bytes = section.read("queue_bytes", whole_number(1 << 20..=i32::MAX as u64));
        let spool = section.optional_section("spool", SpoolConfig::read).flatten();
        let directory = spool.as_ref().map(|spool| spool.directory.as_path());
        let read_registry = |section: &mut Section<'_>| RegistryConfig::read(section, directory);
        let registry = section.optional_section("registry", read_registry).flatten();
        let key = section.read("key", choice);
        let headers = section.read("headers", boolean);
        let tls = section.optional_section("tls", TlsConfig::read);
        let has_tls = tls.is_some();
        let read_sasl = |section: &mut Section<'_>| SaslConfig::read(section, has_tls);
        let sasl = section.optional_section("sasl", read_sasl).flatten();
        let options = section.section("options", options::read);
        let read_summary =
            |section: &mut Section<'_>| SummaryConfig::read(section, topic.as_deref());
        let summary = section.optional_section("summary", read_summary).flatten();
        Some(Self {
            name,
            brokers: brokers?,
            topic: topic?,
            create_topic,
            compression: compression.unwrap_or(KafkaCompression::Lz4),
            linger,
            batch_bytes: batch_bytes.unwrap_or(1_000_000),
            batch_records: batch_records.unwrap_or(10_000),
            message_timeout,
            queue_bytes: queue_bytes.unwrap_or(32 << 20),
            key: key.unwrap_or(Key::None),
            headers: headers.unwrap_or(false),
            tls,
            sasl,
            options,
            spool,
            registry,
            summary,
            profile: Profile::Full,
        })
    }

    /// The most bytes of a message without its record's datum: Avro's single-object header
    /// (10) or the registry's (5), the key (a name of 1,004 characters), headers (the node's name,
    /// 253, and the schema's version), and the broker's framing (36).
    pub const MESSAGE_OVERHEAD: usize = 2_048;

    /// Returns the most bytes of a message that the producer accepts.
    #[must_use]
    pub fn max_message_bytes(&self) -> usize {
        /// librdkafka's default (CONFIGURATION.md).
        const DEFAULT: usize = 1_000_000;
        self.options.get("message.max.bytes").and_then(|text| text.parse().ok()).unwrap_or(DEFAULT)
    }

    /// Returns the most bytes of a record's datum that can be sent.
    #[must_use]
    pub fn max_record_bytes(&self) -> usize {
        self.max_message_bytes().saturating_sub(Self::MESSAGE_OVERHEAD)
    }

    pub(super) fn spool_directory(&self) -> Option<&Path> {
        self.spool.as_ref().map(|spool| spool.directory.as_path())
    }
}

/// Reads `host:port`, with an IPv6 address in brackets.
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

/// Checks a topic's name by the broker's rule (`org.apache.kafka.common.internals.Topic`).
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

/// Checks a codec with librdkafka: its build decides which codecs it has.
fn compression(value: &Value) -> Result<KafkaCompression, String> {
    let compression = choice::<KafkaCompression>(value)?;
    let name = compression.to_possible_value().ok_or("is not a compression")?.get_name().to_owned();
    ClientConfig::new()
        .set("compression.codec", name)
        .create_native_config()
        .map(|_| compression)
        .map_err(|_| "librdkafka was built without it".to_owned())
}
