//! A node: gateways, and the programs that report their transactions.

use std::{fs, net::IpAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::{sys::signal::Signal, unistd::Pid};

use super::{
    Plan,
    measure::{Cost, Measured, Rate, count, measure as measure_load, mib},
    programs::Programs,
    spread::Spread,
    stage::Stage,
    table::Table,
};
use crate::{agent::Agent, kafka::Kafka, process::Process};

const READY_DEADLINE: Duration = Duration::from_secs(30);
const END_DEADLINE: Duration = Duration::from_secs(60);
/// Maximum number of queries in flight of a client; one that waits for so many has overloaded its gateway.
const IN_FLIGHT: u32 = 100;

/// The program that reports the gateways' transactions to Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reporter {
    /// Nobody.
    Nobody,
    /// Each gateway itself, through a collector beside it.
    Collectors,
    /// One agent.
    Agent,
}

impl Reporter {
    pub(super) const ALL: [Self; 3] = [Self::Nobody, Self::Collectors, Self::Agent];
}

/// The results of a run.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) measured: Measured,
    /// All gateways.
    pub(super) gateways: Cost,
    /// All collectors, or the agent.
    pub(super) reporter: Cost,
    /// Size of a record in the topic's files.
    pub(super) bytes: f64,
    /// Share of the answered queries that are not in the topic.
    pub(super) missing: f64,
}

impl Run {
    /// All pods of gateways: what is beside a gateway in its pod is a collector, never the agent.
    pub(super) fn pods(&self, reporter: Reporter) -> Cost {
        match reporter {
            Reporter::Collectors => self.node(),
            Reporter::Nobody | Reporter::Agent => self.gateways,
        }
    }

    /// Everything but clients and broker.
    pub(super) fn node(&self) -> Cost {
        [self.gateways, self.reporter].into_iter().sum()
    }
}

/// Starts everything, puts load on it, and waits until all records are in the topic.
pub(super) fn run(
    stage: &Stage,
    plan: &Plan,
    programs: &Programs,
    kafka: &Kafka<'_>,
    reporter: Reporter,
    (gateways, rate): (usize, Option<u32>),
) -> Result<Run> {
    let topic = kafka.create_numbered_topic()?;
    let mut node = Node::start(stage, programs, kafka, &topic, reporter, gateways)?;
    let servers: Vec<IpAddr> = (0..gateways).map(|n| Stage::address(n).into()).collect();
    let rate = Rate { per_second: rate, in_flight: IN_FLIGHT, latencies: rate.is_some() };
    let measured = measure_load(stage, plan, &servers, rate, &node.processes())?;
    let (of_gateways, of_reporter) = measured.costs.split_at(gateways);
    let (gateways, reporters) =
        (of_gateways.iter().copied().sum(), of_reporter.iter().copied().sum());
    node.stop()?;
    let (mut bytes, mut missing) = (0.0, 0.0);
    if reporter != Reporter::Nobody {
        let records = kafka.end_offset(&topic)?;
        ensure!(records > 0, "no record of {} queries is in the topic", measured.report.completed);
        bytes = count(log_bytes(kafka, &topic)?) / count(records);
        let answered = measured.report.completed;
        missing = count(answered.saturating_sub(records)) / count(answered);
        ensure!(!plan.lossless || missing == 0.0, "{records} records of {answered} queries");
    }
    Ok(Run { gateways, reporter: reporters, measured, bytes, missing })
}

/// Running parts, dropped in the order in which they send to each other.
struct Node {
    gateways: Vec<Process>,
    collectors: Vec<Process>,
    agent: Option<Agent>,
}

impl Node {
    fn start(
        stage: &Stage,
        programs: &Programs,
        kafka: &Kafka<'_>,
        topic: &str,
        reporter: Reporter,
        gateways: usize,
    ) -> Result<Self> {
        let mut node = Self { gateways: Vec::new(), collectors: Vec::new(), agent: None };
        if reporter == Reporter::Agent {
            node.agent = Some(start_agent(stage, kafka, topic)?);
        }
        for number in 0..gateways {
            let socket = stage.directory().join(format!("collector-{number}.sock"));
            if reporter == Reporter::Collectors {
                node.collectors.push(start_collector(stage, programs, kafka, topic, &socket)?);
            }
            let mut command = stage.server.command(programs.path("gateway"));
            command.args(["-listen", &format!("{}:53", Stage::address(number))]);
            if reporter == Reporter::Collectors {
                command.arg("-log").arg(&socket);
            }
            let process = Process::spawn("gateway", command)?;
            process.wait_for_line("gateway ready", 0, READY_DEADLINE)?;
            node.gateways.push(process);
        }
        Ok(node)
    }

    fn processes(&self) -> Vec<Pid> {
        let agent = self.agent.iter().map(Agent::process);
        self.gateways.iter().chain(&self.collectors).chain(agent).map(Process::pid).collect()
    }

    /// Ends all parts in order, so that records in flight arrive.
    fn stop(&mut self) -> Result<()> {
        for mut process in self.gateways.drain(..).chain(self.collectors.drain(..)) {
            process.signal(Signal::SIGTERM)?;
            process.wait(END_DEADLINE)?;
        }
        self.agent.take().map_or(Ok(()), |agent| agent.stop_for_ledger().map(drop))
    }
}

fn start_agent(stage: &Stage, kafka: &Kafka<'_>, topic: &str) -> Result<Agent> {
    let yaml = format!(
        "node: bench\ninterfaces: {{include: [s0]}}\nsinks:\n  - {{type: kafka, brokers: ['{}'], \
         topic: {topic}, spool: {{mode: fast, directory: $OUT/spool}}}}\n",
        kafka.address()
    );
    Agent::start(&stage.server, &yaml, &[])
}

fn start_collector(
    stage: &Stage,
    programs: &Programs,
    kafka: &Kafka<'_>,
    topic: &str,
    socket: &Path,
) -> Result<Process> {
    // It is that of the previous run.
    let _ = fs::remove_file(socket);
    let configuration = socket.with_extension("yaml");
    fs::write(&configuration, collector_configuration(&kafka.address(), topic, socket))?;
    let mut command = stage.server.command(programs.path("collector"));
    command.arg(format!("--config=file:{}", configuration.display()));
    let process = Process::spawn("collector", command)?;
    process.wait_for_line("Everything is ready", 0, READY_DEADLINE)?;
    Ok(process)
}

/// Returns the collector's configuration, with tap53's defaults if there is a choice: LZ4, all replicas
/// acknowledge, 20 ms of linger. The queue batches, as its documents advise, and blocks while it is full,
/// as in a pipeline without loss.
fn collector_configuration(broker: &str, topic: &str, socket: &Path) -> String {
    format!(
        r#"receivers:
  fluent_forward:
    endpoint: unix://{}
exporters:
  kafka:
    brokers: ["{broker}"]
    logs: {{topic: {topic}, encoding: raw}}
    producer: {{compression: lz4, required_acks: -1, linger: 20ms, allow_auto_topic_creation: false}}
    sending_queue: {{block_on_overflow: true, batch: {{flush_timeout: 200ms, min_size: 1000, sizer: items}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    logs: {{receivers: [fluent_forward], exporters: [kafka]}}
"#,
        socket.display()
    )
}

fn log_bytes(kafka: &Kafka<'_>, topic: &str) -> Result<u64> {
    let files = kafka.partition_files(topic)?;
    let logs = files.iter().filter(|file| file.extension().is_some_and(|end| end == "log"));
    logs.map(|log| Ok(fs::metadata(log)?.len())).sum()
}

/// Compares collectors beside all gateways with one agent.
pub(super) fn measure(plan: &Plan) -> Result<String> {
    let programs = Programs::build()?;
    let most = plan.gateways.iter().copied().max().context("no number of gateways")?;
    let stage = Stage::new(most)?;
    let kafka = Kafka::start(&stage.server)?;
    let mut table = Table::new(&[
        "gateways",
        "old: RSS (anonymous), MiB",
        "tap53: RSS (anonymous), MiB",
        "RSS, change",
        "anonymous, change",
        "old: µs a query",
        "tap53: µs a query",
        "CPU, change",
    ]);
    for &gateways in &plan.gateways {
        let load = (gateways, Some(plan.headline_rate));
        let one = |reporter| run(&stage, plan, &programs, &kafka, reporter, load);
        let rounds = (0..plan.rounds)
            .map(|_| Ok((one(Reporter::Collectors)?.node(), one(Reporter::Agent)?.node())))
            .collect::<Result<Vec<_>>>()?;
        table.row(compare(gateways, &rounds));
    }
    Ok(format!(
        "The node at {} queries a second in all: gateways and collectors against gateways and one \
         agent.\n\n{}",
        plan.headline_rate,
        table.finish()
    ))
}

/// A row: collectors and agent, round by round.
fn compare(gateways: usize, rounds: &[(Cost, Cost)]) -> [String; 8] {
    let (old, new): (Vec<Cost>, Vec<Cost>) = rounds.iter().copied().unzip();
    let change = |figure: fn(&Cost) -> f64| {
        Spread::over(rounds, |(old, new)| figure(new) / figure(old)).as_change()
    };
    [
        gateways.to_string(),
        memory(&old),
        memory(&new),
        change(|cost| mib(cost.memory.resident)),
        change(|cost| mib(cost.memory.anonymous)),
        format!("{:.0}", Spread::over(&old, |cost| cost.us)),
        format!("{:.0}", Spread::over(&new, |cost| cost.us)),
        change(|cost| cost.us),
    ]
}

/// Medians in MiB: `resident (anonymous)`.
pub(super) fn memory(costs: &[Cost]) -> String {
    let resident = Spread::over(costs, |cost| mib(cost.memory.resident)).median;
    let anonymous = Spread::over(costs, |cost| mib(cost.memory.anonymous)).median;
    format!("{resident:.0} ({anonymous:.0})")
}
