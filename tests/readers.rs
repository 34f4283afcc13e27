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

/// Exchanges whose records do not fit into a pipe: it holds 64 KiB, and a record is over 1 KiB.
const BACKLOG: usize = 100;

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
fn a_reader_that_does_not_read_delays_the_end_and_what_it_holds_up_is_counted() -> Result<()> {
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
    for _ in 0..BACKLOG {
        lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    }
    agent.signal(Signal::SIGTERM)?;
    assert_eq!(agent.wait()?.code(), Some(LOSS));
    let mut rest = String::new();
    log.read_to_string(&mut rest)?;
    assert!(rest.contains("event=\"worker_abandoned\""), "{rest}");
    assert!(rest.contains("balanced: yes"), "{rest}");
    let ledger: serde_json::Value = serde_json::from_slice(&fs::read(&ledger)?)?;
    let ledger = Ledger(&ledger);
    ledger.require_balance()?;
    let packets = ledger.number("/agent/packets/received")?;
    let abandoned = ledger.number("/agent/packets/abandoned")?;
    assert_eq!(packets + abandoned, 2 * u64::try_from(BACKLOG)?, "queries and their answers");
    let delivered = ledger.number("/agent/sinks/0/records/delivered")?;
    let stuck = ledger.number("/agent/sinks/0/records/lost/abandoned")?;
    assert!(stuck > 0, "the batch that the pipe had no room for");
    assert_eq!(ledger.number("/agent/records/created")?, delivered + stuck);
    assert_eq!(ledger.number("/agent/messages/pending")?, 0);
    Ok(())
}

#[test]
fn a_worker_that_is_slow_at_the_stop_is_waited_for_as_long_as_it_makes_progress() -> Result<()> {
    let lab = Lab::new()?;
    let directory = tempfile::tempdir()?;
    let configuration = directory.path().join("tap53.yaml");
    let ledger = directory.path().join("ledger.json");
    fs::write(
        &configuration,
        "interfaces: {include: [s0]}\ncapture: {workers: 1}\n\
         sinks: [{type: stdout, format: json}]\nshutdown: {flush_timeout_ms: 100}\n",
    )?;
    let path = configuration.to_str().context("a temporary path in UTF-8")?;
    let ledger_text = ledger.to_str().context("a temporary path in UTF-8")?;
    let mut agent = Piped::start(&lab, &["--config", path, "--ledger", ledger_text])?;
    let mut log = agent.read_until_ready()?;
    for _ in 0..BACKLOG {
        lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    }
    agent.signal(Signal::SIGTERM)?;
    let mut line = String::new();
    while !line.contains("event=\"worker_slow_at_stop\"") {
        line.clear();
        assert!(log.read_line(&mut line)? > 0, "the agent ended");
    }
    // Past the flush timeout, the worker gets on again.
    let mut records = String::new();
    agent.take_stdout()?.read_to_string(&mut records)?;
    let mut rest = String::new();
    log.read_to_string(&mut rest)?;
    assert_eq!(agent.wait()?.code(), Some(0), "{rest}");
    assert_eq!(records.lines().count(), BACKLOG);
    let ledger: serde_json::Value = serde_json::from_slice(&fs::read(&ledger)?)?;
    Ledger(&ledger).require_balance()
}
