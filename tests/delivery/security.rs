//! Authentication by TLS, passwords and certificates; and the key and headers of a message.

use std::fs;

use anyhow::Result;
use tap53_harness::{
    kafka::{Kafka, SCRAM_PASSWORD, Security, USER},
    scratch,
};

use super::run::{DEADLINE, Run, TOPIC, consume, namespace, spool, wait_for};

#[test]
fn records_are_sent_over_tls_and_new_credentials_are_reloaded() -> Result<()> {
    let namespace = namespace()?;
    let security = Security::new()?;
    let kafka = Kafka::start_secure(&namespace, &security)?;
    kafka.create_topic(TOPIC)?;
    let directory = scratch::directory("queue")?;
    let password = directory.path().join("password");
    let ca = security.path("ca.pem");
    let by_password = format!(
        "tls: {{ca_file: {}}}\n    \
         sasl: {{mechanism: scram-sha-512, username: {USER}, password_file: {}}}\n    {}",
        ca.display(),
        password.display(),
        spool("durable", &directory.path().join("spool"), ""),
    );
    // Editors append a line feed.
    fs::write(&password, format!("{SCRAM_PASSWORD}\n"))?;
    let mut run = Run::start(&namespace, &kafka.sasl_ssl_address(), &by_password, 0)?;
    run.feed(100)?;
    run.finish()?.require_nothing_lost()?;
    consume(&kafka)?.require_exactly(0..100)?;

    // A wrong one: nothing arrives, nothing is lost, and it is not in the log.
    fs::write(&password, "not the password")?;
    let mut run = Run::start(&namespace, &kafka.sasl_ssl_address(), &by_password, 100)?;
    run.feed(100)?;
    let line = run.process().wait_for_line("Authentication", 0, DEADLINE)?;
    assert!(!line.contains("not the password"), "{line}");
    assert_eq!(consume(&kafka)?.times.len(), 100);
    // The right one is written while the agent runs.
    fs::write(&password, SCRAM_PASSWORD)?;
    run.process().wait_for_line("event=\"password_reloaded\"", 0, DEADLINE)?;
    wait_for(&kafka, 200)?;
    let ended = run.finish()?;
    ended.require_nothing_lost()?;
    for secret in ["not the password", SCRAM_PASSWORD] {
        assert!(!ended.log.contains(secret), "{}", ended.log);
    }

    // A certificate that the broker does not trust, and then, while the agent runs, the right one.
    let files = scratch::directory("files")?;
    let names = ["client.pem", "client.encrypted", "key-password"];
    let copy = |from: &Security| -> Result<()> {
        for name in names {
            fs::copy(from.path(name), files.path().join(name))?;
        }
        Ok(())
    };
    copy(&Security::new()?)?;
    let [certificate, key, key_password] = names.map(|name| files.path().join(name));
    let queue = spool("durable", &directory.path().join("spool"), "");
    let by_certificate = format!(
        "tls: {{ca_file: {}, certificate_file: {}, key_file: {}, key_password_file: {}}}\n    \
         compression: zstd\n    batch_bytes: 20000\n    batch_records: 50\n    {queue}",
        ca.display(),
        certificate.display(),
        key.display(),
        key_password.display(),
    );
    let mut run = Run::start(&namespace, &kafka.ssl_address(), &by_certificate, 200)?;
    run.feed(100)?;
    run.process().wait_for_line("event=\"buffering_to_spool\"", 0, DEADLINE)?;
    assert_eq!(consume(&kafka)?.times.len(), 200);
    copy(&security)?;
    run.process().wait_for_line("event=\"tls_files_reloaded\"", 0, DEADLINE)?;
    run.process().wait_for_line("event=\"delivery_resumed\"", 0, DEADLINE)?;
    run.finish()?.require_nothing_lost()?;
    consume(&kafka)?.require_exactly(0..300)
}

#[test]
fn a_broker_with_an_untrusted_certificate_gets_no_record() -> Result<()> {
    let namespace = namespace()?;
    let (security, others) = (Security::new()?, Security::new()?);
    let kafka = Kafka::start_secure(&namespace, &security)?;
    kafka.create_topic(TOPIC)?;
    let directory = scratch::directory("queue")?;
    let keys = format!(
        "tls: {{ca_file: {}}}\n    {}",
        others.path("ca.pem").display(),
        spool("durable", directory.path(), "")
    );
    let mut run = Run::start(&namespace, &kafka.ssl_address(), &keys, 0)?;
    run.feed(10)?;
    run.process().wait_for_line("certificate verify failed", 0, DEADLINE)?;
    run.process().wait_for_line("event=\"buffering_to_spool\"", 0, DEADLINE)?;
    let ended = run.terminate()?;
    ended.require_nothing_lost()?;
    assert_eq!(ended.records("spooled")?, 10);
    assert_eq!(consume(&kafka)?.times.len(), 0);
    Ok(())
}

#[test]
fn keys_and_headers_are_as_configured_also_from_the_spool() -> Result<()> {
    let namespace = namespace()?;
    let mut kafka = Kafka::start(&namespace)?;
    kafka.create_topic(TOPIC)?;
    let directory = scratch::directory("queue")?;
    let mut next = 0;
    for (mode, key, expected) in
        [("durable", "client_address", "192.0.2.1"), ("fast", "registrable_domain", "tap53.test")]
    {
        let keys = format!(
            "key: {key}\n    headers: true\n    {}",
            spool(mode, &directory.path().join(mode), "")
        );
        let mut run = Run::start(&namespace, &kafka.address(), &keys, next)?;
        run.feed(50)?;
        kafka.kill();
        run.feed(50)?;
        run.process().wait_for_line("event=\"buffering_to_spool\"", 0, DEADLINE)?;
        kafka.restart()?;
        run.process().wait_for_line("event=\"delivery_resumed\"", 0, DEADLINE)?;
        let begin = next;
        next = run.next();
        run.finish()?.require_nothing_lost()?;
        consume(&kafka)?.require_exactly(0..next)?;
        for message in kafka.consume(TOPIC)?.iter().skip(begin as usize) {
            assert_eq!(message.key, expected.as_bytes());
            let version = tap53_records::encode::SCHEMA_VERSION;
            assert_eq!(message.headers, format!("tap53-node=test,tap53-schema-version={version}"));
        }
    }
    Ok(())
}

#[test]
fn a_topic_that_does_not_exist_is_named_and_its_records_wait_for_it() -> Result<()> {
    let namespace = namespace()?;
    let kafka = Kafka::start(&namespace)?;
    let directory = scratch::directory("queue")?;
    let keys = format!(
        "options: {{topic.metadata.propagation.max.ms: 500}}\n    {}",
        spool("durable", directory.path(), "")
    );
    let mut run = Run::start(&namespace, &kafka.address(), &keys, 0)?;
    run.feed(10)?;
    let line = run.process().wait_for_line("event=\"topic_missing\"", 0, DEADLINE)?;
    assert!(line.contains(TOPIC), "{line}");
    kafka.create_topic(TOPIC)?;
    wait_for(&kafka, 10)?;
    run.finish()?.require_nothing_lost()
}
