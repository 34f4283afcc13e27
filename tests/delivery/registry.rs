//! With a real schema registry: Confluent's client reads the topic, with the schemas that it fetches
//! there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Error, Result, ensure};
use data_encoding::HEXLOWER;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tap53_harness::{
    agent, fastavro,
    kafka::{Kafka, Security},
    process::run as run_to_end,
    registry::{Read, Registry},
    scratch, wait,
};
use tap53_records::encode::Profile;
use tap53_spool::{self as spool, Spool};

use super::run::{DEADLINE, QUICK, Run, TOPIC, namespace, number, spool as spool_keys};

const SUMMARIES: &str = "ledger-summaries";
const SUBJECT: &str = "dns-transactions-value";
/// A record of the same name without a common field.
const FOREIGN: &str = r#"{"type": "record", "name": "DnsTransaction", "namespace": "tap53",
    "fields": [{"name": "something_else", "type": "int"}]}"#;

fn registry_keys(url: &str, more: &str) -> String {
    format!("registry: {{urls: [\"{url}\"], timeout_ms: 1000, {more}}}")
}

fn schema_text() -> Result<String> {
    Ok(String::from_utf8(agent::run(&["schema"])?.stdout)?)
}

/// Returns the schema ids of the records, each once, after all of `0..next` have arrived.
fn require_all(read: &[Read], next: u32) -> Result<Vec<u32>> {
    let mut numbers: Vec<_> =
        read.iter().map(|read| number(&read.record)).collect::<Result<_>>()?;
    numbers.sort_unstable();
    numbers.dedup();
    ensure!(numbers.iter().copied().eq(0..next), "{} of {next}: {numbers:?}", numbers.len());
    let mut ids: Vec<_> = read.iter().map(|read| read.id).collect();
    ids.dedup();
    Ok(ids)
}

fn wait_for(kafka: &Kafka<'_>, records: u32) -> Result<()> {
    wait::until("the records to be in the topic", DEADLINE, || {
        Ok((kafka.consume(TOPIC)?.len() >= records as usize).then_some(()))
    })
}

const UNAVAILABLE: &str = "event=\"schema_id_unavailable\"";

/// Waits for the line that reports a missing id with this cause. On a slow machine others may come first.
fn wait_for_cause(run: &Run, cause: &str) -> Result<String> {
    wait::until(cause, DEADLINE, || {
        let lines = run.process().stderr().lines();
        Ok(lines.into_iter().find(|line| line.contains(UNAVAILABLE) && line.contains(cause)))
    })
}

#[test]
fn confluents_own_client_reads_the_topic_with_the_schema_from_the_registry() -> Result<()> {
    let namespace = namespace()?;
    let kafka = Kafka::start(&namespace)?;
    kafka.create_topic(TOPIC)?;
    let registry = Registry::start(&namespace)?;
    // So that the first id is not the default of anything.
    for subject in ["a-value", "b-value"] {
        registry.register(subject, &FOREIGN.replace("something_else", &subject[..1]))?;
    }
    // Summaries of the ledger have a separate topic and schema.
    kafka.create_topic(SUMMARIES)?;
    let keys = registry_keys(&registry.url(), "");
    let keys = format!("{keys}\n    summary: {{topic: {SUMMARIES}}}");
    // Without a spool the first records may wait in memory for the registry's answer.
    let mut run = Run::start(&namespace, &kafka.address(), &keys, 0)?;
    run.feed(300)?;
    run.finish()?.require_nothing_lost()?;
    let read = registry.consume(&kafka.address(), TOPIC, None)?;
    assert_eq!(read.len(), 300);
    let ids = require_all(&read, 300)?;
    assert!(ids.len() == 1 && ids[0] >= 3, "{ids:?}");
    assert_eq!(registry.schema(ids[0])?, schema_text()?);
    assert_eq!(registry.versions(SUBJECT)?, 1);
    let summaries = registry.consume(&kafka.address(), SUMMARIES, None)?;
    let last = summaries.last().context("a summary")?;
    assert_eq!(last.record["node"], "test");
    let schema = schema_file(NEWEST).with_file_name("ledger_summary.avsc");
    assert_eq!(registry.schema(last.id)?, fs::read_to_string(schema)?);
    assert_eq!(registry.versions("ledger-summaries-value")?, 1);
    assert_eq!(read[0].record["schema_version"], tap53_records::encode::SCHEMA_VERSION);
    assert_eq!(read[0].record["node"], "test");

    // Again: nothing is registered twice, for any subject.
    let mut next = 300;
    for (strategy, subject) in [
        ("topic_name", SUBJECT),
        ("record_name", "tap53.DnsTransaction"),
        ("topic_record_name", "dns-transactions-tap53.DnsTransaction"),
        ("record_name", "tap53.DnsTransaction"),
    ] {
        let keys = registry_keys(&registry.url(), &format!("subject: {strategy}"));
        let mut run = Run::start(&namespace, &kafka.address(), &keys, next)?;
        run.feed(10)?;
        next = run.next();
        run.finish()?.require_nothing_lost()?;
        assert_eq!(registry.versions(subject)?, 1, "{subject}");
    }
    require_all(&registry.consume(&kafka.address(), TOPIC, None)?, next)?;
    Ok(())
}

#[test]
fn each_profile_has_a_subject_and_spooled_records_of_the_other_one_are_sent_too() -> Result<()> {
    let namespace = namespace()?;
    let kafka = Kafka::start(&namespace)?;
    kafka.create_topic(TOPIC)?;
    let mut registry = Registry::start(&namespace)?;
    let directory = scratch::directory("queue")?;
    let keys = format!(
        "{}\n    {}",
        registry_keys(&registry.url(), ""),
        spool_keys("durable", directory.path(), "")
    );
    registry.kill();
    let mut full = Run::start_flushing_for(&namespace, &kafka.address(), &keys, 0, 1_000)?;
    full.feed(50)?;
    full.finish()?;
    assert_eq!(kafka.consume(TOPIC)?.len(), 0, "they wait for the id of their schema");
    registry.restart()?;
    let mut flat = Run::start_flat(&namespace, (&kafka.address(), TOPIC), &keys, 50)?;
    flat.feed(50)?;
    wait_for(&kafka, 100)?;
    flat.finish()?.require_nothing_lost()?;
    let read = registry.consume(&kafka.address(), TOPIC, None)?;
    assert_eq!(require_all(&read, 100)?.len(), 2);
    for (records, profile) in [(&read[..50], Profile::Full), (&read[50..], Profile::Flat)] {
        assert_eq!(registry.schema(records[0].id)?, profile.schema_text());
        let is_flat = |read: &Read| read.record.get("event_time_us").is_some_and(Value::is_i64);
        assert!(records.iter().all(|read| is_flat(read) == (profile == Profile::Flat)));
    }
    for subject in [SUBJECT, "dns-transactions-tap53.DnsTransaction"] {
        assert_eq!(registry.versions(subject)?, 1, "{subject}");
    }
    Ok(())
}

#[test]
fn records_wait_for_a_registry_that_was_never_there_and_leave_when_it_comes() -> Result<()> {
    let namespace = namespace()?;
    let kafka = Kafka::start(&namespace)?;
    kafka.create_topic(TOPIC)?;
    let mut registry = Registry::start(&namespace)?;
    let mut next = 0;
    for mode in ["durable", "fast", "off"] {
        registry.kill();
        let directory = scratch::directory("queue")?;
        let keys = format!(
            "queue_bytes: 4194304\n    {}\n    {}",
            registry_keys(&registry.url(), ""),
            spool_keys(mode, directory.path(), "")
        );
        let mut run = Run::start(&namespace, &kafka.address(), &keys, next)?;
        run.feed(500)?;
        let line = wait_for_cause(&run, "Connection refused")?;
        assert!(line.contains(&registry.url()), "{line}");
        assert_eq!(kafka.consume(TOPIC)?.len(), next as usize, "{mode}");
        if mode != "off" {
            export_is_readable(directory.path(), 500)?;
        }
        // It hangs before its answer: only the registry's thread waits.
        registry.restart()?;
        registry.signal(Signal::SIGSTOP)?;
        run.feed(100)?;
        registry.signal(Signal::SIGCONT)?;
        wait_for(&kafka, run.next())?;
        next = run.next();
        let ended = run.finish()?;
        ended.require_nothing_lost()?;
        assert!(!ended.log.contains("buffering_to_"), "{}", ended.log);
        let is_refused = |line: &&str| line.contains(UNAVAILABLE) && line.contains("refused");
        let logged = ended.log.lines().filter(is_refused).count();
        assert_eq!(logged, 1, "{mode}: each error is logged once: {}", ended.log);
    }
    let ids = require_all(&registry.consume(&kafka.address(), TOPIC, None)?, next)?;
    assert_eq!(ids.len(), 1, "{ids:?}");
    Ok(())
}

/// Checks that spooled records are exported without the registry's framing.
fn export_is_readable(directory: &Path, records: usize) -> Result<()> {
    let out = scratch::directory("export")?;
    let file = out.path().join("waiting.avro");
    let mut export = Command::new(agent::binary()?);
    run_to_end(export.args(["spool", "export"]).arg(directory).arg(&file))?;
    assert_eq!(fastavro::read_containers(&[file])?.len(), records);
    Ok(())
}

#[test]
fn without_registry_and_spool_expired_records_are_lost_under_a_separate_reason() -> Result<()> {
    let namespace = namespace()?;
    let kafka = Kafka::start(&namespace)?;
    kafka.create_topic(TOPIC)?;
    let keys = format!("{QUICK}\n    {}", registry_keys("http://127.0.0.1:9", ""));
    let mut run = Run::start(&namespace, &kafka.address(), &keys, 0)?;
    run.feed(200)?;
    let ended = run.finish()?;
    assert_eq!(ended.status.code(), Some(3), "{}", ended.log);
    assert_eq!((ended.records("lost/no_schema_id")?, ended.lost()?), (200, 200));
    assert_eq!(kafka.consume(TOPIC)?.len(), 0);
    Ok(())
}

#[test]
fn an_id_outlives_the_registry_the_agent_and_both() -> Result<()> {
    let namespace = namespace()?;
    let kafka = Kafka::start(&namespace)?;
    kafka.create_topic(TOPIC)?;
    let mut registry = Registry::start(&namespace)?;
    registry.register("a-value", FOREIGN)?;
    let directory = scratch::directory("queue")?;
    let keys = format!(
        "{}\n    {}",
        registry_keys(&registry.url(), ""),
        spool_keys("durable", directory.path(), "fsync: never")
    );
    let mut run = Run::start(&namespace, &kafka.address(), &keys, 0)?;
    run.feed(1_000)?;
    wait_for(&kafka, 1_000)?;
    // Under load, and permanently.
    run.feed_unseen(1_000)?;
    registry.kill();
    run.feed(1_000)?;
    wait_for(&kafka, 3_000)?;
    run.kill()?;
    let kept = fs::read_to_string(directory.path().join("schema-ids.json"))?;
    assert!(kept.contains(SUBJECT), "{kept}");

    let mut run = Run::start(&namespace, &kafka.address(), &keys, 3_000)?;
    run.feed(1_000)?;
    wait_for(&kafka, 4_000)?;
    run.process().wait_for_line("event=\"schema_id_stale\"", 0, DEADLINE)?;
    registry.restart()?;
    run.process().wait_for_line("event=\"schema_id_confirmed\"", 0, DEADLINE)?;
    run.finish()?.require_nothing_lost()?;
    let read = registry.consume(&kafka.address(), TOPIC, None)?;
    assert_eq!(require_all(&read, 4_000)?, [2]);

    // Another registry replaces it, in which another schema has the id.
    registry.wipe()?;
    for field in ["a", "b"] {
        let schema = FOREIGN.replace("something_else", field);
        registry.register(&format!("{field}-value"), &schema)?;
    }
    let mut run = Run::start(&namespace, &kafka.address(), &keys, 4_000)?;
    let line = run.process().wait_for_line("event=\"schema_id_changed\"", 0, DEADLINE)?;
    assert!(line.contains("id=3") && line.contains("known=2"), "{line}");
    run.feed(1_000)?;
    run.finish()?.require_nothing_lost()?;
    let messages = kafka.consume(TOPIC)?;
    // Some earlier ones may have arrived twice.
    let ids = messages[messages.len() - 1_000..].iter().map(|message| message.value[..5].to_vec());
    assert!(ids.eq(std::iter::repeat_n(vec![0, 0, 0, 0, 3], 1_000)));
    Ok(())
}

#[test]
fn a_schema_that_does_not_fit_is_refused_and_records_wait_until_it_does() -> Result<()> {
    let namespace = namespace()?;
    let kafka = Kafka::start(&namespace)?;
    kafka.create_topic(TOPIC)?;
    let registry = Registry::start(&namespace)?;
    registry.register(SUBJECT, FOREIGN)?;
    let directory = scratch::directory("queue")?;
    let keys = format!(
        "{}\n    {}",
        registry_keys(&registry.url(), ""),
        spool_keys("fast", directory.path(), "")
    );
    let mut run = Run::start(&namespace, &kafka.address(), &keys, 0)?;
    run.feed(100)?;
    wait_for_cause(&run, SUBJECT)?;
    assert_eq!((registry.versions(SUBJECT)?, kafka.consume(TOPIC)?.len()), (1, 0));
    // The operator allows it.
    registry.require_compatibility("NONE")?;
    wait_for(&kafka, 100)?;
    run.finish()?.require_nothing_lost()?;
    assert_eq!(registry.versions(SUBJECT)?, 2);
    require_all(&registry.consume(&kafka.address(), TOPIC, None)?, 100)?;
    Ok(())
}

#[test]
fn with_register_false_a_schema_is_looked_up_and_never_registered() -> Result<()> {
    let namespace = namespace()?;
    let kafka = Kafka::start(&namespace)?;
    kafka.create_topic(TOPIC)?;
    let registry = Registry::start(&namespace)?;
    let directory = scratch::directory("queue")?;
    let keys = format!(
        "{}\n    {}",
        registry_keys(&registry.url(), "register: false"),
        spool_keys("durable", directory.path(), "")
    );
    let mut run = Run::start(&namespace, &kafka.address(), &keys, 0)?;
    run.feed(100)?;
    let line = wait_for_cause(&run, "tap53 schema")?;
    assert!(line.contains(SUBJECT), "{line}");
    assert_eq!((registry.versions(SUBJECT)?, kafka.consume(TOPIC)?.len()), (0, 0));
    // By hand, with a tool that formats it differently.
    let schema: Value = serde_json::from_str(&schema_text()?)?;
    registry.register(SUBJECT, &schema.to_string())?;
    wait_for(&kafka, 100)?;
    run.finish()?.require_nothing_lost()?;
    assert_eq!(registry.versions(SUBJECT)?, 1);
    require_all(&registry.consume(&kafka.address(), TOPIC, None)?, 100)?;
    Ok(())
}

#[test]
fn a_registry_is_used_over_tls_and_trusted_by_its_ca_only() -> Result<()> {
    let namespace = namespace()?;
    let (security, others) = (Security::new()?, Security::new()?);
    let kafka = Kafka::start(&namespace)?;
    kafka.create_topic(TOPIC)?;
    let registry = Registry::start_secure(&namespace, &security)?;
    let directory = scratch::directory("queue")?;
    let ca = directory.path().join("ca.pem");
    fs::copy(others.path("ca.pem"), &ca)?;
    let keys = format!(
        "{}\n    {}",
        registry_keys(&registry.secure_url(), &format!("ca_file: {}", ca.display())),
        spool_keys("durable", &directory.path().join("spool"), "")
    );
    let mut run = Run::start(&namespace, &kafka.address(), &keys, 0)?;
    run.feed(100)?;
    wait_for_cause(&run, "has a certificate that is not trusted")?;
    assert_eq!(registry.versions(SUBJECT)?, 0);
    // The right one is registered while it runs.
    fs::copy(security.path("ca.pem"), &ca)?;
    wait_for(&kafka, 100)?;
    run.finish()?.require_nothing_lost()?;
    require_all(&registry.consume(&kafka.address(), TOPIC, None)?, 100)?;
    Ok(())
}

/// The version that this agent writes.
const NEWEST: u32 = tap53_records::encode::SCHEMA_VERSION.unsigned_abs();

fn schema_file(version: u32) -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/schema");
    match version {
        NEWEST => directory.join("dns_transaction.avsc"),
        earlier => directory.join(format!("history/dns_transaction_v{earlier}.avsc")),
    }
}

/// Writes records of an earlier version to a spool.
fn leave_in_spool(directory: &Path, version: u32) -> Result<u32> {
    let text = fs::read_to_string(schema_file(version).with_extension("hex"))?;
    let decode = |line: &str| HEXLOWER.decode(line.as_bytes()).map_err(Error::msg);
    let values: Vec<_> = text.lines().map(decode).collect::<Result<_>>()?;
    let mut spool = Spool::open(&spool::Config {
        directory: directory.to_owned(),
        max_bytes: 64 << 20,
        max_age: None,
        fsync: spool::Fsync::Never,
        schema_version: version,
    })?;
    let record = |value| spool::Record { timestamp_ms: 1, messages: 1, key: b"", value };
    spool.append(values.iter().map(|value| record(value)), 1)?;
    spool.close()?;
    Ok(u32::try_from(values.len())?)
}

#[test]
fn readers_of_every_version_read_records_of_every_version() -> Result<()> {
    let namespace = namespace()?;
    let kafka = Kafka::start(&namespace)?;
    kafka.create_topic(TOPIC)?;
    let registry = Registry::start(&namespace)?;
    // The registry itself checks that each version can read each other.
    registry.require_compatibility("FULL_TRANSITIVE")?;
    let directory = scratch::directory("queue")?;
    let mut earlier = 0;
    for version in 1..NEWEST {
        earlier += leave_in_spool(directory.path(), version)?;
    }
    let keys = format!(
        "headers: true\n    {}\n    {}",
        registry_keys(&registry.url(), ""),
        spool_keys("durable", directory.path(), "")
    );
    let mut run = Run::start(&namespace, &kafka.address(), &keys, 0)?;
    run.feed(3)?;
    wait_for(&kafka, earlier + 3)?;
    let ended = run.finish()?;
    ended.require_nothing_lost()?;
    assert_eq!(ended.records("carried")?, u64::from(earlier));
    let headers: Vec<_> =
        kafka.consume(TOPIC)?.into_iter().map(|message| message.headers).collect();
    // Each by its id, and the newest is the latest of the subject.
    for version in 1..=NEWEST {
        assert_eq!(registry.schema(version)?, fs::read_to_string(schema_file(version))?);
    }
    assert_eq!(registry.versions(SUBJECT)?, NEWEST as usize);
    for reader in 1..=NEWEST {
        let read = registry.consume(&kafka.address(), TOPIC, Some(&schema_file(reader)))?;
        let reader: Value = serde_json::from_str(&fs::read_to_string(schema_file(reader))?)?;
        let fields = reader["fields"].as_array().context("fields")?.len();
        assert_eq!(read.len(), earlier as usize + 3);
        for (read, headers) in read.iter().zip(&headers) {
            assert_eq!(read.record.as_object().context("a record")?.len(), fields);
            assert_eq!(read.record["schema_version"], read.id);
            assert_eq!(*headers, format!("tap53-node=test,tap53-schema-version={}", read.id));
        }
    }
    Ok(())
}

/// Checks every new version: a registry accepts it after all earlier ones, and refuses an incompatible
/// one.
#[test]
fn a_registry_refuses_every_way_to_break_the_schema_and_takes_the_right_ones() -> Result<()> {
    let namespace = namespace()?;
    let registry = Registry::start(&namespace)?;
    registry.require_compatibility("FULL_TRANSITIVE")?;
    for version in 1..=NEWEST {
        let text = fs::read_to_string(schema_file(version))?;
        registry.register(SUBJECT, &text).with_context(|| format!("version {version}"))?;
    }
    let schema: Value = serde_json::from_str(&schema_text()?)?;
    let fields = schema["fields"].as_array().context("fields")?.clone();
    let at = |name: &str| fields.iter().position(|field| field["name"] == name).context("a field");
    // One of the first version, and one that came later.
    let (node, updates) = (at("node")?, at("updates")?);
    let outcome = at("outcome")?;
    let new_field = json!({"name": "new", "type": "string", "default": "-"});
    type Change = Box<dyn Fn(&mut Vec<Value>)>;
    let changes: [(&str, bool, Change); 7] = [
        ("nothing", true, Box::new(|_| {})),
        ("a field with a default", true, Box::new(move |all| all.push(new_field.clone()))),
        (
            "a field without one",
            false,
            Box::new(|all| all.push(json!({"name": "new", "type": "string"}))),
        ),
        ("a field less that has no default", false, Box::new(move |all| drop(all.remove(node)))),
        (
            "a default less",
            false,
            Box::new(move |all| {
                all[updates].as_object_mut().map(|field| field.remove("default"));
            }),
        ),
        ("another type", false, Box::new(move |all| all[node]["type"] = json!("int"))),
        (
            "a symbol less",
            false,
            Box::new(move |all| {
                all[outcome]["type"]["symbols"].as_array_mut().map(Vec::pop);
                all[outcome]["type"].as_object_mut().map(|kind| kind.remove("default"));
            }),
        ),
    ];
    for (what, fits, change) in changes {
        let mut changed = fields.clone();
        change(&mut changed);
        let mut schema = schema.clone();
        schema["fields"] = Value::Array(changed);
        // A compatible schema is not registered, so that the next one is compared with ours only.
        let body = json!({"schema": schema.to_string()});
        if fits {
            let path = format!("/compatibility/subjects/{SUBJECT}/versions/latest");
            let answer = registry.ask("POST", &path, Some(&body))?;
            assert_eq!(answer.body["is_compatible"], true, "{what}: {answer:?}");
        } else {
            let answer =
                registry.ask("POST", &format!("/subjects/{SUBJECT}/versions"), Some(&body))?;
            assert_eq!(answer.code, 409, "{what}: {answer:?}");
        }
    }
    Ok(())
}
