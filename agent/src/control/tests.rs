//! Tests the control socket with a run loop of the test: requests, answers, and clients that violate the
//! limits.

mod counting;

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tap53_base::vitals::{Health, Heartbeat, Liveness};
use tap53_capture::interfaces::{Actual, InterfaceStatus, Switch, WantedBy, config::Directions};
use tap53_ledger::{Ledger, Sources, WorkerCounts};
use tap53_records::encode::{Text, TextOptions, samples};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::{
    client::{Client, Error, Item},
    protocol::{Call, Fault, MAX_REQUEST, PastRequest, Reason},
    *,
};
use crate::{
    control::config::ControlConfig,
    tail::{Feed, Known, LineFormat, Selection, Tails},
};
use tap53_attribution as enrich;

/// Timeout of a request; short, but long enough for a loaded machine.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(400);

/// A control socket.
pub(crate) struct Setup {
    server: Option<Server>,
    tails: Tails,
    path: PathBuf,
    _directory: TempDir,
}

fn config(path: &std::path::Path) -> ControlConfig {
    ControlConfig {
        socket: path.to_owned(),
        request_timeout: REQUEST_TIMEOUT,
        ..ControlConfig::default()
    }
}

fn start(config: &ControlConfig, requests: mpsc::Sender<Request>, tails: Tails) -> Server {
    Server::start(config, Arc::default(), requests, (tails, known()), liveness()).unwrap()
}

/// Records that name pods, with one label.
fn known() -> Known {
    Known { pods: true, labels: vec!["app".to_owned()], signals: true }
}

/// The liveness of a worker that has been away since the machine started.
fn liveness() -> Liveness {
    Liveness::new(vec![Heartbeat::new(0, 0)], Duration::from_nanos(1))
}

/// A server whose requests `answer` takes.
pub(crate) fn setup(answer: impl Fn(Request) + Send + 'static) -> Setup {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let (requests, mut asked) = mpsc::channel(QUEUED);
    let tails = Tails::default();
    let server = start(&config(&path), requests, tails.clone());
    thread::spawn(move || {
        while let Some(request) = asked.blocking_recv() {
            answer(request);
        }
    });
    Setup { server: Some(server), tails, path, _directory: directory }
}

fn interface(name: &str) -> InterfaceStatus {
    InterfaceStatus {
        name: name.to_owned(),
        ifindex: 2,
        kind: "veth".to_owned(),
        wanted: Some(Directions::Both),
        wanted_by: WantedBy::Command,
        wanted_for_s: None,
        ingress: Actual { capturing: true, hook: Some("tcx".to_owned()), shadowed: None },
        egress: Actual { capturing: false, hook: None, shadowed: None },
        why: "first choice".to_owned(),
    }
}

pub(crate) fn status() -> Status {
    Status {
        version: "1.2.3",
        revision: "abc",
        node: "node-1".to_owned(),
        uptime_s: 5,
        config: ConfigStatus::default(),
        annotation: AnnotationStatus::default(),
        enrichment: enrich::Status { enabled: true, pods: 3, ..Default::default() },
        bypass: None,
        health: Health::default(),
        interfaces: vec![interface("eth0")],
        export: None,
        ledger: Ledger::new(&Sources {
            node: "node-1".to_owned(),
            run: [7; 8],
            taken_at_us: 0,
            ended: false,
            is_abandoned: false,
            interfaces: Vec::new(),
            workers: WorkerCounts::default(),
            last_numbers: Vec::new(),
            sinks: Vec::new(),
        }),
        dns: None,
    }
}

/// Answers a switch with an interface that repeats the request and its requester.
pub(crate) fn echo(request: Request) {
    match request {
        Request::Status { answer } => drop(answer.send(status())),
        Request::Switch { switch, requester, answer } => {
            let Switch { selector, to, lasts } = &switch;
            if selector.as_str() == "absent" {
                let _ = answer.send(Err(Refusal::NoSuchInterface("absent".to_owned())));
                return;
            }
            let mut interface = interface(selector.as_str());
            interface.why = format!("{to:?} for {lasts:?} by {requester:?}");
            let _ = answer.send(Ok(vec![interface]));
        }
    }
}

impl Setup {
    pub(crate) const fn tails(&self) -> &Tails {
        &self.tails
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.path)
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    fn counts(&self) -> Counts {
        self.server.as_ref().unwrap().counts()
    }

    /// Sends these bytes, and returns the answer.
    fn raw(&self, bytes: &[u8]) -> Value {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        answer(&mut stream)
    }
}

fn answer(stream: &mut UnixStream) -> Value {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
}

fn process_name_of_this() -> String {
    std::fs::read_to_string("/proc/self/comm").unwrap().trim_end().to_owned()
}

#[test]
fn a_switch_reaches_the_run_loop_with_its_requester() {
    let setup = setup(echo);
    let switch = |call| setup.client().switch(call).unwrap().remove(0);
    let (uid, pid) = (nix::unistd::getuid(), std::process::id());
    let name = process_name_of_this();
    let own = format!("Requester {{ uid: {uid}, pid: {pid}, process: Some({name:?}) }}");
    let enabled = switch(Call::Enable {
        pattern: "eth*".into(),
        directions: Directions::Egress,
        lasts_ms: Some(1_500),
    });
    assert_eq!(enabled.name, "eth*");
    assert_eq!(enabled.why, format!("On(Egress) for Some(1.5s) by {own}"));
    let disabled = Call::Disable { pattern: "eth0".into(), detach: true, lasts_ms: None };
    assert!(switch(disabled).why.starts_with("Off { detach: true } for None"));
    assert!(switch(Call::Reset { pattern: "eth0".into() }).why.starts_with("Reset for None"));
    let refused = setup.client().switch(Call::Reset { pattern: "absent".into() });
    let Err(Error::Fault(Fault { reason: Reason::Refused, message })) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(message, r#"no interface matches "absent""#);
}

#[test]
fn the_status_has_all_parts_and_the_counts_of_the_socket() {
    let setup = setup(echo);
    let answer = setup.client().status().unwrap();
    assert_eq!(answer.status["node"], "node-1");
    assert_eq!(answer.status["interfaces"][0]["ingress"]["hook"], "tcx");
    assert_eq!(answer.status["enrichment"]["pods"], 3);
    assert_eq!(answer.status["ledger"]["balanced"], true);
    assert_eq!(answer.status["control"]["connections"], 1);
    assert!(answer.ledger_text.starts_with("ledger of node-1"), "{}", answer.ledger_text);
}

#[test]
fn malformed_requests_get_one_clear_line_and_are_counted() {
    let setup = setup(echo);
    let long = vec![b'x'; MAX_REQUEST];
    let long_line = [&long[..], b"\n"].concat();
    for (bytes, reason) in [
        (&b"hello\n"[..], "malformed"),
        (b"\n", "malformed"),
        (b"\xff\xfe\n", "malformed"),
        (
            br#"{"version":7,"call":"status"}
"#,
            "version",
        ),
        (&long, "too_long"),
        (&long_line, "too_long"),
    ] {
        let answer = setup.raw(bytes);
        assert_eq!(answer["error"]["reason"], reason, "{answer}");
    }
    let mut half = setup.connect();
    half.write_all(br#"{"version":1,"#).unwrap();
    half.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(answer(&mut half)["error"]["reason"], "malformed");
    assert_eq!(setup.counts().malformed, 7);
    assert_eq!(setup.counts().requests, 0);
    // And it serves on.
    assert!(setup.client().status().is_ok());
}

#[test]
fn a_client_that_sends_single_bytes_is_disconnected_at_the_deadline_of_the_request() {
    let setup = setup(echo);
    let mut slow = setup.connect();
    let mut watch = slow.try_clone().unwrap();
    let began = Instant::now();
    let request = br#"{"version":1,"call":"status"}"#;
    let writer = thread::spawn(move || {
        // Many single bytes in the time: each would move a deadline of the next byte.
        for byte in request.iter().cycle() {
            if slow.write_all(&[*byte]).is_err() {
                return;
            }
            thread::park_timeout(REQUEST_TIMEOUT / 10);
        }
    });
    let fault = answer(&mut watch);
    assert_eq!(fault["error"]["reason"], "timed_out", "{fault}");
    let took = began.elapsed();
    assert!(took >= REQUEST_TIMEOUT && took < REQUEST_TIMEOUT * 10, "{took:?}");
    writer.join().unwrap();
    assert_eq!(setup.counts().timed_out, 1);
}

#[test]
fn beyond_the_limit_the_oldest_idle_connection_is_closed_and_requests_are_answered() {
    let setup = setup(echo);
    let mut idle: Vec<UnixStream> = (0..40).map(|_| setup.connect()).collect();
    // One more than a user may have, with a request.
    assert!(setup.client().status().is_ok());
    let mut late = idle.split_off(25);
    for stream in &mut idle {
        assert_eq!(answer(stream)["error"]["reason"], "busy");
    }
    for stream in &mut late {
        assert_eq!(answer(stream)["error"]["reason"], "timed_out");
    }
    let counts = setup.counts();
    assert_eq!((counts.busy, counts.timed_out), (25, 15));
}

#[test]
fn liveness_is_answered_without_the_run_loop() {
    // The run loop does not take requests.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let (requests, _unasked) = mpsc::channel(QUEUED);
    let server = start(&config(&path), requests, Tails::default());
    let live = Client::new(&path).live().unwrap();
    assert!(!live.ok);
    assert!(live.reasons[0].starts_with("worker 0 has not been at its ring"), "{live:?}");
    server.stop();
}

#[test]
fn an_unread_answer_is_given_up() {
    // More than a socket's buffers hold.
    let setup = setup(|request| {
        if let Request::Status { answer } = request {
            let _ = answer.send(Status {
                interfaces: (0..20_000).map(|_| interface("eth0")).collect(),
                ..status()
            });
        }
    });
    let mut deaf = setup.connect();
    deaf.write_all(b"{\"version\":1,\"call\":\"status\"}\n").unwrap();
    until(|| setup.counts().unread == 1);
    // A client gets all that it reads, however much that is.
    assert_eq!(setup.client().status().unwrap().status["interfaces"][19_999]["name"], "eth0");
}

/// Waits for what other threads do.
fn until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain");
        thread::park_timeout(Duration::from_millis(2));
    }
}

#[test]
fn requests_end_with_the_run_loop() {
    // The answer's channel is dropped.
    let setup = setup(drop);
    let refused = setup.client().status();
    let Err(Error::Fault(Fault { reason: Reason::NoAnswer, .. })) = refused else {
        panic!("{refused:?}");
    };
}

#[test]
fn followers_see_records_and_the_end() {
    let mut setup = setup(echo);
    let mut feed = Feed::new(setup.tails.clone()).unwrap();
    let mut following = setup.client().tail(LineFormat::Text, Selection::default(), None).unwrap();
    assert_eq!(following.heading, Text::new(TextOptions::default()).heading());
    feed.refresh();
    samples::with_record("matched", |record| feed.push(record, None));
    feed.deliver();
    let mut line = Vec::new();
    assert!(matches!(following.next(&mut line), Ok(Item::Line)));
    assert!(String::from_utf8_lossy(&line).contains("www.example.test"));
    // The last line still arrives.
    samples::with_record("unanswered", |record| feed.push(record, None));
    feed.deliver();
    setup.server = None;
    assert!(matches!(following.next(&mut line), Ok(Item::Line)));
    assert!(String::from_utf8_lossy(&line).contains("UNANSWERED"));
    assert!(matches!(following.next(&mut line), Ok(Item::End(_))));
    assert!(!setup.path.exists());
    assert!(matches!(setup.client().status(), Err(Error::Unreachable { .. })));
}

#[test]
fn a_stalled_follower_gets_the_number_of_lost_lines_and_a_disconnected_one_is_removed() {
    let setup = setup(echo);
    let mut feed = Feed::new(setup.tails.clone()).unwrap();
    let mut following = setup.client().tail(LineFormat::Json, Selection::default(), None).unwrap();
    feed.refresh();
    // Far more than queue and socket buffers hold; nothing here waits for the reader.
    const PUSHED: u64 = 4_000;
    for _ in 0..PUSHED {
        samples::with_record("matched", |record| feed.push(record, None));
        feed.deliver();
    }
    let (mut seen, mut lost, mut line) = (0, 0, Vec::new());
    while seen + lost < PUSHED {
        match following.next(&mut line).unwrap() {
            Item::Line => seen += 1,
            Item::Lost(lines) => lost += lines,
            Item::Past(..) => panic!("no past was requested"),
            Item::Warning(why) | Item::End(why) | Item::Displaced(why) => panic!("{why}"),
        }
    }
    assert!(lost > 0 && seen > 0, "{seen} seen, {lost} lost");
    assert_eq!(seen + lost, PUSHED);
    assert_eq!(setup.tails.lines_lost(), lost);
    drop(following);
    until(|| setup.tails.followers() == 0);
}

#[test]
fn a_displaced_follower_gets_the_reason() {
    let setup = setup(echo);
    let tail = || setup.client().tail(LineFormat::Json, Selection::default(), None).unwrap();
    let (mut oldest, mut line) = (tail(), Vec::new());
    let newer: Vec<_> = (0..crate::tail::FOLLOWERS).map(|_| tail()).collect();
    let Ok(Item::Displaced(reason)) = oldest.next(&mut line) else { panic!("not displaced") };
    assert_eq!(reason, "ended: a newer follower took this place, of which there are 8");
    assert_eq!(setup.tails.followers(), newer.len());
    // Followers leave the commands their connections.
    assert!(setup.client().status().is_ok());
}

/// The command of a terminal that is gone reads nothing, and the socket's buffers are full.
#[test]
fn a_displaced_follower_that_reads_nothing_is_disconnected() {
    let setup = setup(echo);
    let mut feed = Feed::new(setup.tails.clone()).unwrap();
    let mut stuck = setup.client().tail(LineFormat::Json, Selection::default(), None).unwrap();
    feed.refresh();
    for _ in 0..4_000 {
        samples::with_record("matched", |record| feed.push(record, None));
        feed.deliver();
    }
    let newer: Vec<_> = (0..crate::tail::FOLLOWERS)
        .map(|_| setup.client().tail(LineFormat::Json, Selection::default(), None).unwrap())
        .collect();
    assert_eq!(setup.tails.followers(), newer.len());
    // The server is not kept by it.
    let mut line = Vec::new();
    let end = loop {
        match stuck.next(&mut line) {
            Ok(Item::Line | Item::Lost(_)) => {}
            end => break end,
        }
    };
    assert!(matches!(end, Ok(Item::Displaced(_)) | Err(Error::Disconnected { .. })));
}

#[test]
fn a_refused_follower_gets_the_reason() {
    let setup = setup(echo);
    let tail = |selection| setup.client().tail(LineFormat::Json, selection, None);
    let wrong = Selection { qnames: vec!["a..b".to_owned()], ..Selection::default() };
    assert!(matches!(tail(wrong).err(), Some(Error::Fault(Fault { reason: Reason::Refused, .. }))));
}

#[test]
fn a_follower_at_an_unknown_interface_is_refused_with_the_known_ones() {
    let setup = setup(echo);
    let at = |name: &str| {
        let interfaces = vec![name.to_owned()];
        let selection = Selection { interfaces, ..Selection::default() };
        setup.client().tail(LineFormat::Row, selection, None).map(drop)
    };
    assert!(at("eth*").is_ok());
    let Err(Error::Fault(Fault { reason: Reason::Refused, message })) = at("eth9") else {
        panic!("not refused");
    };
    assert_eq!(message, "no interface matches \"eth9\": there are eth0");
}

#[test]
fn the_past_is_refused_if_no_records_are_kept() {
    let setup = setup(echo);
    let past = Some(PastRequest { last: Some(1), since_ms: None });
    let refused = setup.client().tail(LineFormat::Row, Selection::default(), past).map(drop);
    let Err(Error::Fault(Fault { reason: Reason::Refused, message })) = refused else {
        panic!("{refused:?}");
    };
    assert!(message.contains("control.recent_bytes is 0"), "{message}");
}

#[test]
fn a_follower_of_another_version_is_told_so() {
    let setup = setup(echo);
    let fault = &setup.raw(b"{\"version\":1,\"call\":{\"tail\":{\"format\":\"xml\"}}}\n")["error"];
    assert_eq!(fault["reason"], "malformed");
    let message = fault["message"].as_str().unwrap();
    assert!(message.contains("`xml`") && message.contains("`row`"), "{message}");
}

#[test]
fn an_agent_opens_the_socket_after_the_other_agent_has_ended() {
    let first = setup(echo);
    let (requests, mut asked) = mpsc::channel(QUEUED);
    thread::spawn(move || {
        while let Some(request) = asked.blocking_recv() {
            if let Request::Status { answer } = request {
                let _ = answer.send(Status { node: "second".to_owned(), ..status() });
            }
        }
    });
    let second = start(&config(&first.path), requests, Tails::default());
    assert_eq!(first.client().status().unwrap().status["node"], "node-1");
    let Setup { server, path, _directory, .. } = first;
    drop(server);
    let client = Client::new(&path);
    until(|| client.status().is_ok_and(|answer| answer.status["node"] == "second"));
    second.stop();
    assert!(!path.exists());
}

#[test]
fn a_disabled_socket_does_not_exist() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let mut config = config(&path);
    config.enabled = false;
    let (requests, _asked) = mpsc::channel(QUEUED);
    let server = start(&config, requests, Tails::default());
    assert!(!path.exists());
    let error = Client::new(&path).status().unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "no agent answers at {}: is it running? (No such file or directory)",
            path.display()
        )
    );
    server.stop();
}

#[test]
fn bytes_after_a_request_are_ignored() {
    let setup = setup(echo);
    let mut stream = setup.connect();
    stream.write_all(b"{\"version\":1,\"call\":\"status\"}\n{\"version\":1,").unwrap();
    assert_eq!(answer(&mut stream)["ok"]["version"], json!("1.2.3"));
    let mut rest = Vec::new();
    // Closed: one request a connection.
    let _ = stream.read_to_end(&mut rest);
    assert_eq!(setup.counts().requests, 1);
}
