//! The exporter with an HTTP server in this process. `tests/telemetry/otlp.rs` has a real collector.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use flate2::read::GzDecoder;
use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use prost::Message as _;
use tap53_base::settings::{Section, parse};

use crate::{
    Exporter, Failure, Metric, Metrics, Number, Points, SharedStatus, Source, Status,
    config::{Compression, OtlpConfig},
};

const DEADLINE: Duration = Duration::from_secs(30);

/// A request as the server received it.
struct Received {
    line: String,
    headers: BTreeMap<String, String>,
    request: ExportMetricsServiceRequest,
}

impl Received {
    /// Returns the value of the only point.
    fn value(&self) -> u64 {
        self.request.resource_metrics[0].scope_metrics[0].metrics[0].name[1..].parse().unwrap()
    }
}

/// Answers one connection after another with `answers`, and closes the port after the last of them.
fn serve(answers: Vec<Vec<u8>>) -> (SocketAddr, mpsc::Receiver<Received>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, received) = mpsc::channel();
    thread::spawn(move || {
        for answer in answers {
            let (mut connection, _) = listener.accept().unwrap();
            connection.set_read_timeout(Some(DEADLINE)).unwrap();
            let mut reader = BufReader::new(&connection);
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                match line.trim_end() {
                    "" => break,
                    line => lines.push(line.to_owned()),
                }
            }
            let line = lines.remove(0);
            let header = |line: String| {
                let (name, value) = line.split_once(": ").unwrap();
                (name.to_lowercase(), value.to_owned())
            };
            let headers: BTreeMap<_, _> = lines.into_iter().map(header).collect();
            let mut body = vec![0; headers["content-length"].parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
            if headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip") {
                let mut plain = Vec::new();
                GzDecoder::new(&*body).read_to_end(&mut plain).unwrap();
                body = plain;
            }
            let request = ExportMetricsServiceRequest::decode(&*body).unwrap();
            connection.write_all(&answer).unwrap();
            let _ = sender.send(Received { line, headers, request });
        }
    });
    (address, received)
}

fn answer(head: &str, body: &[u8]) -> Vec<u8> {
    let mut answer = format!(
        "HTTP/1.1 {head}\r\nconnection: close\r\ncontent-type: application/x-protobuf\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend(body);
    answer
}

/// Each reading has its number as the name of its metric.
struct Readings(mpsc::Receiver<u64>);

impl Source for Readings {
    async fn read(&self) -> Option<Metrics> {
        self.0.try_recv().ok().map(metrics)
    }
}

fn metrics(number: u64) -> Metrics {
    let name = format!("m{number}").leak();
    let points = Points::Counter(vec![Number { attributes: vec![], value: 1.0 }]);
    let metric = Metric { name, description: "", unit: "", points };
    Metrics { metrics: vec![metric], ..Metrics::default() }
}

fn config(server: SocketAddr) -> OtlpConfig {
    OtlpConfig {
        endpoint: format!("http://{server}"),
        headers: BTreeMap::new(),
        header_files: BTreeMap::new(),
        allow_cleartext: true,
        ca_file: None,
        interval: Duration::from_millis(1),
        timeout: DEADLINE,
        compression: Compression::Gzip,
        resource_attributes: BTreeMap::new(),
    }
}

/// Starts an export of `readings` readings.
fn export(config: OtlpConfig, readings: u64) -> (Exporter, SharedStatus) {
    let (sender, source) = mpsc::channel();
    (1..=readings).for_each(|number| sender.send(number).unwrap());
    let status = SharedStatus::new(config.url());
    let resource = vec![("service.name".to_owned(), "tap53".to_owned())];
    let exporter = Exporter::start(config, resource, status.clone(), Readings(source)).unwrap();
    (exporter, status)
}

fn failures(of: &Status) -> Vec<(&'static str, u64)> {
    let counts = Failure::ALL.into_iter().map(Failure::name).zip(of.failures);
    counts.filter(|(_, count)| *count > 0).collect()
}

#[test]
fn a_busy_collector_gets_a_new_reading_later_and_every_outcome_is_counted() {
    let partial = ExportMetricsServiceResponse {
        partial_success: Some(ExportMetricsPartialSuccess {
            rejected_data_points: 1,
            error_message: "too old".to_owned(),
        }),
    };
    let (server, received) = serve(vec![
        answer("503 x\r\nretry-after: 1", b""),
        answer("429 x", b""),
        answer("400 x", b"\x12\x03bad"),
        answer("200 x", &partial.encode_to_vec()),
        answer("200 x", b""),
    ]);
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    fs::write(&token, "Bearer secret\n").unwrap();
    let mut config = config(server);
    config.headers.insert("x-scope".to_owned(), "tenant".parse().unwrap());
    config.header_files.insert("authorization".to_owned(), token);
    let begun_at = Instant::now();
    let (exporter, status) = export(config, 4);
    let next = || received.recv_timeout(DEADLINE).unwrap();
    let first = next();
    assert_eq!(first.line, "POST /v1/metrics HTTP/1.1");
    for (name, value) in [
        ("x-scope", "tenant"),
        ("authorization", "Bearer secret"),
        ("content-type", "application/x-protobuf"),
        ("content-encoding", "gzip"),
    ] {
        assert_eq!(first.headers[name], value);
    }
    assert_eq!([first.value(), next().value()], [1, 2]);
    assert!(begun_at.elapsed() >= Duration::from_secs(1), "the pause that it requested");
    assert_eq!([next().value(), next().value()], [3, 4]);
    // Until the answer is read: the last export does not wait for it.
    while status.read().exports == 0 {
        assert!(begun_at.elapsed() < DEADLINE, "{:?}", status.read());
        thread::yield_now();
    }
    exporter.finish(metrics(5), Instant::now() + DEADLINE);
    assert_eq!(next().value(), 5, "the last export");
    let status = status.read();
    assert_eq!((status.exports, status.points_sent, status.points_rejected), (2, 2, 1));
    assert_eq!(failures(&status), [("busy", 2), ("refused", 1)]);
    assert_eq!(status.warning.as_deref(), Some("too old"));
    assert!(status.last_export.is_some() && status.failing.is_none(), "{status:?}");
}

#[test]
fn the_last_export_waits_for_the_collector_until_the_deadline_and_no_longer() {
    let (server, received) = serve(vec![answer("503 x", b""), answer("200 x", b"")]);
    let (exporter, status) = export(config(server), 0);
    exporter.finish(metrics(7), Instant::now() + DEADLINE);
    let values = [(); 2].map(|()| received.recv_timeout(DEADLINE).unwrap().value());
    assert_eq!((values, status.read().exports), ([7, 7], 1));

    // It accepts the connection and does not answer.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (exporter, status) = export(config(silent.local_addr().unwrap()), 0);
    let begun_at = Instant::now();
    exporter.finish(metrics(8), begun_at + Duration::from_millis(100));
    assert!(begun_at.elapsed() < DEADLINE, "the timeout of a request is longer");
    assert_eq!(status.read().exports, 0);
}

#[test]
fn an_exporter_that_is_dropped_leaves_its_request() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (exporter, _) = export(config(silent.local_addr().unwrap()), 1);
    let (connection, _) = silent.accept().unwrap();
    let begun_at = Instant::now();
    drop(exporter);
    assert!(begun_at.elapsed() < DEADLINE, "the timeout of a request is longer");
    drop(connection);
}

/// Reads a section; returns its problems with their keys if there are any.
fn read(yaml: &str) -> Result<OtlpConfig, Vec<String>> {
    let mut problems = Vec::new();
    let config = Section::root(Some(parse(yaml).unwrap()), &mut problems, OtlpConfig::read);
    match problems.is_empty() {
        true => Ok(config.unwrap()),
        false => Err(problems.iter().map(|of| format!("{}: {}", of.path, of.reason)).collect()),
    }
}

#[test]
fn the_path_of_metrics_is_appended_once() {
    for (endpoint, url) in [
        ("http://c:4318", "http://c:4318/v1/metrics"),
        ("http://c:4318/", "http://c:4318/v1/metrics"),
        ("https://p/api/v1/otlp", "https://p/api/v1/otlp/v1/metrics"),
        ("https://p/otlp/v1/metrics", "https://p/otlp/v1/metrics"),
    ] {
        assert_eq!(read(&format!("endpoint: {endpoint}")).unwrap().url(), url);
    }
}

#[test]
fn contradictions_are_refused_with_the_key_and_without_a_secret() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let file = file.path().display();
    for (yaml, problem) in [
        ("interval_ms: 1000".to_owned(), "endpoint: missing"),
        ("endpoint: grpc://c:4317".to_owned(), "endpoint: must be http://host:port"),
        ("endpoint: http://user:secret@c".to_owned(), "endpoint: must not hold a name"),
        (format!("endpoint: http://c\nca_file: {file}"), ": ca_file is for https"),
        (format!("endpoint: http://c\nheader_files: {{a: {file}}}"), "allow_cleartext: true"),
        ("endpoint: http://c\nheaders: {'a b': x}".to_owned(), "headers.a b: is not the name"),
        ("endpoint: http://c\nheaders: {Host: x}".to_owned(), "headers.Host: is set by the agent"),
        (
            "endpoint: http://c\nresource_attributes: {service.name: x}".to_owned(),
            "resource_attributes.service.name: is set by the agent",
        ),
        (
            format!("endpoint: https://c\nheaders: {{A: x}}\nheader_files: {{a: {file}}}"),
            ": a is in headers and in header_files",
        ),
    ] {
        let problems = read(&yaml).unwrap_err();
        assert!(problems[0].contains(problem), "{yaml}: {problems:?}");
        assert!(!problems.concat().contains("secret"), "{problems:?}");
    }
}

#[test]
fn the_state_says_why_an_export_fails_and_since_when() {
    let (server, received) = serve(vec![answer("404 x", b""), answer("429 x", b"")]);
    let (exporter, status) = export(config(server), 2);
    let received = [(); 2].map(|()| received.recv_timeout(DEADLINE).unwrap().value());
    assert_eq!(received, [1, 2]);
    let begun_at = Instant::now();
    while failures(&status.read()).len() < 2 {
        assert!(begun_at.elapsed() < DEADLINE, "{:?}", status.read());
        thread::yield_now();
    }
    drop(exporter);
    let status = status.read();
    let failing = status.failing.unwrap();
    assert_eq!(
        (failing.reason, failing.message.as_str()),
        ("busy", "the collector cannot accept metrics now (429): no reason given")
    );
    assert_eq!(status.url, format!("http://{server}/v1/metrics"));
    assert!(status.last_export.is_none() && failing.since <= Timestamp::now());
}

#[test]
fn a_missing_file_is_a_failure_that_names_the_file() {
    let (server, _received) = serve(Vec::new());
    let mut config = config(server);
    config.header_files.insert("authorization".to_owned(), "/no/such/token".into());
    let (exporter, status) = export(config, 1);
    let begun_at = Instant::now();
    while status.read().failing.is_none() {
        assert!(begun_at.elapsed() < DEADLINE, "{:?}", status.read());
        thread::yield_now();
    }
    drop(exporter);
    let failing = status.read().failing.unwrap();
    assert_eq!(failing.reason, "file");
    assert!(failing.message.starts_with("cannot use /no/such/token: "), "{}", failing.message);
}
