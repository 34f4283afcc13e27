//! A running agent marks what it sees first, a tunnel, and a private address, and remembers domains.

use std::{fs, net::IpAddr, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tap53_harness::{
    agent::Agent,
    client::{Client, Exchange, Question, Transport},
    namespace::{CLIENT_END, Namespace, SERVER_END, join},
    process::Process,
    scratch,
    unbound::{Extra, Unbound},
    wait,
};

use super::{DEADLINE, PORT, get_from, series};

/// Number of queries of the tunnel; it must be found within 200.
const TUNNELLED: u64 = 150;

/// Number of plain queries among them.
const PLAIN: u64 = 20;

/// Size of the state file's header in bytes.
const HEADER: usize = 4_096;

struct Stage {
    _unbound: Unbound,
    client: Namespace,
    server: Namespace,
}

impl Stage {
    fn new() -> Result<Self> {
        let client = Namespace::new()?;
        let server = Namespace::new()?;
        join((&client, CLIENT_END), (&server, SERVER_END), 1_500)?;
        let zone = |name: &str, data: &str| {
            format!("  local-zone: \"{name}.\" redirect\n  local-data: '{name}. {data}'\n")
        };
        let extra = Extra {
            server: [
                zone("t.example.com", "TXT \"an answer of the tunnel\""),
                zone("example.net", "A 198.51.100.7"),
                zone("example.org", "A 10.0.0.1"),
                zone("example.edu", "A 198.51.100.7"),
            ]
            .concat(),
            ..Extra::default()
        };
        let unbound = Unbound::start_with(&server, &[SERVER_END.ipv4.into()], &extra)?;
        Ok(Self { _unbound: unbound, client, server })
    }

    fn start(&self, state: &Path) -> Result<Agent> {
        self.start_with(state, "")
    }

    /// Starts an agent with more lines of configuration.
    fn start_with(&self, state: &Path, more: &str) -> Result<Agent> {
        let yaml = format!(
            "interfaces: {{include: [s0]}}\ncapture: {{workers: 2, ring_bytes: 1048576}}\n\
             sinks: [{{type: stdout, format: json}}]\ntelemetry: {{listen: '{PORT}'}}\n\
             state: {{directory: {}}}\nsignals: {{enabled: true, learning_seconds: 0}}\n{more}",
            state.display()
        );
        Agent::start(&self.server, &yaml, &[])
    }

    fn ask(&self, name: &'static str, qtype: &'static str) -> Result<Exchange> {
        let server: IpAddr = SERVER_END.ipv4.into();
        Client::new(&self.client, server).ask(Transport::Udp, Question { name, qtype })
    }

    /// Sends a query, and returns the signals of its record.
    fn signals(&self, agent: &Agent, name: &'static str, qtype: &'static str) -> Result<Value> {
        // Ports repeat among some hundred queries: only a later line is its record.
        let from = agent.process().stdout().len();
        let exchange = self.ask(name, qtype)?;
        let port = format!("\"client_port\":{},", exchange.client.port());
        let record = agent.wait_for_output(&port, from, DEADLINE)?;
        let record: Value = serde_json::from_str(&record)?;
        ensure!(record["qname"] == name, "{record}");
        Ok(record["signals"].clone())
    }
}

/// Returns a name as a tunnel sends it: two labels of base32.
fn tunnel_name(number: u64) -> &'static str {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut label = |length: usize| -> String {
        let next = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b"abcdefghijklmnopqrstuvwxyz012345"[(state >> 59) as usize])
        };
        (0..length).map(next).collect()
    };
    format!("{}.{}.t.example.com", label(57), label(40)).leak()
}

/// Waits until the state file has as many domains as the agent counts.
fn wait_until_written(stage: &Stage, state: &Path) -> Result<()> {
    wait::until("the domains in the state file", DEADLINE, || {
        let answer = get_from(&stage.server, "/metrics")?;
        let domains = series(&answer.body).get("tap53_signals_domains").copied();
        let content = fs::read(state.join("domains"))?;
        let slots = content.get(HEADER..).context("a header")?.chunks(8);
        let written = slots.filter(|slot| slot.iter().any(|octet| *octet != 0)).count();
        Ok((domains == Some(written as f64)).then_some(()))
    })
}

#[test]
fn signals_are_in_records_metrics_and_tail_and_domains_survive_a_kill() -> Result<()> {
    let stage = Stage::new()?;
    let state = scratch::directory("signals")?;
    let mut agent = stage.start(state.path())?;
    let tail = agent.command(&["tail", "--signal", "tunnel", "--count", "1", "-o", "jsonl"])?;
    let mut tail = Process::spawn("tail", tail)?;
    tail_is_following(&stage)?;

    assert_eq!(stage.signals(&agent, "www.example.net", "A")?, json!(["NEW_DOMAIN_NODE"]));
    assert_eq!(stage.signals(&agent, "mail.example.net", "A")?, json!([]));
    let rebinding = json!(["NEW_DOMAIN_NODE", "REBINDING"]);
    assert_eq!(stage.signals(&agent, "www.example.org", "A")?, rebinding);
    assert_eq!(stage.signals(&agent, "www.example.org", "A")?, json!(["REBINDING"]));

    for number in 1..TUNNELLED {
        stage.signals(&agent, tunnel_name(number), "TXT")?;
    }
    assert_eq!(stage.signals(&agent, tunnel_name(TUNNELLED), "TXT")?, json!(["TUNNEL"]));
    let status = tail.wait(DEADLINE)?;
    ensure!(status.success(), "tail: {status}: {}", tail.stderr().text());
    let line: Value = serde_json::from_str(&tail.stdout().text())?;
    assert!(line["qname"].as_str().is_some_and(|name| name.ends_with(".t.example.com")), "{line}");

    let metrics = get_from(&stage.server, "/metrics")?.body;
    let metrics = series(&metrics);
    assert_eq!(metrics["tap53_signals_total{signal=\"new_domain_node\"}"], 3.0);
    assert_eq!(metrics["tap53_signals_total{signal=\"rebinding\"}"], 2.0);
    assert_eq!(metrics["tap53_signals_total{signal=\"dga\"}"], 0.0);
    let marked = metrics["tap53_signals_total{signal=\"tunnel\"}"];
    assert!((1.0..TUNNELLED as f64).contains(&marked), "{marked}");

    wait_until_written(&stage, state.path())?;
    agent.process_mut().kill();
    drop(agent);
    let agent = stage.start(state.path())?;
    assert_eq!(stage.signals(&agent, "www.example.net", "A")?, json!([]));
    assert_eq!(stage.signals(&agent, "www.example.edu", "A")?, json!(["NEW_DOMAIN_NODE"]));
    let ended = agent.stop()?;
    ensure!(ended.status.code() == Some(0), "{}", ended.stderr);
    assert!(!ended.stderr.contains("signals_state"), "{}", ended.stderr);
    Ok(())
}

/// Transactions that would be left out, were it not for their signals: a share of a millionth keeps none of
/// these names.
#[test]
fn what_has_a_signal_becomes_a_record_whatever_the_share() -> Result<()> {
    let stage = Stage::new()?;
    let state = scratch::directory("signals")?;
    let keep = "record: {keep: {always: [signal], share: 0.000001}}\n";
    let agent = stage.start_with(state.path(), keep)?;
    assert_eq!(stage.signals(&agent, "www.example.net", "A")?, json!(["NEW_DOMAIN_NODE"]));
    for _ in 0..PLAIN {
        stage.ask("mail.example.net", "A")?;
    }
    stage.signals(&agent, "www.example.org", "A")?;
    for number in 1..TUNNELLED {
        stage.ask(tunnel_name(number), "TXT")?;
    }
    assert_eq!(stage.signals(&agent, tunnel_name(TUNNELLED), "TXT")?, json!(["TUNNEL"]));

    let metrics = get_from(&stage.server, "/metrics")?.body;
    let metrics = series(&metrics);
    let ended = agent.stop()?;
    let records: Vec<Value> =
        ended.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    for record in &records {
        let signals = record["signals"].as_array().context("a list of signals")?;
        ensure!(!signals.is_empty(), "a record without a signal was kept: {record}");
        ensure!(record["kept_per_million"] == 1_000_000, "{record}");
    }
    let tunnel = records.iter().filter(|it| it["signals"] == json!(["TUNNEL"])).count();
    assert_eq!(metrics["tap53_signals_total{signal=\"tunnel\"}"], tunnel as f64);
    let all = 2 + PLAIN + TUNNELLED;
    let filtered = &ended.ledger["agent"]["records"]["filtered"];
    assert_eq!(filtered["not_kept"], all - records.len() as u64, "{}", ended.ledger);
    assert_eq!(ended.ledger["balanced"], true, "{}", ended.ledger);
    Ok(())
}

fn tail_is_following(stage: &Stage) -> Result<()> {
    wait::until("a follower", DEADLINE, || {
        let answer = get_from(&stage.server, "/metrics")?;
        let followers = series(&answer.body).get("tap53_followers").copied();
        Ok((followers == Some(1.0)).then_some(()))
    })
}

#[test]
fn a_damaged_state_is_counted_and_domains_are_new_again() -> Result<()> {
    let stage = Stage::new()?;
    let state = scratch::directory("signals")?;
    let agent = stage.start(state.path())?;
    assert_eq!(stage.signals(&agent, "www.example.net", "A")?, json!(["NEW_DOMAIN_NODE"]));
    agent.stop()?;
    let file = state.path().join("domains");
    let mut content = fs::read(&file)?;
    let slot = content.iter().skip(HEADER).position(|octet| *octet != 0).context("a domain")?;
    content[HEADER + slot] ^= 1;
    fs::write(&file, content)?;
    let agent = stage.start(state.path())?;
    let metrics = get_from(&stage.server, "/metrics")?.body;
    assert_eq!(series(&metrics)["tap53_signals_state_resets_total"], 1.0);
    assert_eq!(stage.signals(&agent, "www.example.net", "A")?, json!(["NEW_DOMAIN_NODE"]));
    let ended = agent.stop()?;
    assert!(ended.stderr.contains("signals_state_reset"), "{}", ended.stderr);
    Ok(())
}
