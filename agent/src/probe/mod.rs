//! Sends a query of its own, and follows it through a running agent (`tap53 probe`).
//!
//! ```text
//!  query ─▶ resolver ─▶ response        hickory-proto builds the one and reads the other
//!    │ passes an interface │
//!    └─▶ agent ─▶ record ─▶ follower    must say what was sent and received
//! ```
//!
//! The name is drawn at random, so that a record of it can be of no other query. The follower is there
//! before the query is sent.

mod query;

use std::{
    fmt,
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns};
use serde::Serialize;
use serde_json::Value;

use crate::{
    control::client::{Client, Item},
    pipeline::random_bytes,
    tail::{LineFormat, Selection},
    verdict::Verdict,
};
pub use query::Transport;
use query::{Exchanged, exchange};

/// Below which name a probe asks, unless told otherwise: one that exists nowhere (RFC 6761 §6.4).
pub const SUFFIX: &str = "tap53-probe.invalid";

/// Longest wait for the response, and then for the record, unless another one is given.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A probe to be made.
#[derive(Clone, Debug)]
pub struct Config {
    /// Control socket of the agent.
    pub socket: PathBuf,
    /// Resolver.
    pub server: SocketAddr,
    /// Transport of the query.
    pub transport: Transport,
    /// Name below which the query asks.
    pub suffix: String,
    /// Network namespace from which the query is sent; `None`: that of this process.
    pub namespace: Option<PathBuf>,
    /// Longest wait for the response, and then for the record.
    pub timeout: Duration,
}

impl Config {
    /// Returns the usual probe of an agent through a resolver: a query over UDP from this network
    /// namespace.
    #[must_use]
    pub fn new(socket: PathBuf, server: SocketAddr) -> Self {
        Self {
            socket,
            server,
            transport: Transport::Udp,
            suffix: SUFFIX.to_owned(),
            namespace: None,
            timeout: TIMEOUT,
        }
    }
}

/// A stage of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stage {
    /// Its name.
    pub stage: &'static str,
    /// Its result.
    pub verdict: Verdict,
    /// Observation, for people.
    pub text: String,
    /// Microseconds since the query was sent; `None` where nothing came.
    pub after_us: Option<u64>,
}

/// Result of a probe.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The name that was asked for.
    pub name: String,
    /// The worst of the stages.
    pub verdict: Verdict,
    /// The stages, in the order of the query's way.
    pub stages: Vec<Stage>,
    /// The record, as JSON.
    pub record: Option<Value>,
}

impl Report {
    fn new(name: String) -> Self {
        Self { name, verdict: Verdict::Ok, stages: Vec::new(), record: None }
    }

    fn push(
        &mut self,
        stage: &'static str,
        verdict: Verdict,
        text: String,
        after: Option<Duration>,
    ) {
        let after_us = after.map(|after| u64::try_from(after.as_micros()).unwrap_or(u64::MAX));
        self.verdict = self.verdict.max(verdict);
        self.stages.push(Stage { stage, verdict, text, after_us });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Stage { stage, verdict, text, after_us } in &self.stages {
            write!(f, "{verdict:5} {stage:9} {text}")?;
            if let Some(us) = after_us {
                // In milliseconds, with three digits after the point.
                write!(f, " (after {}.{:03} ms)", us / 1_000, us % 1_000)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Makes a probe.
///
/// # Errors
/// When no agent answers, the query cannot be sent, or the namespace cannot be entered. A resolver
/// that does not answer and a record that does not come are no errors, but stages that fail.
pub fn probe(config: &Config) -> anyhow::Result<Report> {
    let name = format!("{}.{}", random_label(), config.suffix);
    let mut report = Report::new(name.clone());
    let client = Client::new(&config.socket);
    let status = client.status()?.status;
    let records = follow(&client, &name)?;
    report.push("agent", Verdict::Ok, capturing(&status), None);

    let sent_at = Instant::now();
    let exchanged = in_namespace(config.namespace.as_deref(), || {
        exchange(config.server, config.transport, &name, config.timeout)
    })?;
    push_response(&mut report, config, &exchanged);

    match records.recv_timeout(config.timeout) {
        Ok(Ok(record)) => {
            push_record(&mut report, &exchanged, &record, sent_at.elapsed());
            report.record = Some(record);
        }
        Ok(Err(reason)) => report.push("captured", Verdict::Fail, reason, None),
        Err(_) => {
            let text = missing(&status, &exchanged, config.timeout);
            report.push("captured", Verdict::Fail, text, None);
        }
    }
    Ok(report)
}

/// 64 random bits as a label.
fn random_label() -> String {
    data_encoding::HEXLOWER.encode(&random_bytes())
}

/// Receives the record of a name, or why there will be none.
fn follow(client: &Client, name: &str) -> anyhow::Result<mpsc::Receiver<Result<Value, String>>> {
    let selection = Selection { qnames: vec![name.to_owned()], ..Selection::default() };
    let mut following = client.tail(LineFormat::Json, selection, None)?;
    let (found, records) = mpsc::channel();
    // Ends with this process: the wait for a line has no deadline of its own.
    thread::Builder::new().name("follower".to_owned()).spawn(move || {
        let mut line = Vec::new();
        loop {
            let record = match following.next(&mut line) {
                Ok(Item::Line) => serde_json::from_slice(&line).map_err(|error| error.to_string()),
                Ok(Item::Lost(_) | Item::Past(..)) => continue,
                Ok(Item::End(reason)) => Err(reason),
                Err(error) => Err(error.to_string()),
            };
            let is_end = record.is_err();
            if found.send(record).is_err() || is_end {
                return;
            }
        }
    })?;
    Ok(records)
}

/// Calls `work` on a thread in a network namespace.
fn in_namespace<T: Send>(
    namespace: Option<&Path>,
    work: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    let Some(path) = namespace else { return work() };
    let file = File::open(path)
        .map_err(|error| anyhow::anyhow!("cannot open {}: {error}", path.display()))?;
    thread::scope(|scope| {
        let entered = scope.spawn(|| {
            setns(&file, CloneFlags::CLONE_NEWNET).map_err(|error| {
                anyhow::anyhow!("cannot enter the network namespace {}: {error}", path.display())
            })?;
            work()
        });
        entered.join().unwrap_or_else(|_| anyhow::bail!("the thread of the query panicked"))
    })
}

fn capturing_names(status: &Value) -> Vec<&str> {
    let interfaces = status["interfaces"].as_array().into_iter().flatten();
    let captures = |interface: &&Value| {
        ["ingress", "egress"].iter().any(|side| interface[side]["capturing"] == true)
    };
    interfaces.filter(captures).filter_map(|interface| interface["name"].as_str()).collect()
}

fn capturing(status: &Value) -> String {
    let names = capturing_names(status);
    if names.is_empty() {
        return "answers, and captures from no interface".to_owned();
    }
    format!("captures from {}", names.join(", "))
}

fn push_response(report: &mut Report, config: &Config, exchanged: &Exchanged) {
    let server = config.server;
    match &exchanged.response {
        Some(response) => {
            let text = format!("{} from {server}", response.rcode);
            report.push("resolver", Verdict::Ok, text, Some(response.after));
        }
        None => {
            let text = format!("{server} did not answer within {:?}", config.timeout);
            report.push("resolver", Verdict::Warn, text, None);
        }
    }
}

/// Compares the record with what was sent and received.
fn push_record(report: &mut Report, exchanged: &Exchanged, record: &Value, after: Duration) {
    let interface = record["interface"].as_str().unwrap_or("?");
    let direction = record["direction"].as_str().unwrap_or("?").to_lowercase();
    let outcome = record["outcome"].as_str().unwrap_or("?");
    let text = format!("{outcome} at {interface} ({direction})");
    report.push("captured", Verdict::Ok, text, Some(after));

    let mut expected = vec![
        ("dns_id", Value::from(exchanged.id)),
        ("qname", report.name.clone().into()),
        ("qtype", "A".into()),
        ("transport", exchanged.transport.name().into()),
    ];
    let rcode = exchanged.response.as_ref().map(|response| response.rcode.as_str());
    expected.push(("rcode", rcode.into()));
    let wrong: Vec<String> = expected
        .iter()
        .filter(|(field, value)| record[*field] != *value)
        .map(|(field, value)| format!("{field} is {}, not {value}", record[*field]))
        .collect();
    let (verdict, text) = match (wrong.is_empty(), exchanged.response.is_some()) {
        (true, _) => (Verdict::Ok, "says what was sent and received".to_owned()),
        (false, true) => (Verdict::Fail, wrong.join("; ")),
        // A response that came after the deadline is in the record all the same.
        (false, false) => (Verdict::Warn, wrong.join("; ")),
    };
    report.push("record", verdict, text, None);

    // Port and address are the client's own, unless something on the way changed them.
    let port_kept = record["client_port"] == exchanged.local.port();
    let address = exchanged.local.ip().to_string();
    let address_kept = record["client_address"] == *address;
    if !(port_kept && address_kept) {
        let text = format!(
            "sent as {}, recorded as {} port {}: NAT before the interface, or a privacy rule",
            exchanged.local,
            record["client_address"].as_str().unwrap_or("?"),
            record["client_port"]
        );
        report.push("client", Verdict::Warn, text, None);
    }
    let owner = ["client_pod_namespace", "client_pod_name", "client_container_id"]
        .iter()
        .filter_map(|field| record[*field].as_str())
        .collect::<Vec<_>>();
    if !owner.is_empty() {
        report.push("client", Verdict::Ok, format!("named {}", owner.join(" ")), None);
    }
}

/// Describes the likely reason for a missing record.
fn missing(status: &Value, exchanged: &Exchanged, timeout: Duration) -> String {
    let mut text = format!("no record within {timeout:?}");
    let names = capturing_names(status);
    match &exchanged.interface {
        _ if names.is_empty() => text.push_str(": the agent captures from no interface"),
        Some(interface) if !names.contains(&interface.as_str()) => {
            text.push_str(&format!(
                ": the query left by {interface}, and the agent captures from {}",
                names.join(", ")
            ));
        }
        _ => text.push_str(
            ": look for a filter (filter, sampling) in the configuration, for the port in \
             capture.ports, and at the losses in `tap53 status`",
        ),
    }
    text
}
