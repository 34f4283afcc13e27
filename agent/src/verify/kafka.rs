//! Reads summaries and records from the two topics of a Kafka sink, from their beginning to their current
//! end.

use std::time::{Duration, Instant};

use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    message::BorrowedMessage,
};
use tap53_sinks::{AdminClient, config::KafkaConfig};

use super::{Error, Verifier};

/// Time without a message after which reading fails.
const SILENCE: Duration = Duration::from_secs(30);

/// Timeout of one poll for the next message.
const POLL: Duration = Duration::from_millis(200);

/// Reads the topic of summaries, then the topic of records. Joins no consumer group and commits nothing.
///
/// # Errors
/// When the sink has no topic of summaries, or when brokers do not deliver all messages.
pub fn read_topics(verifier: &mut Verifier, config: &KafkaConfig) -> Result<(), Error> {
    let failed = |topic: &str, why: String| Error::Topic { topic: topic.to_owned(), why };
    let Some(summary) = &config.summary else {
        return Err(failed(&config.topic, format!("sink {} has no summary section", config.name)));
    };
    let client =
        AdminClient::prepare(config).map_err(|error| failed(&summary.topic, error.to_string()))?;
    let consumer = client.reader().map_err(|error| failed(&summary.topic, error.to_string()))?;
    let read = |topic: &str, add: fn(&mut Verifier, &[u8]), verifier: &mut Verifier| {
        read_topic(&consumer, topic, |message| add(verifier, message.payload().unwrap_or_default()))
            .map_err(|why| failed(topic, why))
    };
    read(&summary.topic, Verifier::add_summary_message, verifier)?;
    verifier.begin_records()?;
    read(&config.topic, Verifier::add_record_message, verifier)
}

/// Passes every message that the topic has now to `each`.
fn read_topic(
    consumer: &BaseConsumer,
    topic: &str,
    mut each: impl FnMut(&BorrowedMessage<'_>),
) -> Result<(), String> {
    let mut ends = ends(consumer, topic)?;
    let mut partitions = TopicPartitionList::new();
    for (partition, low, _) in &ends {
        let added = partitions.add_partition_offset(topic, *partition, Offset::Offset(*low));
        added.map_err(|error| error.to_string())?;
    }
    consumer.assign(&partitions).map_err(|error| error.to_string())?;
    ends.retain(|(_, low, high)| low < high);
    let mut last_message_at = Instant::now();
    let mut last_error = "no broker answers".to_owned();
    while !ends.is_empty() {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                let is_wanted =
                    ends.iter().any(|(partition, ..)| *partition == message.partition());
                if is_wanted {
                    each(&message);
                }
                let is_last = |(partition, _, high): &(i32, i64, i64)| {
                    *partition == message.partition() && message.offset() + 1 >= *high
                };
                ends.retain(|end| !is_last(end));
                last_message_at = Instant::now();
            }
            // Compaction and transactions leave offsets without a message, also at the end.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ends.retain(|(of, ..)| *of != partition);
                last_message_at = Instant::now();
            }
            Some(Err(error)) => last_error = error.to_string(),
            None => {}
        }
        if last_message_at.elapsed() > SILENCE {
            return Err(format!("nothing came for {} s: {last_error}", SILENCE.as_secs()));
        }
    }
    Ok(())
}

/// Returns the partitions with their first offset and the one after their last.
fn ends(consumer: &BaseConsumer, topic: &str) -> Result<Vec<(i32, i64, i64)>, String> {
    let metadata = consumer.fetch_metadata(Some(topic), SILENCE).map_err(|e| e.to_string())?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let found = found.filter(|found| found.error().is_none() && !found.partitions().is_empty());
    let found = found.ok_or("it does not exist, or this client may not read it")?;
    let ends = found.partitions().iter().map(|partition| {
        let (low, high) = consumer.fetch_watermarks(topic, partition.id(), SILENCE)?;
        Ok((partition.id(), low, high))
    });
    ends.collect::<Result<_, KafkaError>>().map_err(|error| error.to_string())
}
