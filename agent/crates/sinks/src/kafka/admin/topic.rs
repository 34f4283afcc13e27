//! Creates the topic, if that is configured.
//!
//! It is looked up first, so that no right to create it is needed once it exists. If several agents
//! create it at the same time, one succeeds, and the others find that it exists.

use std::time::Duration;

use rdkafka::{
    admin::{AdminOptions, NewTopic, TopicReplication},
    consumer::{Consumer as _, DefaultConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
};

use tap53_base::{
    backoff::Backoff,
    threads::{Background, Requests, Round},
};

use super::{super::context::is_topic_missing, AdminClient};
use crate::config::{CreateTopic, KafkaConfig};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));

/// The thread that creates a topic: at the start, and whenever brokers say that it does not exist.
pub(in crate::kafka) struct TopicCreator(Option<Background>);

impl TopicCreator {
    /// Starts the thread; `None` without `create_topic`.
    pub(in crate::kafka) fn start(config: &KafkaConfig) -> Option<Self> {
        let shape = config.create_topic.clone()?;
        let config = config.clone();
        let started = Background::start("kafka-topic", Requests::default(), BACKOFF, move || {
            create_and_log(&config, &shape)
        });
        if let Err(error) = &started {
            tracing::error!(event = "topic_creation_failed", %error, "cannot start the thread that creates topics");
        }
        Some(Self(started.ok()))
    }

    /// Requests the topic's creation, as brokers say that it does not exist.
    pub(in crate::kafka) fn want(&self) {
        self.0.iter().for_each(Background::request);
    }
}

fn create_and_log(config: &KafkaConfig, shape: &CreateTopic) -> Round {
    let (sink, topic) = (&config.name, &config.topic);
    match create(config, shape) {
        Ok(true) => {
            let default = || "as the brokers do".to_owned();
            let number = |number: Option<i32>| number.map_or_else(default, |n| n.to_string());
            tracing::info!(
                event = "topic_created",
                sink,
                topic,
                partitions = number(shape.partitions),
                replication_factor = number(shape.replication_factor),
                "created the topic, which did not exist"
            );
        }
        Ok(false) => {}
        Err(why) => {
            tracing::error!(
                event = "topic_creation_failed",
                sink,
                topic,
                "cannot create the topic: {why}"
            );
            return Round::Failed(Duration::ZERO);
        }
    }
    Round::Done(None)
}

/// Creates the topic if it does not exist; true if so.
fn create(config: &KafkaConfig, shape: &CreateTopic) -> Result<bool, String> {
    let client = AdminClient::prepare(config).map_err(|error| error.to_string())?;
    let text = |error: KafkaError| error.to_string();
    let consumer = client.consumer(DefaultConsumerContext).map_err(text)?;
    let metadata = consumer
        .fetch_metadata(Some(&config.topic), REQUEST_TIMEOUT)
        .map_err(|error| format!("no broker answers whether it exists: {error}"))?;
    let topic = metadata.topics().iter().find(|topic| topic.name() == config.topic);
    match topic.and_then(|topic| topic.error()).map(RDKafkaErrorCode::from) {
        Some(code) if is_topic_missing(code) => {}
        None | Some(RDKafkaErrorCode::NoError | RDKafkaErrorCode::LeaderNotAvailable) => {
            return Ok(false);
        }
        Some(code) => return Err(code.to_string()),
    }
    drop(consumer);

    let mut new = NewTopic::new(
        &config.topic,
        shape.partitions.unwrap_or(-1),
        TopicReplication::Fixed(shape.replication_factor.unwrap_or(-1)),
    );
    for (name, value) in &shape.options {
        new = new.set(name, value);
    }
    let admin = client.admin().map_err(text)?;
    let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
    let answers = tap53_http::block_on(admin.create_topics([&new], &options))
        .map_err(|error| error.to_string())?
        .map_err(text)?;
    match answers.into_iter().next().ok_or("no answer")? {
        Ok(_) => Ok(true),
        Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => Ok(false),
        Err((_, code)) => Err(match code {
            RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed => {
                format!("{code}: this user needs CREATE on the topic")
            }
            code => code.to_string(),
        }),
    }
}
