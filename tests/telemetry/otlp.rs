//! The export by OTLP to a real collector: the same values as at `/metrics`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tap53_harness::{
    agent::Agent,
    kafka::Security,
    lab::Lab,
    namespace::SERVER_END,
    opentelemetry::{Access, Collector, Point, Request, busy_file},
    wait,
};
use tempfile::TempDir;

use super::{DEADLINE, PORT, get, series};

/// Without spaces: the collector reads several tokens otherwise.
const TOKEN: &str = "token-of-the-collector";

/// Families that do not change between a quiet agent's export and a scrape.
const STABLE: [&str; 4] = ["tap53_dns_", "tap53_hook_", "tap53_records_", "tap53_messages_"];

/// The lab, and the file of what the collector received.
struct Stage {
    lab: Lab,
    directory: TempDir,
}

impl Stage {
    fn new() -> Result<Self> {
        Ok(Self { lab: Lab::new()?, directory: tempfile::tempdir()? })
    }

    fn received(&self) -> PathBuf {
        self.directory.path().join("received")
    }

    fn collector(&self, access: Option<Access<'_>>) -> Result<Collector> {
        Collector::start(&self.lab.server, &self.received(), access)
    }

    fn agent(&self, otlp: &str) -> Result<Agent> {
        let yaml = format!(
            "node: node-7\ninterfaces: {{include: [s0]}}\ncapture: {{workers: 2}}\n\
             pair: {{timeout_ms: 300}}\nfilter: {{qtypes: {{deny: [SRV]}}}}\n\
             sinks: [{{type: file, directory: $OUT}}]\ndns_metrics: {{names: true}}\n\
             telemetry: {{listen: '{PORT}', otlp: {{{otlp}}}}}\n\
             shutdown: {{flush_timeout_ms: 5000}}\n"
        );
        Agent::start(&self.lab.server, &yaml, &[])
    }

    /// Sends queries of all kinds, and waits until each has its record.
    fn ask_everything(&self) -> Result<()> {
        let created = |text: &str| series(text)["tap53_messages_in_records_total"];
        let before = created(&get(&self.lab, "/metrics")?.body);
        let exchanges = self.lab.ask_everything()?.len();
        wait::until("all transactions to be recorded", DEADLINE, || {
            let text = get(&self.lab, "/metrics")?.body;
            let pending = series(&text)["tap53_messages_pending"];
            let is_over = pending == 0.0 && created(&text) - before >= exchanges as f64;
            Ok(is_over.then_some(()))
        })
    }

    /// Waits for a request that begins to be received from now on and satisfies `is_wanted`.
    fn wait_for(&self, what: &str, is_wanted: impl Fn(&Request) -> bool) -> Result<Request> {
        let before = requests(&self.received())?.len();
        wait::until(what, DEADLINE, || {
            Ok(requests(&self.received())?.into_iter().skip(before).find(&is_wanted))
        })
    }
}

/// The state of the export in the agent's status.
fn state(agent: &Agent) -> Result<Value> {
    let output = agent.command(&["status", "-o", "json"])?.output()?;
    let status: Value = serde_json::from_slice(&output.stdout).context("the status")?;
    Ok(status["export"].clone())
}

/// Waits until the agent's status says that the export fails, requires `reason`, and returns the message.
fn wait_for_failure(agent: &Agent, reason: &str) -> Result<String> {
    let failing = wait::until("the export to fail", DEADLINE, || {
        let state = state(agent)?;
        Ok(Some(state["failing"].clone()).filter(|failing| !failing.is_null()))
    })?;
    ensure!(failing["reason"] == reason, "{failing}");
    Ok(failing["message"].as_str().context("a message")?.to_owned())
}

/// The requests that the collector received so far.
fn requests(received: &Path) -> Result<Vec<Request>> {
    if received.exists() { Request::all(received) } else { Ok(Vec::new()) }
}

/// Requires the transactions of a request to be the records of its own ledger.
fn adds_up(request: &Request) -> Result<f64> {
    let transactions = request.sum("tap53_dns_transactions_total");
    let created = request.sum("tap53_records_created_total");
    // Those that record.keep leaves out have been counted.
    let points = request.points("tap53_records_filtered_total");
    let is_not_kept = |point: &&Point| point.attributes.iter().any(|of| of == "reason=not_kept");
    let filtered = points.iter().filter(|point| !is_not_kept(point));
    let filtered: f64 = filtered.map(|point| point.value).sum();
    ensure!(
        transactions == created - filtered,
        "{transactions} transactions, {created} records less {filtered}"
    );
    Ok(transactions)
}

/// The values of a family, in order: those of its series, or of a histogram's counts.
fn values(scrape: &BTreeMap<&str, f64>, name: &str) -> Vec<f64> {
    let of = |name: &str| {
        let is_of = |series: &str| series == name || series.starts_with(&format!("{name}{{"));
        let values = scrape.iter().filter(|(series, _)| is_of(series));
        values.map(|(_, value)| *value).collect::<Vec<_>>()
    };
    sorted([of(name), of(&format!("{name}_count"))].concat())
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// Requires each stable family of a scrape to be in the request, with the same values.
fn equals(request: &Request, scrape: &str) -> Result<()> {
    let all = series(scrape);
    let names = scrape.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let mut compared = 0;
    for name in names.filter(|name| STABLE.iter().any(|prefix| name.starts_with(prefix))) {
        let exported = match name {
            "tap53_dns_latency_seconds" => "dns.lookup.duration",
            name => name,
        };
        let points = request.points(exported);
        let exported = sorted(points.iter().map(|point| point.value).collect());
        let scraped = values(&all, name);
        ensure!(exported == scraped, "{name}: exported {exported:?}, scraped {scraped:?}");
        compared += scraped.len();
    }
    ensure!(compared > 50, "{compared} series");
    Ok(())
}

fn point<'a>(points: &'a [Point], attributes: &[&str]) -> Option<&'a Point> {
    let has = |point: &&Point| attributes.iter().all(|of| point.attributes.iter().any(|a| a == of));
    points.iter().find(has)
}

#[test]
fn exported_values_are_those_of_metrics_and_nothing_is_missing_after_an_outage() -> Result<()> {
    let stage = Stage::new()?;
    let collector = stage.collector(None)?;
    let agent = stage.agent(
        "endpoint: 'http://127.0.0.1:4318', interval_ms: 1000, \
         resource_attributes: {deployment.environment.name: test}",
    )?;
    stage.ask_everything()?;
    let request = stage.wait_for("an export", |_| true)?;
    equals(&request, &get(&stage.lab, "/metrics")?.body)?;

    let resource = request.resource();
    for attribute in ["service.name=tap53", "deployment.environment.name=test"] {
        assert!(resource.iter().any(|of| of == attribute), "{resource:?}");
    }
    for name in ["service.version=", "service.instance.id=", "host.name="] {
        assert!(resource.iter().any(|of| of.starts_with(name)), "{resource:?}");
    }
    let latencies = request.points("dns.lookup.duration");
    let metric = request.metric("dns.lookup.duration").context("the latencies")?;
    assert_eq!(
        (&metric["unit"], &metric["histogram"]["aggregationTemporality"]),
        (&Value::from("s"), &Value::from(2))
    );
    for latency in &latencies {
        assert_eq!(latency.buckets.iter().sum::<f64>(), latency.value, "{latency:?}");
        assert!(latency.started_at_ns > 0, "{latency:?}");
    }
    let transactions = request.points("tap53_dns_transactions_total");
    let server = format!("server.address={}", SERVER_END.ipv4);
    let absent = [
        "dns.question.type=A",
        "dns.response_code=NXDOMAIN",
        "error.type=NXDOMAIN",
        "network.transport=udp",
        &server,
    ];
    let of = |attributes: &[&str]| point(&transactions, attributes).map(|point| point.value);
    assert!(of(&absent).is_some(), "{transactions:?}");
    assert!(of(&["outcome=unanswered", "error.type=timeout"]).is_some(), "{transactions:?}");
    let names = request.points("tap53_dns_top_name_transactions");
    assert!(point(&names, &["dns.question.name=www.tap53.test"]).is_some(), "{names:?}");

    drop(collector);
    agent.process().wait_for_line("otlp_export_failed", 0, DEADLINE)?;
    stage.ask_everything()?;
    let scrape = get(&stage.lab, "/metrics")?.body;
    let unreachable = "tap53_otlp_export_failures_total{reason=\"unreachable\"}";
    assert!(series(&scrape)[unreachable] >= 1.0, "{scrape}");
    let collector = stage.collector(None)?;
    let request = stage.wait_for("an export after the outage", |_| true)?;
    equals(&request, &scrape)?;
    agent.process().wait_for_line("otlp_export_resumed", 0, DEADLINE)?;
    let ended = agent.stop()?;
    assert_eq!(ended.stderr.matches("otlp_export_failed").count(), 1, "{}", ended.stderr);

    let requests = requests(&stage.received())?;
    for request in &requests {
        adds_up(request)?;
    }
    let last = requests.last().context("the last export")?;
    assert_eq!(adds_up(last)?, ended.records.len() as f64, "{}", collector.log());
    Ok(())
}

#[test]
fn a_collector_with_tls_and_a_token_gets_the_last_records_at_the_end() -> Result<()> {
    let stage = Stage::new()?;
    let security = Security::new()?;
    let _collector = stage.collector(Some(Access { security: &security, token: TOKEN }))?;
    let token = stage.directory.path().join("token");
    fs::write(&token, format!("Bearer not-{TOKEN}\n"))?;
    let agent = stage.agent(&format!(
        "endpoint: 'https://127.0.0.1:4318', ca_file: {}, header_files: {{Authorization: {}}}, \
         interval_ms: 3600000",
        security.path("ca.pem").display(),
        token.display(),
    ))?;
    let line = agent.process().wait_for_line("otlp_export_refused", 0, DEADLINE)?;
    assert!(line.contains("401") && !line.contains(TOKEN), "{line}");
    assert_eq!(requests(&stage.received())?.len(), 0, "refused");

    // It is read for each export, and the last one is the next.
    fs::write(&token, format!("Bearer {TOKEN}\n"))?;
    stage.ask_everything()?;
    let ended = agent.stop()?;
    let requests = requests(&stage.received())?;
    let [last] = &requests[..] else {
        anyhow::bail!("{} requests\n{}", requests.len(), ended.stderr)
    };
    assert_eq!(adds_up(last)?, ended.records.len() as f64, "{}", ended.stderr);
    assert!(ended.records.len() > 20, "{}", ended.records.len());
    Ok(())
}

#[test]
fn each_failure_is_counted_and_named_in_the_status() -> Result<()> {
    let stage = Stage::new()?;
    let (security, stranger) = (Security::new()?, Security::new()?);
    let fails = |otlp: &str, reason: &str, expected: &str| -> Result<()> {
        let agent = stage.agent(&format!("interval_ms: 3600000, {otlp}"))?;
        let message = wait_for_failure(&agent, reason)?;
        ensure!(message.contains(expected), "{otlp}: {message}");
        let text = agent.command(&["status"])?.output()?.stdout;
        let text = String::from_utf8(text)?;
        ensure!(text.contains(&message) && text.contains("failing since"), "{text}");
        let scrape = get(&stage.lab, "/metrics")?.body;
        let failures = format!("tap53_otlp_export_failures_total{{reason=\"{reason}\"}}");
        ensure!(series(&scrape)[failures.as_str()] >= 1.0, "{scrape}");
        ensure!(series(&scrape)["tap53_otlp_exports_total"] == 0.0, "{scrape}");
        Ok(())
    };
    let authority = |of: &Security| format!("ca_file: {}", of.path("ca.pem").display());
    fails("endpoint: 'http://127.0.0.1:4318'", "unreachable", "Connection refused")?;
    fails("endpoint: 'http://collector.invalid'", "unreachable", "dns error")?;
    let plain = stage.collector(None)?;
    fails("endpoint: 'http://127.0.0.1:4318/wrong'", "refused", "(404)")?;
    let secure = "endpoint: 'https://127.0.0.1:4318'";
    fails(&format!("{secure}, {}", authority(&security)), "unreachable", "cannot be reached")?;
    drop(plain);
    let _collector = stage.collector(Some(Access { security: &security, token: TOKEN }))?;
    fails(&format!("{secure}, {}", authority(&stranger)), "untrusted", "not trusted")?;
    fails(&format!("{secure}, {}", authority(&security)), "refused", "(401)")
}

#[test]
fn a_busy_collector_is_left_alone_for_the_time_that_it_requests() -> Result<()> {
    let stage = Stage::new()?;
    let busy = busy_file(&stage.received());
    fs::write(&busy, "3s")?;
    let _collector = stage.collector(None)?;
    let started_at = Instant::now();
    let agent = stage.agent("endpoint: 'http://127.0.0.1:4318', interval_ms: 1000")?;
    let message = wait_for_failure(&agent, "busy")?;
    assert!(message.contains("(503)") && message.contains("the backend is busy"), "{message}");
    fs::remove_file(&busy)?;
    stage.wait_for("an export after the pause", |_| true)?;
    // Otherwise the first pause is at most a second.
    assert!(started_at.elapsed() >= Duration::from_secs(3), "{:?}", started_at.elapsed());
    let state = wait::until("the state to be good", DEADLINE, || {
        let state = state(&agent)?;
        Ok(state["failing"].is_null().then_some(state))
    })?;
    assert_eq!(state["failures"]["busy"], 1, "{state}");
    assert!(state["last_export"].is_string() && state["exports"].as_u64() >= Some(1), "{state}");
    Ok(())
}

#[test]
fn an_agent_whose_collector_is_away_ends_in_time_and_says_what_is_missing() -> Result<()> {
    let stage = Stage::new()?;
    let agent = stage.agent("endpoint: 'http://127.0.0.1:4318'")?;
    stage.ask_everything()?;
    let ended = agent.stop()?;
    assert!(ended.stderr.contains("otlp_last_export_failed"), "{}", ended.stderr);
    // Nothing else waits for the collector, or is lost with it.
    assert_eq!(ended.ledger["balanced"], true, "{}", ended.ledger);
    Ok(())
}
