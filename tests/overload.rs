//! Exact accounting where capture cannot keep up: the agent is stopped with SIGSTOP while packets
//! go on, its rings overflow, and every packet must still be accounted for.

use std::{
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tap53_harness::{
    account::Ledger,
    agent::Agent,
    client::{Exchange, Transport},
    dns,
    lab::{ANSWERED, Lab, UNANSWERED},
    wait,
};

const DEADLINE: Duration = Duration::from_secs(60);

/// Queries sent while the agent is stopped. Its two rings hold 128 KiB each, some 680 packets of
/// this size, so nearly all of them find their ring full.
const FLOOD: u32 = 200_000;

const CONFIGURATION: &str = "
interfaces:
  include: [s0]
capture:
  hook: HOOK
  workers: 2
  ring_bytes: 131072
pair:
  timeout_ms: 300
sinks:
  - {type: stdout, format: json}
  - type: file
    directory: $OUT
";

#[test]
fn every_packet_is_accounted_for_when_the_rings_overflow_with_xdp() -> Result<()> {
    overflow("xdp")
}

#[test]
fn every_packet_is_accounted_for_when_the_rings_overflow_with_tc() -> Result<()> {
    overflow("tc")
}

fn overflow(hook: &str) -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab.server, &CONFIGURATION.replace("HOOK", hook), &[])?;
    let before = lab.server.packets("s0")?;

    lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
    agent.process().signal(Signal::SIGSTOP)?;
    let sent = flood(&lab, FLOOD)?;
    // Pending while the rings were full: its response may have been missed.
    let during = lab.client_v4().ask_in_vain(UNANSWERED)?;
    agent.process().signal(Signal::SIGCONT)?;
    // Once the rings are drained, packets get through again.
    let after_gap = wait_until_captured(&lab, &agent)?;
    let after = lab.server.packets("s0")?;
    let ended = agent.stop()?;

    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    let ledger = Ledger(&ended.ledger);
    ledger.require_balance()?;
    let count = |path: &str| ledger.number(path);

    // Against the interface's own counters.
    assert_eq!(count("/interfaces/0/ingress/seen")?, after.received - before.received);
    assert_eq!(count("/interfaces/0/egress/seen")?, after.sent - before.sent);
    ensure!(
        count("/interfaces/0/ingress/seen")? >= sent,
        "the hook saw fewer packets than the {sent} that were received"
    );
    assert_eq!(ledger.sum("/interfaces/0/ingress/ignored")?, 0);
    ensure!(count("/interfaces/0/ingress/lost/ring_full")? > 0, "the rings did not overflow");

    // What got through is in the file, to the last record.
    assert_eq!(ended.records.len() as u64, count("/agent/sinks/1/records/delivered")?);
    assert_eq!(ended.records.len() as u64, count("/agent/records/created")?);

    // Records around missing packets have a gap; others do not.
    let record = |exchange: &Exchange| {
        let port = exchange.client.port();
        ended.records.iter().find(|r| r["dns_id"] == exchange.id && r["client_port"] == port)
    };
    if let Some(record) = record(&during) {
        assert_eq!(record["capture_gap"], true, "{record}");
    }
    let record = record(&after_gap).context("the record of the query after the gap")?;
    assert_eq!(record["outcome"], "MATCHED", "{record}");
    assert_eq!(record["capture_gap"], false, "{record}");
    ensure!(
        ended.records.iter().any(|record| record["capture_gap"] == true),
        "no record tells of the gap"
    );
    Ok(())
}

/// Sends `count` queries that the resolver leaves unanswered, from several ports so that they
/// spread over the rings, and returns how many the server's interface received.
fn flood(lab: &Lab, count: u32) -> Result<u64> {
    const SOCKETS: usize = 16;
    let client = lab.client_v4();
    let sockets: Vec<UdpSocket> =
        (0..SOCKETS).map(|_| client.udp_socket()).collect::<Result<_>>()?;
    let before = lab.server.packets("s0")?.received;
    thread::scope(|scope| {
        let halves = sockets.chunks(SOCKETS / 2).map(|half| {
            scope.spawn(move || -> Result<()> {
                for number in 0..count / 2 {
                    let id = u16::try_from(number % 65_536)?;
                    let query = dns::query(id, UNANSWERED.name, UNANSWERED.qtype);
                    half[number as usize % half.len()].send(&query)?;
                }
                Ok(())
            })
        });
        for thread in halves.collect::<Vec<_>>() {
            thread.join().expect("no panic in a sender")?;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    // Packets still queued at the interface arrive soon; then the count does not change.
    let mut last = (0, Instant::now());
    wait::until("the flood to have arrived", DEADLINE, || {
        let received = lab.server.packets("s0")?.received - before;
        if received != last.0 {
            last = (received, Instant::now());
        }
        Ok((last.1.elapsed() > Duration::from_millis(200)).then_some(received))
    })
}

/// Asks until a query and its answer have both passed the rings, and returns that exchange.
fn wait_until_captured(lab: &Lab, agent: &Agent) -> Result<Exchange> {
    wait::until("the rings to have room again", DEADLINE, || {
        let exchange = lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
        let line = agent.wait_for_record(exchange.client, Duration::from_secs(2));
        let matched = |line: String| line.contains("\"outcome\":\"MATCHED\"");
        Ok(line.is_ok_and(matched).then_some(exchange))
    })
}
