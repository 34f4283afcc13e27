//! Builds a snapshot from the counts of the workers and the ledger.

use std::collections::BTreeMap;

use tap53_insight::{BOUNDS_NS, Counter, Latencies, Reading, TopReading};
use tap53_ledger::{Deliveries, Hook, Ledger, Stage};
use tap53_reasons::Fate;
use tap53_signals::Signal;
use tap53_transactions::privacy::Policy;

use super::{
    Count, DnsCounts, EndCounts, Latency, Loss, PacketCounts, SinkCounts, TopItem, TopList,
};

impl DnsCounts {
    /// Returns the counts as the privacy rules show them.
    #[must_use]
    pub fn new((reading, top): &(Reading, TopReading), policy: &Policy, elapsed_ms: u64) -> Self {
        let [names, nxdomain_names, clients] = top.errors().map(|(_, error)| error);
        let mut counts = Self {
            elapsed_ms,
            transactions: reading.transactions(),
            names: TopList::new(top.names(policy), names),
            nxdomain_names: TopList::new(top.nxdomain_names(policy), nxdomain_names),
            clients: TopList::new(top.clients(policy), clients),
            ..Self::default()
        };
        counts.add_series(reading, policy);
        counts
    }

    fn add_series(&mut self, reading: &Reading, policy: &Policy) {
        let mut sums = Sums::default();
        reading.each_series(policy, |labels, count| sums.add_series(labels, count));
        reading.each_pair(policy, |[namespace, workload, server], pair| {
            sums.add_latency(&client_name(namespace, workload), server, &pair.latency);
            self.retries += pair.retries;
            self.truncated += pair.truncated;
            self.conflicting += pair.conflicting;
            self.search_waste += pair.search_waste;
        });
        self.unanswered = sums.unanswered;
        self.latency = Latency::from(&sums.latency);
        self.workloads = ends(sums.workloads);
        self.servers = ends(sums.servers);
        self.rcodes = counted(sums.rcodes);
        self.qtypes = counted(sums.qtypes);
        self.transports = counted(sums.transports);
    }
}

/// Sums over the series.
#[derive(Default)]
struct Sums {
    workloads: BTreeMap<String, (EndCounts, Latencies)>,
    servers: BTreeMap<String, (EndCounts, Latencies)>,
    rcodes: BTreeMap<String, u64>,
    qtypes: BTreeMap<String, u64>,
    transports: BTreeMap<String, u64>,
    latency: Latencies,
    unanswered: u64,
}

impl Sums {
    fn add_series(&mut self, labels: [&str; 7], count: u64) {
        let [namespace, workload, server, qtype, rcode, transport, outcome] = labels;
        let is_unanswered = outcome == "unanswered";
        let workload = client_name(namespace, workload);
        let workload = &mut self.workloads.entry(workload).or_default().0;
        workload.add(rcode, is_unanswered, count);
        let server = &mut self.servers.entry(server.to_owned()).or_default().0;
        server.add(rcode, is_unanswered, count);
        if is_unanswered {
            self.unanswered += count;
        }
        let kinds = [
            (&mut self.rcodes, rcode),
            (&mut self.qtypes, qtype),
            (&mut self.transports, transport),
        ];
        // Without a response there is no code, and without a question no type.
        for (counts, kind) in kinds.into_iter().filter(|(_, kind)| !kind.is_empty()) {
            *counts.entry(kind.to_owned()).or_default() += count;
        }
    }

    fn add_latency(&mut self, workload: &str, server: &str, latency: &Latencies) {
        for (ends, name) in [(&mut self.workloads, workload), (&mut self.servers, server)] {
            if let Some((_, sum)) = ends.get_mut(name) {
                add(sum, latency);
            }
        }
        add(&mut self.latency, latency);
    }
}

fn add(sum: &mut Latencies, more: &Latencies) {
    for (bucket, count) in sum.buckets.iter_mut().zip(more.buckets) {
        *bucket += count;
    }
    sum.sum_ns = sum.sum_ns.saturating_add(more.sum_ns);
}

impl EndCounts {
    fn add(&mut self, rcode: &str, is_unanswered: bool, count: u64) {
        self.transactions += count;
        match rcode {
            _ if is_unanswered => self.unanswered += count,
            "NXDOMAIN" => self.nxdomain += count,
            "NOERROR" | "" | tap53_insight::OTHER => {}
            _ => self.errors += count,
        }
    }
}

/// Returns the name of a client: `namespace/workload`, or the part that there is.
fn client_name(namespace: &str, workload: &str) -> String {
    match (namespace, workload) {
        ("", name) | (name, "") => name.to_owned(),
        (namespace, name) if namespace == name => name.to_owned(),
        (namespace, name) => format!("{namespace}/{name}"),
    }
}

fn ends(sums: BTreeMap<String, (EndCounts, Latencies)>) -> Vec<EndCounts> {
    let with_name = |(name, (counts, latency)): (String, (EndCounts, Latencies))| EndCounts {
        name,
        latency: Latency::from(&latency),
        ..counts
    };
    let mut ends: Vec<_> =
        sums.into_iter().map(with_name).filter(|it| it.transactions > 0).collect();
    ends.sort_by_key(|end| std::cmp::Reverse(end.transactions));
    ends
}

fn counted(sums: BTreeMap<String, u64>) -> Vec<Count> {
    let counts = sums.into_iter().filter(|(_, count)| *count > 0);
    let mut counts: Vec<_> = counts.map(|(name, count)| Count { name, count }).collect();
    counts.sort_by_key(|count| std::cmp::Reverse(count.count));
    counts
}

impl From<&Latencies> for Latency {
    fn from(latencies: &Latencies) -> Self {
        Self {
            bounds_ns: BOUNDS_NS.to_vec(),
            buckets: latencies.buckets.to_vec(),
            sum_ns: latencies.sum_ns,
        }
    }
}

impl TopList {
    fn new(counters: Vec<Counter<String>>, error: u64) -> Self {
        let item = |Counter { item, count, error }| TopItem { item, count, error };
        Self { items: counters.into_iter().map(item).collect(), error }
    }
}

impl PacketCounts {
    /// Returns the sums over all hooks.
    #[must_use]
    pub fn new(ledger: &Ledger) -> Self {
        let sum = |count: fn(&Hook) -> u64| hooks(ledger).map(count).sum();
        Self { seen: sum(|hook| hook.seen), captured: sum(|hook| hook.captured) }
    }
}

fn hooks(ledger: &Ledger) -> impl Iterator<Item = &Hook> {
    ledger.interfaces.iter().flat_map(|interface| [&interface.ingress, &interface.egress])
}

/// Returns what was lost, by stage and reason.
#[must_use]
pub fn losses(ledger: &Ledger) -> Vec<Loss> {
    let agent = &ledger.agent;
    let mut losses = Vec::new();
    hooks(ledger).for_each(|hook| add_losses(&mut losses, Hook::NAME, hook));
    add_losses(&mut losses, "rings", &agent.packets.rings);
    add_losses(&mut losses, "packets", &agent.packets.workers);
    add_losses(&mut losses, "fragments", &agent.fragments);
    add_losses(&mut losses, "tcp_bytes", &agent.tcp_bytes);
    add_losses(&mut losses, "messages", &agent.messages);
    for sink in &agent.sinks {
        add_losses(&mut losses, &format!("sink {}", sink.name), &sink.records);
    }
    losses
}

/// Adds the losses of a stage to those of the same stage and reason.
fn add_losses<S: Stage>(losses: &mut Vec<Loss>, name: &str, stage: &S) {
    let lost = stage.counts().into_iter().filter(|it| it.fate == Fate::Lost && it.total > 0);
    for count in lost {
        let is_same = |loss: &&mut Loss| loss.stage == name && loss.reason == count.reason;
        match losses.iter_mut().find(is_same) {
            Some(loss) => loss.count += count.total,
            None => losses.push(Loss {
                stage: name.to_owned(),
                reason: count.reason.to_owned(),
                unit: count.unit.to_owned(),
                count: count.total,
            }),
        }
    }
}

/// Returns the transactions with each signal, the most frequent first, by the names of its metrics.
#[must_use]
pub fn signals(counts: &[(Signal, u64)]) -> Vec<Count> {
    counted(counts.iter().map(|(signal, count)| (signal.name().to_lowercase(), *count)).collect())
}

/// Returns the records at each sink.
#[must_use]
pub fn sinks(ledger: &Ledger) -> Vec<SinkCounts> {
    let counts = |name: &str, records: &Deliveries| SinkCounts {
        name: name.to_owned(),
        delivered: records.delivered,
        in_flight: records.in_flight,
        spooled: records.spooled,
        lost: records.lost.values().sum(),
    };
    ledger.agent.sinks.iter().map(|sink| counts(&sink.name, &sink.records)).collect()
}
