//! The stage, an agent on it, and the measurements of its run.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::UdpSocket,
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tap53_harness::{
    account::Ledger,
    agent::{self, Agent, Ended},
    dns,
    faults::{Row, is_long},
    kafka::{Kafka, Place},
    lab::Lab,
    limit::Limit,
    namespace::{End, Namespace, join},
    numbered::{Consumed, name},
    scratch, wait,
};
use tempfile::TempDir;

pub(super) const DEADLINE: Duration = Duration::from_secs(300);

/// Events that the agent logs at the start and at the end of an outage.
pub(super) const AWAY: &str = "event=\"buffering_to_spool\"";
pub(super) const BACK: &str = "event=\"delivery_resumed\"";

/// Modes of the spool.
const MODES: [&str; 2] = ["durable", "fast"];

/// Far below what each outage here lasts: an outage ends only after deliveries have failed.
const MESSAGE_TIMEOUT_MS: u32 = 1_000;

/// Bytes of the producer's queue: less than an outage brings, so that records do go to the disk.
pub(super) const QUEUE_BYTES: u64 = 1 << 20;

/// Queries on their way at a time, so that neither the link nor the resolver drops any.
const WINDOW: u32 = 64;
const SOCKETS: usize = 8;

/// Queries sent before the agent is waited for: some tenth of what its rings hold.
const STEP: u32 = 4_000;

/// The agent's end of the link to the broker, and the broker's.
pub(super) const AGENT_END: End = End {
    interface: "b0",
    mac: [0x02, 0, 0, 0, 0x53, 0x11],
    ipv4: std::net::Ipv4Addr::new(192, 0, 2, 1),
    ipv6: std::net::Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1),
};
pub(super) const BROKER_END: End = End {
    interface: "k0",
    mac: [0x02, 0, 0, 0, 0x53, 0x12],
    ipv4: std::net::Ipv4Addr::new(192, 0, 2, 2),
    ipv6: std::net::Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2),
};

/// So many queries in the short form, and in the long one.
pub(super) fn size(short: u32, long: u32) -> u32 {
    if is_long() { long } else { short }
}

/// Namespaces and what joins them, with a resolver and a client.
pub(super) struct Places {
    pub(super) lab: Lab,
    pub(super) far: Namespace,
}

impl Places {
    pub(super) fn new() -> Result<Self> {
        let (lab, far) = (Lab::new()?, Namespace::new()?);
        join((&lab.server, AGENT_END), (&far, BROKER_END), 1_500)?;
        Ok(Self { lab, far })
    }
}

/// The broker's, which is to be back soon.
pub(super) fn place() -> Place {
    Place { ip: BROKER_END.ipv4, session_timeout_ms: 3_000, ..Place::default() }
}

/// A broker in its place, and the stream.
pub(super) struct Stage<'a> {
    pub(super) places: &'a Places,
    pub(super) kafka: Kafka<'a>,
    /// Its topics are this, a hyphen, and the spool's mode.
    topic: String,
    sockets: Vec<UdpSocket>,
    /// The next number.
    next: u32,
}

impl<'a> Stage<'a> {
    pub(super) fn new(places: &'a Places) -> Result<Self> {
        let client = places.lab.client_v4();
        Ok(Self {
            places,
            kafka: Kafka::start_at(&places.far, place())?,
            topic: String::new(),
            sockets: (0..SOCKETS).map(|_| client.udp_socket()).collect::<Result<_>>()?,
            next: 0,
        })
    }

    /// Empty topics, and numbers from the beginning.
    pub(super) fn begin(&mut self, place: u32) -> Result<()> {
        self.topic = format!("fault-{place}");
        self.next = 0;
        MODES.iter().try_for_each(|mode| self.kafka.create_topic(&self.topic(mode)))
    }

    pub(super) fn topic(&self, mode: &str) -> String {
        format!("{}-{mode}", self.topic)
    }

    pub(super) const fn next(&self) -> u32 {
        self.next
    }

    /// Sends so many queries, each once, and takes their answers.
    pub(super) fn ask(&mut self, count: u32) -> Result<()> {
        let end = self.next + count;
        while self.next < end {
            let window = self.next..end.min(self.next + WINDOW);
            let socket = |number: u32| &self.sockets[number as usize % SOCKETS];
            for number in window.clone() {
                let id = (number & 0xffff) as u16;
                socket(number).send(&dns::query(id, &name(number), "A"))?;
            }
            let mut answer = [0; 512];
            for number in window.clone() {
                let answered = socket(number).recv(&mut answer);
                answered
                    .with_context(|| format!("no answer to query {number} or one before it"))?;
            }
            self.next = window.end;
        }
        Ok(())
    }

    /// Reads the row's topic, and what became of the numbers goes into the row.
    pub(super) fn consume(&self, row: &mut Row) -> Result<Consumed> {
        self.consume_from(&self.kafka, row)
    }

    pub(super) fn consume_from(&self, kafka: &Kafka<'_>, row: &mut Row) -> Result<Consumed> {
        let consumed = Consumed::read(kafka, &self.topic(&row.mode))?;
        self.fill_in(&consumed, row);
        Ok(consumed)
    }

    /// Fills the row with the outcome of the numbers.
    pub(super) fn fill_in(&self, consumed: &Consumed, row: &mut Row) {
        row.sent = u64::from(self.next);
        row.messages = consumed.numbers.len() as u64;
        row.records = consumed.ids.len() as u64;
        row.numbers = consumed.times.len() as u64;
        row.foreign = consumed.times.keys().filter(|number| **number >= self.next).count() as u64;
    }
}

/// Options for starting an agent.
pub(super) struct Start<'s> {
    /// Instead of the stage's.
    pub(super) brokers: Vec<String>,
    pub(super) mode: &'static str,
    pub(super) spool: &'s Path,
    /// More keys of the spool.
    pub(super) more: &'s str,
    /// More keys of the sink.
    pub(super) sink: &'s str,
    pub(super) message_timeout_ms: u32,
    pub(super) queue_bytes: u64,
    /// Set if it writes a line for each record that it has accepted.
    pub(super) tells: bool,
    pub(super) limit: Option<&'s Limit>,
    pub(super) environment: Vec<(&'s str, String)>,
}

impl<'s> Start<'s> {
    pub(super) const fn new(mode: &'static str, spool: &'s Path) -> Self {
        Self {
            brokers: Vec::new(),
            mode,
            spool,
            more: "",
            sink: "",
            message_timeout_ms: MESSAGE_TIMEOUT_MS,
            queue_bytes: QUEUE_BYTES,
            tells: false,
            limit: None,
            environment: Vec::new(),
        }
    }
}

/// A running agent.
pub(super) struct Run {
    agent: Agent,
    /// The stream's number when it started.
    begin: u32,
}

impl Run {
    pub(super) fn start(stage: &Stage<'_>, start: &Start<'_>) -> Result<Self> {
        let brokers = match &start.brokers[..] {
            [] => format!("{:?}", stage.kafka.address()),
            brokers => brokers.iter().map(|broker| format!("{broker:?},")).collect(),
        };
        let Start { mode, more, sink, message_timeout_ms, queue_bytes, .. } = start;
        let (topic, spool) = (stage.topic(mode), start.spool.display());
        // The Kafka sink comes first: it has accepted every record that the other one has.
        let tells = if start.tells { "- {type: stdout, format: json}" } else { "" };
        let yaml = format!(
            "interfaces: {{include: [s0]}}\n\
             capture: {{workers: 2}}\n\
             sinks:\n\
             - type: kafka\n  brokers: [{brokers}]\n  topic: {topic}\n  linger_ms: 5\n  \
               message_timeout_ms: {message_timeout_ms}\n  queue_bytes: {queue_bytes}\n  \
               spool: {{mode: {mode}, directory: {spool}, replay_records_per_s: 0, {more}}}\n  \
               {sink}\n\
             {tells}\n\
             shutdown: {{flush_timeout_ms: 60000}}\n"
        );
        let mut command = stage.places.lab.server.command(agent::binary()?);
        for (name, value) in &start.environment {
            command.env(name, value);
        }
        hold(start.limit, &mut command);
        let agent = Agent::launch(command, &yaml, &[])?;
        agent.wait_until_ready()?;
        Ok(Self { agent, begin: stage.next })
    }

    /// Sends so many queries, as fast as the agent takes them: until the records of all are accepted,
    /// or counted as lost.
    pub(super) fn feed(&self, stage: &mut Stage<'_>, count: u32) -> Result<()> {
        for first in (0..count).step_by(STEP as usize) {
            stage.ask(STEP.min(count - first))?;
            self.wait_until_accepted(stage)?;
        }
        Ok(())
    }

    /// Does the same as [`feed`](Self::feed), until the agent has written a line for each.
    pub(super) fn feed_until_logged(&self, stage: &mut Stage<'_>, count: u32) -> Result<()> {
        stage.ask(count)?;
        let sent = (stage.next - self.begin) as usize;
        wait::until("a line for each record", DEADLINE, || {
            Ok((self.agent.process().stdout().len() >= sent).then_some(()))
        })
        .with_context(|| self.log())
    }

    fn wait_until_accepted(&self, stage: &Stage<'_>) -> Result<()> {
        let sent = u64::from(stage.next - self.begin);
        wait::until("the records to be accepted", DEADLINE, || {
            let ledger = self.ledger()?;
            let offered = Ledger(&ledger).number("/agent/sinks/0/records/offered")?;
            let lost: u64 = losses(&ledger, "").iter().map(|(_, count)| count).sum();
            Ok((offered + lost >= sent).then_some(()))
        })
        .with_context(|| self.log())
    }

    /// The ledger now, by the control socket.
    pub(super) fn ledger(&self) -> Result<Value> {
        let mut stream = UnixStream::connect(self.agent.control_socket())?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.write_all(b"{\"version\":1,\"call\":\"status\"}\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line)?;
        let ledger = answer["ok"]["ledger"].clone();
        ensure!(ledger.is_object(), "no ledger in {line}");
        Ok(ledger)
    }

    /// A number of the Kafka sink's records.
    pub(super) fn records(&self, key: &str) -> Result<u64> {
        Ledger(&self.ledger()?).number(&format!("/agent/sinks/0/records/{key}"))
    }

    pub(super) fn log(&self) -> String {
        self.agent.process().stderr().text()
    }

    /// Waits until this is the last that the agent said of the broker. It may have said it before:
    /// with a short timeout and a slow machine, records fail while others arrive.
    pub(super) fn wait_until_noticed(&self, what: &str) -> Result<()> {
        wait::until(what, DEADLINE, || {
            let lines = self.agent.process().stderr().lines();
            let said = lines.iter().rev().find(|line| line.contains(AWAY) || line.contains(BACK));
            Ok(said.filter(|line| line.contains(what)).map(|_| ()))
        })
        .with_context(|| self.log())
    }

    /// Waits until nothing waits for the broker any more.
    pub(super) fn wait_until_delivered(&self) -> Result<()> {
        wait::until("everything to be delivered", DEADLINE, || {
            let ledger = self.ledger()?;
            let count = |key| Ledger(&ledger).number(&format!("/agent/sinks/0/records/{key}"));
            Ok((count("in_flight")? + count("spooled")? == 0).then_some(()))
        })
        .with_context(|| self.log())
    }

    /// Most memory that it had resident so far, KiB.
    pub(super) fn peak_kib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.agent.process().pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        Ok(line.unwrap_or_default().trim().trim_end_matches(" kB").parse()?)
    }

    /// Ends it; its ledger goes into the row.
    pub(super) fn stop(self, row: &mut Row) -> Result<Ended> {
        row.peak_kib = row.peak_kib.max(self.peak_kib()?);
        let ended = self.agent.stop()?;
        row.complaints += complaints(&ended.stderr);
        let told = ended.stderr.matches(AWAY).count();
        ensure!(told <= 3, "one outage was told of {told} times:\n{}", ended.stderr);
        row.ledgers += 1;
        match Ledger(&ended.ledger).require_balance() {
            Ok(()) => row.balanced += 1,
            Err(error) => println!("{error:#}"),
        }
        for (reason, count) in losses(&ended.ledger, "/agent/sinks/0/records/lost") {
            *row.lost.entry(reason).or_default() += count;
        }
        println!("{}", complaints_of(&ended.stderr));
        Ok(ended)
    }

    /// Does the same as [`stop`](Self::stop), after which nothing may be left for a next run.
    pub(super) fn finish(self, row: &mut Row) -> Result<()> {
        let ended = self.stop(row)?;
        let spooled = Ledger(&ended.ledger).number("/agent/sinks/0/records/spooled")?;
        ensure!(spooled == 0, "{spooled} records still wait\n{}", ended.stderr);
        Ok(())
    }

    /// Kills it with SIGKILL; returns its standard output so far.
    pub(super) fn kill(mut self, row: &mut Row) -> Result<Vec<String>> {
        row.peak_kib = row.peak_kib.max(self.peak_kib()?);
        let process = self.agent.process_mut();
        process.kill();
        // All that it wrote is read once its output has ended.
        let _ = process.wait(DEADLINE);
        row.kills += 1;
        row.complaints += complaints(&self.log());
        Ok(self.agent.process().stdout().lines())
    }
}

/// An agent of each mode under the same fault.
pub(super) struct Both {
    runs: Vec<(Run, TempDir, Row)>,
}

impl Both {
    /// `sink`: more keys of both.
    pub(super) fn start(stage: &Stage<'_>, sink: &str) -> Result<Self> {
        let mut runs = Vec::new();
        for mode in MODES {
            let spool = scratch::directory("queue")?;
            let mut start = Start::new(mode, spool.path());
            start.sink = sink;
            let run = Run::start(stage, &start)?;
            runs.push((run, spool, row(mode)));
        }
        Ok(Self { runs })
    }

    pub(super) fn feed(&self, stage: &mut Stage<'_>, count: u32) -> Result<()> {
        for first in (0..count).step_by(STEP as usize) {
            stage.ask(STEP.min(count - first))?;
            self.each(|run| run.wait_until_accepted(stage))?;
        }
        Ok(())
    }

    pub(super) fn wait_until_noticed(&self, what: &str) -> Result<()> {
        self.each(|run| run.wait_until_noticed(what))
    }

    pub(super) fn each(&self, act: impl Fn(&Run) -> Result<()>) -> Result<()> {
        self.runs.iter().try_for_each(|(run, ..)| act(run))
    }

    /// Ends both, and reads their topics.
    pub(super) fn finish(self, stage: &Stage<'_>) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (run, _spool, mut row) in self.runs {
            run.finish(&mut row)?;
            stage.consume(&mut row)?;
            rows.push(row);
        }
        Ok(rows)
    }
}

/// A row to be filled in.
pub(super) fn row(mode: &str) -> Row {
    Row { mode: mode.to_owned(), ..Row::default() }
}

fn hold(limit: Option<&Limit>, command: &mut Command) {
    if let Some(limit) = limit {
        limit.hold(command);
    }
}

/// Returns true for warnings and errors, except the one that another agent's programs run first: the test
/// causes that one.
fn is_complaint(line: &&str) -> bool {
    (line.contains(" WARN ") || line.contains("ERROR ")) && !line.contains("shadowed by program")
}

fn complaints(log: &str) -> u64 {
    log.lines().filter(is_complaint).count() as u64
}

fn complaints_of(log: &str) -> String {
    log.lines().filter(is_complaint).map(|line| format!("   {line}\n")).collect()
}

/// Returns the losses by reason: packets, messages, and records of the Kafka sink at `sink`.
fn losses(ledger: &Value, sink: &str) -> Vec<(String, u64)> {
    let mut places: Vec<String> =
        ["/agent/packets/lost", "/agent/messages/lost"].map(str::to_owned).to_vec();
    for index in 0..ledger["interfaces"].as_array().map_or(0, Vec::len) {
        for direction in ["ingress", "egress"] {
            places.push(format!("/interfaces/{index}/{direction}/lost"));
        }
    }
    if !sink.is_empty() {
        places.push(sink.to_owned());
    }
    let mut losses = Vec::new();
    for place in places {
        let reasons = ledger.pointer(&place).and_then(Value::as_object);
        for (reason, count) in reasons.into_iter().flatten() {
            let count = count.as_u64().unwrap_or(0);
            if count > 0 {
                losses.push((reason.clone(), count));
            }
        }
    }
    losses
}
