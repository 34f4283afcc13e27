//! With a [stub](super::stub), for failures that a real registry does not have on demand. The
//! integration tests have a real one.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tap53_base::{backoff::Backoff, threads::Background};
use tap53_ledger::{Published, RegistryCounts, SinkCounts};
use tap53_records::encode::{Profile, single_object_header};

use super::{
    stub::{Answer, Stub, StubRequest, ids_from, not_found},
    *,
};
use crate::config::{RegistryConfig, RegistryCredentials, SubjectStrategy};

const DEADLINE: Duration = Duration::from_secs(30);
const SUBJECT: &str = "dns-value";

fn config(urls: &[String]) -> RegistryConfig {
    RegistryConfig {
        urls: urls.to_vec(),
        subject: SubjectStrategy::TopicName,
        register: true,
        credentials: None,
        allow_cleartext: true,
        ca_file: None,
        timeout: Duration::from_millis(500),
        ids_file: None,
    }
}

fn schema(version: u8) -> Schema {
    Schema {
        name: "tap53.Test".into(),
        text: format!("{{\"version\": {version}}}").into(),
        fingerprint: [version; 8],
        version: version.into(),
        is_of_other_profile: false,
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn look_up(config: &RegistryConfig) -> Result<Option<u32>, Error> {
    block_on(async { Client::new(config)?.look_up(SUBJECT, "{}").await })
}

fn refresher(
    config: &RegistryConfig,
    topic: &str,
    schemas: &[Schema],
    counts: &Published<SinkCounts>,
) -> SchemaIdRefresher {
    SchemaIdRefresher::new(config, "kafka", topic, schemas.to_vec(), counts.clone())
}

/// A started refresher.
struct Running {
    ids: Arc<SchemaIds>,
    counts: Published<SinkCounts>,
    _thread: Background,
}

impl Running {
    /// Queries again without a pause.
    fn start(config: &RegistryConfig, schemas: &[Schema]) -> Self {
        let longest = Duration::from_millis(50);
        let backoff = Backoff::new(Duration::from_millis(10), longest);
        let counts = Published::default();
        let refresher = refresher(config, "dns", schemas, &counts);
        let ids = refresher.ids.clone();
        Self { ids, counts, _thread: refresher.start_with(backoff, longest).unwrap() }
    }

    /// Queries as in production. `before` runs before the first query.
    fn start_patiently(
        config: &RegistryConfig,
        schemas: &[Schema],
        before: impl FnOnce(&SchemaIds),
    ) -> Self {
        let counts = Published::default();
        let refresher = refresher(config, "dns", schemas, &counts);
        let ids = refresher.ids.clone();
        before(&ids);
        Self { ids, counts, _thread: refresher.start().unwrap() }
    }

    fn counts(&self) -> RegistryCounts {
        self.counts.read().registry.unwrap()
    }

    fn wait_until(&self, what: &str, condition: impl Fn(&SchemaIds, &RegistryCounts) -> bool) {
        let end = Instant::now() + DEADLINE;
        while !condition(&self.ids, &self.counts()) {
            assert!(Instant::now() < end, "waited in vain for {what}: {:?}", self.counts());
            thread::park_timeout(Duration::from_millis(2));
        }
    }
}

#[test]
fn each_way_to_fail_is_one_clear_line() {
    let json = |status: u16, body: &str| {
        let body = body.to_owned();
        move |_: &StubRequest| Answer::Json(status, body.clone())
    };
    let raw = |bytes: &str| {
        let bytes = bytes.as_bytes().to_vec();
        move |_: &StubRequest| Answer::Raw(bytes.clone())
    };
    type Answers = Box<dyn FnMut(&StubRequest) -> Answer + Send>;
    let cases: [(Answers, &str); 16] = [
        (
            Box::new(json(401, "{\"error_code\": 401, \"message\": \"Unauthorized\"}")),
            "does not accept the credentials (401): Unauthorized",
        ),
        (
            Box::new(json(403, "{\"error_code\": 40301, \"message\": \"not yours\"}")),
            "denies access (403): not yours",
        ),
        (
            Box::new(json(422, "{\"error_code\": 42201, \"message\": \"Invalid\\nAvro\"}")),
            "refuses the schema as invalid (422): Invalid Avro",
        ),
        (
            Box::new(json(404, "<html>")),
            "has no such path (404), so that the URL may lack a part: <html>",
        ),
        (
            Box::new(json(500, "{\"error_code\": 50001, \"message\": \"Error in the backend\"}")),
            "answers with an error (500): Error in the backend",
        ),
        (Box::new(json(503, "")), "answers with an error (503): no reason given"),
        (Box::new(json(418, "[]")), "answers with an error (418): []"),
        (Box::new(json(200, "{\"id\": \"seven\"}")), "gives an answer that cannot be read: "),
        (Box::new(json(200, "{\"id\": -1}")), "gives an answer that cannot be read: "),
        (Box::new(json(200, "\u{1}\u{7f}")), "gives an answer that cannot be read: "),
        (
            Box::new(raw(
                "HTTP/1.1 302 x\r\nlocation: https://elsewhere/\r\ncontent-length: 0\r\n\r\n",
            )),
            "redirects (302) to https://elsewhere/, which is not followed: give the URL that answers",
        ),
        (
            Box::new(raw("HTTP/1.1 308 x\r\ncontent-length: 0\r\n\r\n")),
            "redirects (308) to somewhere",
        ),
        (Box::new(raw("SSH-2.0-OpenSSH_9.2\r\n")), "cannot be reached: "),
        (Box::new(raw("")), "cannot be reached: "),
        (
            Box::new(raw("HTTP/1.1 200 x\r\ncontent-length: 100\r\n\r\n{\"id\"")),
            "gives an answer that cannot be read: ",
        ),
        (Box::new(|_: &StubRequest| Answer::Silence), "does not answer within 0.5 s"),
    ];
    let stub = Stub::new(|_| not_found());
    for (answers, expected) in cases {
        stub.answer_by(answers);
        let error = look_up(&config(&[stub.url()])).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error:?} is not {expected:?}");
        assert!(!error.contains(char::is_control), "{error:?}");
    }
    stub.answer_by(|_| Answer::Json(200, "x".repeat(5 << 20)));
    let error = look_up(&config(&[stub.url()])).unwrap_err().to_string();
    assert!(error.contains("length limit exceeded"), "{error}");
    let error = look_up(&config(&["http://127.0.0.1:9".to_owned()])).unwrap_err().to_string();
    assert!(error.contains("Connection refused"), "{error}");
    let error = look_up(&config(&["http://nowhere.invalid".to_owned()])).unwrap_err().to_string();
    assert!(error.starts_with("cannot be reached: "), "{error}");
}

#[test]
fn a_schema_that_is_there_is_looked_up_and_not_registered() {
    let stub = Stub::new(|_| Answer::Json(200, "{\"id\": 7}".to_owned()));
    let running = Running::start(&config(&[stub.url()]), &[schema(1)]);
    running.wait_until("an id", |ids, _| ids.get([1; 8]) == Some(7));
    drop(running);
    assert!(stub.paths().iter().all(|path| path == "/subjects/dns-value"), "{:?}", stub.paths());
}

#[test]
fn one_that_is_not_is_held_against_the_latest_and_then_registered_if_that_is_allowed() {
    let stub = Stub::registry(7);
    let running = Running::start(&config(&[stub.url()]), &[schema(1)]);
    running.wait_until("an id", |ids, _| ids.get([1; 8]) == Some(7));
    drop(running);
    let expected = [
        "/subjects/dns-value",
        "/subjects/dns-value?normalize=true",
        "/compatibility/subjects/dns-value/versions/latest?verbose=true",
        "/subjects/dns-value/versions",
    ];
    assert_eq!(stub.paths()[..4], expected);

    let stub = Stub::registry(7);
    let config = RegistryConfig { register: false, ..config(&[stub.url()]) };
    let running = Running::start(&config, &[schema(1)]);
    running.wait_until("rounds", |_, counts| counts.requests >= 9);
    assert_eq!(running.ids.get([1; 8]), None);
    drop(running);
    assert!(!stub.paths().iter().any(|path| path.ends_with("/versions")), "{:?}", stub.paths());
}

#[test]
fn what_is_incompatible_is_never_registered() {
    for is_told_beforehand in [true, false] {
        let stub = Stub::new(move |asked| match &*asked.path {
            path if path.starts_with("/compatibility") && is_told_beforehand => {
                let verdict = "{\"is_compatible\": false, \"messages\": [\"a field is gone\"]}";
                Answer::Json(200, verdict.to_owned())
            }
            path if path.starts_with("/compatibility") => {
                Answer::Json(403, "{\"error_code\": 40301, \"message\": \"no\"}".to_owned())
            }
            path if path.ends_with("/versions") => {
                let refusal = "{\"error_code\": 409, \"message\": \"a field is gone\"}";
                Answer::Json(409, refusal.to_owned())
            }
            _ => not_found(),
        });
        let running = Running::start(&config(&[stub.url()]), &[schema(1)]);
        running.wait_until("rounds", |_, counts| counts.requests >= 8);
        assert_eq!(running.ids.get([1; 8]), None);
        drop(running);
        let has_tried = stub.paths().iter().any(|path| path.ends_with("/versions"));
        assert_eq!(has_tried, !is_told_beforehand, "{:?}", stub.paths());
    }
    let stub = Stub::new(|_| Answer::Json(409, "{\"message\": \"a field is gone\"}".to_owned()));
    let error =
        block_on(async { Client::new(&config(&[stub.url()]))?.register(SUBJECT, "{}").await });
    assert_eq!(
        error.unwrap_err().to_string(),
        "refuses the schema as incompatible with subject dns-value: a field is gone"
    );
}

#[test]
fn what_may_pass_is_tried_until_it_has() {
    let mut requests = 0;
    let stub = Stub::new(move |_| {
        requests += 1;
        match requests {
            1 => Answer::Json(500, "{}".to_owned()),
            2 => Answer::Json(429, "{}".to_owned()),
            3 => Answer::Raw(b"garbage".to_vec()),
            4 => Answer::Silence,
            5 => Answer::Json(401, "{}".to_owned()),
            _ => Answer::Json(200, "{\"id\": 7}".to_owned()),
        }
    });
    let running = Running::start(&config(&[stub.url()]), &[schema(1)]);
    running.wait_until("an id", |_, counts| counts.ids_known == 1);
    assert_eq!(running.ids.get([1; 8]), Some(7));
    let counts = running.counts();
    assert_eq!((counts.failures, counts.ids_wanted), (5, 1));
}

#[test]
fn the_registry_says_how_long_it_wants_to_be_left_alone() {
    let stub = Stub::new(|_| {
        Answer::Raw(b"HTTP/1.1 429 x\r\nretry-after: 3600\r\ncontent-length: 0\r\n\r\n".to_vec())
    });
    let error = look_up(&config(&[stub.url()])).unwrap_err();
    assert_eq!(error.retry_after(), Duration::from_secs(3600));
}

#[test]
fn another_instance_is_asked_where_the_first_cannot_answer() {
    let broken = Stub::new(|_| Answer::Json(500, "{}".to_owned()));
    let stub = Stub::registry(7);
    let urls = ["http://127.0.0.1:9".to_owned(), broken.url(), stub.url()];
    let running = Running::start(&config(&urls), &[schema(1)]);
    running.wait_until("an id", |ids, _| ids.get([1; 8]) == Some(7));
    // A refusal is an answer: the next instance is not queried.
    let refusing = Stub::new(|_| Answer::Json(403, "{}".to_owned()));
    let error = look_up(&config(&[refusing.url(), stub.url()])).unwrap_err();
    assert!(matches!(error, Error::Forbidden(_)), "{error}");
}

#[test]
fn credentials_are_read_from_their_files_for_each_round_and_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| -> PathBuf {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let stub = Stub::new(|asked| match &*asked.authorization {
        // RFC 7617 §2: base64 of "tap53:new secret".
        "Basic dGFwNTM6bmV3IHNlY3JldA==" => Answer::Json(200, "{\"id\": 7}".to_owned()),
        "Bearer new-token" => Answer::Json(200, "{\"id\": 8}".to_owned()),
        _ => Answer::Json(401, "{\"message\": \"who are you?\"}".to_owned()),
    });
    let by_password = RegistryCredentials::Password {
        username: "tap53".to_owned(),
        password_file: file("password", "old secret\n"),
    };
    let by_token = RegistryCredentials::Token { token_file: file("token", "old-token\r\n") };
    for (credentials, name, text, id) in
        [(by_password, "password", "new secret\n", 7), (by_token, "token", "new-token", 8)]
    {
        let config = RegistryConfig { credentials: Some(credentials), ..config(&[stub.url()]) };
        let running = Running::start(&config, &[schema(1)]);
        running.wait_until("a refusal", |_, counts| counts.failures > 0);
        file(name, text);
        running.wait_until("an id", |ids, _| ids.get([1; 8]) == Some(id));
    }
    let credentials = RegistryCredentials::Token { token_file: file("token", "a\nb") };
    let unusable = RegistryConfig { credentials: Some(credentials), ..config(&[stub.url()]) };
    let error = look_up(&unusable).unwrap_err().to_string();
    assert!(error.ends_with("it holds what cannot stand in a header"), "{error}");
}

fn single_object(version: u8) -> Vec<u8> {
    [&single_object_header([version; 8])[..], b"datum"].concat()
}

fn framed(ids: &SchemaIds, version: u8) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    (ids.frame(&single_object(version), &mut out) == FrameOutcome::Framed).then_some(out)
}

fn with_file(config: RegistryConfig, path: &Path) -> RegistryConfig {
    RegistryConfig { ids_file: Some(path.to_owned()), ..config }
}

#[test]
fn an_id_of_an_earlier_run_is_used_at_once_and_also_while_the_registry_is_away() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ids.json");
    let stub = Stub::registry(7);
    let config = with_file(config(&[stub.url()]), &path);
    let running = Running::start(&config, &[schema(1)]);
    running.wait_until("an id", |_, counts| counts.ids_known == 1);
    drop(running);

    stub.answer_by(|_| Answer::Silence);
    let counts = Published::default();
    let refresher_again = refresher(&config, "dns", &[schema(1)], &counts);
    let first = framed(&refresher_again.ids, 1).unwrap();
    assert_eq!(first, b"\0\0\0\0\x07datum", "before it is started");
    drop(refresher_again.start().unwrap());
    // Another topic or registry has none.
    let id = |config: &RegistryConfig, topic| {
        refresher(config, topic, &[schema(1)], &counts).ids.get([1; 8])
    };
    assert_eq!(id(&config, "dns"), Some(7));
    assert_eq!(id(&config, "other"), None);
    let elsewhere = RegistryConfig { urls: vec!["http://elsewhere".to_owned()], ..config };
    assert_eq!(id(&elsewhere, "dns"), None);
}

#[test]
fn a_registry_that_was_wiped_has_the_schema_again_and_its_new_id_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ids.json");
    let stub = Stub::registry(7);
    let config = with_file(config(&[stub.url()]), &path);
    let running = Running::start(&config, &[schema(1)]);
    running.wait_until("an id", |ids, _| ids.get([1; 8]) == Some(7));
    stub.answer_by(ids_from(20));
    running.wait_until("the new id", |ids, _| ids.get([1; 8]) == Some(20));
    running.wait_until("a count", |_, counts| counts.id_changes == 1);
    drop(running);
    let cache = fs::read_to_string(&path).unwrap();
    assert!(cache.contains("\"id\": 20") && !cache.contains("\"id\": 7"), "{cache}");
}

#[test]
fn earlier_versions_are_asked_for_when_there_are_such_records_the_oldest_first() {
    let stub = Stub::registry(7);
    let schemas = [schema(1), schema(2), schema(3)];
    let running = Running::start_patiently(&config(&[stub.url()]), &schemas, |ids| {
        ids.want([2; 8]);
    });
    running.wait_until("two ids", |_, counts| counts.ids_known == 2);
    let ids = &running.ids;
    assert_eq!([1, 2, 3].map(|version| ids.get([version; 8])), [None, Some(7), Some(8)]);
    assert_eq!(framed(ids, 1), None);
    running.wait_until("the id that was missed", |ids, _| ids.get([1; 8]) == Some(9));
    assert_eq!(framed(ids, 1).unwrap(), b"\0\0\0\0\x09datum");
}

#[test]
fn at_the_start_the_registry_is_asked_once() {
    let stub = Stub::new(|_| Answer::Json(200, "{\"id\": 7}".to_owned()));
    let schemas = [schema(1), schema(2)];
    let running = Running::start_patiently(&config(&[stub.url()]), &schemas, |_| {});
    running.wait_until("the id", |_, counts| counts.ids_known == 1);
    // An id that is missing later is requested immediately.
    running.ids.want([1; 8]);
    running.wait_until("both", |_, counts| counts.ids_known == 2 && counts.requests >= 3);
    let asked: Vec<_> = stub.seen().into_iter().map(|asked| asked.schema).collect();
    assert_eq!(asked, [2, 1, 2].map(|version| schema(version).text));
}

#[test]
fn two_topics_of_a_sink_are_counted_together() {
    let stub = Stub::registry(7);
    let counts = Published::default();
    let of = |topic, version| refresher(&config(&[stub.url()]), topic, &[schema(version)], &counts);
    let refreshers = [of("dns", 1), of("summaries", 2)];
    let ids = |counts: &Published<SinkCounts>| {
        let counts: RegistryCounts = counts.read().registry.unwrap();
        (counts.ids_wanted, counts.ids_known)
    };
    assert_eq!(ids(&counts), (2, 0));
    let _threads = refreshers.map(|refresher| refresher.start().unwrap());
    let end = Instant::now() + DEADLINE;
    while ids(&counts) != (2, 2) {
        assert!(Instant::now() < end, "{:?}", counts.read().registry);
        thread::park_timeout(Duration::from_millis(2));
    }
    assert!(stub.paths().iter().any(|path| path == "/subjects/summaries-value/versions"));
}

#[test]
fn records_of_a_later_version_have_the_id_that_it_left() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ids.json");
    let stub = Stub::registry(7);
    let config = with_file(config(&[stub.url()]), &path);
    let running = Running::start(&config, &[schema(1), schema(2)]);
    // It is counted after it is stored.
    running.wait_until("an id", |_, counts| counts.ids_known == 1);
    drop(running);
    let running = Running::start(&config, &[schema(1)]);
    assert_eq!(framed(&running.ids, 2).unwrap(), b"\0\0\0\0\x07datum");
    assert_eq!(framed(&running.ids, 3), None);
}

#[test]
fn the_profile_that_is_written_has_the_topics_subject_and_the_other_one_its_own() {
    for (profile, other) in [(Profile::Flat, Profile::Full), (Profile::Full, Profile::Flat)] {
        let schemas = Schema::of_transactions(profile).unwrap();
        let names: Vec<&str> = schemas.iter().map(|schema| &*schema.name).collect();
        let count = |of: Profile| of.versions().len();
        let expected =
            [vec![other.record_name(); count(other)], vec![profile.record_name(); count(profile)]];
        assert_eq!(names, expected.concat());
        let newest = schemas.last().unwrap();
        assert_eq!(newest.fingerprint, profile.fingerprint().unwrap());
        for schema in &schemas {
            let is_other = schema.name == other.record_name();
            let of_topic = if is_other { &format!("dns-{}", schema.name) } else { "dns-value" };
            for (strategy, subject) in [
                (SubjectStrategy::TopicName, of_topic),
                (SubjectStrategy::RecordName, &schema.name),
                (SubjectStrategy::TopicRecordName, &format!("dns-{}", schema.name)),
            ] {
                assert_eq!(schema.subject(strategy, "dns"), subject);
            }
            // Both profiles have a version 5, and the spool knows only the version.
            let versions = [schema.version.unsigned_abs()];
            assert_eq!(schema.is_expected_in(&versions), !is_other);
            assert!(!schema.is_expected_in(&[]));
        }
    }
}

#[test]
fn subjects_are_those_of_the_strategies() {
    let schema = Schema::of_transactions(Profile::Full).unwrap().pop().unwrap();
    for (strategy, subject) in [
        (SubjectStrategy::TopicName, "dns-value"),
        (SubjectStrategy::RecordName, "tap53.DnsTransaction"),
        (SubjectStrategy::TopicRecordName, "dns-tap53.DnsTransaction"),
    ] {
        assert_eq!(schema.subject(strategy, "dns"), subject);
    }
    let parsed: serde_json::Value = serde_json::from_str(&schema.text).unwrap();
    let [namespace, name] = ["namespace", "name"].map(|key| parsed[key].as_str().unwrap());
    assert_eq!(schema.name, format!("{namespace}.{name}"));
    assert_eq!(schema.fingerprint, encode::fingerprint().unwrap());
}
