//! With a stub of a registry, which fails on demand. The integration tests have a real one.

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use tap53_records::encode::{
    Format, Profile, SCHEMA_TEXT, SCHEMA_VERSION, SCHEMA_VERSIONS, fingerprint, unframe,
};
use tap53_spool::{self as spool, Fsync, Spool};

use super::*;
use crate::{
    config::{RegistryConfig, SubjectStrategy},
    registry::stub::{Answer, Stub, ids_from},
};

pub(super) fn registry(stub: &Stub) -> Option<RegistryConfig> {
    Some(RegistryConfig {
        urls: vec![stub.url()],
        subject: SubjectStrategy::TopicName,
        register: true,
        credentials: None,
        allow_cleartext: true,
        ca_file: None,
        timeout: Duration::from_millis(300),
        ids_file: None,
    })
}

pub(super) fn away() -> Stub {
    Stub::new(|_| Answer::Json(500, "{}".to_owned()))
}

fn without_spool(cluster: &Cluster, stub: &Stub) -> KafkaConfig {
    let registry = registry(stub);
    KafkaConfig { registry, message_timeout: DEADLINE, ..config(cluster, None) }
}

fn with_spool(cluster: &Cluster, stub: &Stub, directory: &Path, mode: SpoolMode) -> KafkaConfig {
    KafkaConfig { registry: registry(stub), ..config(cluster, spool(directory, mode)) }
}

/// Leaves single objects in a spool, as an agent of this schema version does.
fn leave_in_spool<'a>(
    directory: &Path,
    schema_version: u32,
    values: impl Iterator<Item = &'a [u8]> + Clone,
) {
    let mut spool = Spool::open(&spool::Config {
        directory: directory.to_owned(),
        max_bytes: 64 << 20,
        max_age: None,
        fsync: Fsync::Never,
        schema_version,
    })
    .unwrap();
    let record = |value| spool::Record { timestamp_ms: 1, messages: 1, key: b"", value };
    spool.append(values.map(record), 1).unwrap();
    spool.close().unwrap();
}

/// Id and datum of each message in the topic.
fn consume(cluster: &Cluster, count: usize) -> Vec<(u32, Vec<u8>)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "test")
        .create()
        .unwrap();
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset("dns", 0, Offset::Beginning).unwrap();
    consumer.assign(&partitions).unwrap();
    let mut messages = Vec::with_capacity(count);
    while messages.len() < count {
        let message = consumer.poll(DEADLINE).expect("a message in time").unwrap();
        let value = rdkafka::Message::payload(&message).unwrap();
        let datum = unframe(value).expect("framed with an id");
        messages.push((u32::from_be_bytes(value[1..5].try_into().unwrap()), datum.to_vec()));
    }
    messages
}

/// The data of a batch of `records`.
fn data(records: u64) -> Vec<Vec<u8>> {
    batch(records).iter().map(|(value, _)| value[10..].to_vec()).collect()
}

fn lost(counts: &SinkCounts, reason: SinkLoss) -> u64 {
    counts.lost[reason as usize].records
}

#[test]
fn without_a_spool_records_wait_in_memory_for_the_id_and_leave_with_it() {
    let (cluster, stub) = (cluster(), away());
    let kafka = open(&without_spool(&cluster, &stub), true).unwrap();
    for _ in 0..3 {
        kafka.write(&batch(10));
    }
    kafka.tick(Instant::now());
    let counts = kafka.counts().read();
    assert_eq!((counts.in_flight.records, counts.delivered.records), (30, 0));
    require_balance(&counts);
    stub.answer_by(ids_from(7));
    wait_until("the records", &kafka, |counts| {
        kafka.tick(Instant::now());
        counts.delivered.records == 30
    });
    // The sender has ended, as nothing waits any more.
    assert!(is_direct(&kafka));
    kafka.write(&batch(10));
    wait_until("more", &kafka, |counts| counts.delivered.records == 40);
    kafka.close(DEADLINE);
    let consumed = consume(&cluster, 40);
    assert!(consumed.iter().all(|(id, _)| *id == 7), "{consumed:?}");
    let expected = [data(10), data(10), data(10), data(10)].concat();
    assert_eq!(consumed.into_iter().map(|(_, datum)| datum).collect::<Vec<_>>(), expected);
}

#[test]
fn what_waits_too_long_for_an_id_or_finds_no_room_is_counted() {
    let (cluster, stub) = (cluster(), away());
    let config = KafkaConfig { registry: registry(&stub), ..config(&cluster, None) };
    let kafka = open(&config, true).unwrap();
    let batch = batch(100);
    // More than fits.
    let batches = 2 * config.queue_bytes / batch.bytes().len() as u64;
    for _ in 0..batches {
        kafka.write(&batch);
    }
    let counts = kafka.counts().read();
    require_balance(&counts);
    let refused = lost(&counts, SinkLoss::NoSchemaId);
    assert!(refused > 0, "{counts:?}");
    let bytes = counts.in_flight.records * batch.bytes().len() as u64 / 100;
    assert!((config.queue_bytes / 2..=config.queue_bytes).contains(&bytes), "{bytes}");
    wait_until("their end", &kafka, |counts| lost(counts, SinkLoss::NoSchemaId) == batches * 100);
    // There is room again.
    kafka.write(&batch);
    let began = Instant::now();
    kafka.close(Duration::from_millis(50));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let counts = kafka.counts().read();
    require_balance(&counts);
    assert_eq!(lost(&counts, SinkLoss::NoSchemaId), (batches + 1) * 100);
    assert_eq!(counts.delivered.records, 0);
}

#[test]
fn an_id_that_comes_during_the_shutdown_is_not_too_late() {
    let (cluster, stub) = (cluster(), away());
    let kafka = open(&without_spool(&cluster, &stub), true).unwrap();
    kafka.write(&batch(10));
    stub.answer_by(ids_from(7));
    kafka.close(DEADLINE);
    assert_eq!(kafka.counts().read().delivered.records, 10);
}

#[test]
fn with_a_spool_records_wait_there_and_nothing_counts_as_failing() {
    for mode in MODES {
        let (cluster, stub) = (cluster(), away());
        let directory = tempfile::tempdir().unwrap();
        let config = with_spool(&cluster, &stub, directory.path(), mode);
        let kafka = open(&config, true).unwrap();
        for _ in 0..3 {
            kafka.write(&batch(100));
        }
        let asked = |count: u64| {
            move |counts: &SinkCounts| counts.registry.is_some_and(|r| r.failures >= count)
        };
        wait_until("two failures", &kafka, asked(2));
        let counts = kafka.counts().read();
        assert_eq!((counts.spooled.records, counts.in_flight.records), (300, 0), "{mode:?}");
        assert!(!is_failing(&kafka));
        // The next run finds them, and the registry.
        kafka.close(DEADLINE);
        drop(kafka);
        stub.answer_by(ids_from(7));
        let kafka = open(&config, true).unwrap();
        kafka.write(&batch(10));
        wait_until("all", &kafka, |counts| counts.delivered.records == 310);
        kafka.close(DEADLINE);
        let consumed = consume(&cluster, 310);
        assert!(consumed.iter().all(|(id, _)| *id == 7), "{mode:?}: {consumed:?}");
    }
}

#[test]
fn what_comes_back_from_the_producer_waits_on_disk_as_a_single_object() {
    let (cluster, stub) = (cluster(), Stub::registry(7));
    let directory = tempfile::tempdir().unwrap();
    let mut config = with_spool(&cluster, &stub, directory.path(), SpoolMode::Fast);
    config.message_timeout = Duration::from_secs(2);
    let kafka = open(&config, true).unwrap();
    let knows = |counts: &SinkCounts| counts.registry.is_some_and(|r| r.ids_known == 1);
    wait_until("the id", &kafka, knows);
    kafka.write(&batch(10));
    wait_until("the first", &kafka, |counts| counts.delivered.records == 10);
    assert!(is_direct(&kafka));
    cluster.broker_down(1).unwrap();
    kafka.write(&batch(20));
    assert_eq!(kafka.counts().read().in_flight.records, 20);
    wait_until("them to come back", &kafka, |counts| counts.spooled.records == 20);
    let header = [&[0xc3, 0x01][..], &fingerprint().unwrap()].concat();
    let read = spool::contents(directory.path()).unwrap().read(|entry| {
        assert!(entry.record.value.starts_with(&header), "{:?}", &entry.record.value[..10]);
        Ok::<_, spool::Error>(())
    });
    assert_eq!(read.unwrap().waiting.records, 20);
    cluster.broker_up(1).unwrap();
    wait_until("all", &kafka, |counts| counts.delivered.records == 30);
    kafka.close(DEADLINE);
    let consumed = consume(&cluster, 30);
    let expected = [data(10), data(20)].concat();
    assert_eq!(consumed.into_iter().map(|(_, datum)| datum).collect::<Vec<_>>(), expected);
}

/// Fills a spool as agents with version 2 of the schema did.
fn spool_earlier(directory: &Path) -> usize {
    let text = include_str!("../../../../../schema/history/dns_transaction_v2.hex");
    let messages: Vec<_> =
        text.lines().map(|line| data_encoding::HEXLOWER.decode(line.as_bytes()).unwrap()).collect();
    leave_in_spool(directory, 2, messages.iter().map(Vec::as_slice));
    messages.len()
}

#[test]
fn records_of_an_earlier_version_leave_with_the_id_of_theirs() {
    let (cluster, stub) = (cluster(), Stub::registry(7));
    let directory = tempfile::tempdir().unwrap();
    let earlier = spool_earlier(directory.path());
    let config = with_spool(&cluster, &stub, directory.path(), SpoolMode::Durable);
    let kafka = open(&config, true).unwrap();
    kafka.write(&batch(5));
    wait_until("all", &kafka, |counts| counts.delivered.records == 5 + earlier as u64);
    kafka.close(DEADLINE);
    let ids: Vec<_> = consume(&cluster, earlier + 5).into_iter().map(|(id, _)| id).collect();
    // Registered first, so that the newest is the subject's latest.
    assert_eq!(ids, [vec![7; earlier], vec![8; 5]].concat());
    let registered: Vec<_> =
        stub.seen().into_iter().filter(|asked| asked.path.ends_with("/versions")).collect();
    assert_eq!(registered[0].schema, SCHEMA_VERSIONS[1].text);
    assert_eq!(registered[1].schema, SCHEMA_TEXT);
}

#[test]
fn a_record_whose_schema_nobody_knows_is_counted_and_holds_up_no_other() {
    let (cluster, stub) = (cluster(), Stub::registry(7));
    let directory = tempfile::tempdir().unwrap();
    let value = b"\xc3\x01\0\0\0\0\0\0\0\0datum";
    leave_in_spool(directory.path(), 99, std::iter::once(&value[..]));
    let config = with_spool(&cluster, &stub, directory.path(), SpoolMode::Durable);
    let kafka = open(&config, true).unwrap();
    kafka.write(&batch(5));
    wait_until("all", &kafka, |counts| counts.delivered.records == 5);
    kafka.close(DEADLINE);
    let counts = kafka.counts().read();
    assert_eq!(lost(&counts, SinkLoss::Rejected), 1);
    require_balance(&counts);
}

#[test]
fn the_shutdown_does_not_wait_for_long_for_the_id_of_an_earlier_schema_alone() {
    let (cluster, directory) = (cluster(), tempfile::tempdir().unwrap());
    let stub = Stub::new(|asked| match &*asked.schema {
        SCHEMA_TEXT => Answer::Json(200, "{\"id\": 7}".to_owned()),
        _ => Answer::Json(422, "{\"error_code\": 42201, \"message\": \"no\"}".to_owned()),
    });
    let earlier = spool_earlier(directory.path());
    let config = with_spool(&cluster, &stub, directory.path(), SpoolMode::Durable);
    let kafka = open(&config, true).unwrap();
    let knows = |counts: &SinkCounts| counts.registry.is_some_and(|r| r.ids_known == 1);
    wait_until("the id of the newest", &kafka, knows);
    let began = Instant::now();
    kafka.close(DEADLINE);
    assert!(began.elapsed() < DEADLINE / 2, "{:?}", began.elapsed());
    assert_eq!(kafka.counts().read().spooled.records, earlier as u64);
}

/// Changing the profile neither blocks records of the earlier one nor gives their schema the
/// topic's subject.
#[test]
fn records_of_the_other_profile_leave_under_a_subject_of_its_own() {
    let (cluster, stub) = (cluster(), Stub::registry(7));
    let directory = tempfile::tempdir().unwrap();
    let before = batch(3);
    let version = SCHEMA_VERSION.unsigned_abs();
    leave_in_spool(directory.path(), version, before.iter().map(|(value, _)| value));
    let config = KafkaConfig {
        profile: Profile::Flat,
        ..with_spool(&cluster, &stub, directory.path(), SpoolMode::Durable)
    };
    let kafka = Kafka::open(&config, NODE, true, None).unwrap();
    assert_eq!(kafka.format(), Format::FlatAvroSingleObject);
    let (mut flat, mut encoder) = (Batch::default(), SingleObject::flat().unwrap());
    for _ in 0..2 {
        samples::with_record("matched", |record| flat.push(&mut encoder, record).unwrap());
    }
    kafka.write(&flat);
    wait_until("all", &kafka, |counts| counts.delivered.records == 5);
    kafka.close(DEADLINE);
    let consumed = consume(&cluster, 5);
    let data = [&before, &flat].map(|batch| batch.iter().map(|(value, _)| value[10..].to_vec()));
    let expected: Vec<_> = data.into_iter().flatten().collect();
    let ids: Vec<_> = consumed.iter().map(|(id, _)| *id).collect();
    assert_eq!(consumed.into_iter().map(|(_, datum)| datum).collect::<Vec<_>>(), expected);
    assert!(ids[..3] == [ids[0]; 3] && ids[3..] == [ids[4]; 2] && ids[0] != ids[4], "{ids:?}");
    let registered = stub.seen().into_iter().filter(|asked| asked.path.ends_with("/versions"));
    let mut registered: Vec<_> = registered.map(|asked| (asked.path, asked.schema)).collect();
    registered.sort();
    assert_eq!(
        registered,
        [
            ("/subjects/dns-tap53.DnsTransaction/versions", SCHEMA_TEXT),
            ("/subjects/dns-value/versions", Profile::Flat.schema_text()),
        ]
        .map(|(path, schema)| (path.to_owned(), schema.to_owned()))
    );
}
