//! The `options` section: settings of librdkafka by its names.

use std::collections::BTreeMap;

use rdkafka::{ClientConfig, error::KafkaError};

use super::super::super::tree::{Section, Value};

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
pub(super) fn read(section: &mut Section<'_>) -> BTreeMap<String, String> {
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
