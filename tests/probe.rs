//! `tap53 probe`: a query of its own through a real resolver and a running agent.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tap53_harness::{
    agent::{self, Agent},
    http,
    lab::Lab,
    namespace::{Namespace, SERVER_END},
    unbound::SILENT_ZONE,
    wait,
};

const DEADLINE: Duration = Duration::from_secs(30);

const CONFIGURATION: &str = "
interfaces: {include: [s0]}
pair: {timeout_ms: 300}
sinks:
  - {type: file, directory: $OUT}
";

/// Probes from the client's namespace.
fn probe(lab: &Lab, agent: &Agent, arguments: &[&str]) -> Result<(Output, Value)> {
    let netns = Path::new("/run/netns").join(lab.client.name()).display().to_string();
    let server = IpAddr::from(SERVER_END.ipv4).to_string();
    let usual = ["probe", "--server", &server, "--netns", &netns, "-o", "json"];
    let output = agent.command(&[&usual[..], arguments].concat())?.output()?;
    let report = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{}", String::from_utf8_lossy(&output.stderr)))?;
    Ok((output, report))
}

fn stage<'a>(report: &'a Value, name: &str) -> Result<&'a Value> {
    let mut stages = report["stages"].as_array().context("stages")?.iter();
    stages.find(|stage| stage["stage"] == name).with_context(|| format!("{name} in {report:#}"))
}

fn require(report: &Value, name: &str, verdict: &str, text: &str) -> Result<()> {
    let stage = stage(report, name)?;
    let said = stage["text"].as_str().unwrap_or_default();
    ensure!(stage["verdict"] == verdict && said.contains(text), "{stage}");
    Ok(())
}

#[test]
fn a_query_is_followed_from_the_client_to_its_record() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    for transport in ["udp", "tcp"] {
        let (output, report) = probe(&lab, &agent, &["--transport", transport])?;
        assert!(output.status.success(), "{report:#}");
        assert_eq!(report["verdict"], "ok", "{report:#}");
        require(&report, "agent", "ok", "captures from s0")?;
        require(&report, "resolver", "ok", "NXDOMAIN")?;
        require(&report, "captured", "ok", "MATCHED at s0 (ingress)")?;
        require(&report, "record", "ok", "what was sent and received")?;
        assert!(stage(&report, "captured")?["after_us"].is_u64());
        assert_eq!(report["record"]["qname"], report["name"]);
    }
    let (_, first) = probe(&lab, &agent, &[])?;
    let (_, second) = probe(&lab, &agent, &[])?;
    assert_ne!(first["name"], second["name"]);
    Ok(())
}

#[test]
fn a_resolver_that_does_not_answer_is_a_warning_and_the_record_says_so() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    let (output, report) = probe(&lab, &agent, &["--suffix", SILENT_ZONE, "--timeout", "2s"])?;
    assert!(output.status.success(), "{report:#}");
    assert_eq!(report["verdict"], "warn", "{report:#}");
    require(&report, "resolver", "warn", "did not answer")?;
    require(&report, "captured", "ok", "UNANSWERED at s0")?;
    require(&report, "record", "ok", "what was sent")?;
    Ok(())
}

#[test]
fn what_is_not_captured_fails_with_the_likely_reason() -> Result<()> {
    let lab = Lab::new()?;
    let timeout = ["--timeout", "1s"];
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    agent.command(&["disable", "s0"])?.output()?;
    let (output, report) = probe(&lab, &agent, &timeout)?;
    assert_eq!(output.status.code(), Some(1), "{report:#}");
    require(&report, "captured", "fail", "captures from no interface")?;
    drop(agent);

    let elsewhere = CONFIGURATION.replace("[s0]", "[lo]");
    let agent = Agent::start(&lab.server, &elsewhere, &[])?;
    let (output, report) = probe(&lab, &agent, &timeout)?;
    assert_eq!(output.status.code(), Some(1), "{report:#}");
    require(&report, "captured", "fail", "left by c0, and the agent captures from lo")?;
    Ok(())
}

#[test]
fn without_an_agent_or_a_namespace_the_error_says_so() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    let failed = |arguments: &[&str]| -> Result<String> {
        let usual = ["probe", "--server", "192.0.2.1"];
        let output = agent.command(&[&usual[..], arguments].concat())?.output()?;
        assert_eq!(output.status.code(), Some(1));
        Ok(String::from_utf8(output.stderr)?)
    };
    let text = failed(&["--netns", "/run/netns/no-such-namespace"])?;
    assert!(text.contains("cannot open /run/netns/no-such-namespace"), "{text}");
    let text = failed(&["--netns", "/dev/null"])?;
    assert!(text.contains("cannot enter the network namespace /dev/null"), "{text}");
    agent.stop()?;
    Ok(())
}

/// Address of the telemetry port, from the client's namespace too.
fn telemetry() -> SocketAddr {
    (SERVER_END.ipv4, 9530).into()
}

/// Starts an agent whose telemetry port the client reaches.
fn agent_with_port(lab: &Lab) -> Result<Agent> {
    let yaml = format!("{CONFIGURATION}telemetry: {{listen: '{}'}}\n", telemetry());
    Agent::start(&lab.server, &yaml, &[])
}

/// Probes at the telemetry port, in the client's namespace, without the right to enter any other.
fn probe_at_port(lab: &Lab, arguments: &[&str]) -> Result<Output> {
    let server = IpAddr::from(SERVER_END.ipv4).to_string();
    let mut command: Command = lab.client.command(agent::binary()?);
    command.args(["probe", "--server", &server, "--agent", &telemetry().to_string()]);
    Ok(command.args(arguments).output()?)
}

#[test]
fn the_telemetry_port_follows_a_query_and_shows_no_address() -> Result<()> {
    let lab = Lab::new()?;
    let agent = agent_with_port(&lab)?;
    for transport in ["udp", "tcp"] {
        let output = probe_at_port(&lab, &["--transport", transport, "-o", "json"])?;
        let report: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{}", String::from_utf8_lossy(&output.stderr)))?;
        assert!(output.status.success(), "{report:#}");
        assert_eq!(report["verdict"], "ok", "{report:#}");
        require(&report, "agent", "ok", "captures from s0")?;
        require(&report, "captured", "ok", "MATCHED at s0 (ingress)")?;
        require(&report, "record", "ok", "what was sent and received")?;
        let record = report["record"].as_object().context("a record")?;
        assert_eq!(record["qname"], report["name"]);
        let hidden = |field: &String| field.contains("client") || field.contains("server");
        assert!(!record.keys().any(hidden), "{record:?}");
    }
    agent.command(&["disable", "s0"])?.output()?;
    let output = probe_at_port(&lab, &["--timeout", "1s"])?;
    let text = String::from_utf8(output.stdout)?;
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("no record within 1s: the agent captures from no interface"), "{text}");
    agent.stop()?;

    let output = probe_at_port(&lab, &[])?;
    let text = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("does an agent run there") && text.contains("refused"), "{text}");
    Ok(())
}

#[test]
fn probes_at_the_telemetry_port_confirm_no_other_names() -> Result<()> {
    let lab = Lab::new()?;
    let agent = agent_with_port(&lab)?;
    for query in ["", "?name=www.tap53.test", "?name=%2e", "?name=tap53-probe.invalid", "?names=a"]
    {
        let answer = http::get(&lab.client, telemetry(), &format!("/probe{query}"))?;
        assert_eq!(answer.code, 400, "{query}: {}", answer.body);
        assert!(answer.body.contains("16 hexadecimal digits"), "{}", answer.body);
    }
    // Two are followed, and a third one is refused until one of them is gone.
    let path = "/probe?name=0123456789abcdef.tap53-probe.invalid";
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = http::connect(&lab.client, telemetry())?;
        stream.write_all(request.as_bytes())?;
        let mut head = Vec::new();
        while !String::from_utf8_lossy(&head).contains("\"capturing\":[\"s0\"]") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        open.push(stream);
    }
    let refused = http::get(&lab.client, telemetry(), path)?;
    assert_eq!(refused.code, 503, "{}", refused.body);
    assert!(refused.body.contains("2 probes are running"), "{}", refused.body);
    let output = probe_at_port(&lab, &[])?;
    let text = String::from_utf8(output.stderr)?;
    assert!(text.contains("503") && text.contains("2 probes are running"), "{text}");
    open.clear();
    wait::until("a probe to be admitted", DEADLINE, || {
        Ok(probe_at_port(&lab, &[])?.status.success().then_some(()))
    })?;
    agent.stop()?;
    Ok(())
}

/// Runs `tap53 doctor --live` in a namespace; returns its exit code and the checks of the live query.
fn doctor(namespace: &Namespace, agent: &Agent) -> Result<(Option<i32>, Vec<Value>)> {
    let output = namespace
        .command(agent::binary()?)
        .args(["doctor", "-o", "json", "--live", "--server"])
        .arg(IpAddr::from(SERVER_END.ipv4).to_string())
        .arg("--config")
        .arg(agent.directory().join("tap53.yaml"))
        .output()?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{}", String::from_utf8_lossy(&output.stderr)))?;
    let checks = report["checks"].as_array().context("checks")?.iter().cloned();
    Ok((output.status.code(), checks.filter(|check| check["area"] == "live").collect()))
}

#[test]
fn doctor_follows_a_query_too() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab.server, CONFIGURATION, &[])?;
    let (_, checks) = doctor(&lab.client, &agent)?;
    let said: Vec<_> = checks.iter().filter_map(|check| check["what"].as_str()).collect();
    assert!(checks.iter().all(|check| check["verdict"] == "ok"), "{checks:#?}");
    for expected in ["captures from s0", "NXDOMAIN", "MATCHED at s0", "what was sent"] {
        assert!(said.iter().any(|what| what.contains(expected)), "{expected} in {said:#?}");
    }

    // The resolver's own query passes the loopback interface, from which the agent does not capture.
    let (code, checks) = doctor(&lab.server, &agent)?;
    let failed = checks.iter().find(|check| check["verdict"] == "fail").context("a failure")?;
    assert_eq!((code, &failed["what"]), (Some(1), &"captured".into()));
    assert!(failed["wrong"].as_str().is_some_and(|wrong| wrong.contains("left by lo")), "{failed}");
    Ok(())
}
