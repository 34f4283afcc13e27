//! The chain behind an answer, as the agents themselves follow it: a resolver behind a service, whose
//! queries from clients are seen before and after address translation.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Result, ensure};
use serde_json::Value;
use tap53_harness::{
    http,
    laboratory::{CLUSTER_IP, Laboratory, Load, Plan, Recording, SHARED_EVERY},
    wait,
};

use super::{
    CLIENTS, questions, require_nothing_lost,
    truth::{Score, Truth, asked_key, by_key},
};

const DEADLINE: Duration = Duration::from_secs(60);

/// Metrics of an agent, in the namespace of its node.
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9530);

/// The series of answers from upstream.
const FOLLOWED: &str = "tap53_answers_total{from=\"upstream\"}";

#[test]
fn the_record_of_a_translated_query_has_the_verdict_on_its_backend() -> Result<()> {
    // One DNS pod beside the clients, one on another node.
    let plan = Plan { pods: [5, 0], backends: vec![0, 1], chains: true, ..Plan::default() };
    let laboratory = Laboratory::new(&plan)?;
    let recording = Recording::start(&laboratory)?;
    let first = warm_up(&laboratory)?;
    let load = Load { first, clients: CLIENTS, questions: questions()?, server: CLUSTER_IP };
    let asked = load.run(&laboratory)?;
    let recorded = recording.stop()?;
    require_nothing_lost(&recorded)?;
    let truth = Truth::new(asked, laboratory.served()?)?;
    let [answers, upstream] = recorded.tables.ask([
        "SELECT dns_id, qname, sighting_count, answered_from, upstream_count, latency_ns, \
         upstream_time_ns + resolver_time_ns AS accounted_ns, hex(record_id) AS id \
         FROM dns_transactions WHERE answered_from IS NOT NULL",
        "SELECT hex(served_record_id) AS id, served_count FROM dns_transactions \
         WHERE server_address = '192.168.53.53'",
    ])?;
    require_verdicts(&truth, &answers)?;
    require_served(&truth, &answers, &upstream)
}

/// Asks until both agents have followed an answer: they know a resolver from its first exchanges on.
/// Returns the number of the next question.
///
/// It asks for no shared names: where an agent has not seen how a name came into the cache, it cannot say
/// that an authoritative answer is from there.
fn warm_up(laboratory: &Laboratory) -> Result<usize> {
    let mut first = 1;
    wait::until("both agents to know their resolver", DEADLINE, || {
        Load { first, clients: 2, questions: SHARED_EVERY - 1, server: CLUSTER_IP }
            .run(laboratory)?;
        first += SHARED_EVERY;
        for node in laboratory.nodes() {
            let metrics = http::get(&node.namespace, METRICS, "/metrics")?.body;
            let count = metrics.lines().find_map(|line| line.strip_prefix(FOLLOWED));
            if count.is_none_or(|count| count.trim() == "0") {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })?;
    Ok(first)
}

/// The verdicts agree with the servers' logs, and the times add up.
fn require_verdicts(truth: &Truth, answers: &[Value]) -> Result<()> {
    let rows = by_key(answers)?;
    let [mut unique, mut shared, mut cached, mut translated] =
        [Score::default(), Score::default(), Score::default(), Score::default()];
    for question in &truth.asked {
        let row = rows.get(&asked_key(question)).and_then(|rows| rows.first());
        let is = |source: &str| row.is_some_and(|row| row["answered_from"] == source);
        let served = truth.served(question);
        if !truth.is_coalesced(question) {
            let score = if question.is_unique { &mut unique } else { &mut shared };
            score.add(is("UPSTREAM"), served.forwarded);
            cached.add(is("CACHE"), !served.forwarded);
        }
        let Some(row) = row else { continue };
        // The DNS pod beside the clients is seen behind the service, the other one by its address.
        let is_beside = served.server.octets()[2] == 1;
        translated.add(row["sighting_count"] == 2, is_beside);
        if is("UPSTREAM") {
            let [accounted_ns, latency_ns] =
                ["accounted_ns", "latency_ns"].map(|it| row[it].as_i64().unwrap_or(i64::MIN));
            // The way through the translation is in the latency alone.
            ensure!((0..10_000_000).contains(&(latency_ns - accounted_ns)), "{row}");
            ensure!(row["upstream_count"].as_i64() >= Some(1), "{row}");
        }
    }
    unique.require("unique names from upstream", 0.999, 0.99)?;
    shared.require("shared names from upstream", 0.999, 0.95)?;
    cached.require("names from the cache", 0.999, 0.95)?;
    translated.require("queries seen before and after translation", 0.999, 0.999)
}

/// Queries of the DNS pods name the records that they serve, and those exist.
fn require_served(truth: &Truth, answers: &[Value], upstream: &[Value]) -> Result<()> {
    let ids: HashSet<_> = answers.iter().filter_map(|row| row["id"].as_str()).collect();
    let mut serving: HashMap<&str, usize> = HashMap::new();
    for id in upstream.iter().filter_map(|row| row["id"].as_str()) {
        ensure!(ids.contains(id), "a query serves {id}, which no record of a client has");
        *serving.entry(id).or_default() += 1;
    }
    let rows = by_key(answers)?;
    let mut named = Score::default();
    for question in truth.asked.iter().filter(|question| question.is_unique) {
        let row = rows.get(&asked_key(question)).and_then(|rows| rows.first());
        let id = row.and_then(|row| row["id"].as_str()).unwrap_or_default();
        named.add(serving.get(id) == Some(&1), truth.served(question).forwarded);
    }
    named.require("queries that name the question they serve", 0.999, 0.99)
}
