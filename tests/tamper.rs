//! Tamper evidence end to end: a real agent signs what it sends to a real broker, some of it is lost and
//! counted, and `tap53 verify` reads the topics.

use std::{
    fs::{self, Permissions},
    net::UdpSocket,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tap53_harness::{
    account::Ledger,
    agent::{self, Agent},
    dns,
    kafka::Kafka,
    lab::Lab,
    scratch, wait,
};

const DEADLINE: Duration = Duration::from_secs(60);
const RECORDS: &str = "dns-transactions";
const SUMMARIES: &str = "dns-ledger";

/// RFC 8410 10.
const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
";
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
";

const CONFIGURATION: &str = r#"
node: gateway-1
interfaces:
  include: ["s0"]
capture:
  workers: 2
record:
  wire_bytes: true
sinks:
  - type: kafka
    brokers: ["BROKER"]
    topic: dns-transactions
    linger_ms: 5
    message_timeout_ms: 5000
    summary: {topic: dns-ledger, interval_s: 1, chain: true, signing_key_file: KEY}
"#;

fn send(lab: &Lab, count: u16) -> Result<()> {
    let client: UdpSocket = lab.client_v4().udp_socket()?;
    (0..count).try_for_each(|number| {
        client.send(&dns::query(number, "www.tap53.test", "A"))?;
        Ok(())
    })
}

fn in_flight_and_delivered(agent: &Agent) -> Result<(u64, u64)> {
    let output = agent.command(&["status", "-o", "json"])?.output()?;
    let status: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let number =
        |name: &str| Ledger(&status["ledger"]).number(&format!("/agent/sinks/0/records/{name}"));
    Ok((number("in_flight")?, number("delivered")?))
}

fn wait_until_delivered(agent: &Agent, at_least: u64) -> Result<()> {
    wait::until("records to be delivered", DEADLINE, || {
        let (in_flight, delivered) = in_flight_and_delivered(agent)?;
        Ok((in_flight == 0 && delivered >= at_least).then_some(()))
    })
}

/// Exit code and report of `tap53 verify`.
fn verify(mut command: Command, arguments: &[&Path]) -> Result<(Option<i32>, Value)> {
    command.args(["verify", "-o", "json"]).args(arguments);
    let output = command.output()?;
    let report = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok((output.status.code(), report))
}

fn number(report: &Value, name: &str) -> Result<u64> {
    report["records"][name].as_u64().with_context(|| format!("no {name} in {report}"))
}

#[test]
fn records_of_a_real_agent_are_proven_except_its_losses() -> Result<()> {
    let directory = scratch::directory("tamper")?;
    let at = |name: &str| directory.path().join(name);
    fs::write(at("private.pem"), PRIVATE)?;
    fs::set_permissions(at("private.pem"), Permissions::from_mode(0o600))?;
    fs::write(at("public.pem"), PUBLIC)?;
    let lab = Lab::new()?;
    let mut kafka = Kafka::start(&lab.server)?;
    kafka.create_topic(RECORDS)?;
    kafka.create_topic(SUMMARIES)?;
    let yaml = CONFIGURATION
        .replace("BROKER", &kafka.address())
        .replace("KEY", &at("private.pem").display().to_string());
    fs::write(at("tap53.yaml"), &yaml)?;

    // A run that loses some of its records, and one that does not.
    let agent = Agent::start(&lab.server, &yaml, &[])?;
    send(&lab, 1_000)?;
    wait_until_delivered(&agent, 100)?;
    kafka.kill();
    send(&lab, 200)?;
    wait::until("records to expire", DEADLINE, || {
        Ok((in_flight_and_delivered(&agent)?.0 == 0).then_some(()))
    })?;
    kafka.restart()?;
    let lossy = agent.stop()?;
    let agent = Agent::start(&lab.server, &yaml, &[])?;
    send(&lab, 1_000)?;
    wait_until_delivered(&agent, 100)?;
    let clean = agent.stop()?;
    let sum = |pointer: &str| -> Result<u64> {
        [&lossy, &clean].iter().map(|run| Ledger(&run.ledger).sum(pointer)).sum()
    };
    let lost = sum("/agent/sinks/0/records/lost")?;
    ensure!(lost > 10, "nothing was lost");

    let key = [Path::new("--key"), &at("public.pem")];
    let of_topics = [Path::new("-c"), &at("tap53.yaml"), key[0], key[1]];
    let (code, report) = verify(lab.server.command(agent::binary()?), &of_topics)?;
    assert_eq!((code, &report["findings"]), (Some(0), &serde_json::json!([])), "{report:#}");
    assert_eq!((number(&report, "missing")?, number(&report, "lost")?), (lost, lost));
    let (arrived, proven) = (number(&report, "arrived")?, number(&report, "proven")?);
    ensure!(proven > 0 && arrived == proven + number(&report, "beside_missing")?, "{report:#}");
    assert_eq!(report["signatures_valid"], report["summaries"], "{report:#}");
    println!("{report:#}");
    Ok(())
}
