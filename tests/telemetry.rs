//! The answers of a running agent to probes and Prometheus.

#[path = "telemetry/balance.rs"]
mod balance;
#[path = "telemetry/dashboards.rs"]
mod dashboards;
#[path = "telemetry/dns.rs"]
mod dns;
#[path = "telemetry/held_up.rs"]
mod held_up;
#[path = "telemetry/interfaces.rs"]
mod interfaces;
#[path = "telemetry/latencies.rs"]
mod latencies;
#[path = "telemetry/logs.rs"]
mod logs;
#[path = "telemetry/otlp.rs"]
mod otlp;
#[path = "telemetry/signals.rs"]
mod signals;
#[path = "telemetry/volume.rs"]
mod volume;

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tap53_harness::{
    agent::{self, Agent},
    client::Transport,
    http::{self, Answer},
    lab::{ANSWERED, Lab},
    namespace::{Namespace, SERVER_END},
    piped::Piped,
    wait,
};

const DEADLINE: Duration = Duration::from_secs(30);

/// Files of alerts in `deploy/prometheus`; each has a test beside it.
const ALERTS: [&str; 2] = ["alerts.yaml", "dns-alerts.yaml"];

/// Address of the port, in the test's namespace.
const PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9530);

fn get(lab: &Lab, path: &str) -> Result<Answer> {
    get_from(&lab.server, path)
}

fn get_from(server: &Namespace, path: &str) -> Result<Answer> {
    http::get(server, PORT, path)
}

fn wait_for(lab: &Lab, path: &str, code: u16, reason: &str) -> Result<Answer> {
    let what = format!("{path} to be {code} with {reason:?}");
    wait::until(&what, DEADLINE, || {
        let answer = get(lab, path)?;
        Ok((answer.code == code && answer.body.contains(reason)).then_some(answer))
    })
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("")
}

/// Series by their text before the value.
fn series(text: &str) -> BTreeMap<&str, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(k, v)| Some((k, v.parse().ok()?)))
        .collect()
}

#[test]
fn without_broker_and_api_server_it_is_alive_and_captures_on() -> Result<()> {
    let lab = Lab::new()?;
    let directory = tempfile::tempdir()?;
    let kubeconfig = directory.path().join("kubeconfig");
    // Nobody listens at port 1 of a namespace that is ours.
    fs::write(
        &kubeconfig,
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         contexts: [{name: c, context: {cluster: c, user: u}}]\n\
         clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\n\
         users: [{name: u, user: {}}]\n",
    )?;
    let yaml = format!(
        "interfaces: {{include: [s0]}}\ncapture: {{workers: 2}}\n\
         kubernetes: {{kubeconfig: {}}}\n\
         sinks: [{{type: stdout, format: json}}, {{type: kafka, brokers: ['127.0.0.1:1'], topic: t,\n\
         message_timeout_ms: 1000}}]\n\
         shutdown: {{flush_timeout_ms: 500}}\n\
         telemetry: {{listen: '{PORT}', heartbeat_timeout_ms: 5000}}\n",
        kubeconfig.display()
    );
    let agent = Agent::start(&lab.server, &yaml, &[])?;
    assert_eq!(get(&lab, "/livez")?.code, 200);
    let ready = get(&lab, "/readyz")?;
    assert_eq!((ready.code, ready.body.as_str()), (200, "ready\n"), "what waits is not lost");

    lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    agent.wait_for_output("MATCHED", 0, DEADLINE)?;
    wait_for(&lab, "/readyz", 503, "sink kafka lost the last records that it took: expired")?;
    assert_eq!(get(&lab, "/livez")?.code, 200, "no outage is a reason to start anew");
    let check = agent.command(&["status", "--check"])?.output()?;
    let told = String::from_utf8_lossy(&check.stderr);
    assert_eq!(check.status.code(), Some(1), "{told}");
    assert!(told.contains("sink kafka lost"), "{told}");

    lab.client_v4().ask(Transport::Udp, ANSWERED[1])?;
    agent.wait_for_output("MATCHED", 1, DEADLINE)?;
    // Until the second record is known to be lost too, so that nothing is on its way.
    let lost = "tap53_sink_records_lost_total{sink=\"kafka\",reason=\"expired\"} 2\n";
    let metrics = wait_for(&lab, "/metrics", 200, lost)?;
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"), "{}", metrics.head);
    let of = series(&metrics.body);
    for (name, value) in [
        ("tap53_live", 1.0),
        ("tap53_ready", 0.0),
        ("tap53_ledger_balanced", 1.0),
        ("tap53_hook_packets_captured_total{interface=\"(pairs)\",direction=\"ingress\"}", 2.0),
        ("tap53_hook_packets_captured_total{interface=\"(pairs)\",direction=\"egress\"}", 2.0),
        ("tap53_interface_wanted{interface=\"(pairs)\",direction=\"egress\"}", 1.0),
        ("tap53_interface_capturing{interface=\"(pairs)\",direction=\"ingress\"}", 1.0),
        ("tap53_messages_in_records_total", 4.0),
        ("tap53_sink_records_delivered_total{sink=\"stdout\"}", 2.0),
        ("tap53_sink_able_to_store{sink=\"stdout\"}", 1.0),
        ("tap53_sink_able_to_store{sink=\"kafka\"}", 0.0),
        ("tap53_kubernetes_enabled", 1.0),
        ("tap53_kubernetes_watch_connected{resource=\"pods\"}", 0.0),
        ("tap53_control_requests_total", 1.0),
        ("tap53_config_last_reload_successful", 1.0),
    ] {
        assert_eq!(of.get(name), Some(&value), "{name} in {}", metrics.body);
    }
    assert!(of["process_resident_memory_bytes"] > 1e6, "{}", metrics.body);
    assert!(of["tap53_worker_heartbeat_age_seconds{worker=\"1\"}"] < 5.0, "{}", metrics.body);
    is_as_documented(&metrics.body)?;
    promtool_agrees(&metrics.body)?;

    let ended = agent.stop()?;
    assert_eq!(ended.ledger["balanced"], true, "{}", ended.ledger);
    Ok(())
}

/// Checks that exactly the metrics of the document are exposed.
fn is_as_documented(metrics: &str) -> Result<()> {
    let document = fs::read_to_string(root().join("docs/metrics.md"))?;
    let documented: Vec<&str> =
        document.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let told: Vec<&str> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    ensure!(documented == told, "documented: {documented:?}; told: {told:?}");
    Ok(())
}

fn promtool_agrees(metrics: &str) -> Result<()> {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("promtool, of Debian's prometheus")?;
    promtool.stdin.take().context("stdin is piped")?.write_all(metrics.as_bytes())?;
    let output = promtool.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.is_empty(), "{}: {said}", output.status);
    Ok(())
}

#[test]
fn an_interface_that_is_lost_is_no_longer_ready_and_still_alive() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(
        &lab.server,
        &format!(
            "interfaces: {{include: ['s*']}}\nsinks: [{{type: stdout, format: json}}]\n\
             telemetry: {{listen: '{PORT}'}}\n"
        ),
        &[],
    )?;
    assert_eq!(get(&lab, "/readyz")?.code, 200);
    // Asked for by name, and not as one of those that fit a pattern, so that it is missed.
    let enabled = agent.command(&["enable", "s0"])?.output()?;
    assert!(enabled.status.success(), "{}", String::from_utf8_lossy(&enabled.stderr));
    lab.server.ip(&["link", "delete", "s0"])?;
    wait_for(&lab, "/readyz", 503, "s0 is not captured from as wanted: no such interface")?;
    assert_eq!(get(&lab, "/livez")?.code, 200);
    let reset = agent.command(&["reset", "s0"])?.output()?;
    assert!(reset.status.success(), "{}", String::from_utf8_lossy(&reset.stderr));
    // Nothing is there to be wanted.
    wait_for(&lab, "/readyz", 200, "ready")?;
    Ok(())
}

#[test]
fn bad_requests_and_idle_connections_hold_nothing_up() -> Result<()> {
    let lab = Lab::new()?;
    let _agent = Agent::start(
        &lab.server,
        &format!(
            "interfaces: {{include: [s0]}}\nsinks: [{{type: stdout, format: json}}]\n\
             telemetry: {{listen: '{PORT}'}}\n"
        ),
        &[],
    )?;
    assert_eq!(get(&lab, "/")?.code, 404);
    assert_eq!(get(&lab, "/livez?verbose")?.code, 200);
    let post = "POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(http::ask(&lab.server, PORT, post)?.code, 405);
    assert_eq!(http::ask(&lab.server, PORT, "no request\r\n\r\n")?.code, 400);
    let long = format!("GET /livez HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(9_000));
    assert_eq!(http::ask(&lab.server, PORT, &long)?.code, 431);

    // Half a request each, and more of them than there is room for.
    let mut idle = Vec::new();
    for _ in 0..64 {
        let mut stream = http::connect(&lab.server, PORT)?;
        stream.write_all(b"GET /livez HTTP/1.1\r\n")?;
        idle.push(stream);
    }
    wait::until("a probe to get through", DEADLINE, || {
        Ok(get(&lab, "/livez").ok().filter(|answer| answer.code == 200))
    })?;
    // The agent has closed them; a 408 may come first, and a reset where it had read nothing.
    for mut stream in idle {
        let mut rest = Vec::new();
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "the end of an idle connection");
        }
    }
    Ok(())
}

/// Opens idle connections from `namespace` until `done`; returns their number.
fn flood(
    namespace: &Namespace,
    to: SocketAddr,
    pause: Option<Duration>,
    done: &AtomicBool,
) -> Result<u64> {
    // More than there are slots, so that the agent closes them and not their end.
    const OPEN: usize = 300;
    namespace.enter(|| {
        let (mut open, mut opened) = (VecDeque::with_capacity(OPEN), 0);
        while !done.load(Ordering::Relaxed) {
            if open.len() == OPEN {
                open.pop_front();
            }
            // Refused where the kernel's own queue is full.
            if let Ok(stream) = TcpStream::connect_timeout(&to, DEADLINE) {
                open.push_back(stream);
                opened += 1;
            }
            if let Some(pause) = pause {
                thread::park_timeout(pause);
            }
        }
        Ok(opened)
    })
}

/// Connects as a scanner or a malicious pod does: 150 connections a second made every probe fail once.
#[test]
fn endless_idle_connections_do_not_prevent_answers() -> Result<()> {
    /// Connections that idle while probes go on.
    const IDLE: f64 = 1_000.0;
    const PROBES: u32 = 45;
    let lab = Lab::new()?;
    let anywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT.port());
    let port = SocketAddr::new(SERVER_END.ipv4.into(), PORT.port());
    let agent = Agent::start(
        &lab.server,
        &format!(
            "interfaces: {{include: [s0]}}\nsinks: [{{type: stdout, format: json}}]\n\
             telemetry: {{listen: '{anywhere}'}}\n"
        ),
        &[],
    )?;
    // From elsewhere as fast as can be, and from the prober's own address at twice the rate that was
    // enough.
    let floods = [(&lab.client, port, None), (&lab.server, PORT, Some(Duration::from_millis(3)))];
    for (from, to, pause) in floods {
        let before = series(&get(&lab, "/metrics")?.body)["tap53_telemetry_connections_total"];
        let done = AtomicBool::new(false);
        let (opened, probed) = thread::scope(|scope| {
            let flood = scope.spawn(|| flood(from, to, pause, &done));
            let probed = (|| -> Result<()> {
                let mut probes = 0;
                wait::until("a thousand idle connections beside probes", DEADLINE, || {
                    let mut answers = ["/livez", "/readyz", "/metrics"].map(|path| get(&lab, path));
                    for answer in &mut answers {
                        let code = answer.as_ref().map_or(0, |answer| answer.code);
                        ensure!(code == 200, "after {probes} probes: {answer:?}");
                        probes += 1;
                    }
                    let check = agent.command(&["status", "--check", "live"])?.output()?;
                    ensure!(check.status.success(), "{check:?}");
                    let [.., Ok(metrics)] = answers else { return Ok(None) };
                    let now = series(&metrics.body)["tap53_telemetry_connections_total"];
                    let enough = probes >= PROBES && now >= before + IDLE + f64::from(probes);
                    Ok(enough.then_some(()))
                })?;
                eprintln!("{probes} probes, all answered");
                Ok(())
            })();
            done.store(true, Ordering::Relaxed);
            (flood.join(), probed)
        });
        probed?;
        let opened = opened.map_err(|_| anyhow::anyhow!("the flood panicked"))??;
        let metrics = get(&lab, "/metrics")?.body;
        let of = series(&metrics);
        let idle = of["tap53_telemetry_connections_closed_total{reason=\"idle\"}"];
        assert!(idle > 0.0, "{metrics}");
        assert_eq!(of["tap53_telemetry_connections_closed_total{reason=\"busy\"}"], 0.0);
        eprintln!("{opened} connections opened, {idle} closed for newer ones");
    }
    let ended = agent.stop()?;
    let lines = ended.stderr.matches("telemetry_connections_closed").count();
    assert!(lines > 0 && lines < 20, "{lines} lines of the log: {}", ended.stderr);
    Ok(())
}

#[test]
fn alerts_fire_when_they_should_and_know_the_metrics() -> Result<()> {
    let directory = root().join("deploy/prometheus");
    for name in ALERTS {
        let tests = directory.join(name.replace(".yaml", "_test.yaml"));
        promtool(&["test", "rules"], &tests)?;
        let text = fs::read_to_string(directory.join(name))?;
        assert_eq!(undocumented(&text)?, Vec::<String>::new());
        // Each rule has a test that it fires.
        let tests = fs::read_to_string(tests)?;
        let alerts: Vec<_> =
            text.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
        ensure!(alerts.len() > 5, "{name}: {alerts:?}");
        for alert in alerts {
            let fires = format!("alertname: {alert}\n        exp_alerts:\n");
            assert!(tests.contains(&fires), "{alert}");
        }
    }
    Ok(())
}

#[test]
fn each_alert_on_the_dns_has_a_runbook() -> Result<()> {
    const PAGE: &str = "https://github.com/tap53/tap53/blob/main/docs/dns-alerts.md";
    let page = fs::read_to_string(root().join("docs/dns-alerts.md"))?;
    let headings: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let rules = fs::read_to_string(root().join("deploy/prometheus/dns-alerts.yaml"))?;
    let values = |key: &str| -> Vec<&str> {
        rules.lines().filter_map(|line| line.trim().strip_prefix(key)).collect()
    };
    let alerts = values("- alert: ");
    assert_eq!(headings, alerts, "of docs/dns-alerts.md");
    let links: Vec<String> =
        alerts.iter().map(|alert| format!("{PAGE}#{}", alert.to_lowercase())).collect();
    assert_eq!(values("runbook_url: "), links);
    Ok(())
}

/// Names of metrics in `text` that `docs/metrics.md` does not have.
fn undocumented(text: &str) -> Result<Vec<String>> {
    let document = fs::read_to_string(root().join("docs/metrics.md"))?;
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let names = words.filter(|word| word.starts_with("tap53_") || word.starts_with("process_"));
    let is_documented = |name: &str| {
        // A histogram has series of three names, none of them its own.
        let histogram = ["_bucket", "_sum", "_count"]
            .into_iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .filter(|histogram| document.contains(&format!("| `{histogram}` | histogram |")));
        // So a query of its base name finds nothing; a sentence may have it.
        let is_documented = document.contains(&format!("| `{name}` | histogram |"))
            && ["{", "["].iter().any(|next| text.contains(&format!("{name}{next}")));
        histogram.is_some() || (!is_documented && document.contains(&format!("| `{name}` |")))
    };
    Ok(names.filter(|name| !is_documented(name)).map(str::to_owned).collect())
}

fn promtool(arguments: &[&str], file: &Path) -> Result<()> {
    let output = Command::new("promtool")
        .args(arguments)
        .arg(file)
        .output()
        .context("promtool, of Debian's prometheus")?;
    ensure!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[test]
fn a_port_in_use_is_opened_when_it_is_free_and_capture_does_not_wait() -> Result<()> {
    let lab = Lab::new()?;
    let held = lab.server.enter(|| Ok(TcpListener::bind(PORT)?))?;
    let agent = Agent::start(
        &lab.server,
        &format!(
            "interfaces: {{include: [s0]}}\nsinks: [{{type: stdout, format: json}}]\n\
             telemetry: {{listen: '{PORT}'}}\n"
        ),
        &[],
    )?;
    lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    agent.wait_for_output("MATCHED", 0, DEADLINE)?;
    drop(held);
    wait::until("the port to be taken", DEADLINE, || {
        Ok(get(&lab, "/livez").ok().filter(|answer| answer.code == 200))
    })?;
    let ended = agent.stop()?;
    assert!(ended.stderr.contains("cannot listen for probes and Prometheus"), "{}", ended.stderr);
    Ok(())
}

#[test]
fn spooled_records_are_reported_and_cost_no_readiness() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(
        &lab.server,
        &format!(
            "interfaces: {{include: [s0]}}\n\
             sinks: [{{type: kafka, brokers: ['127.0.0.1:1'], topic: t,\n\
             spool: {{mode: durable, directory: $OUT/spool}}}}]\n\
             shutdown: {{flush_timeout_ms: 500}}\ntelemetry: {{listen: '{PORT}'}}\n"
        ),
        &[],
    )?;
    let empty = get(&lab, "/metrics")?.body;
    assert_eq!(series(&empty).get("tap53_sink_records_spooled{sink=\"kafka\"}"), Some(&0.0));
    lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    let spooled = "tap53_sink_records_spooled{sink=\"kafka\"} 1\n";
    let metrics = wait_for(&lab, "/metrics", 200, spooled)?.body;
    let of = series(&metrics);
    assert!(of["tap53_sink_spool_bytes{sink=\"kafka\"}"] > 200.0, "{metrics}");
    assert_eq!(of["tap53_sink_able_to_store{sink=\"kafka\"}"], 1.0, "{metrics}");
    assert_eq!(get(&lab, "/readyz")?.code, 200, "{}", get(&lab, "/readyz")?.body);
    assert_eq!(of["tap53_ledger_balanced"], 1.0, "{metrics}");
    drop(agent);
    Ok(())
}

#[test]
fn an_unreachable_registry_is_reported_and_costs_readiness_after_records_are_lost() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(
        &lab.server,
        &format!(
            "interfaces: {{include: [s0]}}\n\
             sinks: [{{type: kafka, brokers: ['127.0.0.1:1'], topic: t, message_timeout_ms: 1000,\n\
             registry: {{urls: ['http://127.0.0.1:1']}}}}]\n\
             shutdown: {{flush_timeout_ms: 500}}\ntelemetry: {{listen: '{PORT}'}}\n"
        ),
        &[],
    )?;
    let line = agent.process().wait_for_line("the registry cannot be reached", 0, DEADLINE)?;
    assert!(line.contains("t-value") && line.contains("records wait"), "{line}");
    assert_eq!(get(&lab, "/readyz")?.code, 200, "nothing is lost yet");
    lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    wait_for(&lab, "/readyz", 503, "sink kafka lost the last records that it took: no_schema_id")?;
    assert_eq!(get(&lab, "/livez")?.code, 200);
    let metrics = get(&lab, "/metrics")?.body;
    let of = series(&metrics);
    let lost = "tap53_sink_records_lost_total{sink=\"kafka\",reason=\"no_schema_id\"}";
    for (name, value) in [
        (lost, 1.0),
        ("tap53_registry_ids_known{sink=\"kafka\"}", 0.0),
        ("tap53_registry_id_changes_total{sink=\"kafka\"}", 0.0),
        ("tap53_ledger_balanced", 1.0),
    ] {
        assert_eq!(of.get(name), Some(&value), "{name} in {metrics}");
    }
    assert!(of["tap53_registry_failures_total{sink=\"kafka\"}"] >= 1.0, "{metrics}");
    is_as_documented(&metrics)?;
    let status = agent.command(&["status"])?.output()?;
    let told = String::from_utf8_lossy(&status.stdout);
    assert!(told.contains("schema registry of kafka"), "{told}");
    assert!(told.contains("ids known 0 of 1"), "{told}");
    assert_eq!(agent.stop()?.ledger["balanced"], true);
    Ok(())
}
