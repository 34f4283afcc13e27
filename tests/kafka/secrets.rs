//! Secrets do not show in outputs, and `tap53 doctor` checks them.

use std::{fs, net::SocketAddr, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tap53_harness::{
    agent::{self, Agent},
    client::Transport,
    http,
    kafka::{
        CLIENT_ID, CLIENT_SECRET, Kafka, PLAIN_PASSWORD, SCOPE, SUBJECT, Security, TokenEndpoint,
        USER,
    },
    lab::{ANSWERED, Lab},
    process::run,
    scratch, wait,
};

use super::{DEADLINE, TOPIC};

fn sink(broker: &str, security: &Security, sasl: &str) -> String {
    let ca = security.path("ca.pem");
    format!(
        "interfaces: {{include: [s0]}}\n\
         telemetry: {{listen: '127.0.0.1:9530'}}\n\
         sinks:\n\
         - {{type: stdout, format: json}}\n\
         - {{type: kafka, brokers: ['{broker}'], topic: {TOPIC}, linger_ms: 5,\n\
         \x20  tls: {{ca_file: {}}}, sasl: {{{sasl}}}}}\n",
        ca.display()
    )
}

fn require_unseen(text: &str, secrets: &[&str]) -> Result<()> {
    for secret in secrets {
        let tail = &secret[secret.len().saturating_sub(40)..];
        let line = text.lines().find(|line| line.contains(tail));
        ensure!(line.is_none(), "{line:?} has a secret in it");
    }
    Ok(())
}

#[test]
fn secrets_show_neither_in_the_configuration_nor_in_status_metrics_log_and_ledger() -> Result<()> {
    let lab = Lab::new()?;
    let security = Security::new()?;
    let kafka = Kafka::start_secure(&lab.server, &security)?;
    kafka.create_topic(TOPIC)?;
    let endpoint = TokenEndpoint::start(&lab.server, &security, security.issuer(), 600)?;
    let directory = scratch::directory("secrets")?;
    let (token_file, secret_file) =
        (directory.path().join("token"), directory.path().join("client-secret"));
    let token = security.issuer().token(600)?;
    fs::write(&token_file, &token)?;
    fs::write(&secret_file, CLIENT_SECRET)?;
    for (earlier, sasl) in [
        format!("mechanism: oauthbearer, token_file: {}", token_file.display()),
        format!(
            "mechanism: oauthbearer, token_endpoint: '{}', client_id: '{CLIENT_ID}', \
             client_secret_file: {}, scope: {SCOPE}, token_ca_file: {}",
            endpoint.url(),
            secret_file.display(),
            security.path("ca.pem").display()
        ),
    ]
    .into_iter()
    .enumerate()
    {
        // Tokens begin with this; those of the endpoint are not known here.
        let secrets = [token.as_str(), CLIENT_SECRET, "eyJ0eXAi"];
        let yaml = sink(&kafka.token_address(), &security, &sasl);
        let agent = Agent::start(&lab.server, &yaml, &["--log-level", "debug"])?;
        lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
        wait::until("the record to arrive", DEADLINE, || {
            Ok((kafka.consume(TOPIC)?.len() > earlier).then_some(()))
        })?;
        let file = agent.directory().join("tap53.yaml");
        let checked = agent::run(&["check-config", "--config", &file.display().to_string()])?;
        let checked = String::from_utf8(checked.stdout)?;
        ensure!(checked.contains("oauthbearer"), "{checked}");
        let status = run(&mut agent.command(&["status", "-o", "json"])?)?;
        ensure!(status.contains("delivered"), "{status}");
        let metrics = http::get(&lab.server, SocketAddr::from(([127, 0, 0, 1], 9530)), "/metrics")?;
        ensure!(metrics.code == 200);
        for text in [&checked, &status, &metrics.body] {
            require_unseen(text, &secrets)?;
        }
        let ended = agent.stop()?;
        for text in [&ended.stderr, &ended.stdout, &ended.ledger.to_string()] {
            require_unseen(text, &secrets)?;
        }
        ensure!(ended.stderr.contains(SUBJECT), "{}", ended.stderr);
    }
    Ok(())
}

#[test]
fn doctor_reports_invalid_tokens_and_passwords() -> Result<()> {
    let lab = Lab::new()?;
    let security = Security::new()?;
    let kafka = Kafka::start_secure(&lab.server, &security)?;
    kafka.create_topic(TOPIC)?;
    let endpoint = TokenEndpoint::start(&lab.server, &security, security.issuer(), 600)?;
    let directory = scratch::directory("doctor")?;
    let secret = directory.path().join("secret");
    let by_token = format!("mechanism: oauthbearer, token_file: {}", secret.display());
    let by_endpoint = format!(
        "mechanism: oauthbearer, token_endpoint: '{}', client_id: '{CLIENT_ID}', \
         client_secret_file: {}, scope: {SCOPE}, token_ca_file: {}",
        endpoint.url(),
        secret.display(),
        security.path("ca.pem").display()
    );
    let by_password =
        format!("mechanism: plain, username: {USER}, password_file: {}", secret.display());
    let (token, password) = (kafka.token_address(), kafka.sasl_ssl_address());
    let issuer = security.issuer();
    let topic = format!("topic {TOPIC}: 1 partitions");
    let valid = format!("token of {SUBJECT}, valid until ");
    let another = issuer.token_with(600, &json!({"aud": "another"}))?;
    for (broker, sasl, content, verdict, parts) in [
        (&token, &by_token, issuer.token(600)?, "ok", [valid.as_str(), ""]),
        (&token, &by_token, issuer.token(600)?, "ok", [topic.as_str(), ""]),
        (&token, &by_token, issuer.token(-60)?, "fail", ["it expired at", "basenc"]),
        (&token, &by_token, another, "fail", ["invalid_token", "expected.audience"]),
        (&token, &by_endpoint, CLIENT_SECRET.to_owned(), "ok", [topic.as_str(), ""]),
        (&token, &by_endpoint, "a guess".to_owned(), "fail", ["invalid_client", "curl -sS"]),
        (&password, &by_password, PLAIN_PASSWORD.to_owned(), "ok", [topic.as_str(), ""]),
        (
            &password,
            &by_password,
            "a guess".to_owned(),
            "fail",
            ["Invalid username or password", "plain.sasl.jaas.config"],
        ),
        // A listener that wants another mechanism, and one without TLS.
        (&token, &by_password, "a guess".to_owned(), "fail", ["mechanism", "OAUTHBEARER"]),
        (&kafka.address(), &by_password, "a guess".to_owned(), "fail", ["SSL", "openssl s_client"]),
    ] {
        fs::write(&secret, &content)?;
        let checks = doctor(&lab, directory.path(), &sink(broker, &security, sasl))?;
        let said = checks.iter().find(|check| {
            let text = check.to_string();
            check["verdict"] == verdict && parts.iter().all(|part| text.contains(part))
        });
        println!("{}", said.unwrap_or(&Value::Null));
        ensure!(said.is_some(), "{verdict} {parts:?} not in {checks:#?}");
        require_unseen(&json!(checks).to_string(), &[&content])?;
    }
    Ok(())
}

/// Returns the checks of `tap53 doctor` about Kafka.
fn doctor(lab: &Lab, directory: &Path, yaml: &str) -> Result<Vec<Value>> {
    let file = directory.join("tap53.yaml");
    fs::write(&file, yaml)?;
    let mut command = lab.server.command(agent::binary()?);
    let output = command.args(["doctor", "-o", "json", "--config"]).arg(&file).output()?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let checks = report["checks"].as_array().context("checks")?;
    Ok(checks.iter().filter(|check| check["area"] == "kafka").cloned().collect())
}
