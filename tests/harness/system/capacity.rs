//! Measures how many transactions a second the agent records without loss.
//!
//! tcpreplay sends queries and responses from a file, from the client's end. All of them arrive at the
//! server's interface, where the agent captures them, and the kernel drops them, since no process there
//! has these addresses. So no resolver uses the machine; the sender does.

use std::{net::SocketAddr, path::Path};

use anyhow::{Context as _, Result, ensure};

use super::{
    Plan,
    measure::count,
    resolver::{TO_FILE, start_agent, to_topic},
    stage::Stage,
    table::Table,
};
use crate::{
    account::Ledger, dns, frames::ethernet, kafka::Kafka, pcap::Pcap, process::run as run_to_end,
};

const IPV4: u16 = 0x0800;
const ANSWERS: u8 = 3;
/// Different transactions in the file.
const TRANSACTIONS: u16 = 10_000;
const CLIENTS: u16 = 200;
/// Fraction of the requested rate below which the sender is the bottleneck.
const SENDERS_SHARE: f64 = 0.9;

/// One run.
struct Outcome {
    /// Transactions a second that were sent.
    sent: f64,
    /// Share that was lost.
    lost: f64,
}

/// Finds the highest rate for each sink.
pub(super) fn measure(plan: &Plan) -> Result<String> {
    let stage = Stage::new(0)?;
    let kafka = Kafka::start(&stage.server)?;
    let file = stage.directory().join("transactions.pcap");
    transactions().write(&file)?;
    let mut table = Table::new(&["sink", "without loss, transactions/s", "what ended it"]);
    for (name, to_kafka) in [("Avro file", false), ("Kafka", true)] {
        let sink = || {
            if to_kafka { to_topic(&kafka) } else { Ok(TO_FILE.to_owned()) }
        };
        let (whole, end) = raise(plan, |rate| run(&stage, plan, &file, rate, &sink()?))?;
        table.row([name.to_owned(), format!("{whole:.0}"), end]);
    }
    Ok(format!(
        "Queries and responses from tcpreplay, which takes a part of the machine too; rings of the \
         default size, one partition:\n\n{}",
        table.finish()
    ))
}

/// Raises the rate until something is lost, or the sender cannot; the highest rate without loss, and
/// why there is none above it.
fn raise(plan: &Plan, run: impl Fn(u32) -> Result<Outcome>) -> Result<(f64, String)> {
    let mut whole = 0.0;
    for &rate in &plan.offered {
        let Outcome { sent, lost } = run(rate)?;
        if lost > 0.0 {
            return Ok((whole, format!("{:.2} % lost at {sent:.0}", lost * 100.0)));
        }
        whole = f64::max(whole, sent);
        if sent < f64::from(rate) * SENDERS_SHARE {
            return Ok((whole, format!("the sender, which was to send {rate}")));
        }
    }
    Ok((whole, "no higher rate was tried".to_owned()))
}

fn run(stage: &Stage, plan: &Plan, file: &Path, rate: u32, sink: &str) -> Result<Outcome> {
    let agent = start_agent(stage, sink)?;
    let before = stage.received()?;
    let loops =
        u64::from(rate) * u64::try_from(plan.window.as_millis())? / 1_000 / u64::from(TRANSACTIONS);
    let mut command = stage.client.command("tcpreplay");
    command.args(["--intf1=c0", "--preload-pcap", &format!("--loop={}", loops.max(1))]);
    command.arg(format!("--pps={}", u64::from(rate) * 2)).arg(file);
    let report = run_to_end(&mut command)?;
    let ledger = agent.stop_for_ledger()?;
    let ledger = Ledger(&ledger);
    ledger.require_balance()?;
    let received = stage.received()? - before;
    ensure!(received == loops.max(1) * 2 * u64::from(TRANSACTIONS), "{received} packets: {report}");
    let delivered = ledger.number("/agent/sinks/0/records/delivered")?;
    let lost = (received / 2).saturating_sub(delivered);
    let sent = packets_per_second(&report).context("tcpreplay's rate")? / 2.0;
    Ok(Outcome { sent, lost: count(lost) / count(received / 2) })
}

/// Parses tcpreplay's report: `Rated: 12345678.9 Bps, 98.76 Mbps, 123456.78 pps`.
fn packets_per_second(report: &str) -> Option<f64> {
    let rated = report.lines().find_map(|line| line.trim().strip_prefix("Rated:"))?;
    let rate = rated.split(',').find_map(|part| part.trim().strip_suffix(" pps"))?;
    rate.trim().parse().ok()
}

/// A query and its response, one after the other.
fn transactions() -> Pcap {
    let mut pcap = Pcap::of_frames(ethernet(IPV4));
    for number in 0..TRANSACTIONS {
        let host = u8::try_from(1 + number % CLIENTS).expect("few clients");
        let client = SocketAddr::from(([198, 18, 0, host], 1_024 + number));
        let server = SocketAddr::from(([198, 18, 1, 1], 53));
        let query = dns::query(number, &format!("service-{}.bench.test", number % 2_000), "A");
        pcap.udp(client, server, &query);
        pcap.udp(server, client, &response(query.clone()));
    }
    pcap
}

/// The response to a query, with addresses.
fn response(mut message: Vec<u8>) -> Vec<u8> {
    // QR and RA, RFC 1035 §4.1.1, then the count of answers.
    message[2] |= 0x80;
    message[3] |= 0x80;
    message[7] = ANSWERS;
    for host in 1..=ANSWERS {
        // The name of the question, A, IN, 300 seconds, four octets.
        message.extend(b"\xc0\x0c\0\x01\0\x01\0\0\x01\x2c\0\x04");
        message.extend([203, 0, 113, host]);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_raised_until_something_is_lost_or_the_sender_is_at_its_end() {
        let plan = Plan { offered: vec![10, 20, 30, 40], ..Plan::short() };
        let limited = |limit: f64, lost_from: u32| {
            raise(&plan, |rate| {
                let lost = if rate < lost_from { 0.0 } else { 0.5 };
                Ok(Outcome { sent: f64::from(rate).min(limit), lost })
            })
            .expect("no error")
        };
        assert_eq!(limited(100.0, 30), (20.0, "50.00 % lost at 30".to_owned()));
        assert_eq!(limited(25.0, 100), (25.0, "the sender, which was to send 30".to_owned()));
        assert_eq!(limited(100.0, 100), (40.0, "no higher rate was tried".to_owned()));
    }

    #[test]
    fn the_senders_report_is_read() {
        let report = "Actual: 20 packets (1800 bytes) sent in 0.0 seconds\nRated: 1800.0 Bps, 1.44 \
                      Mbps, 20000.50 pps\n";
        assert_eq!(packets_per_second(report), Some(20000.5));
        assert_eq!(packets_per_second("nothing"), None);
    }
}
