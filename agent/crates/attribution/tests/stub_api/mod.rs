//! A stub of an API server, for faults that a real one cannot be made to show: half an event, a
//! stream that goes silent, a 410 in the middle of one. It stores no objects; each response is
//! scripted. The integration tests run against a real API server.

// Two test programs share it, and neither uses all of it.
#![allow(dead_code, missing_docs, reason = "part of tests")]
#![allow(clippy::unwrap_used, reason = "part of tests: what fails here fails the test")]

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

/// Parts of a response, sent one after the other.
pub(crate) enum Part {
    /// Status line and headers; the parts after it are sent as chunks.
    Head(u16, Vec<(&'static str, String)>),
    /// A chunk of the body.
    Chunk(Vec<u8>),
    /// Keeps the connection open and silent until the stub ends.
    Silence,
    /// Closes the connection in the middle of the body.
    Cut,
}

/// A received request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) at: Instant,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) authorization: String,
    /// Number of earlier requests for the same resource and verb.
    pub(crate) number: usize,
}

impl Request {
    /// `pods`, `services`, `nodes`, `jobs`; `server_pods` for the pods of one namespace.
    pub(crate) fn resource(&self) -> &str {
        let path = self.target.split('?').next().unwrap();
        if path.ends_with("/namespaces/kube-system/pods") {
            return "server_pods";
        }
        let known = ["pods", "services", "nodes", "jobs"];
        known.into_iter().find(|name| path.split('/').any(|part| part == *name)).unwrap_or("")
    }

    pub(crate) fn is_watch(&self) -> bool {
        self.parameter("watch").is_some()
    }

    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find_map(|(key, value)| (key == name).then_some(value))
    }
}

type Script = dyn Fn(&Request) -> Vec<Part> + Send + Sync;

struct Inside {
    script: Box<Script>,
    requests: Mutex<Vec<Request>>,
    asked: Condvar,
    ended: Mutex<bool>,
    end: Condvar,
}

/// The stub. Dropping it ends its silent connections.
pub(crate) struct Stub {
    address: SocketAddr,
    inside: Arc<Inside>,
    directory: tempfile::TempDir,
}

impl Stub {
    pub(crate) fn start(script: impl Fn(&Request) -> Vec<Part> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let inside = Arc::new(Inside {
            script: Box::new(script),
            requests: Mutex::default(),
            asked: Condvar::new(),
            ended: Mutex::new(false),
            end: Condvar::new(),
        });
        let shared = inside.clone();
        thread::spawn(move || {
            for connection in listener.incoming() {
                let (Ok(connection), shared) = (connection, shared.clone()) else { break };
                if *shared.ended.lock().unwrap() {
                    break;
                }
                // A client that disconnects ends it; that is no failure.
                thread::spawn(move || shared.serve(&connection));
            }
        });
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("token"), "first").unwrap();
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: it\n\
             clusters: [{{name: it, cluster: {{server: 'http://{address}'}}}}]\n\
             users: [{{name: it, user: {{tokenFile: {}}}}}]\n\
             contexts: [{{name: it, context: {{cluster: it, user: it}}}}]\n",
            directory.path().join("token").display()
        );
        std::fs::write(directory.path().join("kubeconfig"), kubeconfig).unwrap();
        Self { address, inside, directory }
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    pub(crate) fn set_token(&self, token: &str) {
        std::fs::write(self.directory.path().join("token"), token).unwrap();
    }

    /// Returns the requests for the resource so far.
    pub(crate) fn requests(&self, resource: &str, watch: bool) -> Vec<Request> {
        let requests = self.inside.requests.lock().unwrap();
        let wanted = |it: &&Request| it.resource() == resource && it.is_watch() == watch;
        requests.iter().filter(wanted).cloned().collect()
    }

    /// Waits until `count` requests have arrived.
    pub(crate) fn wait_for(&self, resource: &str, watch: bool, count: usize) -> Vec<Request> {
        let wanted = |it: &&Request| it.resource() == resource && it.is_watch() == watch;
        let requests = self.inside.requests.lock().unwrap();
        let few = |all: &mut Vec<Request>| all.iter().filter(wanted).count() < count;
        let deadline = Duration::from_secs(60);
        let waited = self.inside.asked.wait_timeout_while(requests, deadline, few).unwrap();
        assert!(!waited.1.timed_out(), "{count} requests for {resource} did not come");
        waited.0.iter().filter(wanted).cloned().collect()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        *self.inside.ended.lock().unwrap() = true;
        self.inside.end.notify_all();
        // Wake up the listening thread.
        drop(TcpStream::connect(self.address));
    }
}

impl Inside {
    fn serve(&self, mut connection: &TcpStream) {
        let mut lines = BufReader::new(connection);
        loop {
            let mut line = String::new();
            if lines.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let target = line.split(' ').nth(1).unwrap().to_owned();
            let mut authorization = String::new();
            loop {
                line.clear();
                if lines.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
                let Some((name, value)) = line.trim().split_once(':') else { break };
                if name.eq_ignore_ascii_case("authorization") {
                    value.trim().clone_into(&mut authorization);
                }
            }
            let mut request = Request { at: Instant::now(), target, authorization, number: 0 };
            let parts = {
                let mut requests = self.requests.lock().unwrap();
                let same = |it: &&Request| {
                    it.resource() == request.resource() && it.is_watch() == request.is_watch()
                };
                request.number = requests.iter().filter(same).count();
                requests.push(request.clone());
                self.asked.notify_all();
                drop(requests);
                (self.script)(&request)
            };
            for part in parts {
                let bytes = match part {
                    Part::Head(status, headers) => {
                        let mut head = format!("HTTP/1.1 {status} Stub\r\n");
                        for (name, value) in headers {
                            let _ = write!(head, "{name}: {value}\r\n");
                        }
                        head.push_str("transfer-encoding: chunked\r\n\r\n");
                        head.into_bytes()
                    }
                    Part::Chunk(bytes) => {
                        [format!("{:x}\r\n", bytes.len()).as_bytes(), &bytes, b"\r\n"].concat()
                    }
                    Part::Silence => {
                        let ended = self.ended.lock().unwrap();
                        drop(self.end.wait_while(ended, |ended| !*ended).unwrap());
                        return;
                    }
                    Part::Cut => return,
                };
                if connection.write_all(&bytes).is_err() {
                    return;
                }
            }
            if connection.write_all(b"0\r\n\r\n").is_err() {
                return;
            }
        }
    }
}

/// A complete response.
pub(crate) fn answer(status: u16, body: &str) -> Vec<Part> {
    vec![Part::Head(status, Vec::new()), Part::Chunk(body.as_bytes().to_vec())]
}

/// A complete list of objects.
pub(crate) fn list(version: u32, objects: &[String]) -> Vec<Part> {
    page(version, "", objects)
}

/// A page of a list; `next` is empty on the last one.
pub(crate) fn page(version: u32, next: &str, objects: &[String]) -> Vec<Part> {
    let items = objects.join(",");
    answer(
        200,
        &format!(
            r#"{{"kind":"List","metadata":{{"resourceVersion":"{version}","continue":"{next}"}},"items":[{items}]}}"#
        ),
    )
}

/// The start of a stream.
pub(crate) fn stream(events: &[String]) -> Vec<Part> {
    let events = events.iter().map(|event| Part::Chunk(format!("{event}\n").into_bytes()));
    std::iter::once(Part::Head(200, Vec::new())).chain(events).collect()
}

/// An event of a stream.
pub(crate) fn event(kind: &str, object: &str) -> String {
    format!(r#"{{"type":"{kind}","object":{object}}}"#)
}

/// A running pod.
pub(crate) fn pod(uid: &str, address: &str, version: u32) -> String {
    format!(
        r#"{{"metadata":{{"uid":"{uid}","name":"pod-{uid}","namespace":"test","resourceVersion":"{version}","creationTimestamp":"2026-01-01T00:00:00Z"}},"spec":{{"nodeName":"node-1"}},"status":{{"phase":"Running","podIP":"{address}","podIPs":[{{"ip":"{address}"}}],"startTime":"2026-01-01T00:00:00Z","containerStatuses":[{{"state":{{"running":{{"startedAt":"2026-01-01T00:00:01Z"}}}}}}]}}}}"#
    )
}
