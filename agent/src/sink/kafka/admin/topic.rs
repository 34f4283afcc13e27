//! Creates the topic, where the configuration says so.
//!
//! The topic is looked up first, so that once it exists an agent needs no right to create it. Several
//! agents may create it at the same time: one does, the others find that it exists.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

use rdkafka::{
    admin::{AdminOptions, NewTopic, TopicReplication},
    consumer::{Consumer as _, DefaultConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::AdminClient;
use crate::config::{CreateTopic, KafkaConfig};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// After a failure, doubled with each one that follows.
const MIN_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// The thread that creates a topic: at the start, and whenever brokers say that it does not exist.
pub(crate) struct TopicCreator(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    woken: Condvar,
}

#[derive(Default)]
struct State {
    is_wanted: bool,
    stop: bool,
}

impl TopicCreator {
    /// `None` where the configuration does not have it created.
    pub(crate) fn start(config: &KafkaConfig) -> Option<Self> {
        let shape = config.create_topic.clone()?;
        let shared = Arc::new(Shared::default());
        shared.want();
        let (shared_by_thread, config) = (shared.clone(), config.clone());
        let started = thread::Builder::new()
            .name("kafka-topic".to_owned())
            .spawn(move || shared_by_thread.run(&config, &shape));
        if let Err(error) = started {
            tracing::error!(event = "topic_creation_failed", %error, "cannot start the thread that creates topics");
        }
        Some(Self(shared))
    }

    /// Has the topic created: brokers say that it does not exist.
    pub(crate) fn want(&self) {
        self.0.want();
    }
}

impl Drop for TopicCreator {
    /// The thread ends on its own, after what it is doing: nobody waits for that.
    fn drop(&mut self) {
        self.0.lock().stop = true;
        self.0.woken.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn want(&self) {
        self.lock().is_wanted = true;
        self.woken.notify_all();
    }

    fn run(&self, config: &KafkaConfig, shape: &CreateTopic) {
        let (sink, topic) = (&config.name, &config.topic);
        let mut backoff = MIN_BACKOFF;
        loop {
            let idle = |state: &mut State| !state.is_wanted && !state.stop;
            let mut state =
                self.woken.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
            if state.stop {
                return;
            }
            state.is_wanted = false;
            drop(state);
            match create(config, shape) {
                Ok(is_new) => {
                    backoff = MIN_BACKOFF;
                    if is_new {
                        let default = || "as the brokers do".to_owned();
                        let number =
                            |number: Option<i32>| number.map_or_else(default, |n| n.to_string());
                        tracing::info!(
                            event = "topic_created",
                            sink,
                            topic,
                            partitions = number(shape.partitions),
                            replication_factor = number(shape.replication_factor),
                            "created the topic, which did not exist"
                        );
                    }
                }
                Err(why) => {
                    tracing::error!(
                        event = "topic_creation_failed",
                        sink,
                        topic,
                        "cannot create the topic: {why}"
                    );
                    let stopped = |state: &mut State| !state.stop;
                    let waited = self.woken.wait_timeout_while(self.lock(), backoff, stopped);
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                    waited.unwrap_or_else(PoisonError::into_inner).0.is_wanted = true;
                }
            }
        }
    }
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
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {}
        // It exists, or this client may not see it: then creating it would fail too.
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
    let runtime =
        tokio::runtime::Builder::new_current_thread().build().map_err(|error| error.to_string())?;
    let answers = runtime.block_on(admin.create_topics([&new], &options)).map_err(text)?;
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
