//! The part of the demo that needs root: the stage, the agent, the client, and taking it all down.

use std::{
    fs::{self, File},
    os::unix::fs as unix_fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use tap53_harness::{
    bpf,
    client::{Exchange, Question, Transport},
    kafka::Kafka,
    lab::{Lab, UNANSWERED},
    lake::{LEDGER, Lake},
    namespace::Namespace,
    process::Process,
    wait,
};

use super::{
    Downstream,
    accounts::{self, Accounts},
    lake, require_clean_exit,
    terminal::{Table, entry, is_terminal, section},
};
use crate::workspace::Workspace;

pub(super) const TOPIC: &str = "dns-transactions";
/// Between two questions: slow enough to read along.
const PACE: Duration = Duration::from_millis(400);
/// Time without a response after which a query is unanswered.
const PAIR_TIMEOUT: Duration = Duration::from_millis(1_000);
const READY_DEADLINE: Duration = Duration::from_secs(30);
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// Questions that the client repeats.
const QUESTIONS: [(Path53, &str, &str); 10] = [
    (Path53::UdpV4, "www.tap53.test", "A"),
    (Path53::UdpV4, "www.tap53.test", "AAAA"),
    (Path53::UdpV4, "tap53.test", "TXT"),
    (Path53::UdpV4, "nowhere.absent.test", "A"),
    (Path53::UdpV4, UNANSWERED.name, UNANSWERED.qtype),
    (Path53::UdpV4, "tap53.test", "MX"),
    (Path53::UdpV6, "mail.tap53.test", "AAAA"),
    (Path53::TcpV4, "_dns._udp.tap53.test", "SRV"),
    (Path53::UdpV4, "alias.tap53.test", "CNAME"),
    (Path53::UdpV6, "elsewhere.example", "A"),
];

/// The way a question takes.
#[derive(Clone, Copy)]
enum Path53 {
    UdpV4,
    UdpV6,
    TcpV4,
}

/// Files with the demo's results.
pub(super) struct Results {
    /// `target/demo`.
    directory: PathBuf,
}

impl Results {
    pub(super) fn transactions(&self) -> PathBuf {
        self.directory.join("transactions.avro")
    }

    pub(super) fn ledger(&self) -> PathBuf {
        self.directory.join("ledger.json")
    }

    pub(super) fn configuration(&self) -> PathBuf {
        self.directory.join("tap53.yaml")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.directory.join("agent.log")
    }

    /// An empty directory; what an earlier demo left is removed.
    fn prepare(workspace: &Workspace) -> Result<Self> {
        let results = Self { directory: workspace.target.join("demo") };
        let directory = &results.directory;
        if directory.exists() {
            fs::remove_dir_all(directory)
                .with_context(|| format!("cannot clear {}", directory.display()))?;
        }
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        Ok(results)
    }

    /// The agent names its files by time; the demo has one, under a name to remember.
    fn name_transactions(&self) -> Result<()> {
        let mut written = Vec::new();
        for file in fs::read_dir(&self.directory)? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "avro") {
                written.push(path);
            }
        }
        match &written[..] {
            [path] => fs::rename(path, self.transactions()).context("cannot name the file"),
            _ => bail!("the agent wrote {} files, not one", written.len()),
        }
    }

    /// Under sudo, the results belong to who called it.
    fn hand_over(&self) -> Result<()> {
        let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
        let (Some(user), Some(group)) = (number("SUDO_UID"), number("SUDO_GID")) else {
            return Ok(());
        };
        unix_fs::chown(&self.directory, Some(user), Some(group))?;
        for file in fs::read_dir(&self.directory)? {
            unix_fs::chown(file?.path(), Some(user), Some(group))?;
        }
        Ok(())
    }
}

/// Runs the demo's stage for `seconds`.
pub(super) fn run(workspace: &Workspace, seconds: u64, downstream: Downstream) -> Result<()> {
    interrupt_on_signals()?;
    if let Err(error) = bpf::load_passing_program() {
        bail!(
            "this kernel does not let root load a BPF program ({error}): run the demo on a machine, \
             or in a container, where it does (CAP_BPF and CAP_NET_ADMIN, kernel 5.10 or later)"
        );
    }
    let results = Results::prepare(workspace)?;
    let outcome = perform(workspace, &results, seconds, downstream);
    results.hand_over()?;
    // All guards are dropped: look whether anything is left.
    let left = Namespace::left_by_this_process()?;
    ensure!(left.is_empty(), "namespaces that could not be removed: {}", left.join(", "));
    if wait::require_uninterrupted().is_err() {
        bail!("interrupted; everything was taken down");
    }
    outcome?;
    section("All accounts agree, and nothing is left behind.");
    Ok(())
}

fn perform(
    workspace: &Workspace,
    results: &Results,
    seconds: u64,
    downstream: Downstream,
) -> Result<()> {
    section("Stage");
    let lab = Lab::new()?;
    entry("client", &format!("198.51.100.1 and 2001:db8::1, in namespace {}", lab.client.name()));
    entry(
        "resolver",
        &format!("unbound at 198.51.100.2 and 2001:db8::2, in {}", lab.server.name()),
    );
    let kafka = (downstream != Downstream::Nothing).then(|| start_kafka(&lab)).transpose()?;
    let lake = kafka.as_ref().filter(|_| downstream == Downstream::Lake);
    let lake = lake.map(|kafka| lake::start(&lab.server, kafka)).transpose()?;
    let binary = workspace.target.join("debug/tap53");
    let sink = kafka.as_ref().map(|kafka| kafka_sink(kafka, lake.as_ref()));
    let mut agent = start_agent(&lab, results, &binary, sink.as_deref())?;
    entry("tap53", &hooks(&agent)?);

    section(&format!(
        "DNS transactions, as tap53 prints them while the client sends queries for {seconds} s"
    ));
    let exchanges = ask(&lab, &agent, Duration::from_secs(seconds))?;
    agent.signal(Signal::SIGTERM)?;
    let status = agent.wait(STOP_DEADLINE)?;
    results.name_transactions()?;

    section("Accounts");
    let accounts = Accounts {
        exchanges: &exchanges,
        results,
        topic: kafka.as_ref().filter(|_| lake.is_none()).map(|kafka| (kafka, TOPIC)),
        lake: lake.as_ref(),
        binary: &binary,
    };
    let verdict = accounts.compare();
    require_clean_exit(status)?;
    verdict?;

    section("Look closer");
    accounts::explain(results);
    Ok(())
}

fn start_kafka(lab: &Lab) -> Result<Kafka<'_>> {
    let started = Instant::now();
    // Said beforehand: it takes a while, and the first time it is fetched.
    entry("broker", "Apache Kafka starts (the first time Maven fetches it) ...");
    let kafka = Kafka::start(&lab.server)?;
    kafka.create_topic(TOPIC)?;
    let took = started.elapsed().as_secs_f64();
    entry("", &format!("at {} in the same namespace, after {took:.1} s", kafka.address()));
    Ok(kafka)
}

fn start_agent(
    lab: &Lab,
    results: &Results,
    binary: &Path,
    kafka: Option<&str>,
) -> Result<Process> {
    let configuration = results.configuration();
    fs::write(&configuration, agent_configuration(results, kafka))?;
    let mut command: Command = lab.server.command(binary);
    command.args(["run", "--config"]).arg(&configuration).arg("--ledger").arg(results.ledger());
    let log = File::create(results.log())?;
    let agent = Process::spawn_copying_stderr("tap53", command, Some(log))?;
    agent.wait_for_line("ready interfaces=", 0, READY_DEADLINE)?;
    Ok(agent)
}

/// Returns the sink's entry of the configuration. With a lake, records have the registry's framing, which
/// downstream readers need, and the ledger is written to a topic too.
fn kafka_sink(kafka: &Kafka<'_>, lake: Option<&Lake<'_>>) -> String {
    let broker = kafka.address();
    let mut yaml = format!("  - type: kafka\n    brokers: [\"{broker}\"]\n    topic: {TOPIC}\n");
    if let Some(lake) = lake {
        let (registry, ledger) = (lake.registry.url(), LEDGER.topic);
        yaml += &format!(
            "    registry: {{urls: [\"{registry}\"]}}\n    \
             summary: {{topic: {ledger}, interval_s: 2}}\n"
        );
    }
    yaml
}

fn agent_configuration(results: &Results, kafka: Option<&str>) -> String {
    let color = if is_terminal() { "always" } else { "never" };
    let directory = results.directory.display();
    let timeout_ms = PAIR_TIMEOUT.as_millis();
    let mut yaml = format!(
        "interfaces:\n  include: [s0]\n\
         capture:\n  hook: xdp\n\
         # Under sudo, root may write into the caller's directory by its privileges alone.\n\
         privileges:\n  keep: true\n\
         pair:\n  timeout_ms: {timeout_ms}\n\
         sinks:\n\
         \x20 - type: stdout\n    format: text\n    color: {color}\n\
         \x20 - type: file\n    directory: \"{directory}\"\n"
    );
    yaml += kafka.unwrap_or_default();
    yaml
}

/// Returns a sentence about the hooks that the agent has logged.
fn hooks(agent: &Process) -> Result<String> {
    let line = agent.wait_for_line("capturing", 0, READY_DEADLINE)?;
    let field = |name: &str| {
        let value = line.split_once(&format!("{name}=\""))?.1.split('"').next()?;
        Some(value.to_owned())
    };
    let hook = |name: &str| field(name).with_context(|| format!("no {name} in {line:?}"));
    Ok(format!("captures by {} (queries) and {} (answers)", hook("ingress")?, hook("egress")?))
}

/// Sends queries for `duration`, shows the agent's output, and waits until it has a line for each query.
fn ask(lab: &Lab, agent: &Process, duration: Duration) -> Result<Vec<Exchange>> {
    let end = Instant::now() + duration;
    let mut exchanges = Vec::new();
    let mut table = Table::new();
    let mut shown = 0;
    // One line above the first transaction.
    let transactions = |shown: usize| shown.saturating_sub(1);
    for (path, name, qtype) in QUESTIONS.into_iter().cycle() {
        if Instant::now() >= end {
            break;
        }
        wait::require_uninterrupted()?;
        exchanges.push(ask_one(lab, path, Question { name, qtype })?);
        let next = Instant::now() + PACE;
        while Instant::now() < next {
            shown += show(agent, &mut table, shown, next.saturating_duration_since(Instant::now()));
        }
    }
    // The last unanswered query takes its timeout.
    let deadline = Instant::now() + PAIR_TIMEOUT + READY_DEADLINE;
    while transactions(shown) < exchanges.len() {
        wait::require_uninterrupted()?;
        if Instant::now() > deadline {
            bail!("{} questions, but tap53 printed {}", exchanges.len(), transactions(shown));
        }
        shown += show(agent, &mut table, shown, PACE);
    }
    Ok(exchanges)
}

fn ask_one(lab: &Lab, path: Path53, question: Question) -> Result<Exchange> {
    let client = match path {
        Path53::UdpV4 | Path53::TcpV4 => lab.client_v4(),
        Path53::UdpV6 => lab.client_v6(),
    };
    match path {
        _ if question.name == UNANSWERED.name => client.ask_in_vain(question),
        Path53::UdpV4 | Path53::UdpV6 => client.ask(Transport::Udp, question),
        Path53::TcpV4 => client.ask(Transport::Tcp, question),
    }
}

/// Prints lines that came after the first `shown`, waiting up to `deadline` for the first of them;
/// returns how many.
fn show(agent: &Process, table: &mut Table, shown: usize, deadline: Duration) -> usize {
    let fresh = agent.stdout().lines_from(shown, deadline);
    fresh.iter().for_each(|line| table.row(line));
    fresh.len()
}

/// Makes every wait fail after SIGINT, SIGTERM or SIGHUP, so that the guards of all parts are dropped.
pub(crate) fn interrupt_on_signals() -> Result<()> {
    extern "C" fn interrupt(_signal: libc::c_int) {
        wait::interrupt();
    }
    // A handler rather than a mask and a waiting thread: children would inherit the mask.
    let action =
        SigAction::new(SigHandler::Handler(interrupt), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }.with_context(|| format!("cannot handle {signal}"))?;
    }
    Ok(())
}
