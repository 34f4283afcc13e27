//! `tap53 probe`: a query of its own through a real resolver and a running agent.

use std::{net::IpAddr, path::Path, process::Output};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tap53_harness::{
    agent::{self, Agent},
    lab::Lab,
    namespace::{Namespace, SERVER_END},
    unbound::SILENT_ZONE,
};

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
