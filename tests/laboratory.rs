//! The two-node laboratory: the records of two agents, and the SQL over both, against what clients asked
//! and servers logged.

#[path = "laboratory/answers.rs"]
mod answers;
#[path = "laboratory/cache.rs"]
mod cache;
#[path = "laboratory/engines.rs"]
mod engines;
#[path = "laboratory/groups.rs"]
mod groups;
#[path = "laboratory/pairs.rs"]
mod pairs;
#[path = "laboratory/search.rs"]
mod search;
#[path = "laboratory/story.rs"]
mod story;
#[path = "laboratory/truth.rs"]
mod truth;

use std::{env, net::Ipv4Addr};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tap53_harness::{
    account::Ledger,
    laboratory::{CACHE_IP, CLUSTER_IP, Laboratory, Load, Plan, Recorded, Recording, UPSTREAM_IP},
};

use truth::{Score, Truth, asked_key, by_key, upstream_counts};

/// Questions of a load in the short form; `TAP53_LABORATORY=10000` is the long one.
const QUESTIONS: usize = 1_500;
const CLIENTS: usize = 50;

/// Records without those of the DNS pods' own queries.
const RECORDS: &str =
    "SELECT node, dns_id, qname FROM dns_transactions WHERE server_address <> '192.168.53.53'";

/// A way from a client to the server that answers.
struct Path {
    name: &'static str,
    plan: Plan,
    server: Ipv4Addr,
    /// Records of each question that node-1 and node-2 create, without those of the queries that the
    /// resolvers send themselves.
    records: [usize; 2],
}

fn paths() -> [Path; 4] {
    let plan = Plan::default;
    [
        Path { name: "other node", plan: plan(), server: CLUSTER_IP, records: [1, 1] },
        Path {
            name: "same node",
            plan: Plan { backends: vec![0], ..plan() },
            server: CLUSTER_IP,
            records: [1, 0],
        },
        Path {
            name: "masquerade",
            plan: Plan { masquerade: true, ..plan() },
            server: CLUSTER_IP,
            records: [1, 1],
        },
        Path {
            name: "node cache",
            plan: Plan { node_cache: true, ..plan() },
            server: CACHE_IP,
            records: [1, 0],
        },
    ]
}

#[test]
fn each_node_records_a_question_once_whatever_its_addresses_become() -> Result<()> {
    for path in paths() {
        let laboratory = Laboratory::new(&path.plan)?;
        let recording = Recording::start(&laboratory)?;
        let load = Load { first: 0, clients: 1, questions: 30, server: path.server };
        let asked = load.run(&laboratory)?;
        let in_pairs = pairs::look_up(&laboratory, &path)?;
        let [rows, questions] = recording.stop()?.tables.ask([RECORDS, pairs::QUESTIONS])?;
        let rows = by_key(&rows)?;
        pairs::require(&path, &in_pairs, &rows, &questions)?;
        for question in &asked {
            let found = on_nodes(rows.get(&asked_key(question)));
            ensure!(found == path.records, "{}: {found:?}: {question:?}", path.name);
        }
    }
    Ok(())
}

/// Number of rows of each node.
fn on_nodes(rows: Option<&Vec<&Value>>) -> [usize; 2] {
    let count = |node: &str| rows.into_iter().flatten().filter(|row| row["node"] == node).count();
    ["node-1", "node-2"].map(count)
}

#[test]
fn fifty_clients_agree_with_the_records_of_both_nodes() -> Result<()> {
    let plan = Plan { pods: [5, 5], backends: vec![0, 1], ..Plan::default() };
    let laboratory = Laboratory::new(&plan)?;
    let recording = Recording::start(&laboratory)?;
    let load = Load { first: 0, clients: CLIENTS, questions: questions()?, server: CLUSTER_IP };
    let asked = load.run(&laboratory)?;
    let recorded = recording.stop()?;
    let truth = Truth::new(asked, laboratory.served()?)?;
    require_nothing_lost(&recorded)?;
    let [records, questions, sources, hops] = recorded.tables.ask([
        RECORDS,
        "SELECT dns_id, qname, client_address, client_port, server_address, resolver, outcome, records \
         FROM questions WHERE server_address <> '192.168.53.53'",
        "SELECT dns_id, qname, source FROM answer_sources",
        "SELECT hop, qname, server_address FROM chains WHERE hop > 0",
    ])?;
    require_records(&truth, &records)?;
    require_questions(&truth, &questions)?;
    require_sources(&truth, &sources)?;
    require_hops(&laboratory, &truth, &hops)
}

fn questions() -> Result<usize> {
    match env::var("TAP53_LABORATORY") {
        Ok(text) => text.parse().context("TAP53_LABORATORY must be a number of questions"),
        Err(_) => Ok(QUESTIONS),
    }
}

fn require_nothing_lost(recorded: &Recorded) -> Result<()> {
    for ledger in &recorded.ledgers {
        let ledger = Ledger(ledger);
        ledger.require_balance()?;
        ensure!(ledger.sum("/agent/packets/lost")? == 0, "{:#}", ledger.0);
        ensure!(ledger.sum("/agent/messages/lost")? == 0, "{:#}", ledger.0);
    }
    Ok(())
}

/// Each node on the way of a question has one record of it, and there are no others.
fn require_records(truth: &Truth, records: &[Value]) -> Result<()> {
    let rows = by_key(records)?;
    for question in &truth.asked {
        let mut expected = [0, 0];
        expected[node_of(truth.served(question).server)] = 1;
        expected[node_of(*question.client.ip())] = 1;
        let found = on_nodes(rows.get(&asked_key(question)));
        ensure!(found == expected, "{found:?}, not {expected:?}: {question:?}");
    }
    ensure!(rows.len() == truth.asked.len(), "records of {} questions", rows.len());
    Ok(())
}

/// Index of the node of a pod: its addresses are 10.244.1.0/24 or 10.244.2.0/24.
fn node_of(pod: Ipv4Addr) -> usize {
    usize::from(pod.octets()[2]) - 1
}

/// Each question is one row, with the addresses that the client and the server saw.
fn require_questions(truth: &Truth, questions: &[Value]) -> Result<()> {
    let rows = by_key(questions)?;
    for question in &truth.asked {
        let found = rows.get(&asked_key(question)).context("a question without a row")?;
        ensure!(found.len() == 1, "{} rows: {found:?}", found.len());
        let served = truth.served(question).server;
        let nodes = if node_of(served) == node_of(*question.client.ip()) { 1 } else { 2 };
        for (field, expected) in [
            ("records", Value::from(nodes)),
            ("client_address", question.client.ip().to_string().into()),
            ("client_port", question.client.port().into()),
            ("server_address", CLUSTER_IP.to_string().into()),
            ("resolver", served.to_string().into()),
            ("outcome", "MATCHED".into()),
        ] {
            ensure!(found[0][field] == expected, "{field}: {}, not {expected}", found[0]);
        }
    }
    ensure!(rows.len() == truth.asked.len(), "rows of {} questions", rows.len());
    Ok(())
}

/// Where answers are from, against the servers' logs.
fn require_sources(truth: &Truth, sources: &[Value]) -> Result<()> {
    let rows = by_key(sources)?;
    let [mut unique, mut shared, mut cached] =
        [Score::default(), Score::default(), Score::default()];
    for question in truth.decided()? {
        let row = rows.get(&asked_key(question)).and_then(|rows| rows.first());
        let said = |source: &str| row.is_some_and(|row| row["source"] == source);
        let forwarded = truth.served(question).forwarded;
        let score = if question.is_unique { &mut unique } else { &mut shared };
        score.add(said("UPSTREAM"), forwarded);
        cached.add(said("CACHE"), !forwarded);
    }
    unique.require("unique names from upstream", 0.999, 0.99)?;
    shared.require("shared names from upstream", 0.999, 0.95)?;
    cached.require("names from the cache", 0.999, 0.95)
}

/// Each name that only one question is for has one hop behind it, and no name has more hops than the
/// upstream resolver had queries.
fn require_hops(laboratory: &Laboratory, truth: &Truth, hops: &[Value]) -> Result<()> {
    let upstream = upstream_counts(laboratory)?;
    let once = truth.asked.iter().filter(|question| question.is_unique);
    for question in once {
        let found: Vec<_> = hops.iter().filter(|hop| hop["qname"] == *question.qname).collect();
        ensure!(found.len() == 1 && upstream[&question.qname] == 1, "{found:?}: {question:?}");
        ensure!(found[0]["hop"] == 1, "{found:?}");
        ensure!(found[0]["server_address"] == *UPSTREAM_IP.to_string(), "{found:?}");
    }
    Ok(())
}
