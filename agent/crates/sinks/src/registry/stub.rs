//! A stub of a registry, which gives the answers of a test, for failures that a real one does not have
//! on demand. The integration tests have a real one.

#![allow(clippy::unwrap_used, reason = "a stub that cannot listen fails its test")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// A request that the stub received.
#[derive(Clone, Debug)]
pub struct StubRequest {
    /// Without the method, which is always POST.
    pub path: String,
    /// The `authorization` header; empty without one.
    pub authorization: String,
    /// The schema in its body.
    pub schema: String,
}

/// An answer of the stub.
pub enum Answer {
    /// A status and JSON.
    Json(u16, String),
    /// These bytes.
    Raw(Vec<u8>),
    /// Nothing, until the client disconnects.
    Silence,
}

type Answers = Box<dyn FnMut(&StubRequest) -> Answer + Send>;

/// A listener on loopback; it ends with the test's process.
#[derive(Clone)]
pub struct Stub {
    url: String,
    answers: Arc<Mutex<Answers>>,
    seen: Arc<Mutex<Vec<StubRequest>>>,
}

impl Stub {
    /// Listens, and answers each request with `answer`.
    pub fn new(answer: impl FnMut(&StubRequest) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stub = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            answers: Arc::new(Mutex::new(Box::new(answer))),
            seen: Arc::default(),
        };
        let serving = stub.clone();
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let stub = serving.clone();
                thread::spawn(move || stub.serve(connection));
            }
        });
        stub
    }

    /// Answers with [`ids_from`].
    pub fn registry(first: u32) -> Self {
        Self::new(ids_from(first))
    }

    /// Returns its URL.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Answers differently from now on.
    pub fn answer_by(&self, answer: impl FnMut(&StubRequest) -> Answer + Send + 'static) {
        *lock(&self.answers) = Box::new(answer);
    }

    /// Requests so far.
    pub fn seen(&self) -> Vec<StubRequest> {
        lock(&self.seen).clone()
    }

    /// Paths of the requests so far.
    pub fn paths(&self) -> Vec<String> {
        self.seen().into_iter().map(|asked| asked.path).collect()
    }

    fn serve(&self, mut connection: TcpStream) -> Option<()> {
        connection.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        let mut reader = BufReader::new(connection.try_clone().ok()?);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let path = line.split(' ').nth(1)?.to_owned();
        let (mut length, mut authorization) = (0, String::new());
        loop {
            line.clear();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            match &*name.to_ascii_lowercase() {
                "content-length" => length = value.trim().parse().ok()?,
                "authorization" => authorization = value.trim().to_owned(),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let body: serde_json::Value = serde_json::from_slice(&body).ok()?;
        let asked =
            StubRequest { path, authorization, schema: body["schema"].as_str()?.to_owned() };
        lock(&self.seen).push(asked.clone());
        let answer = lock(&self.answers)(&asked);
        match answer {
            Answer::Json(status, body) => connection
                .write_all(
                    format!(
                        "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\nconnection: \
                         close\r\ncontent-length: {}\r\n\r\n{body}",
                        body.len()
                    )
                    .as_bytes(),
                )
                .ok(),
            Answer::Raw(bytes) => connection.write_all(&bytes).ok(),
            Answer::Silence => reader.read_to_end(&mut Vec::new()).ok().map(|_| ()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The answer of a registry without this schema.
pub fn not_found() -> Answer {
    Answer::Json(404, "{\"error_code\": 40403, \"message\": \"Schema not found\"}".to_owned())
}

/// Gives each schema an id, from `first` on, once it is registered.
pub fn ids_from(first: u32) -> impl FnMut(&StubRequest) -> Answer + Send {
    let mut registered: Vec<String> = Vec::new();
    move |asked| {
        let found = registered.iter().position(|schema| *schema == asked.schema);
        let index = match found {
            Some(index) => index,
            None if asked.path.ends_with("/versions") => {
                registered.push(asked.schema.clone());
                registered.len() - 1
            }
            None if asked.path.starts_with("/compatibility") => {
                return Answer::Json(200, "{\"is_compatible\": true}".to_owned());
            }
            None => return not_found(),
        };
        let id = first + u32::try_from(index).unwrap();
        Answer::Json(200, format!("{{\"id\": {id}}}"))
    }
}
