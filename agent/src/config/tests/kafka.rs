//! The keys of a Kafka sink.

use super::*;

#[test]
fn brokers_are_host_and_port() {
    let reasons = |broker: &str| {
        problems(&format!(
            "interfaces: {{include: [lo]}}\nsinks: [{{type: kafka, topic: t, brokers: [{broker:?}]}}]"
        ))
    };
    for broker in [
        "",
        ":9092",
        "host",
        "host:0",
        "host:65536",
        "host:x",
        "::1:9092",
        "[::1:9092",
        "[x]:9092",
        "a b:9092",
        "a,b:9092",
        "plain://a:9092",
    ] {
        let reasons = reasons(broker);
        assert_eq!(reasons.len(), 1, "{broker}: {reasons:?}");
        assert!(reasons[0].starts_with("sinks[0].brokers[0]: "), "{reasons:?}");
    }
}

#[test]
fn compression_is_what_librdkafka_was_built_with() {
    let sink = |compression: &str| {
        parse(&format!(
            "interfaces: {{include: [lo]}}\nsinks: [{{type: kafka, topic: t, brokers: ['a:1'], \
             compression: {compression}}}]"
        ))
    };
    for compression in ["none", "gzip", "lz4", "snappy", "zstd"] {
        sink(compression).unwrap();
    }
    sink("brotli").unwrap_err();
}

#[test]
fn a_message_may_not_time_out_while_it_lingers() {
    let problems = problems(
        r#"
interfaces: {include: [eth0]}
sinks: [{type: kafka, brokers: ["k:9092"], topic: t, linger_ms: 100, message_timeout_ms: 100}]
"#,
    );
    assert_eq!(
        problems,
        ["sinks[0].message_timeout_ms: 100: must be more than linger_ms, which is 100"]
    );
}

/// The spool of a Kafka sink whose `spool` section is this.
fn spool(section: &str) -> Result<Option<SpoolConfig>, Error> {
    let text = format!(
        "interfaces: {{include: [lo]}}\n\
         sinks: [{{type: kafka, brokers: [\"b:1\"], topic: t, spool: {section}}}]"
    );
    parse(&text).map(|config| match config.sinks.into_iter().next() {
        Some(SinkConfig::Kafka(kafka)) => kafka.spool,
        other => panic!("not a Kafka sink: {other:?}"),
    })
}

#[test]
fn a_spool_needs_only_a_directory_and_its_mode_decides_about_fsync() {
    let fast = spool("{directory: /spool}").unwrap().unwrap();
    assert_eq!((fast.mode, fast.fsync), (SpoolMode::Fast, FsyncChoice::Interval));
    assert_eq!((fast.max_bytes, fast.max_age), (1 << 30, None));
    assert_eq!(fast.replay_records_per_s, Some(10_000));
    let durable = spool("{mode: durable, directory: /spool, replay_records_per_s: 0}");
    let durable = durable.unwrap().unwrap();
    assert_eq!((durable.fsync, durable.replay_records_per_s), (FsyncChoice::Batch, None));
    for off in ["{mode: off}", "{mode: \"off\", directory: /spool, max_bytes: 4194304}"] {
        assert_eq!(spool(off).unwrap(), None, "{off}");
    }
}

#[test]
fn an_invalid_spool_is_refused() {
    for (section, key) in [
        ("{mode: durable}", "spool.directory"),
        ("{directory: spool}", "spool.directory"),
        ("{directory: /dev/null}", "spool.directory"),
        ("{directory: /spool, max_bytes: 1000}", "spool.max_bytes"),
        ("{directory: /spool, fsync: sometimes}", "spool.fsync"),
        ("{directory: /spool, size: 1}", "spool.size"),
    ] {
        let Err(Error::Refused { problems, .. }) = spool(section) else {
            panic!("{section} is not refused")
        };
        assert!(problems[0].path.ends_with(key), "{section}: {problems:?}");
    }
    let two = "interfaces: {include: [lo]}\nsinks:\n\
        - {type: kafka, name: a, brokers: [\"b:1\"], topic: t, spool: {directory: /spool}}\n\
        - {type: kafka, name: b, brokers: [\"b:1\"], topic: t, spool: {directory: /spool}}\n";
    assert!(problems(two)[0].contains("has its spool there"), "{:?}", problems(two));
}

/// The problems of a Kafka sink with these keys; empty if there are none.
fn kafka_problems(keys: &str) -> String {
    let text = format!(
        "interfaces: {{include: [lo]}}\n\
         sinks: [{{type: kafka, brokers: [\"b:1\"], topic: t, {keys}}}]"
    );
    if parse(&text).is_ok() { String::new() } else { problems(&text).join("\n") }
}

#[test]
fn every_librdkafka_option_can_be_set_and_is_checked() {
    for (keys, said) in [
        ("options: {no.such.setting: 1}", "No such configuration property"),
        ("options: {socket.timeout.ms: many}", "librdkafka says"),
        ("options: {acks: 0}", "must be all: a record counts as delivered when"),
        ("options: {request.required.acks: 1}", "must be all"),
        ("options: {delivery.report.only.error: true}", "must be false"),
        ("options: {test.mock.num.brokers: 3}", "records would go nowhere"),
        ("options: {batch.size: 1}", "is made by batch_bytes"),
        ("options: {allow.auto.create.topics: true}", "is made by create_topic"),
        ("options: {enable.ssl.certificate.verification: false}", "anybody could take"),
        ("options: {linger.ms: 5}", "is made by linger_ms"),
        ("options: {sasl.password: hunter2}", "belongs into a file: sasl.password_file"),
        ("options: {sasl.oauthbearer.client.secret: hunter2}", "sasl.client_secret_file"),
        ("options: {ssl.key.pem: hunter2}", "belongs into a file: tls.key_file"),
        ("options: {client.id: [x]}", "must be a text or a number"),
    ] {
        let problems = kafka_problems(keys);
        assert!(problems.contains("sinks[0].options.") && problems.contains(said), "{problems}");
        assert!(!problems.contains("hunter2"), "{problems}");
    }
    // Each may be right, but not beside the others.
    for keys in ["options: {retries: 0}", "options: {max.in.flight: 10}"] {
        let problems = kafka_problems(keys);
        assert!(problems.contains("sinks[0].options: librdkafka says"), "{problems}");
    }
    let accepted =
        "options: {acks: -1, enable.idempotence: false, retries: 0, socket.timeout.ms: 90}";
    assert_eq!(kafka_problems(accepted), "");
}

#[test]
fn summaries_have_a_separate_topic() {
    for (keys, said) in [
        ("summary: {interval_s: 5}", "sinks[0].summary.topic: missing"),
        ("summary: {topic: t}", "sinks[0].summary.topic: \"t\": has the records"),
        ("summary: {topic: ledger, interval_s: 0}", "sinks[0].summary.interval_s: 0"),
        ("summary: {topic: ledger, chain: 1}", "sinks[0].summary.chain: 1"),
        (
            "summary: {topic: ledger, chain: true, signing_key_file: /no/such}",
            "sinks[0].summary.signing_key_file: \"/no/such\": cannot be read",
        ),
        (
            "summary: {topic: ledger, chain: true, signing_key_file: /etc/passwd}",
            "is open to every user (mode 0644)",
        ),
    ] {
        let problems = kafka_problems(keys);
        assert!(problems.contains(said), "{problems}");
    }
}

#[test]
fn a_signing_key_signs_the_digests_of_a_chain() {
    // RFC 8410 10.3.
    let pem = "-----BEGIN PRIVATE KEY-----\n\
               MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
               -----END PRIVATE KEY-----\n";
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), pem).unwrap();
    let path = file.path().display();
    let signed = format!("summary: {{topic: ledger, chain: true, signing_key_file: {path}}}");
    assert_eq!(kafka_problems(&signed), "");
    let alone = kafka_problems(&format!("summary: {{topic: ledger, signing_key_file: {path}}}"));
    assert!(alone.contains("signs digests, which need chain: true"), "{alone}");
    let text = format!(
        "interfaces: {{include: [lo]}}\n\
         sinks: [{{type: kafka, brokers: [\"b:1\"], topic: t, {signed}}}]"
    );
    let config = parse(&text).unwrap();
    let yaml = config.to_yaml().unwrap();
    assert!(yaml.contains("signing_key_file: ") && !yaml.contains("MC4C"), "{yaml}");
    assert_eq!(parse(&yaml).unwrap(), config, "{yaml}");
}

#[test]
fn secrets_and_certificates_are_readable_files() {
    for (keys, said) in [
        ("tls: {ca_file: /no/such}", "sinks[0].tls.ca_file: \"/no/such\": cannot be read"),
        ("tls: {key_file: /etc/passwd}", "certificate_file and key_file belong together"),
        (
            "tls: {}, sasl: {mechanism: plain, username: u, password: hunter2}",
            "sinks[0].sasl.password_file: missing",
        ),
        ("sasl: {mechanism: md5, username: u, password_file: /etc/passwd}", "must be one of plain"),
        ("sasl: {mechanism: scram-sha-256, username: u, password_file: /etc}", "is not a file"),
    ] {
        let problems = kafka_problems(keys);
        assert!(problems.contains(said), "{problems}");
        assert!(!problems.contains("hunter2"), "{problems}");
    }
}

#[test]
fn a_registry_needs_only_a_url_and_keeps_ids_in_the_spool() {
    let registry_and = |keys: &str, more: &str| {
        let config = parse(&format!(
            "interfaces: {{include: [lo]}}\n\
             sinks: [{{type: kafka, brokers: [\"b:1\"], topic: t, {keys}}}]\n\
             {more}"
        ));
        match config.unwrap().sinks.into_iter().next() {
            Some(SinkConfig::Kafka(kafka)) => kafka.registry.unwrap(),
            other => panic!("not a Kafka sink: {other:?}"),
        }
    };
    let registry = |keys: &str| registry_and(keys, "");
    let plain = registry("registry: {urls: [\"https://r\"]}");
    assert_eq!(
        plain,
        RegistryConfig {
            urls: vec!["https://r".to_owned()],
            subject: SubjectStrategy::TopicName,
            register: true,
            credentials: None,
            allow_cleartext: false,
            ca_file: None,
            timeout: Duration::from_secs(10),
            ids_file: None,
        }
    );
    let with_spool = registry("spool: {directory: /spool}, registry: {urls: [\"https://r\"]}");
    assert_eq!(with_spool.ids_file, Some("/spool/schema-ids.json".into()));
    let state = registry_and("registry: {urls: [\"https://r\"]}", "state: {directory: /state}");
    assert_eq!(state.ids_file, Some("/state/schema-ids.json".into()));
    let named = "registry: {urls: [\"https://r\"], ids_file: /ids.json}";
    let named = registry_and(named, "state: {directory: /state}");
    assert_eq!(named.ids_file, Some("/ids.json".into()));
    let token = registry("registry: {urls: [\"https://r\"], token_file: /etc/passwd}");
    let token_file = "/etc/passwd".into();
    assert_eq!(token.credentials, Some(RegistryCredentials::Token { token_file }));
}

#[test]
fn an_invalid_registry_is_refused() {
    for (section, said) in [
        ("{}", "registry.urls: missing: name at least one"),
        ("{urls: []}", "registry.urls: must not be empty"),
        ("{urls: [\"registry:8081\"]}", "must be http://host:port or https://host:port"),
        ("{urls: [\"ftp://r\"]}", "must be http://host:port or https://host:port"),
        ("{urls: [\"http://\"]}", "must be http://host:port or https://host:port"),
        ("{urls: [\"http://me:secret@r\"]}", "must not hold a name or a password"),
        ("{urls: [\"ftp://me:secret@r\"]}", "must not hold a name or a password"),
        ("{urls: [\"http://r/?a=secret\"]}", "must not have anything after the path"),
        ("{urls: [\"http://r:99999\"]}", "the port must be a whole number from 1 to 65535"),
        ("{urls: [\"http://[::1]:0/x\"]}", "the port must be a whole number from 1 to 65535"),
        ("{urls: [\"http://r\"], subject: topic}", "must be one of topic_name, record_name"),
        ("{urls: [\"http://r\"], username: u}", "username and password_file belong together"),
        ("{urls: [\"http://r\"], password_file: /etc/passwd}", "belong together"),
        (
            "{urls: [\"http://r\"], username: u, password_file: /etc/passwd, token_file: /etc/passwd}",
            "token_file stands for username and password_file",
        ),
        ("{urls: [\"http://r\"], username: \"a:b\", password_file: /etc/passwd}", "a colon"),
        ("{urls: [\"http://r\"], token_file: /no/such}", "cannot be read"),
        ("{urls: [\"http://r\"], ca_file: /etc/passwd}", "ca_file is for https"),
        (
            "{urls: [\"http://r\", \"https://r\"], token_file: /etc/passwd}",
            "without https whoever listens on the way has them",
        ),
        ("{urls: [\"http://r\"], ids_file: ids.json}", "must be an absolute path"),
        ("{urls: [\"http://r\"], ids_file: /etc}", "is a directory"),
        ("{urls: [\"http://r\"], timeout_ms: 5}", "registry.timeout_ms"),
        ("{urls: [\"http://r\"], password: hunter2}", "registry.password: no such key"),
    ] {
        let problems = kafka_problems(&format!("registry: {section}"));
        assert!(problems.contains(said), "{section}: {problems}");
        assert!(problems.contains("sinks[0].registry"), "{section}: {problems}");
        assert!(!problems.contains("secret"), "{problems}");
    }
}

#[test]
fn secrets_in_cleartext_need_tls_or_allow_cleartext() {
    for proof in [
        "mechanism: plain, username: u, password_file: /etc/passwd",
        "mechanism: oauthbearer, token_file: /etc/passwd",
    ] {
        let problems = kafka_problems(&format!("sasl: {{{proof}}}"));
        assert!(problems.contains("whoever listens on the way has it"), "{problems}");
        for keys in [
            format!("tls: {{}}, sasl: {{{proof}}}"),
            format!("sasl: {{{proof}, allow_cleartext: true}}"),
        ] {
            assert_eq!(kafka_problems(&keys), "");
        }
    }
    let scram = "sasl: {mechanism: scram-sha-256, username: u, password_file: /etc/passwd}";
    assert_eq!(kafka_problems(scram), "");
}

#[test]
fn a_token_is_in_a_file_or_from_an_endpoint() {
    let from_endpoint =
        "token_endpoint: 'https://idp/token', client_id: tap53, client_secret_file: /etc/passwd";
    for (keys, said) in [
        ("", "oauthbearer needs token_file, or token_endpoint"),
        ("token_file: /etc/passwd, token_endpoint: 'https://idp'", "choose one"),
        ("token_file: /no/such", "cannot be read"),
        ("token_file: /etc/passwd, scope: x", "sasl.scope: "),
        ("token_file: /etc/passwd, username: x", "sasl.username: "),
        ("token_endpoint: 'https://idp/token', client_id: tap53", "client_secret_file: missing"),
        ("token_endpoint: 'http://idp', client_id: c, client_secret_file: /etc/passwd", "https://"),
        (
            "token_endpoint: 'https://i:0/', client_id: c, client_secret_file: /etc/passwd",
            "the port",
        ),
        (
            "token_endpoint: 'http://u:hunter2@idp', client_id: c, client_secret_file: /etc/passwd",
            "a user",
        ),
        (&format!("{from_endpoint}, token_ca_file: /no/such"), "token_ca_file"),
        (&format!("{from_endpoint}, client_secret: hunter2"), "client_secret: "),
    ] {
        let problems =
            kafka_problems(&format!("tls: {{}}, sasl: {{mechanism: oauthbearer, {keys}}}"));
        assert!(problems.contains(said), "{problems}");
        assert!(!problems.contains("hunter2"), "{problems}");
    }
    let keys =
        format!("tls: {{}}, sasl: {{mechanism: oauthbearer, {from_endpoint}, scope: kafka}}");
    assert_eq!(kafka_problems(&keys), "");
}

#[test]
fn a_topic_is_created_with_valid_numbers() {
    for (keys, said) in [
        ("create_topic: {partitions: 0}", "create_topic.partitions: 0: must be a whole number"),
        ("create_topic: {replication_factor: 0}", "create_topic.replication_factor"),
        ("create_topic: {options: {retention.ms: [1]}}", "create_topic.options.retention.ms"),
        ("create_topic: true", "create_topic"),
        ("batch_bytes: 0", "batch_bytes: 0: must be a whole number"),
        ("batch_records: 0", "batch_records: 0: must be a whole number"),
    ] {
        let problems = kafka_problems(keys);
        assert!(problems.contains(said), "{problems}");
    }
    assert_eq!(kafka_problems("create_topic: {}"), "");
}

#[test]
fn a_record_is_within_the_producers_limit() {
    let with = |max_bytes: &str, options: &str| {
        format!(
            "interfaces: {{include: [lo]}}\nrecord: {{max_bytes: {max_bytes}}}\nsinks: [{{type: \
             kafka, topic: t, brokers: ['a:1'], options: {{{options}}}}}]"
        )
    };
    let default = parse("interfaces: {include: [lo]}").unwrap().record.max_bytes;
    assert_eq!(default, 256 * 1_024);
    // By librdkafka's default of 1,000,000; and by one that is set.
    parse(&with("997952", "")).unwrap();
    parse(&with("2000000", "message.max.bytes: 2100000")).unwrap();
    for (max_bytes, options, most) in [
        ("997953", "", "997952"),
        ("262144", "message.max.bytes: 200000", "197952"),
        ("2000000", "message.max.bytes: 2000000", "1997952"),
    ] {
        let reasons = problems(&with(max_bytes, options));
        let start = format!("record.max_bytes: {max_bytes}: sink kafka could not send a record");
        assert!(reasons[0].starts_with(&start), "{reasons:?}");
        assert!(reasons[0].contains(&format!("at most {most},")), "{reasons:?}");
        assert_eq!(reasons.len(), 1);
    }
    // The mandatory fields have room, and no record takes the memory of a node.
    for max_bytes in ["65535", "16777217", "0", "-1"] {
        let reasons =
            problems(&format!("interfaces: {{include: [lo]}}\nrecord: {{max_bytes: {max_bytes}}}"));
        assert!(reasons[0].starts_with(&format!("record.max_bytes: {max_bytes}: ")), "{reasons:?}");
        assert!(reasons[0].contains("65536 to 16777216"), "{reasons:?}");
    }
}
