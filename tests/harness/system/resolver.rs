//! An unmodified resolver under saturation: alone, captured, and reporting by itself.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::Value;

use super::{
    Plan,
    measure::{Measured, Rate, count, measure as measure_load},
    spread::Spread,
    stage::{Stage, ZONE},
    table::Table,
};
use crate::{
    account::Ledger,
    agent::Agent,
    kafka::Kafka,
    process::Process,
    scratch,
    unbound::{Extra, Unbound},
    wait,
};

const READY_DEADLINE: Duration = Duration::from_secs(20);
const IN_FLIGHT: u32 = 100;

/// The program that records transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recorder {
    Nobody,
    AvroFile,
    Kafka,
    QueryLog,
    QueryAndReplyLog,
    Dnstap,
}

impl Recorder {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Nobody, "nobody"),
        (Self::AvroFile, "tap53, Avro file"),
        (Self::Kafka, "tap53, Kafka"),
        (Self::QueryLog, "unbound's query log"),
        (Self::QueryAndReplyLog, "unbound's query and reply log"),
        (Self::Dnstap, "unbound's dnstap, to fstrm_capture"),
    ];
}

/// Zones of the resolver, as configuration of unbound: each name has three addresses.
pub(super) fn zone() -> String {
    let records: String = (1..=3)
        .map(|host| format!("  local-data: '{ZONE}. 300 IN A 203.0.113.{host}'\n"))
        .collect();
    format!("  local-zone: '{ZONE}.' redirect\n{records}")
}

/// Measures all in turn.
pub(super) fn measure(plan: &Plan) -> Result<String> {
    let stage = Stage::new(1)?;
    let kafka = Kafka::start(&stage.server)?;
    let mut runs = Recorder::ALL.map(|_| Vec::new());
    for _ in 0..plan.rounds {
        for ((recorder, _), runs) in Recorder::ALL.iter().zip(&mut runs) {
            runs.push(run(&stage, plan, &kafka, *recorder)?);
        }
    }
    let mut table = Table::new(&[
        "recorded by",
        "answered/s",
        "of nobody",
        "resolver, µs a query",
        "recorder, µs a query",
        "recorded, %",
    ]);
    for ((_, name), of_case) in Recorder::ALL.iter().zip(&runs) {
        let pairs = of_case.iter().zip(&runs[0]);
        let ratio = Spread::of(
            pairs.map(|(run, alone)| run.measured.per_second / alone.measured.per_second),
        );
        let recorder = Spread::over(of_case, |run| {
            run.measured.costs.get(1).map_or(0.0, |recorder| recorder.us)
        });
        table.row([
            (*name).to_owned(),
            format!("{:.0}", Spread::over(of_case, |run| run.measured.per_second).median),
            ratio.to_string(),
            format!("{:.1}", Spread::over(of_case, |run| run.measured.costs[0].us).median),
            format!("{:.1}", recorder.median),
            recorded(of_case),
        ]);
    }
    Ok(format!("unbound with one thread, as many queries as it answers:\n\n{}", table.finish()))
}

/// The least share of all runs, in percent.
fn recorded(runs: &[Run]) -> String {
    let shares: Option<Vec<f64>> = runs.iter().map(|run| run.share).collect();
    shares.map_or("–".to_owned(), |shares| format!("{:.1}", Spread::of(shares).min * 100.0))
}

/// The results of a run.
struct Run {
    measured: Measured,
    /// Share of the answered queries that were recorded; `None` without a recorder.
    share: Option<f64>,
}

fn run(stage: &Stage, plan: &Plan, kafka: &Kafka<'_>, recorder: Recorder) -> Result<Run> {
    let directory = scratch::directory("resolver")?;
    let tap = (recorder == Recorder::Dnstap)
        .then(|| start_reader(stage, directory.path()))
        .transpose()?;
    let unbound = start(stage, &extra(recorder, directory.path()))?;
    let agent = match recorder {
        Recorder::AvroFile => Some(start_agent(stage, TO_FILE)?),
        Recorder::Kafka => Some(start_agent(stage, &to_topic(kafka)?)?),
        _ => None,
    };
    let of_recorder = tap.as_ref().or(agent.as_ref().map(Agent::process)).map(Process::pid);
    let processes: Vec<Pid> = [unbound.pid()].into_iter().chain(of_recorder).collect();
    let rate = Rate { per_second: None, in_flight: IN_FLIGHT, latencies: false };
    let measured = measure_load(stage, plan, &[Stage::address(0).into()], rate, &processes)?;
    // It sends its buffered records.
    drop(unbound);
    let recorded = match (agent, tap) {
        (Some(agent), _) => Some(records(&agent.stop_for_ledger()?)?),
        (_, Some(mut tap)) => {
            tap.signal(Signal::SIGTERM)?;
            tap.wait(READY_DEADLINE)?;
            Some(frames(&directory.path().join("tap"))? / 2)
        }
        _ => lines(&directory.path().join("log"), recorder)?,
    };
    let share = recorded.map(|recorded| count(recorded) / count(measured.report.completed));
    ensure!(share.is_none_or(|share| share > 0.0), "{recorder:?} recorded nothing");
    Ok(Run { measured, share })
}

/// Records that reached the sink.
fn records(ledger: &Value) -> Result<u64> {
    Ledger(ledger).require_balance()?;
    Ledger(ledger).number("/agent/sinks/0/records/delivered")
}

/// Data frames of a Frame Streams file: each has its length before it, and control frames have none.
fn frames(path: &Path) -> Result<u64> {
    let bytes = fs::read(path)?;
    let (mut frames, mut rest) = (0, &bytes[..]);
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let mut length = u32::from_be_bytes(*length) as usize;
        rest = after;
        if length == 0 {
            let (of_control, after) = rest.split_first_chunk::<4>().context("a control frame")?;
            length = u32::from_be_bytes(*of_control) as usize;
            rest = after;
        } else {
            frames += 1;
        }
        rest = rest.get(length..).context("a frame that ends")?;
    }
    Ok(frames)
}

/// Queries in unbound's log; `None` where it writes none.
fn lines(path: &Path, recorder: Recorder) -> Result<Option<u64>> {
    let lines_of_each = match recorder {
        Recorder::QueryLog => 1,
        Recorder::QueryAndReplyLog => 2,
        _ => return Ok(None),
    };
    let text = fs::read_to_string(path)?;
    let lines = text.lines().filter(|line| line.contains(ZONE)).count() as u64;
    Ok(Some(lines / lines_of_each))
}

/// A resolver on the first address.
pub(super) fn start(stage: &Stage, extra: &Extra) -> Result<Unbound> {
    Unbound::start_with(&stage.server, &[Stage::address(0).into()], extra)
}

/// A sink of Avro files.
pub(super) const TO_FILE: &str = "type: file, directory: $OUT";

/// An agent that captures at the server's interface.
pub(super) fn start_agent(stage: &Stage, sink: &str) -> Result<Agent> {
    start_agent_with(stage, sink, "")
}

/// The same with more lines of configuration.
pub(super) fn start_agent_with(stage: &Stage, sink: &str, more: &str) -> Result<Agent> {
    let yaml =
        format!("node: bench\ninterfaces: {{include: [s0]}}\nsinks:\n  - {{{sink}}}\n{more}");
    Agent::start(&stage.server, &yaml, &[])
}

/// A sink for a new topic.
pub(super) fn to_topic(kafka: &Kafka<'_>) -> Result<String> {
    let topic = kafka.create_numbered_topic()?;
    Ok(format!("type: kafka, brokers: ['{}'], topic: {topic}", kafka.address()))
}

fn start_reader(stage: &Stage, directory: &Path) -> Result<Process> {
    let mut command = stage.server.command("fstrm_capture");
    command.args(["-t", "protobuf:dnstap.Dnstap", "-u"]).arg(directory.join("tap.sock"));
    command.arg("-w").arg(directory.join("tap"));
    let process = Process::spawn("fstrm_capture", command)?;
    let socket = directory.join("tap.sock");
    wait::until("fstrm_capture to listen", READY_DEADLINE, || Ok(socket.exists().then_some(())))?;
    Ok(process)
}

fn extra(recorder: Recorder, directory: &Path) -> Extra {
    let mut extra = Extra { server: zone(), ..Extra::default() };
    match recorder {
        Recorder::QueryLog | Recorder::QueryAndReplyLog => {
            extra.log_file = Some(directory.join("log"));
            extra.server.push_str("  log-queries: yes\n");
            if recorder == Recorder::QueryAndReplyLog {
                extra.server.push_str("  log-replies: yes\n");
            }
        }
        Recorder::Dnstap => extra.sections = dnstap(&directory.join("tap.sock")),
        Recorder::Nobody | Recorder::AvroFile | Recorder::Kafka => {}
    }
    extra
}

fn dnstap(socket: &Path) -> String {
    format!(
        "dnstap:\n  dnstap-enable: yes\n  dnstap-bidirectional: yes\n  dnstap-socket-path: '{}'\n  \
         dnstap-log-client-query-messages: yes\n  dnstap-log-client-response-messages: yes\n",
        socket.display()
    )
}
