//! The table of all metrics: what is told at `/metrics`, and what `docs/metrics.md` is made of. A file
//! for each subject.
//!
//! Of the ledger each line is here as it stands there, so that a query can do the sum as well.
//!
//! How many series there are is bounded by the configuration, not by traffic: labels are reasons, of
//! which the code has a list; sinks and workers; interfaces, of which `capture.max_interfaces` are
//! attached at a time and the last 64 that were are told of by name; resources of Kubernetes; and at
//! most 64 brokers. No address, name or port of a packet is ever a label.

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
mod sinks;
mod summaries;

use tap53_attribution::{self as enrich, Moment, WatchStatus};
use tap53_base::vitals::{Heartbeat, SinkTimings};
use tap53_capture::interfaces::InterfaceStatus;
use tap53_ebpf::settings::Direction;
use tap53_ledger::{ByReason, Deliveries, Hook, WorkerCounts};

use super::{
    data_path::DataPath,
    log::Lines,
    process::Process,
    server,
    text::{
        Family,
        Kind::{self, Counter, Gauge},
    },
};
use crate::control::{Counts, Status};
use tap53_sinks as sink;

/// What the metrics are read from.
pub(super) struct Reading<'a> {
    pub(super) status: &'a Status,
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
    pub(super) log_lines: Lines,
    /// Of the workers of `path`, in their order.
    pub(super) workers: Vec<WorkerCounts>,
    /// Of the sinks of `path`, in their order.
    pub(super) sink_states: Vec<sink::State>,
}

/// All metrics, in the order in which they are told.
pub(super) fn all() -> impl Iterator<Item = &'static Family> {
    let subjects = [
        hooks::FAMILIES,
        packets::FAMILIES,
        messages::FAMILIES,
        sinks::FAMILIES,
        latencies::FAMILIES,
        queues::FAMILIES,
        kafka::FAMILIES,
        registry::FAMILIES,
        summaries::FAMILIES,
        gap::FAMILIES,
        health::FAMILIES,
        owners::FAMILIES,
        process::FAMILIES,
    ];
    subjects.into_iter().flatten()
}

fn each(reasons: &ByReason, mut tell: impl FnMut(&str, u64)) {
    reasons.iter().for_each(|(reason, count)| tell(reason, *count));
}

fn each_hook<'a>(reading: &Reading<'a>, mut tell: impl FnMut([&'a str; 2], &'a Hook)) {
    for interface in &reading.status.ledger.interfaces {
        // What is told of a number of interfaces that are gone has that number in its name.
        let gone = interface.ifindex == 0 && interface.name.ends_with(" earlier)");
        let name = if gone { "(earlier)" } else { interface.name.as_str() };
        tell([name, Direction::Ingress.name()], &interface.ingress);
        tell([name, Direction::Egress.name()], &interface.egress);
    }
}

fn each_sink<'a>(reading: &Reading<'a>, mut tell: impl FnMut(&'a str, &'a Deliveries)) {
    for sink in &reading.status.ledger.agent.sinks {
        tell(&sink.name, &sink.records);
    }
}

/// Name and direction, whether it is wanted, and whether it is captured.
fn each_interface<'a>(reading: &Reading<'a>, mut tell: impl FnMut([&'a str; 2], bool, bool)) {
    for interface in &reading.status.interfaces {
        let InterfaceStatus { name, ingress, egress, .. } = interface;
        for (direction, actual) in [(Direction::Ingress, ingress), (Direction::Egress, egress)] {
            let capturing = actual.capturing && actual.shadowed.is_none();
            tell([name, direction.name()], interface.is_wanted(direction), capturing);
        }
    }
}

fn each_watch(reading: &Reading<'_>, tell: impl FnMut(&WatchStatus)) {
    reading.enrichment.watches.iter().for_each(tell);
}

fn if_kubernetes(reading: &Reading<'_>, tell: impl FnOnce(&enrich::Status)) {
    if reading.enrichment.enabled {
        tell(reading.enrichment);
    }
}

/// Seconds since 1970 of a time in RFC 3339.
fn seconds_of(text: &str) -> f64 {
    let parsed: Result<jiff::Timestamp, _> = text.parse();
    parsed.map_or(0.0, |timestamp| timestamp.as_duration().as_secs_f64())
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 microseconds, in 2255")]
fn seconds(moment: Moment) -> f64 {
    moment.us as f64 / 1e6
}

/// Name, and how long what takes.
fn each_timed<'a>(reading: &Reading<'a>, mut tell: impl FnMut(&'a str, &'a SinkTimings)) {
    for sink in &reading.path.sinks {
        if let Some(timings) = sink.sink.timings() {
            tell(&sink.name, timings);
        }
    }
}

/// Name, and what goes on inside.
fn each_state<'a>(reading: &'a Reading<'_>, mut tell: impl FnMut(&'a str, &'a sink::State)) {
    for (sink, state) in reading.path.sinks.iter().zip(&reading.sink_states) {
        tell(&sink.name, state);
    }
}
