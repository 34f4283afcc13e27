//! The `options` section: settings of librdkafka by its names.

use std::collections::BTreeMap;

use rdkafka::{
    ClientConfig,
    error::KafkaError,
    producer::{BaseProducer, DefaultProducerContext},
    types::RDKafkaConfRes,
};
use tap53_base::settings::{Section, Value};

/// Settings that are refused here, and why.
const REFUSED: [(&str, Restriction); 37] = [
    ("bootstrap.servers", Restriction::MadeBy("brokers")),
    ("metadata.broker.list", Restriction::MadeBy("brokers")),
    ("compression.codec", Restriction::MadeBy("compression")),
    ("compression.type", Restriction::MadeBy("compression")),
    ("linger.ms", Restriction::MadeBy("linger_ms")),
    ("queue.buffering.max.ms", Restriction::MadeBy("linger_ms")),
    ("batch.size", Restriction::MadeBy("batch_bytes")),
    ("batch.num.messages", Restriction::MadeBy("batch_records")),
    ("message.timeout.ms", Restriction::MadeBy("message_timeout_ms")),
    ("delivery.timeout.ms", Restriction::MadeBy("message_timeout_ms")),
    ("queue.buffering.max.kbytes", Restriction::MadeBy("queue_bytes")),
    ("queue.buffering.max.messages", Restriction::MadeBy("queue_bytes")),
    ("security.protocol", Restriction::MadeBy("tls and sasl")),
    ("ssl.ca.location", Restriction::MadeBy("tls.ca_file")),
    ("ssl.ca.pem", Restriction::MadeBy("tls.ca_file")),
    ("ssl.certificate.location", Restriction::MadeBy("tls.certificate_file")),
    ("ssl.certificate.pem", Restriction::MadeBy("tls.certificate_file")),
    ("ssl.key.location", Restriction::MadeBy("tls.key_file")),
    ("ssl.key.pem", Restriction::Secret("tls.key_file")),
    ("ssl.key.password", Restriction::Secret("tls.key_password_file")),
    ("ssl.keystore.location", Restriction::MadeBy("tls.certificate_file and tls.key_file")),
    ("ssl.keystore.password", Restriction::Secret("tls.key_password_file")),
    ("ssl.endpoint.identification.algorithm", Restriction::MadeBy("tls.verify_hostname")),
    ("sasl.mechanisms", Restriction::MadeBy("sasl.mechanism")),
    ("sasl.mechanism", Restriction::MadeBy("sasl.mechanism")),
    ("sasl.username", Restriction::MadeBy("sasl.username")),
    ("sasl.password", Restriction::Secret("sasl.password_file")),
    ("enable.sasl.oauthbearer.unsecure.jwt", Restriction::MadeBy("sasl.mechanism")),
    ("allow.auto.create.topics", Restriction::MadeBy("create_topic")),
    // Transactions need calls that the agent does not make.
    ("transactional.id", Restriction::MadeBy("nothing: records are not sent in transactions")),
    // The ledger needs all delivery reports.
    ("acks", Restriction::Unless("all", PROMISE)),
    ("request.required.acks", Restriction::Unless("all", PROMISE)),
    ("delivery.report.only.error", Restriction::Unless("false", PROMISE)),
    ("enable.ssl.certificate.verification", Restriction::Unless("true", IMPOSTOR)),
    ("test.mock.num.brokers", Restriction::MadeBy("nothing: records would go nowhere")),
    ("test.mock.broker.rtt", Restriction::MadeBy("nothing: records would go nowhere")),
    ("plugin.library.paths", Restriction::MadeBy("nothing: tap53 loads no other program")),
];

const PROMISE: &str =
    "a record counts as delivered when all in-sync replicas have it, and that would not be known";
const IMPOSTOR: &str = "anybody could take the broker's place: name its authority in tls.ca_file";

#[derive(Clone, Copy)]
enum Restriction {
    /// Another key sets it.
    MadeBy(&'static str),
    /// Another key names a file that holds it. The value is not shown.
    Secret(&'static str),
    /// It must have this value, for this reason.
    Unless(&'static str, &'static str),
}

/// Reads the `options` section, and checks each setting with librdkafka.
pub(super) fn read(section: &mut Section<'_>) -> BTreeMap<String, String> {
    let mut options = BTreeMap::new();
    for name in section.keys() {
        if let Some(key) = secret(&name) {
            section.refuse(&name, None, format!("belongs into a file: {key}"));
            let _ = section.read(&name, |_| Ok(()));
            continue;
        }
        let mut unknown = None;
        let checked = section.read(&name, |value| {
            let value = text_or_number(value)?;
            refuse(&name, &value)?;
            match ClientConfig::new().set(name.as_str(), value.as_str()).create_native_config() {
                Ok(_) => Ok(Some(value)),
                Err(error) if is_unknown(&error) => {
                    unknown = Some(said(error));
                    Ok(None)
                }
                Err(error) => Err(said(error)),
            }
        });
        if let Some(why) = unknown {
            // Without its value, which may be a secret under a misspelled name.
            section.refuse(&name, None, why);
        }
        if let Some(value) = checked.flatten() {
            options.insert(name, value);
        }
    }
    if let Err(why) = agree(&options) {
        section.refuse_all(why);
    }
    options
}

/// Reads a setting of librdkafka or of a broker, which is always a text.
pub(super) fn text_or_number(value: &Value) -> Result<String, String> {
    match value {
        Value::Text(text) => Ok(text.clone()),
        Value::Boolean(_) | Value::Integer(_) | Value::Real(_) => Ok(value.to_string()),
        _ => Err("must be a text or a number".to_owned()),
    }
}

/// Returns the key to use instead of a setting that holds a secret.
fn secret(name: &str) -> Option<&'static str> {
    if name.starts_with("sasl.oauthbearer.") {
        return Some("sasl.token_file or sasl.client_secret_file");
    }
    REFUSED.iter().find_map(|(refused, why)| match why {
        Restriction::Secret(key) if *refused == name => Some(*key),
        _ => None,
    })
}

fn refuse(name: &str, value: &str) -> Result<(), String> {
    let refused = REFUSED.iter().find(|(refused, _)| *refused == name);
    match refused.map(|(_, why)| *why) {
        None => Ok(()),
        Some(Restriction::MadeBy(key) | Restriction::Secret(key)) => {
            Err(format!("is made by {key}"))
        }
        Some(Restriction::Unless(required, _)) if value == required => Ok(()),
        // The same, in numbers.
        Some(Restriction::Unless("all", _)) if value == "-1" => Ok(()),
        Some(Restriction::Unless(required, why)) => Err(format!("must be {required}: {why}")),
    }
}

/// Checks that the settings are valid together; for instance, `retries: 0` is valid only without
/// idempotence. Only creating a client shows that; this one has no broker to connect to.
fn agree(options: &BTreeMap<String, String>) -> Result<(), String> {
    if options.is_empty() {
        return Ok(());
    }
    let mut client = ClientConfig::new();
    client.set("acks", "all").set("enable.idempotence", "true");
    for (name, value) in options {
        client.set(name, value);
    }
    client.create::<BaseProducer<DefaultProducerContext>>().map(|_| ()).map_err(said)
}

fn is_unknown(error: &KafkaError) -> bool {
    matches!(error, KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..))
}

fn said(error: KafkaError) -> String {
    let why = match error {
        KafkaError::ClientConfig(_, why, ..) | KafkaError::ClientCreation(why) => why,
        error => error.to_string(),
    };
    format!("librdkafka says: {}", why.trim_end())
}
