//! Merges the counts of several agents.

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader},
    os::unix::net::UnixStream,
    sync::Mutex,
};

use serde_json::json;

use super::{Agents, Answers, no_answer};
use crate::{
    control::{
        client::{Counting, Error},
        protocol::Note,
    },
    tail::Selection,
    top::{
        AgentState, Count, DnsCounts, EndCounts, Latency, Loss, SinkCounts, Snapshot, TopItem,
        TopList,
    },
};

/// Answers a `top`: one merged snapshot for each line that the command sends.
pub(super) fn serve(
    agents: &Agents,
    mut requests: BufReader<UnixStream>,
    answers: &mut Answers,
    selection: &Selection,
) -> io::Result<()> {
    let connected = agents.each(|agent| agent.client.top(selection.clone()));
    let failures: Vec<String> = (agents.0.iter().zip(&connected))
        .filter_map(|(agent, it)| Some(format!("{}: {}", agent.node, it.as_ref().err()?)))
        .collect();
    if failures.len() == connected.len() {
        return answers.result::<()>(Err(no_answer(&failures)));
    }
    answers.result(Ok(json!({})))?;
    let sources: HashMap<&str, Mutex<Source>> = (agents.0.iter().zip(connected))
        .map(|(agent, it)| (agent.node.as_str(), Mutex::new(Source::new(it))))
        .collect();
    let mut line = Vec::new();
    while requests.read_until(b'\n', &mut line)? > 0 {
        line.clear();
        let read = agents.each(|agent| {
            // Only the thread of this agent locks its source.
            let mut source = sources.get(agent.node.as_str())?.lock().ok()?;
            Some(source.read().map_err(|error| format!("{}: {error}", agent.node)))
        });
        let (mut snapshots, mut missing) = (Vec::new(), Vec::new());
        for answer in read.into_iter().flatten() {
            match answer {
                Ok(snapshot) => snapshots.push(snapshot),
                Err(why) => missing.push(why),
            }
        }
        if snapshots.is_empty() {
            return answers.note(&Note::End(no_answer(&missing).message));
        }
        let sources = sources.values().filter_map(|source| source.lock().ok());
        let ended: Vec<DnsCounts> = sources.filter_map(|it| it.of_ended().cloned()).collect();
        answers.json(&merged(snapshots, ended, missing))?;
    }
    Ok(())
}

/// The counts of one agent.
struct Source {
    counting: Result<Counting, Error>,
    /// The last counts that it sent.
    last: DnsCounts,
}

impl Source {
    fn new(counting: Result<Counting, Error>) -> Self {
        Self { counting, last: DnsCounts::default() }
    }

    /// Reads the counts as of now. After an error, each call returns it again.
    fn read(&mut self) -> Result<Snapshot, String> {
        let counting = self.counting.as_mut().map_err(|error| error.to_string())?;
        match counting.read() {
            Ok(snapshot) => {
                self.last.clone_from(&snapshot.dns);
                Ok(snapshot)
            }
            Err(error) => {
                let why = error.to_string();
                self.counting = Err(error);
                Err(why)
            }
        }
    }

    /// Returns the last counts if the agent sends no more: sums that shrink would show negative rates.
    fn of_ended(&self) -> Option<&DnsCounts> {
        self.counting.is_err().then_some(&self.last)
    }
}

/// Merges snapshots. `ended` are the last counts of agents that have ended; `missing` says which agents have
/// no snapshot, and why.
pub(super) fn merged(
    snapshots: Vec<Snapshot>,
    ended: Vec<DnsCounts>,
    missing: Vec<String>,
) -> Snapshot {
    let nodes = snapshots.len() + missing.len();
    let mut parts = snapshots.into_iter().map(|mut snapshot| {
        if nodes > 1 {
            name_reasons(&mut snapshot.agent);
        }
        snapshot
    });
    let mut sum = parts.next().unwrap_or_default();
    for snapshot in parts {
        sum.packets.seen += snapshot.packets.seen;
        sum.packets.captured += snapshot.packets.captured;
        add_agent(&mut sum.agent, snapshot.agent);
        add_dns(&mut sum.dns, snapshot.dns);
        add_losses(&mut sum.losses, snapshot.losses);
        add_sinks(&mut sum.sinks, snapshot.sinks);
    }
    ended.into_iter().for_each(|dns| add_dns(&mut sum.dns, dns));
    if nodes > 1 {
        sum.agent.node = format!("{nodes} nodes");
    }
    if !missing.is_empty() {
        sum.agent.health.ready.ok = false;
        sum.agent.health.ready.reasons.extend(missing);
    }
    sum
}

/// Adds the name of the node to each reason.
fn name_reasons(agent: &mut AgentState) {
    let AgentState { node, health, .. } = agent;
    let sinks = health.sinks.iter_mut().map(|sink| &mut sink.condition.reasons);
    let lists = [
        &mut health.live.reasons,
        &mut health.ready.reasons,
        &mut health.failing_sinks,
        &mut health.capture.reasons,
    ];
    for reason in lists.into_iter().chain(sinks).flatten() {
        *reason = format!("{node}: {reason}");
    }
}

fn add_agent(sum: &mut AgentState, other: AgentState) {
    if sum.version != other.version {
        sum.version = format!("{}, {}", sum.version, other.version);
    }
    sum.uptime_s = sum.uptime_s.min(other.uptime_s);
    let (health, of_other) = (&mut sum.health, other.health);
    for (probe, other) in [(&mut health.live, of_other.live), (&mut health.ready, of_other.ready)] {
        probe.ok &= other.ok;
        probe.reasons.extend(other.reasons);
    }
    health.failing_sinks.extend(of_other.failing_sinks);
    health.capture.ok &= of_other.capture.ok;
    health.capture.reasons.extend(of_other.capture.reasons);
    health.sinks.extend(of_other.sinks);
}

fn add_dns(sum: &mut DnsCounts, other: DnsCounts) {
    sum.elapsed_ms = sum.elapsed_ms.max(other.elapsed_ms);
    for (sum, other) in [
        (&mut sum.transactions, other.transactions),
        (&mut sum.unanswered, other.unanswered),
        (&mut sum.retries, other.retries),
        (&mut sum.truncated, other.truncated),
        (&mut sum.conflicting, other.conflicting),
        (&mut sum.search_waste, other.search_waste),
    ] {
        *sum += other;
    }
    for (sum, other) in [
        (&mut sum.names, other.names),
        (&mut sum.nxdomain_names, other.nxdomain_names),
        (&mut sum.clients, other.clients),
    ] {
        add_top(sum, other);
    }
    for (sum, other) in [
        (&mut sum.rcodes, other.rcodes),
        (&mut sum.qtypes, other.qtypes),
        (&mut sum.transports, other.transports),
        (&mut sum.signals, other.signals),
    ] {
        let same = |one: &Count, other: &Count| one.name == other.name;
        add_each(sum, other, same, |one, other| one.count += other.count);
    }
    for (sum, other) in [(&mut sum.workloads, other.workloads), (&mut sum.servers, other.servers)] {
        add_each(sum, other, |one, other| one.name == other.name, add_end);
        sum.sort_by_key(|it| std::cmp::Reverse(it.transactions));
    }
    add_latency(&mut sum.latency, &other.latency);
}

/// Adds a list of the most frequent items. An item that is in one list only has been counted in the other one
/// at most as often as that list's error says.
fn add_top(sum: &mut TopList, other: TopList) {
    let most = sum.items.len().max(other.items.len());
    let mut items: HashMap<String, (u64, u64, [bool; 2])> = HashMap::new();
    for (list, of) in [&sum.items, &other.items].into_iter().enumerate() {
        for TopItem { item, count, error } in of {
            let entry = items.entry(item.clone()).or_default();
            entry.0 += count;
            entry.1 += error;
            entry.2[list] = true;
        }
    }
    let absent = [sum.error, other.error];
    let merged = items.into_iter().map(|(item, (count, error, is_in))| {
        let more: u64 =
            is_in.iter().zip(absent).map(|(is_in, most)| if *is_in { 0 } else { most }).sum();
        TopItem { item, count: count + more, error: error + more }
    });
    sum.items = merged.collect();
    sum.items
        .sort_by(|one, other| other.count.cmp(&one.count).then_with(|| one.item.cmp(&other.item)));
    sum.error += other.error;
    if let Some(first) = sum.items.get(most) {
        sum.error = sum.error.max(first.count);
    }
    sum.items.truncate(most);
}

fn add_end(sum: &mut EndCounts, other: EndCounts) {
    sum.transactions += other.transactions;
    sum.nxdomain += other.nxdomain;
    sum.errors += other.errors;
    sum.unanswered += other.unanswered;
    add_latency(&mut sum.latency, &other.latency);
}

/// Adds a histogram. One with other bounds, of an agent of another version, is left out.
fn add_latency(sum: &mut Latency, other: &Latency) {
    if sum.buckets.is_empty() {
        other.clone_into(sum);
    } else if sum.bounds_ns == other.bounds_ns {
        sum.buckets.iter_mut().zip(&other.buckets).for_each(|(sum, other)| *sum += other);
        sum.sum_ns += other.sum_ns;
    }
}

fn add_losses(sum: &mut Vec<Loss>, other: Vec<Loss>) {
    let same = |one: &Loss, other: &Loss| {
        (&one.stage, &one.reason, &one.unit) == (&other.stage, &other.reason, &other.unit)
    };
    add_each(sum, other, same, |one, other| one.count += other.count);
}

fn add_sinks(sum: &mut Vec<SinkCounts>, other: Vec<SinkCounts>) {
    add_each(
        sum,
        other,
        |one, other| one.name == other.name,
        |one, other| {
            one.delivered += other.delivered;
            one.in_flight += other.in_flight;
            one.spooled += other.spooled;
            one.lost += other.lost;
        },
    );
}

/// Adds each of `other` to the same one in `sum`, or appends it.
fn add_each<T>(
    sum: &mut Vec<T>,
    other: Vec<T>,
    same: impl Fn(&T, &T) -> bool,
    add: impl Fn(&mut T, T),
) {
    for one in other {
        match sum.iter_mut().find(|it| same(it, &one)) {
            Some(it) => add(it, one),
            None => sum.push(one),
        }
    }
}
