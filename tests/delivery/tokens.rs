//! Authentication with tokens (SASL OAUTHBEARER) and passwords.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::json;
use tap53_harness::{
    kafka::{
        CLIENT_ID, CLIENT_SECRET, Kafka, PLAIN_PASSWORD, SCOPE, SCRAM_PASSWORD, SUBJECT, Security,
        TokenEndpoint, USER,
    },
    namespace::Namespace,
    scratch, wait,
};

use super::run::{DEADLINE, Ended, Run, TOPIC, consume, spool};

/// Interval at which the broker requires reauthentication.
const REAUTHENTICATION_MS: u64 = 2_000;

/// Lifetime of tokens in seconds. If less than a second of it is left at a reauthentication, librdkafka
/// reauthenticates again within a second, which the broker refuses: the lifetime must exceed the
/// interval by two seconds.
const LIFETIME_S: i64 = 12;

struct Stage {
    security: Security,
    namespace: Namespace,
}

impl Stage {
    fn new() -> Result<Self> {
        let namespace = Namespace::new()?;
        namespace.ip(&["link", "set", "lo", "up"])?;
        let security = Security::new()?.with_reauthentication_ms(REAUTHENTICATION_MS);
        Ok(Self { security, namespace })
    }

    fn kafka(&self) -> Result<Kafka<'_>> {
        let kafka = Kafka::start_secure(&self.namespace, &self.security)?;
        kafka.create_topic(TOPIC)?;
        Ok(kafka)
    }

    fn tls(&self) -> String {
        format!("tls: {{ca_file: {}}}", self.security.path("ca.pem").display())
    }

    /// An agent that logs everything.
    fn run(&self, broker: &str, keys: &str, next: u32) -> Result<Run> {
        Run::start_prepared(&self.namespace, broker, keys, next, |command| {
            command.args(["--log-level", "debug"]);
        })
    }
}

/// Replaces a secret atomically, as the kubelet does.
fn write(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, format!("{text}\n"))?;
    Ok(fs::rename(new, path)?)
}

/// Fails if a secret, or the part of a token that proves it, is in any output for operators.
fn require_unseen(ended: &Ended, secrets: &[String]) -> Result<()> {
    let seen = [&ended.log, &ended.stdout, &ended.ledger.to_string()];
    for secret in secrets {
        let tail = &secret[secret.len().saturating_sub(40)..];
        for text in seen {
            let line = text.lines().find(|line| line.contains(tail));
            ensure!(line.is_none(), "{line:?} has a secret in it");
        }
    }
    Ok(())
}

/// Returns how many lines of a log contain `text`.
fn count(log: &str, text: &str) -> usize {
    log.lines().filter(|line| line.contains(text)).count()
}

#[test]
fn a_renewed_token_is_used_and_records_continue_beyond_the_first_ones_lifetime() -> Result<()> {
    let stage = Stage::new()?;
    let kafka = stage.kafka()?;
    let directory = scratch::directory("token")?;
    let path = directory.path().join("token");
    let issuer = stage.security.issuer();
    let mut tokens = vec![issuer.token(LIFETIME_S)?];
    write(&path, &tokens[0])?;
    let keys = format!(
        "{}\n    sasl: {{mechanism: oauthbearer, token_file: {}}}\n    \
         options: {{debug: 'security,broker'}}\n    {}",
        stage.tls(),
        path.display(),
        spool("durable", &directory.path().join("spool"), ""),
    );
    let began = Instant::now();
    let mut renewed = began;
    let mut renew_in_time = || {
        if renewed.elapsed() >= Duration::from_secs(3) {
            tokens.push(issuer.token(LIFETIME_S)?);
            write(&path, &tokens[tokens.len() - 1])?;
            renewed = Instant::now();
        }
        anyhow::Ok(())
    };
    let mut run = stage.run(&kafka.token_address(), &keys, 0)?;
    // Twice the lifetime of the first one.
    while began.elapsed() < Duration::from_secs(2 * LIFETIME_S.unsigned_abs()) {
        run.feed(20)?;
        renew_in_time()?;
    }
    let fed = run.next();
    wait::until("each record to be there", DEADLINE, || {
        renew_in_time()?;
        Ok((consume(&kafka)?.times.len() == fed as usize).then_some(()))
    })?;
    let ended = run.finish()?;
    ended.require_nothing_lost()?;
    let consumed = consume(&kafka)?;
    consumed.require_exactly(0..fed)?;
    require_unseen(&ended, &tokens)?;
    let used = count(&ended.log, "event=\"token_renewed\"");
    // The last one may have been too late.
    ensure!(used + 1 >= tokens.len(), "{used} of {} tokens: {}", tokens.len(), ended.log);
    let proofs = count(&ended.log, "authentication successful");
    println!("{used} tokens, {proofs} proofs, {} duplicates of {fed}", consumed.duplicates());
    // There are several connections, each of which reauthenticates every two seconds.
    ensure!(proofs > 6, "{}", ended.log);
    ensure!(count(&ended.log, "ERROR") == 0, "{}", ended.log);
    Ok(())
}

#[test]
fn a_rejected_token_is_one_clear_line_and_nothing_is_lost() -> Result<()> {
    let stage = Stage::new()?;
    let kafka = stage.kafka()?;
    let directory = scratch::directory("token")?;
    let path = directory.path().join("token");
    let issuer = stage.security.issuer();
    let keys = format!(
        "{}\n    sasl: {{mechanism: oauthbearer, token_file: {}}}\n    {}",
        stage.tls(),
        path.display(),
        spool("durable", &directory.path().join("spool"), ""),
    );
    let mut next = 0;
    let cases = [
        (issuer.token(-60)?, "it expired at"),
        (issuer.unsigned(600)?, "does not accept the token"),
        (Security::new()?.issuer().token(600)?, "does not accept the token"),
        (issuer.token_with(600, &json!({"aud": ["another"]}))?, "does not accept the token"),
        (issuer.token_with(600, &json!({"iss": "https://another"}))?, "does not accept the token"),
        ("not a token".to_owned(), "characters in it that are in none"),
        (String::new(), "it is empty"),
    ];
    for (wrong, said) in cases {
        write(&path, &wrong)?;
        let mut run = stage.run(&kafka.token_address(), &keys, next)?;
        run.feed(10)?;
        let line = run.process().wait_for_line(said, 0, DEADLINE)?;
        println!("{line}");
        assert!(line.contains("ERROR"), "{line}");
        assert_eq!(consume(&kafka)?.times.len(), next as usize);
        // The right one is written while the agent runs.
        let right = issuer.token(600)?;
        write(&path, &right)?;
        next = run.next();
        wait::until("the records to arrive", DEADLINE, || {
            Ok((consume(&kafka)?.times.len() == next as usize).then_some(()))
        })?;
        let ended = run.finish()?;
        ended.require_nothing_lost()?;
        assert_eq!(count(&ended.log, said), 1, "{}", ended.log);
        require_unseen(&ended, &[right])?;
        if !wrong.is_empty() {
            require_unseen(&ended, &[wrong])?;
        }
    }
    consume(&kafka)?.require_exactly(0..next)
}

#[test]
fn tokens_are_requested_in_time_and_retried_while_the_server_fails() -> Result<()> {
    let stage = Stage::new()?;
    let kafka = stage.kafka()?;
    let directory = scratch::directory("token")?;
    let secret = directory.path().join("secret");
    write(&secret, "not the secret")?;
    let endpoint = TokenEndpoint::start(
        &stage.namespace,
        &stage.security,
        stage.security.issuer(),
        LIFETIME_S,
    )?;
    let keys = format!(
        "{}\n    sasl: {{mechanism: oauthbearer, token_endpoint: '{}', client_id: '{CLIENT_ID}', \
         client_secret_file: {}, scope: {SCOPE}, token_ca_file: {}}}\n    \
         options: {{debug: security}}\n    {}",
        stage.tls(),
        endpoint.url(),
        secret.display(),
        stage.security.path("ca.pem").display(),
        spool("durable", &directory.path().join("spool"), ""),
    );
    let mut run = stage.run(&kafka.token_address(), &keys, 0)?;
    run.feed(10)?;
    let line = run.process().wait_for_line("event=\"token_unavailable\"", 0, DEADLINE)?;
    println!("{line}");
    assert!(line.contains(&endpoint.url()) && line.contains("(401): invalid_client"), "{line}");
    assert_eq!(consume(&kafka)?.times.len(), 0);
    write(&secret, CLIENT_SECRET)?;
    let line = run.process().wait_for_line("event=\"token_renewed\"", 0, DEADLINE)?;
    assert!(line.contains(SUBJECT), "{line}");
    wait::until("the records to arrive", DEADLINE, || {
        Ok((consume(&kafka)?.times.len() == 10).then_some(()))
    })?;
    // It fails the request for the second token for a moment.
    endpoint.answer(503, LIFETIME_S)?;
    endpoint.process().stdout().wait_for_line("stub answered 503", 0, DEADLINE)?;
    endpoint.answer(200, LIFETIME_S)?;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2 * LIFETIME_S.unsigned_abs()) {
        run.feed(20)?;
    }
    let fed = run.next();
    wait::until("each record to be there", DEADLINE, || {
        Ok((consume(&kafka)?.times.len() == fed as usize).then_some(()))
    })?;
    let ended = run.finish()?;
    ended.require_nothing_lost()?;
    consume(&kafka)?.require_exactly(0..fed)?;
    let asked = count(&endpoint.process().stdout().text(), "stub answered 200");
    // At four fifths of the lifetime of the previous one.
    ensure!((3..10).contains(&asked), "{}", endpoint.process().stdout().text());
    let used = count(&ended.log, "event=\"token_renewed\"");
    ensure!(used >= asked - 1, "{used} of {asked}");
    require_unseen(&ended, &["not the secret".to_owned(), CLIENT_SECRET.to_owned()])?;
    // Tokens begin with this.
    assert_eq!(count(&ended.log, "eyJ"), 0, "{}", ended.log);
    Ok(())
}

#[test]
fn a_token_endpoint_with_an_untrusted_certificate_does_not_get_the_secret() -> Result<()> {
    let stage = Stage::new()?;
    let directory = scratch::directory("token")?;
    let secret = directory.path().join("secret");
    write(&secret, CLIENT_SECRET)?;
    let endpoint =
        TokenEndpoint::start(&stage.namespace, &stage.security, stage.security.issuer(), 60)?;
    let others = Security::new()?;
    let keys = format!(
        "{}\n    sasl: {{mechanism: oauthbearer, token_endpoint: '{}', client_id: '{CLIENT_ID}', \
         client_secret_file: {}, scope: {SCOPE}, token_ca_file: {}}}",
        stage.tls(),
        endpoint.url(),
        secret.display(),
        others.path("ca.pem").display(),
    );
    // Nothing listens there.
    let run = stage.run("127.0.0.1:9", &keys, 0)?;
    let line = run.process().wait_for_line("event=\"token_unavailable\"", 0, DEADLINE)?;
    println!("{line}");
    assert!(line.contains("certificate"), "{line}");
    assert_eq!(count(&endpoint.process().stdout().text(), "stub answered"), 0);
    Ok(())
}

#[test]
fn a_password_is_sent_or_proved_as_chosen() -> Result<()> {
    let stage = Stage::new()?;
    let kafka = stage.kafka()?;
    let directory = scratch::directory("password")?;
    let password = directory.path().join("password");
    let tls = stage.tls();
    let (secure, cleartext) = (kafka.sasl_ssl_address(), kafka.cleartext_address());
    let mut next = 0;
    for (mechanism, broker, right, keys, warning) in [
        ("plain", &secure, PLAIN_PASSWORD, tls.as_str(), false),
        ("scram-sha-256", &secure, SCRAM_PASSWORD, tls.as_str(), false),
        ("plain, allow_cleartext: true", &cleartext, PLAIN_PASSWORD, "", true),
    ] {
        let keys = format!(
            "{keys}\n    sasl: {{mechanism: {mechanism}, username: {USER}, password_file: {}}}\n    \
             options: {{debug: security}}\n    {}",
            password.display(),
            spool("durable", &directory.path().join("spool"), ""),
        );
        write(&password, "not the password")?;
        let mut run = stage.run(broker, &keys, next)?;
        run.feed(20)?;
        let line = run.process().wait_for_line("event=\"authentication_failed\"", 0, DEADLINE)?;
        println!("{line}");
        assert_eq!(consume(&kafka)?.times.len(), next as usize);
        write(&password, right)?;
        next = run.next();
        wait::until("the records to arrive", DEADLINE, || {
            Ok((consume(&kafka)?.times.len() == next as usize).then_some(()))
        })?;
        let ended = run.finish()?;
        ended.require_nothing_lost()?;
        assert_eq!(count(&ended.log, "in the clear") > 0, warning, "{}", ended.log);
        require_unseen(&ended, &["not the password".to_owned(), right.to_owned()])?;
    }
    consume(&kafka)?.require_exactly(0..next)
}
