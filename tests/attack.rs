//! One sender of the worst messages, and clients with genuine queries at the same time.
//!
//! [`RATE_BITS_PER_S`] of hostile messages may cost the agent no more than [`FACTOR`] times as much CPU
//! as the same bytes of a benign one. Genuine transactions are recorded or counted as lost, the agent
//! stays alive to its probes, and the ledger balances.

#[path = "../agent/crates/dns/src/message/hostile.rs"]
mod hostile;

use std::{
    env,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tap53_harness::{
    account::Ledger,
    agent::Agent,
    client::{Exchange, Transport},
    http,
    lab::{ANSWERED, Lab},
    usage::Usage,
    wait,
};

const DEADLINE: Duration = Duration::from_secs(60);

/// Rate of one unprivileged sender, in bits a second.
const RATE_BITS_PER_S: u64 = 100_000_000;

/// Deadline for the record of a transaction whose packets were captured.
const RECORDED_WITHIN: Duration = Duration::from_secs(2);

/// Messages of each kind, unless `TAP53_ATTACK_MESSAGES` is set. An agent built for debugging
/// cannot keep up with the rate; one built for release can.
const COUNT: u32 = 60;

/// One genuine question for so many hostile messages.
const GENUINE_EVERY: u32 = 3;

/// CPU that a message may cost at most, of what a benign one of its size costs. The factor that
/// docs/threat-model.md states.
const FACTOR: f64 = 10.0;

/// Bytes of a message: what one UDP datagram over IPv4 carries.
const LENGTH: usize = 65_535 - 20 - 8;

/// Exit code of an agent that has lost records.
const LOSS: i32 = 3;

/// Address of the probes, in the test's namespace.
const PROBES: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9530);

fn configuration() -> String {
    format!(
        "
interfaces:
  include: [s0]
capture:
  workers: 1
sinks:
  - {{type: stdout, format: json}}
  - type: file
    directory: $OUT
telemetry:
  listen: '{PROBES}'
  heartbeat_timeout_ms: 5000
"
    )
}

#[test]
fn the_worst_messages_cost_little_more_than_benign_ones_and_hide_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let agent = Agent::start(&lab.server, &configuration(), &[])?;
    let mut genuine = Vec::new();
    // Once without a measurement: buffers grow to the size of these messages.
    cost(&lab, &agent, BENIGN, &mut genuine)?;
    let benign = cost(&lab, &agent, BENIGN, &mut genuine)?;
    let mut excessive = Vec::new();
    println!("{:>10.1} µs  1.0  a benign message", benign);
    for message in hostile::ALL {
        let worst = cost(&lab, &agent, message, &mut genuine)?;
        let line = format!("{worst:>10.1} µs  {:.1}  {}", worst / benign, message.0);
        println!("{line}");
        if worst > benign * FACTOR {
            excessive.push(line);
        }
    }
    let ended = agent.stop()?;

    ensure!(excessive.is_empty(), "over {FACTOR} times a benign one: {excessive:#?}");
    let ledger = Ledger(&ended.ledger);
    ledger.require_balance()?;
    // A slow reader of the lines of JSON costs lines, which are counted, and nothing else.
    let lines_lost = ledger.number("/agent/sinks/0/records/lost/queue_full")?;
    let expected = if lines_lost > 0 { LOSS } else { 0 };
    assert_eq!(ended.status.code(), Some(expected), "{}", ended.stderr);
    assert_eq!(ledger.sum("/agent/sinks/1/records/lost")?, 0, "{}", ended.stderr);
    let lost = ledger.sum("/interfaces/0/ingress/lost")?
        + ledger.sum("/interfaces/0/egress/lost")?
        + ledger.sum("/agent/packets/lost")?;
    let is_recorded = |exchange: &&Exchange| {
        ended.records.iter().any(|record| {
            record["dns_id"] == exchange.id
                && record["client_port"] == exchange.client.port()
                && record["outcome"] == "MATCHED"
        })
    };
    let missing = genuine.iter().filter(|exchange| !is_recorded(exchange)).count() as u64;
    ensure!(missing <= lost, "{missing} genuine records are missing, {lost} packets are counted");
    println!("{} genuine transactions, {missing} without a record", genuine.len());
    Ok(())
}

/// The message that the others are compared with.
const BENIGN: hostile::Named = ("benign", hostile::benign);

/// CPU time of the agent for each message, microseconds, with genuine questions in between.
fn cost(
    lab: &Lab,
    agent: &Agent,
    (name, make): hostile::Named,
    genuine: &mut Vec<Exchange>,
) -> Result<f64> {
    let socket = lab.client_v4().udp_socket()?;
    let message = make(LENGTH);
    let interval = Duration::from_nanos(message.len() as u64 * 8 * 1_000_000_000 / RATE_BITS_PER_S);
    let before = Usage::of(agent.process().pid())?.cpu;
    let began = Instant::now();
    let count = match env::var("TAP53_ATTACK_MESSAGES") {
        Ok(count) => count.parse()?,
        Err(_) => COUNT,
    };
    for number in 0..count {
        pace(began + interval * number);
        send(&socket, &message, number)?;
        if number % GENUINE_EVERY == 0 {
            genuine.push(lab.client_v4().ask(Transport::Udp, ANSWERED[0])?);
            let answer = http::get(&lab.server, PROBES, "/livez")?;
            ensure!(answer.code == 200, "{name}: /livez says {}", answer.body);
        }
    }
    // One worker reads its ring in order: what precedes this question has been dealt with. While the
    // ring is full, questions are lost in it as well.
    let last = wait::until(name, DEADLINE, || {
        let last = lab.client_v4().ask(Transport::Udp, ANSWERED[0])?;
        let line = agent.wait_for_record(last.client, RECORDED_WITHIN);
        Ok(line.is_ok().then_some(last))
    })?;
    genuine.push(last);
    let took = Usage::of(agent.process().pid())?.cpu.saturating_sub(before);
    Ok(took.as_secs_f64() * 1e6 / f64::from(count))
}

/// Sends a message with a unique IP identification, so that none is a copy of another.
fn send(socket: &UdpSocket, message: &[u8], number: u32) -> Result<()> {
    let mut message = message.to_vec();
    message[..2].copy_from_slice(&number.to_be_bytes()[2..]);
    socket.send(&message)?;
    Ok(())
}

/// Keeps a sender at its rate. Nothing is waited for here.
fn pace(until: Instant) {
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        thread::park_timeout(left);
    }
}
