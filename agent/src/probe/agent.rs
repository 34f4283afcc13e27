//! The agent that must see a probe, by its control socket or by its telemetry port.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};

use crate::{
    control::client::{Client, Item},
    tail::{LineFormat, Selection},
    telemetry::confirmation::Line,
};

/// Deadline for the agent to begin its answer at the telemetry port.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// Maximum size of a line at the telemetry port in bytes: some thousands of interfaces.
const MAX_LINE: usize = 256 << 10;

/// Maximum size of an error's text that is shown, in bytes.
const MAX_REASON: usize = 512;

/// The address of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agent {
    /// At its control socket, which shows the whole record.
    Socket(PathBuf),
    /// At its telemetry port, which shows no address and no owner.
    Telemetry(SocketAddr),
}

/// An agent that looks for the record of a name.
pub(super) struct Following {
    /// Names of the interfaces from which it captures.
    pub(super) capturing: Vec<String>,
    /// The record, or why there will be none.
    pub(super) records: mpsc::Receiver<Result<Value, String>>,
}

impl Agent {
    /// Lets the agent look for the record of `name`; it does so when this returns.
    ///
    /// # Errors
    /// When no agent answers, or it refuses.
    pub(super) fn follow(&self, name: &str) -> anyhow::Result<Following> {
        match self {
            Self::Socket(path) => at_socket(&Client::new(path), name),
            Self::Telemetry(address) => at_port(*address, name)
                .with_context(|| format!("cannot follow the probe at http://{address}/probe")),
        }
    }
}

fn at_socket(client: &Client, name: &str) -> anyhow::Result<Following> {
    let capturing = capturing_names(&client.status()?.status);
    let selection = Selection { qnames: vec![name.to_owned()], ..Selection::default() };
    let mut following = client.tail(LineFormat::Json, selection, None)?;
    let (found, records) = mpsc::channel();
    // Ends with this process: the wait for a line has no deadline of its own.
    thread::Builder::new().name("follower".to_owned()).spawn(move || {
        let mut line = Vec::new();
        loop {
            let record = match following.next(&mut line) {
                Ok(Item::Line) => serde_json::from_slice(&line).map_err(|error| error.to_string()),
                Ok(Item::Lost(_) | Item::Past(..) | Item::Warning(_)) => continue,
                Ok(Item::End(reason) | Item::Displaced(reason)) => Err(reason),
                Err(error) => Err(error.to_string()),
            };
            let is_end = record.is_err();
            if found.send(record).is_err() || is_end {
                return;
            }
        }
    })?;
    Ok(Following { capturing, records })
}

fn capturing_names(status: &Value) -> Vec<String> {
    let interfaces = status["interfaces"].as_array().into_iter().flatten();
    let captures = |interface: &&Value| {
        ["ingress", "egress"].iter().any(|side| interface[side]["capturing"] == true)
    };
    let names = interfaces.filter(captures).filter_map(|interface| interface["name"].as_str());
    names.map(str::to_owned).collect()
}

fn at_port(address: SocketAddr, name: &str) -> anyhow::Result<Following> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let opening = async {
        let mut lines = Lines::request(address, name).await?;
        match lines.next().await? {
            Some(Line::Following { capturing }) => Ok((capturing, lines)),
            other => bail!("the agent began with {other:?}"),
        }
    };
    let opened_at = Instant::now();
    let opened = runtime.block_on(async { timeout(ANSWER_DEADLINE, opening).await });
    let (capturing, mut lines) = opened
        .map_err(|_| anyhow::anyhow!("no answer within {ANSWER_DEADLINE:?}"))
        .and_then(|opened| opened)?;
    let (found, records) = mpsc::channel();
    // Ends with this process.
    thread::Builder::new().name("follower".to_owned()).spawn(move || {
        let outcome = runtime.block_on(outcome(&mut lines, opened_at));
        // Fails if the probe has given up, which needs no record.
        let _ = found.send(outcome.map_err(|error| format!("{error:#}")));
    })?;
    Ok(Following { capturing, records })
}

async fn outcome(lines: &mut Lines, opened_at: Instant) -> anyhow::Result<Value> {
    match lines.next().await? {
        Some(Line::Recorded(recorded)) => Ok(recorded.into_value()?),
        Some(Line::Lost) => bail!("the agent had more records of probes than it could show"),
        Some(Line::Following { .. }) => bail!("the agent began twice"),
        None => bail!(
            "the agent closed the connection after {:.1} s: it is stopping, or the record was not \
             there in time",
            opened_at.elapsed().as_secs_f64()
        ),
    }
}

/// The lines of an answer.
struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    async fn request(address: SocketAddr, name: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.context(
            "cannot connect (does an agent run there, with `telemetry.listen` at this address?)",
        )?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the answer, whose error says what failed.
        tokio::spawn(connection);
        let request = Request::get(format!("/probe?name={name}"))
            .header(header::HOST, address.to_string())
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let mut lines = Self { body: response.into_body(), buffer: Vec::new() };
        if status != StatusCode::OK {
            bail!("the agent answers {status}: {}", lines.reason().await);
        }
        Ok(lines)
    }

    /// Returns the next line; `None` at the end.
    async fn next(&mut self) -> anyhow::Result<Option<Line>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(Some(Line::read(&line).context("is this an agent's port?")?));
            }
            if self.buffer.len() > MAX_LINE || !self.read().await? {
                return Ok(None);
            }
        }
    }

    /// Returns false at the end.
    async fn read(&mut self) -> anyhow::Result<bool> {
        match self.body.frame().await {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.buffer.extend_from_slice(data);
                }
                Ok(true)
            }
            // The agent ends a connection in the middle of the answer if that has taken too long.
            Some(Err(error)) if error.is_incomplete_message() || error.is_body_write_aborted() => {
                Ok(false)
            }
            Some(Err(error)) => Err(error.into()),
            None => Ok(false),
        }
    }

    /// Returns the text of an error.
    async fn reason(&mut self) -> String {
        while self.buffer.len() < MAX_REASON && matches!(self.read().await, Ok(true)) {}
        self.buffer.truncate(MAX_REASON);
        let text = String::from_utf8_lossy(&self.buffer);
        tap53_base::visible::visible(text.trim()).to_string()
    }
}
