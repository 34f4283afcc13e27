//! The table of all metrics, from which `/metrics` and `docs/metrics.md` are made. A file for each
//! subject.
//!
//! Every term of the ledger that has a metric is here, as `agent/crates/ledger/src/stages.rs` describes
//! it, so that a query can do the sum as well.
//!
//! The number of series is bounded by the configuration, not by traffic: labels are reasons, of which
//! the code has a list; sinks and workers; interfaces, of which ends of pairs are one unless
//! `telemetry.pod_interfaces` is `each`, and the last 64 that are gone keep their names; resources of
//! Kubernetes; at most 64 brokers; and in `dns.rs` workloads and servers up to `dns_metrics.max_series`.
//! Addresses and names of packets are labels only there, as the privacy rules show them.

mod dns;
mod export;
mod gap;
mod health;
mod hooks;
mod kafka;
mod latencies;
mod messages;
mod owners;
mod packets;
mod process;
mod queues;
mod registry;
mod signals;
mod sinks;
mod summaries;

use tap53_attribution::{self as enrich, Moment, WatchStatus};
use tap53_base::vitals::{Heartbeat, SinkTimings};
use tap53_capture::interfaces::{InterfaceStatus, PAIR_KINDS};
use tap53_ebpf::settings::Direction;
use tap53_insight::TopReading;
use tap53_ledger::{Agent, Deliveries, Hook, Interface, Stage, Total, WorkerCounts};

use super::{
    config::PodInterfaces,
    data_path::DataPath,
    log::Lines,
    process::Process,
    server,
    text::{
        Family,
        Kind::{self, Counter, Gauge},
        Metric,
    },
};
use crate::control::{Counts, Status};
use tap53_sinks as sink;
use tap53_transactions::privacy::Policy;

/// The sources that metrics are read from.
pub(super) struct Reading<'a> {
    pub(super) status: &'a Status,
    pub(super) pod_interfaces: PodInterfaces,
    pub(super) heartbeats: &'a [Heartbeat],
    pub(super) now_ns: u64,
    pub(super) control: Counts,
    pub(super) telemetry: server::Counts,
    pub(super) followers: usize,
    pub(super) follower_lines_lost: u64,
    pub(super) follower_bytes: usize,
    pub(super) enrichment: &'a enrich::Status,
    pub(super) process: Process,
    pub(super) path: &'a DataPath,
    /// Privacy rules in force.
    pub(super) policy: &'a Policy,
    /// Most frequent names and clients.
    pub(super) dns_top: TopReading,
    pub(super) log_lines: Lines,
    /// Counts of the workers of `path`, in their order.
    pub(super) workers: Vec<WorkerCounts>,
    /// States of the sinks of `path`, in their order.
    pub(super) sink_states: Vec<sink::State>,
}

/// Returns all metrics, in the order in which they are exposed.
pub(super) fn all() -> impl Iterator<Item = Metric> {
    let own = |families: &'static [Family]| families.iter().map(Metric::from);
    hooks::stages()
        .chain(packets::stages())
        .chain(messages::stages())
        .chain(own(messages::FAMILIES))
        .chain(own(dns::FAMILIES))
        .chain(own(signals::FAMILIES))
        .chain(sinks::stages())
        .chain(own(sinks::FAMILIES))
        .chain(own(latencies::FAMILIES))
        .chain(own(queues::FAMILIES))
        .chain(own(kafka::FAMILIES))
        .chain(own(registry::FAMILIES))
        .chain(summaries::stages())
        .chain(own(gap::FAMILIES))
        .chain(own(health::FAMILIES))
        .chain(own(owners::FAMILIES))
        .chain(own(process::FAMILIES))
        .chain(own(export::FAMILIES))
}

/// Reports each instance of a stage, with the values of its labels.
type Instances<S> = fn(&Reading<'_>, &mut dyn FnMut(&[&str], &S));

/// Returns the metrics of a stage of the ledger: those of its terms.
fn stage<S: Stage>(
    labels: &'static [&'static str],
    instances: Instances<S>,
) -> impl Iterator<Item = Metric> {
    S::TERMS.iter().filter_map(move |term| {
        let name = term.metric?;
        Some(Metric {
            name,
            kind: if name.ends_with("_total") { Counter } else { Gauge },
            help: term.help,
            labels: labels.iter().copied().chain(term.label).collect(),
            collect: Box::new(move |reading, series| {
                instances(reading, &mut |values, stage| match (term.read)(stage) {
                    Total::One(count) => series.count(values, count),
                    Total::Each(reasons) => {
                        for (reason, count) in reasons {
                            series.count(&[values, &[reason]].concat(), *count);
                        }
                    }
                });
            }),
        })
    })
}

/// Returns the stages of the ledger in the agent.
const fn agent<'a>(reading: &Reading<'a>) -> &'a Agent {
    &reading.status.ledger.agent
}

impl Reading<'_> {
    /// Returns true if ends of pairs are one series.
    fn sums_pairs(&self) -> bool {
        self.pod_interfaces == PodInterfaces::Summed
    }
}

/// Label of the sum of all ends of pairs.
const PAIRS: &str = "(pairs)";

/// Reports the hooks of each interface and direction, with the labels. Sums include interfaces that are
/// gone, so that counters do not go back.
fn each_hook(reading: &Reading<'_>, mut report: impl FnMut([&str; 2], &Hook)) {
    let sums = reading.sums_pairs();
    let (pairs, others): (Vec<_>, Vec<_>) =
        reading.status.ledger.interfaces.iter().partition(|of| sums && of.is_pair);
    for interface in others {
        let name = label_of(interface);
        report([name, Direction::Ingress.name()], &interface.ingress);
        report([name, Direction::Egress.name()], &interface.egress);
    }
    if !pairs.is_empty() {
        let ingress = Hook::sum(pairs.iter().map(|of| &of.ingress));
        let egress = Hook::sum(pairs.iter().map(|of| &of.egress));
        report([PAIRS, Direction::Ingress.name()], &ingress);
        report([PAIRS, Direction::Egress.name()], &egress);
    }
}

/// Returns the label of an interface. Entries that sum up those that are gone have their number in the
/// name.
fn label_of(interface: &Interface) -> &str {
    match (interface.ifindex, interface.name.as_str()) {
        (0, name) if name.ends_with(" earlier)") => "(earlier)",
        (0, name) if name.ends_with(" earlier pairs)") => "(earlier pairs)",
        (_, name) => name,
    }
}

fn each_sink<'a>(reading: &Reading<'a>, mut report: impl FnMut(&'a str, &'a Deliveries)) {
    for sink in &reading.status.ledger.agent.sinks {
        report(&sink.name, &sink.records);
    }
}

/// Reports each interface and direction: name and direction, whether capture is wanted, and whether it
/// captures.
///
/// Ends of pairs are summed as in [`each_hook`]: wanted if one is, and capturing if each of these is.
fn each_interface(reading: &Reading<'_>, mut report: impl FnMut([&str; 2], bool, bool)) {
    let sums = reading.sums_pairs();
    let mut pairs: [Vec<(bool, bool)>; 2] = Default::default();
    for interface in &reading.status.interfaces {
        let InterfaceStatus { name, kind, ingress, egress, .. } = interface;
        for (direction, actual) in [(Direction::Ingress, ingress), (Direction::Egress, egress)] {
            let wanted = interface.is_wanted(direction);
            let capturing = actual.capturing && actual.shadowed.is_none();
            if sums && PAIR_KINDS.contains(&kind.as_str()) {
                pairs[direction as usize].push((wanted, capturing));
            } else {
                report([name, direction.name()], wanted, capturing);
            }
        }
    }
    for (direction, pairs) in Direction::ALL.into_iter().zip(pairs) {
        if pairs.is_empty() {
            continue;
        }
        let mut wanted = pairs.iter().filter(|(wanted, _)| *wanted).peekable();
        let is_wanted = wanted.peek().is_some();
        report(
            [PAIRS, direction.name()],
            is_wanted,
            is_wanted && wanted.all(|(_, capturing)| *capturing),
        );
    }
}

fn each_watch(reading: &Reading<'_>, report: impl FnMut(&WatchStatus)) {
    reading.enrichment.watches.iter().for_each(report);
}

fn if_kubernetes(reading: &Reading<'_>, report: impl FnOnce(&enrich::Status)) {
    if reading.enrichment.enabled {
        report(reading.enrichment);
    }
}

/// Converts a time in RFC 3339 to seconds since 1970.
fn seconds_of(text: &str) -> f64 {
    let parsed: Result<jiff::Timestamp, _> = text.parse();
    parsed.map_or(0.0, |timestamp| timestamp.as_duration().as_secs_f64())
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 microseconds, in 2255")]
fn seconds(moment: Moment) -> f64 {
    moment.us as f64 / 1e6
}

/// Reports each sink that is timed: its name and its times.
fn each_timed<'a>(reading: &Reading<'a>, mut report: impl FnMut(&'a str, &'a SinkTimings)) {
    for sink in &reading.path.sinks {
        if let Some(timings) = sink.sink.timings() {
            report(&sink.name, timings);
        }
    }
}

/// Reports each sink: its name and its state.
fn each_state<'a>(reading: &'a Reading<'_>, mut report: impl FnMut(&'a str, &'a sink::State)) {
    for (sink, state) in reading.path.sinks.iter().zip(&reading.sink_states) {
        report(&sink.name, state);
    }
}
