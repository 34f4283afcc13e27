//! Checks that the Kafka brokers can be reached, also by their advertised names, and that the topic
//! exists.
//!
//! The right to *write* is not checked: brokers report it only for a write.

use std::{
    io::{self, ErrorKind},
    net::{TcpStream, ToSocketAddrs},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::{Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    metadata::Metadata,
};
use tap53_sinks::{AdminClient, AdminError};

use super::Check;
use crate::config::{Credentials, KafkaConfig, SaslMechanism};

const AREA: &str = "kafka";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of brokers that are checked: with a timeout for each, more would take minutes.
const MAX_BROKERS: usize = 8;

/// Maximum number of errors and log lines of librdkafka in that time: it retries every two seconds.
const MAX_EVENTS: usize = 200;

pub(super) fn look(number: usize, config: &KafkaConfig) -> Vec<Check> {
    let (mut checks, reached) = bootstrap(number, &config.brokers);
    if !reached {
        return checks;
    }
    let client = match AdminClient::prepare(config) {
        Ok(client) => client,
        Err(AdminError::Secret(error)) => {
            let what = format!("sinks[{number}]: secrets");
            let fix = "ls -l   # can this user read the file?".to_owned();
            checks.push(Check::fail(AREA, what, error.to_string(), fix));
            return checks;
        }
        Err(AdminError::Token(why)) => {
            checks.push(Check::fail(
                AREA,
                format!("sinks[{number}]: token"),
                why,
                fix_token(config),
            ));
            return checks;
        }
    };
    if let Some(token) = client.token() {
        checks.push(Check::ok(AREA, format!("sinks[{number}]: {token}")));
    }
    let summaries = config.summary.as_ref().map(|summary| summary.topic.as_str());
    for (position, name) in
        [Some(config.topic.as_str()), summaries].into_iter().flatten().enumerate()
    {
        match metadata(&client, name) {
            Ok(metadata) => {
                if position == 0 {
                    checks.extend(advertised(&metadata, &config.brokers));
                }
                checks.extend(topic(config, name, &metadata));
            }
            Err((code, why)) => {
                checks.push(unanswered(config, code, &why));
                break;
            }
        }
    }
    checks
}

/// The last error that librdkafka has reported of a connection: a request itself fails only with a
/// timeout.
#[derive(Default)]
struct LastError(Mutex<Option<(RDKafkaErrorCode, String)>>);

impl ClientContext for LastError {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // "All brokers are down" follows from whatever came before.
        if last.is_none() || code != RDKafkaErrorCode::AllBrokersDown {
            *last = Some((code, reason.to_owned()));
        }
    }
}

impl ConsumerContext for LastError {}

/// Returns a command that shows the source of a token.
fn fix_token(config: &KafkaConfig) -> String {
    match config.sasl.as_ref().map(|sasl| &sasl.credentials) {
        Some(Credentials::TokenEndpoint(endpoint)) => {
            format!(
                "curl -sS -u '{}:…' -d grant_type=client_credentials {}",
                endpoint.client_id, endpoint.url
            )
        }
        Some(Credentials::TokenFile { token_file }) => format!(
            "cut -d. -f2 {} | basenc -d --base64url 2>/dev/null   # exp and sub; a pod's token is renewed by the kubelet",
            token_file.display()
        ),
        _ => "ls -l   # the password's file".to_owned(),
    }
}

/// Checks the configured brokers; one that can be reached is enough.
fn bootstrap(number: usize, brokers: &[String]) -> (Vec<Check>, bool) {
    let tried: Vec<_> = brokers.iter().map(|broker| (broker, connect(broker))).collect();
    let reached = tried.iter().any(|(_, result)| result.is_ok());
    let check = |(broker, result): (&String, io::Result<()>)| {
        let what = format!("sinks[{number}]: broker {broker}");
        let Err(error) = result else { return Check::ok(AREA, format!("{what} can be reached")) };
        let check = if reached { Check::warn } else { Check::fail };
        check(AREA, what, format!("cannot be reached: {error}"), fix(broker, &error))
    };
    (tried.into_iter().map(check).collect(), reached)
}

fn connect(broker: &str) -> io::Result<()> {
    let mut last = io::Error::from(ErrorKind::AddrNotAvailable);
    for address in broker.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn fix(broker: &str, error: &io::Error) -> String {
    let (host, port) = broker.rsplit_once(':').unwrap_or((broker, "9092"));
    match error.kind() {
        ErrorKind::ConnectionRefused => {
            format!("nc -vz {host} {port}   # is the broker running, and on this port?")
        }
        ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            format!("nc -vz {host} {port}   # a route, a firewall, a NetworkPolicy for egress?")
        }
        _ => format!("getent hosts {host}   # a wrong name, or hostNetwork without dnsPolicy?"),
    }
}

/// Requests the metadata of a topic.
///
/// # Errors
/// The cause, as far as librdkafka reports it.
fn metadata(
    client: &AdminClient,
    topic: &str,
) -> Result<Metadata, (Option<RDKafkaErrorCode>, String)> {
    let failed = |error: KafkaError| (error.rdkafka_error_code(), error.to_string());
    let consumer = client.consumer(LastError::default()).map_err(failed)?;
    consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT).map_err(|error| {
        // Delivers errors to the callback, among log lines.
        for _ in 0..MAX_EVENTS {
            let _ = consumer.poll(Duration::ZERO);
        }
        let reported = consumer.context().0.lock().unwrap_or_else(PoisonError::into_inner).take();
        reported.map_or_else(|| failed(error), |(code, why)| (Some(code), why))
    })
}

fn unanswered(config: &KafkaConfig, code: Option<RDKafkaErrorCode>, why: &str) -> Check {
    let what = format!("metadata of {}", config.brokers.join(", "));
    let brokers = &config.brokers[0];
    let fix = match code {
        _ if why.contains("SSL") => {
            format!(
                "openssl s_client -connect {brokers} -brief   # is this a TLS listener? which CA signed it?"
            )
        }
        Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
            match config.sasl.as_ref().map(|sasl| sasl.mechanism) {
                Some(SaslMechanism::OauthBearer) => {
                    "grep sasl.oauthbearer server.properties   # at the broker: expected.issuer, expected.audience, jwks.endpoint.url"
                }
                // Passwords for PLAIN are in the settings of the listener.
                Some(SaslMechanism::Plain) => {
                    "grep plain.sasl.jaas.config server.properties   # at the broker: the user and its password"
                }
                _ => "kafka-configs.sh --describe --entity-type users   # the user and its password",
            }
            .to_owned()
        }
        _ => format!("kcat -L -b {brokers}   # does this listener require TLS or a password?"),
    };
    Check::fail(AREA, what, format!("connected, but no answer: {why}"), fix)
}

/// Checks the names that the brokers advertise, which clients use after the bootstrap.
fn advertised(metadata: &Metadata, bootstrap: &[String]) -> Vec<Check> {
    let names = metadata.brokers().iter().map(|broker| {
        let host = broker.host();
        let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        (broker.id(), format!("{bracketed}:{}", broker.port()))
    });
    names
        .filter(|(_, name)| !bootstrap.contains(name))
        .take(MAX_BROKERS)
        .filter_map(|(id, name)| {
            let error = connect(&name).err()?;
            Some(Check::fail(
                AREA,
                format!("broker {id} as {name}"),
                format!("the broker advertises this name, which cannot be reached: {error}"),
                format!("advertised.listeners=PLAINTEXT://…   # at broker {id}: a name that resolves here"),
            ))
        })
        .collect()
}

fn topic(config: &KafkaConfig, name: &str, metadata: &Metadata) -> Vec<Check> {
    let broker = &config.brokers[0];
    let what = format!("topic {name}");
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
        let fix = format!("kcat -L -b {broker} -t {name}");
        return vec![Check::warn(AREA, what, "missing in the broker's metadata", fix)];
    };
    let create = format!(
        "kafka-topics.sh --bootstrap-server {broker} --create --topic {name} --partitions 6"
    );
    match topic.error().map(RDKafkaErrorCode::from) {
        None | Some(RDKafkaErrorCode::NoError) => {
            let partitions = topic.partitions();
            let leaderless = partitions.iter().filter(|partition| partition.leader() < 0).count();
            let what = format!("{what}: {} partitions", partitions.len());
            if leaderless == 0 {
                return vec![Check::ok(AREA, what)];
            }
            let fix = format!(
                "kafka-topics.sh --bootstrap-server {broker} --describe --topic {name} \
                 --unavailable-partitions"
            );
            vec![Check::fail(AREA, what, format!("{leaderless} have no leader"), fix)]
        }
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            vec![match &config.create_topic {
                Some(_) => Check::warn(
                    AREA,
                    what,
                    "does not exist yet: tap53 creates it at the start",
                    create,
                ),
                None => Check::fail(
                    AREA,
                    what,
                    "does not exist, and tap53 creates it only if create_topic is set: records wait \
                     in the spool, or are lost",
                    create,
                ),
            }]
        }
        Some(code) => {
            let fix = match code {
                RDKafkaErrorCode::TopicAuthorizationFailed => format!(
                    "kafka-acls.sh --bootstrap-server {broker} --add --allow-principal User:tap53 \
                     --producer --topic {name}"
                ),
                _ => format!("kcat -L -b {broker} -t {name}"),
            };
            vec![Check::fail(AREA, what, code.to_string(), fix)]
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::verdict::Verdict;

    #[test]
    fn one_broker_that_can_be_reached_is_enough() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap().to_string();
        // A port that was just given back.
        let closed = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().to_string()
        };
        let verdicts = |brokers: &[String]| -> Vec<_> {
            bootstrap(0, brokers).0.iter().map(|check| check.verdict).collect()
        };
        assert_eq!(verdicts(&[open.clone(), closed.clone()]), [Verdict::Ok, Verdict::Warn]);
        assert_eq!(verdicts(std::slice::from_ref(&closed)), [Verdict::Fail]);
        let (checks, reached) = bootstrap(1, std::slice::from_ref(&closed));
        assert!(!reached);
        assert!(checks[0].what.starts_with("sinks[1]: broker 127.0.0.1:"));
        assert!(checks[0].fix.as_deref().unwrap().starts_with("nc -vz 127.0.0.1 "));
    }
}
