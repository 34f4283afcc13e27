//! Readers of the agent's output that go away, or that stay and do not read.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use tap53_harness::{
    account::Ledger,
    client::Transport,
    lab::{ANSWERED, Lab},
    piped::Piped,
};

/// Exit code of a stop that lost records, or whose ledger does not balance.
const LOSS: i32 = 3;

#[test]
fn a_log_without_a_reader_ends_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let directory = tempfile::tempdir()?;
    let ledger = directory.path().join("ledger.json");
    let ledger_text = ledger.to_str().context("a temporary path in UTF-8")?;
    let mut agent = Piped::start(&lab, &["-i", "s0", "--json", "--ledger", ledger_text])?;
    drop(agent.read_until_ready()?);

    agent.signal(Signal::SIGUSR1)?;
    lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    let mut records = BufReader::new(agent.take_stdout()?);
    let mut record = String::new();
    records.read_line(&mut record)?;
    assert!(record.contains("\"outcome\":\"MATCHED\""), "{record}");

    agent.signal(Signal::SIGTERM)?;
    assert_eq!(agent.wait()?.code(), Some(0));
    let ledger: serde_json::Value = serde_json::from_slice(&fs::read(&ledger)?)?;
    assert_eq!(ledger["balanced"], true, "{ledger}");
    Ok(())
}

#[test]
fn a_reader_that_does_not_read_delays_the_end_by_the_flush_deadline_only() -> Result<()> {
    let lab = Lab::new()?;
    let directory = tempfile::tempdir()?;
    let configuration = directory.path().join("tap53.yaml");
    fs::write(
        &configuration,
        "interfaces: {include: [s0]}\ncapture: {workers: 1}\n\
         sinks: [{type: stdout, format: json}]\nshutdown: {flush_timeout_ms: 500}\n",
    )?;
    let path = configuration.to_str().context("a temporary path in UTF-8")?;
    let ledger = directory.path().join("ledger.json");
    let ledger_text = ledger.to_str().context("a temporary path in UTF-8")?;
    let mut agent = Piped::start(&lab, &["--config", path, "--ledger", ledger_text])?;
    let mut log = agent.read_until_ready()?;
    // A record is over 1 KiB of JSON, so these are more than a pipe holds (64 KiB).
    for _ in 0..100 {
        lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    }
    agent.signal(Signal::SIGTERM)?;
    assert_eq!(agent.wait()?.code(), Some(LOSS));
    let mut rest = String::new();
    log.read_to_string(&mut rest)?;
    assert!(rest.contains("balanced: yes"), "{rest}");
    let ledger: serde_json::Value = serde_json::from_slice(&fs::read(&ledger)?)?;
    let ledger = Ledger(&ledger);
    ledger.require_balance()?;
    let delivered = ledger.number("/agent/sinks/0/records/delivered")?;
    let unflushed = ledger.number("/agent/sinks/0/records/lost/unflushed")?;
    assert!(unflushed > 0, "the pipe had room for all");
    assert_eq!(delivered + unflushed, 100);
    Ok(())
}
