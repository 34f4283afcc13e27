//! librdkafka's settings from the configuration.

use std::{io, path::Path};

use clap::ValueEnum;
use rdkafka::{ClientConfig, config::RDKafkaLogLevel};
use tap53_base::files::{read_secret, read_secret_text};

use crate::{
    OpenError,
    config::{Credentials, KafkaConfig},
};

/// The longest answer. librdkafka allocates as many bytes as an answer announces, up to 100 MB by
/// default. The longest that a producer needs is the topic's metadata, with some 60 bytes for each
/// partition and broker, so this is enough for 100,000 partitions.
const LONGEST_ANSWER_BYTES: u32 = 8 << 20;

/// The least limit that librdkafka accepts for a consumer, which takes whole messages.
const LONGEST_MESSAGE_BYTES: u32 = 1_000_000;

/// Returns a producer's settings, with secrets.
pub(super) fn client_config(config: &KafkaConfig) -> Result<ClientConfig, OpenError> {
    let mut client = connection(config)?;
    client
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("compression.type", librdkafka_name(config.compression))
        .set("linger.ms", config.linger.as_millis().to_string())
        .set("batch.size", config.batch_bytes.to_string())
        .set("batch.num.messages", config.batch_records.to_string())
        .set("message.timeout.ms", config.message_timeout.as_millis().to_string())
        // By default, ten seconds may pass until a broker that is back is found.
        .set("reconnect.backoff.max.ms", "2000")
        // The limit is memory, not a number of messages (0: none).
        .set("queue.buffering.max.kbytes", (config.queue_bytes / 1024).max(1).to_string())
        .set("queue.buffering.max.messages", "0")
        // Option `debug`: librdkafka logs more, at the level of that name.
        .set_log_level(match config.options.contains_key("debug") {
            true => RDKafkaLogLevel::Debug,
            false => RDKafkaLogLevel::Info,
        });
    for (name, value) in &config.options {
        client.set(name, value);
    }
    Ok(client)
}

/// Returns the settings of every kind of client: brokers, TLS and SASL.
pub(in crate::kafka) fn connection(config: &KafkaConfig) -> Result<ClientConfig, OpenError> {
    let mut client = ClientConfig::new();
    client.set("client.id", "tap53").set("bootstrap.servers", config.brokers.join(","));
    // Otherwise a producer's metadata request could create the topic with the broker's defaults.
    client.set("allow.auto.create.topics", "false");
    client.set("receive.message.max.bytes", LONGEST_ANSWER_BYTES.to_string());
    set_security(&mut client, config)?;
    Ok(client)
}

/// Returns the settings of a consumer, whose limits must fit each other even if it only queries
/// metadata.
pub(in crate::kafka) fn for_reader(connection: &ClientConfig) -> ClientConfig {
    let mut client = connection.clone();
    client.set("fetch.max.bytes", LONGEST_MESSAGE_BYTES.to_string());
    client
}

fn set_security(client: &mut ClientConfig, config: &KafkaConfig) -> Result<(), OpenError> {
    let read = |path: &Path| {
        read_secret_text(path).map_err(|cause| OpenError::File {
            action: "read",
            path: path.display().to_string(),
            cause,
        })
    };
    let protocol = match (&config.tls, &config.sasl) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    client.set("security.protocol", protocol);
    if let Some(tls) = &config.tls {
        let files = [
            ("ssl.ca.location", &tls.ca_file),
            ("ssl.certificate.location", &tls.certificate_file),
            ("ssl.key.location", &tls.key_file),
        ];
        for (name, path) in files {
            if let Some(path) = path {
                client.set(name, path.display().to_string());
            }
        }
        if let Some(path) = &tls.key_password_file {
            client.set("ssl.key.password", read(path)?);
        }
        let check = if tls.verify_hostname { "https" } else { "none" };
        client.set("ssl.endpoint.identification.algorithm", check);
    }
    if let Some(sasl) = &config.sasl {
        client.set("sasl.mechanisms", librdkafka_name(sasl.mechanism).to_ascii_uppercase());
        // Tokens are not settings: see `auth`.
        if let Credentials::Password { username, password_file } = &sasl.credentials {
            client.set("sasl.username", username).set("sasl.password", read(password_file)?);
        }
    }
    Ok(())
}

/// The configuration has librdkafka's names of compressions and mechanisms, in lower case.
fn librdkafka_name(choice: impl ValueEnum) -> String {
    choice.to_possible_value().map_or_else(String::new, |name| name.get_name().to_owned())
}

pub(super) type Digest = [u8; 32];

/// Returns a hash of all files for TLS.
pub(super) fn hash_of_tls_files(config: &KafkaConfig) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    if let Some(tls) = &config.tls {
        let files = [&tls.ca_file, &tls.certificate_file, &tls.key_file, &tls.key_password_file];
        for path in files.into_iter().flatten() {
            let content = read_secret(path)?;
            hasher.update(&(content.len() as u64).to_le_bytes()).update(&content);
        }
    }
    Ok(*hasher.finalize().as_bytes())
}
