//! The chain through a cache on the node: pod, cache, DNS pod, upstream resolver, against the logs of all
//! three servers.

use std::{collections::HashMap, net::Ipv4Addr};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tap53_harness::laboratory::{CACHE_IP, Laboratory, Load, Plan, Recording, Served, UPSTREAM_IP};

use super::{
    CLIENTS, questions, require_nothing_lost,
    truth::{Score, Truth, asked_key, by_key},
};

#[test]
fn chains_go_through_the_node_cache_as_far_as_the_servers_logged() -> Result<()> {
    let plan = Plan { pods: [5, 0], node_cache: true, ..Plan::default() };
    let laboratory = Laboratory::new(&plan)?;
    let recording = Recording::start(&laboratory)?;
    let load = Load { first: 0, clients: CLIENTS, questions: questions()?, server: CACHE_IP };
    let asked = load.run(&laboratory)?;
    let recorded = recording.stop()?;
    require_nothing_lost(&recorded)?;
    let truth = Truth::new(asked, laboratory.cached()?)?;
    let [hops, hits] = recorded.tables.ask([
        "SELECT root.dns_id, root.qname, chains.hop, chains.server_address, chains.resolver, chains.ambiguous, \
         chains.own_ns, chains.latency_ns \
         FROM chains JOIN questions AS root ON root.question_id = chain_id \
         WHERE root.server_address = '169.254.20.10'",
        "SELECT * FROM cache_hits",
    ])?;
    require_chains(&truth, &laboratory.served()?, &hops)?;
    require_ratio(&truth, &hits)
}

/// Chains have a hop for each server that forwarded.
fn require_chains(truth: &Truth, served: &[Served], hops: &[Value]) -> Result<()> {
    let chains = by_key(hops)?;
    let dns_pod = served.first().context("no log of the DNS pod")?.server;
    let mut forwarded: HashMap<&str, Vec<bool>> = HashMap::new();
    for served in served {
        forwarded.entry(&served.qname).or_default().push(served.forwarded);
    }
    let (mut unique, mut shared) = (Score::default(), Score::default());
    for question in truth.decided()? {
        let chain = chains.get(&asked_key(question)).context("a question without a chain")?;
        let from_cache = !truth.served(question).forwarded;
        if question.is_unique {
            ensure!(forwarded[&*question.qname] == [true], "{question:?}");
            unique.add(is_whole(chain, dns_pod), true);
        } else {
            let beyond = chain.iter().any(|hop| hop["hop"] == 1);
            shared.add(beyond, !from_cache);
        }
    }
    unique.require("chains of unique names", 0.999, 0.99)?;
    shared.require("chains of shared names", 0.999, 0.95)
}

/// True if a chain has each server once, in order, and times that fit.
fn is_whole(chain: &[&Value], dns_pod: Ipv4Addr) -> bool {
    let mut hops: Vec<_> = chain.iter().collect();
    hops.sort_by_key(|hop| hop["hop"].as_i64());
    let servers: Vec<_> = hops.iter().filter_map(|hop| hop["resolver"].as_str()).collect();
    let expected = [CACHE_IP, dns_pod, UPSTREAM_IP].map(|address| address.to_string());
    let falls = |pair: &[&&Value]| pair[0]["latency_ns"].as_i64() > pair[1]["latency_ns"].as_i64();
    servers == expected
        && hops.windows(2).all(falls)
        && hops.iter().all(|hop| hop["ambiguous"] == false && hop["own_ns"].as_i64() >= Some(0))
}

fn require_ratio(truth: &Truth, hits: &[Value]) -> Result<()> {
    let cache = CACHE_IP.to_string();
    let row = hits.iter().find(|row| row["resolver"] == *cache).context("no row of the cache")?;
    let share = |count: usize| count as f64 / truth.asked.len() as f64;
    let hits = truth.asked.iter().filter(|question| !truth.served(question).forwarded).count();
    let undecided = truth.asked.iter().filter(|question| truth.is_coalesced(question)).count();
    let ratio = row["hit_ratio"].as_f64().context("hit_ratio")?;
    let expected = share(hits - undecided) - 0.005..=share(hits) + 0.005;
    ensure!(expected.contains(&ratio), "{row}, {expected:?} by the log");
    Ok(())
}
