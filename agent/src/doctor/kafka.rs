//! Kafka: whether brokers can be reached, by the names that they give themselves too, and whether
//! the topic is there.
//!
//! Whether this client may *write* shows only when it writes, so that it is not looked at.

use std::{
    io::{self, ErrorKind},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, ResourceSpecifier},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    metadata::Metadata,
};

use super::Check;
use crate::{config::KafkaConfig, sink::kafka::connection};

const AREA: &str = "kafka";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Brokers of a cluster that are looked at: with a timeout for each, more would take minutes.
const MAX_BROKERS: usize = 8;

pub(super) fn look(number: usize, config: &KafkaConfig) -> Vec<Check> {
    let (mut checks, reached) = bootstrap(number, &config.brokers);
    if !reached {
        return checks;
    }
    let mut client = match connection(config) {
        Ok((client, _password)) => client,
        Err(error) => {
            let what = format!("sinks[{number}]: secrets");
            let fix = "ls -l   # the file, and whether this user may read it".to_owned();
            checks.push(Check::fail(AREA, what, error.to_string(), fix));
            return checks;
        }
    };
    client.set("allow.auto.create.topics", "false");
    match metadata(&client, config) {
        Ok(metadata) => {
            checks.extend(advertised(&metadata, &config.brokers));
            checks.extend(topic(&client, config, &metadata));
        }
        Err(error) => checks.push(unanswered(config, &error)),
    }
    checks
}

/// The brokers of the configuration; one that can be reached is enough.
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
            format!("nc -vz {host} {port}   # does the broker run, and at this port?")
        }
        ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            format!("nc -vz {host} {port}   # a route, a firewall, a NetworkPolicy for egress?")
        }
        _ => format!("getent hosts {host}   # a wrong name, or hostNetwork without dnsPolicy?"),
    }
}

fn metadata(client: &ClientConfig, config: &KafkaConfig) -> Result<Metadata, KafkaError> {
    // A producer's question would make the topic, where brokers allow it.
    let consumer: BaseConsumer = client.create()?;
    consumer.fetch_metadata(Some(&config.topic), REQUEST_TIMEOUT)
}

fn unanswered(config: &KafkaConfig, error: &KafkaError) -> Check {
    let what = format!("metadata of {}", config.brokers.join(", "));
    let brokers = &config.brokers[0];
    let fix = match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
            "kafka-configs.sh --describe --entity-type users   # the user and its password"
                .to_owned()
        }
        _ => format!("kcat -L -b {brokers}   # a listener that wants TLS or a password?"),
    };
    Check::fail(AREA, what, format!("connected, but no answer: {error}"), fix)
}

/// The brokers by the names that they tell clients to use from then on.
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
                format!("the broker gives itself this name, which cannot be reached: {error}"),
                format!("advertised.listeners=PLAINTEXT://…   # at broker {id}: a name that resolves here"),
            ))
        })
        .collect()
}

fn topic(client: &ClientConfig, config: &KafkaConfig, metadata: &Metadata) -> Vec<Check> {
    let name = &config.topic;
    let broker = &config.brokers[0];
    let what = format!("topic {name}");
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
        let fix = format!("kcat -L -b {broker} -t {name}");
        return vec![Check::warn(AREA, what, "the broker does not tell", fix)];
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
            // Whoever answered may have done so before its number was known, as -1.
            let id = metadata.brokers().first().map_or(0, |broker| broker.id());
            vec![match makes_topics(client, id) {
                Ok(Some(true)) => Check::warn(
                    AREA,
                    what,
                    "is not there yet: the broker makes it with the first record, with its defaults",
                    create,
                ),
                Ok(Some(false)) => Check::fail(
                    AREA,
                    what,
                    "is not there, and the broker makes none by itself: every record would be lost",
                    create,
                ),
                Ok(None) => Check::fail(AREA, what, "is not there", create),
                Err(error) => Check::fail(
                    AREA,
                    what,
                    format!(
                        "is not there; whether the broker would make it, it does not tell: {error}"
                    ),
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

/// Whether a broker makes topics that it is asked for; `None` if it does not know the setting.
fn makes_topics(client: &ClientConfig, broker: i32) -> Result<Option<bool>, String> {
    let admin: AdminClient<DefaultClientContext> =
        client.create().map_err(|error| error.to_string())?;
    let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
    let broker = [ResourceSpecifier::Broker(broker)];
    let answer = admin.describe_configs(&broker, &options);
    let runtime =
        tokio::runtime::Builder::new_current_thread().build().map_err(|error| error.to_string())?;
    let answers = runtime.block_on(answer).map_err(|error| error.to_string())?;
    let broker = answers.into_iter().next().ok_or("no answer")?.map_err(|code| code.to_string())?;
    let entry = broker.get("auto.create.topics.enable");
    Ok(entry.and_then(|entry| entry.value.as_deref()).map(|value| value == "true"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::doctor::Verdict;

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
