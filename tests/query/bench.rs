//! Compares `tap53 query` with tshark: the most frequent names that do not exist, of one capture.
//!
//! Both run in turn, and must give the same names. CPU and time are the medians of all rounds; each ratio is
//! the median of those within a round.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};
use serde_json::Value;
use tap53_harness::{agent, dns, pcap::Pcap, process::run, scratch};

const ROUNDS: usize = 5;
const EXCHANGES: u32 = 200_000;
/// Queries for 200 names that do not exist: the n-th is in 2 n + 1 of them, so that no two are as frequent.
const ABSENT: u32 = 200 * 200;
const TOP: usize = 10;
const NXDOMAIN: u8 = 3;
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10)), 53);

/// What a program took, with its children.
struct Cost {
    time: Duration,
    cpu: Duration,
}

fn main() -> Result<()> {
    let directory = scratch::directory("query")?;
    let capture = directory.path().join("capture.pcap");
    write_capture(&capture)?;
    let program = agent::binary()?;
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        let (of_tap53, first) = measured(|| by_tap53(&program, &capture))?;
        let (of_tshark, second) = measured(|| by_tshark(&capture))?;
        ensure!(first == second, "tap53: {first:?}\ntshark: {second:?}");
        costs[0].push(of_tap53);
        costs[1].push(of_tshark);
    }
    println!("top names that do not exist, of {EXCHANGES} exchanges    seconds   CPU seconds");
    for (name, costs) in ["tap53 query", "tshark | sort | uniq -c"].iter().zip(&costs) {
        let [time, cpu] = [|cost: &Cost| cost.time, |cost: &Cost| cost.cpu]
            .map(|of| median(costs.iter().map(|cost| of(cost).as_secs_f64())));
        println!("{name:<54} {time:>7.2}   {cpu:>11.2}");
    }
    let [ours, theirs] = &costs;
    let [time, cpu] = [|cost: &Cost| cost.time, |cost: &Cost| cost.cpu].map(|of| {
        median(ours.iter().zip(theirs).map(|(ours, theirs)| of(theirs).div_duration_f64(of(ours))))
    });
    println!("{:<54} {time:>7.1}   {cpu:>11.1}", "ratio");
    Ok(())
}

/// Writes exchanges, half of which are about names that exist.
fn write_capture(path: &Path) -> Result<()> {
    let mut capture = Pcap::default();
    for number in 0..EXCHANGES {
        let client = Ipv4Addr::from(0x0a00_0000 + number % 5_000);
        let [high, low, ..] = (number % 64_000).to_le_bytes();
        let client = SocketAddr::from((client, 1_024 + u16::from_le_bytes([high, low])));
        let id = u16::from_le_bytes([low, high]);
        let exists = number % 2 == 0;
        let name = if exists {
            format!("host-{}.service.example.test", number % 3_000)
        } else {
            format!("absent-{}.search.example.test", (number / 2 % ABSENT).isqrt())
        };
        let query = dns::query(id, &name, "A");
        let mut response = query.clone();
        response[2] |= 0x80;
        response[3] = if exists { 0 } else { NXDOMAIN };
        let at = Duration::from_micros(50 * u64::from(number));
        capture.udp_at(at, client, SERVER, &query);
        capture.udp_at(at + Duration::from_micros(20), SERVER, client, &response);
    }
    capture.write(path)
}

/// The first names with their numbers of transactions.
type Names = Vec<(String, u64)>;

fn by_tap53(program: &Path, capture: &Path) -> Result<Names> {
    let mut query = Command::new(program);
    query.arg("query").arg(capture).args(["rcode = NXDOMAIN", "--report", "top-names"]);
    let printed = run(query.args(["-o", "json", "--rows"]).arg(TOP.to_string()))?;
    let names = printed.lines().map(|line| {
        let row: Value = serde_json::from_str(line)?;
        let name = row["qname"].as_str().context("a name")?;
        Ok((name.to_owned(), row["transactions"].as_u64().context("a count")?))
    });
    names.collect()
}

fn by_tshark(capture: &Path) -> Result<Names> {
    let filter = format!("dns.flags.response == 1 && dns.flags.rcode == {NXDOMAIN}");
    let line = format!(
        "tshark -r '{}' -Y '{filter}' -T fields -e dns.qry.name | sort | uniq -c | sort -k1,1rn -k2 | head -{TOP}",
        capture.display()
    );
    let printed = run(Command::new("sh").args(["-c", &line]))?;
    let rows = printed.lines().filter_map(|line| line.trim().split_once(' '));
    rows.map(|(count, name)| Ok((name.to_owned(), count.parse()?))).collect()
}

fn measured<T>(act: impl FnOnce() -> Result<T>) -> Result<(Cost, T)> {
    let (before, began) = (cpu_of_children()?, Instant::now());
    let outcome = act()?;
    Ok((Cost { time: began.elapsed(), cpu: cpu_of_children()? - before }, outcome))
}

fn cpu_of_children() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let time = usage.user_time() + usage.system_time();
    Ok(Duration::from_micros(time.num_microseconds().try_into()?))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
