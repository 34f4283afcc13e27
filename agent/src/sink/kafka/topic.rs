//! Making the topic, where the configuration says so.
//!
//! Whether it is there is looked up first, so that an agent that may write and not create is no
//! trouble once it is. Several agents may make it at the same time: one does, the others find that
//! it exists.

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

use super::errand::Errand;
use crate::config::{CreateTopic, KafkaConfig};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// After a failure, doubled with each one that follows.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The thread that makes a topic: at the start, and whenever brokers say that it is not there.
pub(super) struct Maker(Arc<Shared>);

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

impl Maker {
    /// `None` where nobody asked for it.
    pub(super) fn start(config: &KafkaConfig) -> Option<Self> {
        let shape = config.create_topic.clone()?;
        let shared = Arc::new(Shared::default());
        shared.want();
        let (of_thread, config) = (shared.clone(), config.clone());
        let started = thread::Builder::new()
            .name("kafka-topic".to_owned())
            .spawn(move || of_thread.run(&config, &shape));
        if let Err(error) = started {
            tracing::error!(%error, "cannot start the thread that makes topics");
        }
        Some(Self(shared))
    }

    /// The brokers say that the topic is not there.
    pub(super) fn want(&self) {
        self.0.want();
    }
}

impl Drop for Maker {
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
        let mut after_failure = FIRST_WAIT;
        loop {
            let idle = |state: &mut State| !state.is_wanted && !state.stop;
            let mut state =
                self.woken.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
            if state.stop {
                return;
            }
            state.is_wanted = false;
            drop(state);
            match make(config, shape) {
                Ok(is_new) => {
                    after_failure = FIRST_WAIT;
                    if is_new {
                        let default = || "as the brokers do".to_owned();
                        let number =
                            |number: Option<i32>| number.map_or_else(default, |n| n.to_string());
                        tracing::info!(
                            sink,
                            topic,
                            partitions = number(shape.partitions),
                            replication_factor = number(shape.replication_factor),
                            "the topic was not there: it has been created"
                        );
                    }
                }
                Err(why) => {
                    tracing::error!(sink, topic, "the topic cannot be created: {why}");
                    let stopped = |state: &mut State| !state.stop;
                    let waited = self.woken.wait_timeout_while(self.lock(), after_failure, stopped);
                    after_failure = (after_failure * 2).min(LONGEST_WAIT);
                    waited.unwrap_or_else(PoisonError::into_inner).0.is_wanted = true;
                }
            }
        }
    }
}

/// Makes the topic if it is not there; true if so.
fn make(config: &KafkaConfig, shape: &CreateTopic) -> Result<bool, String> {
    let errand = Errand::prepare(config).map_err(|error| error.to_string())?;
    let said = |error: KafkaError| error.to_string();
    let consumer = errand.consumer(DefaultConsumerContext).map_err(said)?;
    let metadata = consumer
        .fetch_metadata(Some(&config.topic), REQUEST_TIMEOUT)
        .map_err(|error| format!("no broker says whether it is there: {error}"))?;
    let topic = metadata.topics().iter().find(|topic| topic.name() == config.topic);
    match topic.and_then(|topic| topic.error()).map(RDKafkaErrorCode::from) {
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {}
        // There, or not for this client to see: then creating it would fail too.
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
    let admin = errand.admin().map_err(said)?;
    let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
    let runtime =
        tokio::runtime::Builder::new_current_thread().build().map_err(|error| error.to_string())?;
    let answers = runtime.block_on(admin.create_topics([&new], &options)).map_err(said)?;
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
