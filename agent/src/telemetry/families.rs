//! The table of all metrics: what is told at `/metrics`, and what `docs/metrics.md` is made of.
//!
//! Of the ledger each line is here as it stands there, so that a query can do the sum as well.

use tap53_ebpf::settings::Direction;

use super::{
    heartbeat::Heartbeat,
    process::Process,
    text::{
        Family,
        Kind::{Counter, Gauge},
    },
};
use crate::{
    control::{Counts, InterfaceStatus, Status},
    enrich::{self, Moment, WatchStatus},
    ledger::{ByReason, Deliveries, Hook},
    runs::Gap,
};

/// What the metrics are read from.
pub(super) struct Reading<'a> {
    pub(super) status: &'a Status,
    pub(super) heartbeats: &'a [Heartbeat],
    pub(super) now_ns: u64,
    pub(super) control: Counts,
    pub(super) followers: usize,
    pub(super) follower_lines_lost: u64,
    pub(super) enrichment: &'a enrich::Status,
    pub(super) process: Process,
}

/// All metrics, in the order in which they are told.
pub(super) const FAMILIES: &[Family] = &[
    // Hooks: seen = captured + ignored + lost.
    Family {
        name: "tap53_hook_packets_seen_total",
        kind: Counter,
        help: "Packets that the program at the hook saw.",
        labels: &["interface", "direction"],
        collect: |r, s| each_hook(r, |of, hook| s.count(&of, hook.seen)),
    },
    Family {
        name: "tap53_hook_packets_captured_total",
        kind: Counter,
        help: "Packets that went into a ring.",
        labels: &["interface", "direction"],
        collect: |r, s| each_hook(r, |of, hook| s.count(&of, hook.captured)),
    },
    Family {
        name: "tap53_hook_captured_bytes_total",
        kind: Counter,
        help: "Bytes of those packets that were copied.",
        labels: &["interface", "direction"],
        collect: |r, s| each_hook(r, |of, hook| s.count(&of, hook.bytes_captured)),
    },
    Family {
        name: "tap53_hook_packets_truncated_total",
        kind: Counter,
        help: "Captured packets of which the snap length cut the end off.",
        labels: &["interface", "direction"],
        collect: |r, s| each_hook(r, |of, hook| s.count(&of, hook.truncated)),
    },
    Family {
        name: "tap53_hook_packets_ignored_total",
        kind: Counter,
        help: "Packets that are none of ours.",
        labels: &["interface", "direction", "reason"],
        collect: |r, s| {
            each_hook(r, |[i, d], hook| {
                each(&hook.ignored, |reason, n| s.count(&[i, d, reason], n))
            })
        },
    },
    Family {
        name: "tap53_hook_packets_lost_total",
        kind: Counter,
        help: "Packets that should have been captured and were not.",
        labels: &["interface", "direction", "reason"],
        collect: |r, s| {
            each_hook(r, |[i, d], hook| each(&hook.lost, |reason, n| s.count(&[i, d, reason], n)))
        },
    },
    // Packets: received + joined = decoded + fragments + ignored + lost.
    Family {
        name: "tap53_ring_packets",
        kind: Gauge,
        help: "Packets in the rings, captured and not yet received by a worker.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.packets.in_rings),
    },
    Family {
        name: "tap53_packets_received_total",
        kind: Counter,
        help: "Packets that workers took out of the rings.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.packets.received),
    },
    Family {
        name: "tap53_packets_joined_total",
        kind: Counter,
        help: "Datagrams joined from fragments, taken in beside the packets.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.packets.joined),
    },
    Family {
        name: "tap53_packets_decoded_total",
        kind: Counter,
        help: "Packets in which messages were found.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.packets.decoded),
    },
    Family {
        name: "tap53_packets_fragments_total",
        kind: Counter,
        help: "Packets that are fragments of datagrams.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.packets.fragments),
    },
    Family {
        name: "tap53_packets_ignored_total",
        kind: Counter,
        help: "Packets without a message of ours.",
        labels: &["reason"],
        collect: |r, s| {
            each(&r.status.ledger.agent.packets.ignored, |reason, n| s.count(&[reason], n))
        },
    },
    Family {
        name: "tap53_packets_lost_total",
        kind: Counter,
        help: "Packets of which nothing could be read.",
        labels: &["reason"],
        collect: |r, s| {
            each(&r.status.ledger.agent.packets.lost, |reason, n| s.count(&[reason], n))
        },
    },
    // Fragments: received = joined + waiting + ignored + lost.
    Family {
        name: "tap53_fragments_received_total",
        kind: Counter,
        help: "Fragments handed to the joining of datagrams.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.fragments.received),
    },
    Family {
        name: "tap53_fragments_joined_total",
        kind: Counter,
        help: "Fragments in whole datagrams.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.fragments.joined),
    },
    Family {
        name: "tap53_fragments_waiting",
        kind: Gauge,
        help: "Fragments that wait for the rest of their datagram.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.fragments.waiting),
    },
    Family {
        name: "tap53_fragments_ignored_total",
        kind: Counter,
        help: "Fragments that were there already.",
        labels: &["reason"],
        collect: |r, s| {
            each(&r.status.ledger.agent.fragments.ignored, |reason, n| s.count(&[reason], n))
        },
    },
    Family {
        name: "tap53_fragments_lost_total",
        kind: Counter,
        help: "Fragments of datagrams that were not joined.",
        labels: &["reason"],
        collect: |r, s| {
            each(&r.status.ledger.agent.fragments.lost, |reason, n| s.count(&[reason], n))
        },
    },
    Family {
        name: "tap53_datagrams_joined_total",
        kind: Counter,
        help: "Datagrams joined from fragments.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.fragments.datagrams),
    },
    Family {
        name: "tap53_datagrams_lost_total",
        kind: Counter,
        help: "Joined datagrams that the worker of their flow could not take in.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.fragments.datagrams_lost),
    },
    // TCP: received = in messages + waiting + ignored + lost.
    Family {
        name: "tap53_tcp_received_bytes_total",
        kind: Counter,
        help: "Bytes of TCP payload received.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.tcp_bytes.received),
    },
    Family {
        name: "tap53_tcp_in_messages_bytes_total",
        kind: Counter,
        help: "Bytes of TCP payload in messages.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.tcp_bytes.in_messages),
    },
    Family {
        name: "tap53_tcp_waiting_bytes",
        kind: Gauge,
        help: "Bytes of TCP payload that wait for the rest of their message.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.tcp_bytes.waiting),
    },
    Family {
        name: "tap53_tcp_ignored_bytes_total",
        kind: Counter,
        help: "Bytes of TCP payload that are none of ours.",
        labels: &["reason"],
        collect: |r, s| {
            each(&r.status.ledger.agent.tcp_bytes.ignored, |reason, n| s.count(&[reason], n))
        },
    },
    Family {
        name: "tap53_tcp_lost_bytes_total",
        kind: Counter,
        help: "Bytes of TCP payload that are in no message.",
        labels: &["reason"],
        collect: |r, s| {
            each(&r.status.ledger.agent.tcp_bytes.lost, |reason, n| s.count(&[reason], n))
        },
    },
    Family {
        name: "tap53_tcp_missing_bytes_total",
        kind: Counter,
        help: "Bytes that are missing in captured streams, outside of the sum.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.tcp_bytes.missing),
    },
    // Messages: decoded = pending + in records + filtered + ignored + lost.
    Family {
        name: "tap53_messages_decoded_total",
        kind: Counter,
        help: "DNS messages found.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.messages.decoded),
    },
    Family {
        name: "tap53_messages_pending",
        kind: Gauge,
        help: "Messages in the pair tables: queries that wait for their response.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.messages.pending),
    },
    Family {
        name: "tap53_messages_in_records_total",
        kind: Counter,
        help: "Messages that records stand for.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.messages.in_records),
    },
    Family {
        name: "tap53_messages_filtered_total",
        kind: Counter,
        help: "Messages of transactions that a filter left out.",
        labels: &["reason"],
        collect: |r, s| {
            each(&r.status.ledger.agent.messages.filtered, |reason, n| s.count(&[reason], n))
        },
    },
    Family {
        name: "tap53_messages_ignored_total",
        kind: Counter,
        help: "Messages that another message stands for.",
        labels: &["reason"],
        collect: |r, s| {
            each(&r.status.ledger.agent.messages.ignored, |reason, n| s.count(&[reason], n))
        },
    },
    Family {
        name: "tap53_messages_lost_total",
        kind: Counter,
        help: "Messages in no record.",
        labels: &["reason"],
        collect: |r, s| {
            each(&r.status.ledger.agent.messages.lost, |reason, n| s.count(&[reason], n))
        },
    },
    // Records: created = offered to each sink + filtered.
    Family {
        name: "tap53_records_created_total",
        kind: Counter,
        help: "Transactions: each a record, or left out by a filter.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.ledger.agent.records.created),
    },
    Family {
        name: "tap53_records_filtered_total",
        kind: Counter,
        help: "Transactions that a filter left out.",
        labels: &["reason"],
        collect: |r, s| {
            each(&r.status.ledger.agent.records.filtered, |reason, n| s.count(&[reason], n))
        },
    },
    // Sinks: offered + carried = delivered + in flight + spooled + lost.
    Family {
        name: "tap53_sink_records_offered_total",
        kind: Counter,
        help: "Records handed to the sink.",
        labels: &["sink"],
        collect: |r, s| each_sink(r, |of, records| s.count(&[of], records.offered)),
    },
    Family {
        name: "tap53_sink_records_delivered_total",
        kind: Counter,
        help: "Records known to have arrived.",
        labels: &["sink"],
        collect: |r, s| each_sink(r, |of, records| s.count(&[of], records.delivered)),
    },
    Family {
        name: "tap53_sink_records_in_flight",
        kind: Gauge,
        help: "Records accepted and not yet known to have arrived.",
        labels: &["sink"],
        collect: |r, s| each_sink(r, |of, records| s.count(&[of], records.in_flight)),
    },
    Family {
        name: "tap53_sink_records_carried",
        kind: Gauge,
        help: "Records in the spool when this run began, to be accounted for beside what was offered.",
        labels: &["sink"],
        collect: |r, s| each_sink(r, |of, records| s.count(&[of], records.carried)),
    },
    Family {
        name: "tap53_sink_records_spooled",
        kind: Gauge,
        help: "Records in the spool, and not yet known to have arrived.",
        labels: &["sink"],
        collect: |r, s| each_sink(r, |of, records| s.count(&[of], records.spooled)),
    },
    Family {
        name: "tap53_sink_spool_bytes",
        kind: Gauge,
        help: "Bytes that the spool takes on disk; 0 without one.",
        labels: &["sink"],
        collect: |r, s| {
            let sinks = &r.status.ledger.agent.sinks;
            sinks.iter().for_each(|sink| s.count(&[&sink.name], sink.spool_bytes));
        },
    },
    Family {
        name: "tap53_sink_records_lost_total",
        kind: Counter,
        help: "Records that the sink will not deliver.",
        labels: &["sink", "reason"],
        collect: |r, s| {
            each_sink(r, |of, records| each(&records.lost, |reason, n| s.count(&[of, reason], n)))
        },
    },
    Family {
        name: "tap53_sink_able_to_store",
        kind: Gauge,
        help: "1 unless the sink lost the last records that it took.",
        labels: &["sink"],
        collect: |r, s| {
            each_sink(r, |of, _| {
                s.flag(&[of], !r.status.health.failing_sinks.iter().any(|name| name == of))
            })
        },
    },
    // Before this run.
    Family {
        name: "tap53_gap_seconds",
        kind: Gauge,
        help: "Time before this run in which nobody captured; absent where it is not known.",
        labels: &[],
        collect: |r, s| {
            if let Some(gap) = gap(r) {
                s.measure(&[], gap.seconds);
            }
        },
    },
    Family {
        name: "tap53_gap_packets",
        kind: Gauge,
        help: "Packets that passed meanwhile: at least and at most.",
        labels: &["interface", "direction", "bound"],
        collect: |r, s| {
            for interface in gap(r).iter().flat_map(|gap| &gap.interfaces) {
                for direction in Direction::ALL {
                    let Some(bounds) = interface.of(direction) else { continue };
                    let of = |bound| [interface.name.as_str(), direction.name(), bound];
                    s.count(&of("at_least"), bounds.at_least);
                    s.count(&of("at_most"), bounds.at_most);
                }
            }
        },
    },
    // Health.
    Family {
        name: "tap53_ledger_balanced",
        kind: Gauge,
        help: "1 while every line of the ledger adds up.",
        labels: &[],
        collect: |r, s| s.flag(&[], r.status.ledger.balanced()),
    },
    Family {
        name: "tap53_live",
        kind: Gauge,
        help: "1 while every worker is at its ring, as /livez tells.",
        labels: &[],
        collect: |r, s| s.flag(&[], r.status.health.live.ok),
    },
    Family {
        name: "tap53_ready",
        kind: Gauge,
        help: "1 while the agent captures as wanted and sinks store, as /readyz tells.",
        labels: &[],
        collect: |r, s| s.flag(&[], r.status.health.ready.ok),
    },
    Family {
        name: "tap53_worker_heartbeat_age_seconds",
        kind: Gauge,
        help: "How long ago the worker was at its ring.",
        labels: &["worker"],
        collect: |r, s| {
            for heartbeat in r.heartbeats {
                s.measure(
                    &[&heartbeat.worker().to_string()],
                    heartbeat.age(r.now_ns).as_secs_f64(),
                );
            }
        },
    },
    Family {
        name: "tap53_interface_wanted",
        kind: Gauge,
        help: "1 where file, annotation or command want the direction captured.",
        labels: &["interface", "direction"],
        collect: |r, s| each_interface(r, |of, wanted, _| s.flag(&of, wanted)),
    },
    Family {
        name: "tap53_interface_capturing",
        kind: Gauge,
        help: "1 where the direction is captured: a program is in place, on, and not shadowed.",
        labels: &["interface", "direction"],
        collect: |r, s| each_interface(r, |of, _, capturing| s.flag(&of, capturing)),
    },
    // Configuration.
    Family {
        name: "tap53_config_reloads_total",
        kind: Counter,
        help: "Changes of the configuration file, by what became of them.",
        labels: &["result"],
        collect: |r, s| {
            s.count(&["taken_up"], r.status.config.reloads);
            s.count(&["refused"], r.status.config.reloads_refused);
        },
    },
    Family {
        name: "tap53_config_last_reload_successful",
        kind: Gauge,
        help: "1 unless the file as it is now is refused and not in force.",
        labels: &[],
        collect: |r, s| s.flag(&[], r.status.config.error.is_none()),
    },
    Family {
        name: "tap53_config_loaded_timestamp_seconds",
        kind: Gauge,
        help: "When what is in force was read, seconds since 1970 UTC.",
        labels: &[],
        collect: |r, s| s.measure(&[], seconds_of(&r.status.config.loaded_at)),
    },
    Family {
        name: "tap53_config_keys_waiting_for_restart",
        kind: Gauge,
        help: "Keys that were changed in the file and take a restart.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.config.restart_needed.len() as u64),
    },
    // Owners of addresses; without Kubernetes only the first.
    Family {
        name: "tap53_kubernetes_enabled",
        kind: Gauge,
        help: "1 where the Kubernetes API is asked for the owners of addresses.",
        labels: &[],
        collect: |r, s| s.flag(&[], r.enrichment.enabled),
    },
    Family {
        name: "tap53_kubernetes_watch_connected",
        kind: Gauge,
        help: "1 while the watch has listed its objects and follows them.",
        labels: &["resource"],
        collect: |r, s| each_watch(r, |watch| s.flag(&[watch.resource], watch.connected)),
    },
    Family {
        name: "tap53_kubernetes_watch_stale_timestamp_seconds",
        kind: Gauge,
        help: "Since when what the watch knows may be old, seconds since 1970 UTC; none while it is connected.",
        labels: &["resource"],
        collect: |r, s| {
            each_watch(r, |watch| {
                if let Some(since) = watch.stale_since {
                    s.measure(&[watch.resource], seconds(since));
                }
            })
        },
    },
    Family {
        name: "tap53_kubernetes_watch_event_timestamp_seconds",
        kind: Gauge,
        help: "When the last event came, seconds since 1970 UTC.",
        labels: &["resource"],
        collect: |r, s| {
            each_watch(r, |watch| {
                if let Some(at) = watch.last_event {
                    s.measure(&[watch.resource], seconds(at));
                }
            })
        },
    },
    Family {
        name: "tap53_kubernetes_watch_lists_total",
        kind: Counter,
        help: "Lists of everything that were taken; one is the start.",
        labels: &["resource"],
        collect: |r, s| each_watch(r, |watch| s.count(&[watch.resource], watch.lists)),
    },
    Family {
        name: "tap53_kubernetes_watch_events_total",
        kind: Counter,
        help: "Events taken in.",
        labels: &["resource"],
        collect: |r, s| each_watch(r, |watch| s.count(&[watch.resource], watch.events)),
    },
    Family {
        name: "tap53_kubernetes_watch_errors_total",
        kind: Counter,
        help: "Requests that failed, and streams that broke.",
        labels: &["resource"],
        collect: |r, s| each_watch(r, |watch| s.count(&[watch.resource], watch.errors)),
    },
    Family {
        name: "tap53_kubernetes_objects",
        kind: Gauge,
        help: "Live objects known.",
        labels: &["resource"],
        collect: |r, s| {
            if_kubernetes(r, |of| {
                for (resource, known) in
                    [("pods", of.pods), ("services", of.services), ("nodes", of.nodes)]
                {
                    s.count(&[resource], known as u64);
                }
            })
        },
    },
    Family {
        name: "tap53_kubernetes_claims",
        kind: Gauge,
        help: "Claims of addresses held: of live objects, and for a while of those that ended.",
        labels: &[],
        collect: |r, s| if_kubernetes(r, |of| s.count(&[], of.claims as u64)),
    },
    Family {
        name: "tap53_kubernetes_claims_dropped_total",
        kind: Counter,
        help: "Claims of addresses given up or not taken in, by reason.",
        labels: &["reason"],
        collect: |r, s| {
            if_kubernetes(r, |of| {
                for (reason, n) in [
                    ("history_full", of.history_evicted),
                    ("ended_early", of.ended_evicted),
                    ("refused", of.refused),
                ] {
                    s.count(&[reason], n);
                }
            })
        },
    },
    Family {
        name: "tap53_kubernetes_jobs_failed_total",
        kind: Counter,
        help: "Jobs that could not be asked for: their pods are named by the Job, not by its CronJob.",
        labels: &[],
        collect: |r, s| if_kubernetes(r, |of| s.count(&[], of.jobs_failed)),
    },
    // Control socket.
    Family {
        name: "tap53_control_connections_total",
        kind: Counter,
        help: "Connections at the control socket.",
        labels: &[],
        collect: |r, s| s.count(&[], r.control.connections),
    },
    Family {
        name: "tap53_control_requests_total",
        kind: Counter,
        help: "Requests read and understood.",
        labels: &[],
        collect: |r, s| s.count(&[], r.control.requests),
    },
    Family {
        name: "tap53_control_requests_refused_total",
        kind: Counter,
        help: "Connections and requests that got no proper answer, by reason.",
        labels: &["reason"],
        collect: |r, s| {
            let of = &r.control;
            for (reason, n) in [
                ("denied", of.denied),
                ("busy", of.busy),
                ("timed_out", of.timed_out),
                ("malformed", of.malformed),
                ("unread", of.unread),
            ] {
                s.count(&[reason], n);
            }
        },
    },
    Family {
        name: "tap53_followers",
        kind: Gauge,
        help: "Readers that follow the records (tap53 tail).",
        labels: &[],
        collect: |r, s| s.count(&[], r.followers as u64),
    },
    Family {
        name: "tap53_follower_lines_lost_total",
        kind: Counter,
        help: "Lines that followers read too slowly for.",
        labels: &[],
        collect: |r, s| s.count(&[], r.follower_lines_lost),
    },
    // The process.
    Family {
        name: "tap53_build_info",
        kind: Gauge,
        help: "1, with the version of the agent.",
        labels: &["version"],
        collect: |r, s| s.flag(&[r.status.version], true),
    },
    Family {
        name: "process_start_time_seconds",
        kind: Gauge,
        help: "When the agent started, seconds since 1970 UTC.",
        labels: &[],
        collect: |r, s| s.measure(&[], r.process.started_at_s),
    },
    Family {
        name: "process_cpu_seconds_total",
        kind: Counter,
        help: "Time on CPUs, user and system.",
        labels: &[],
        collect: |r, s| s.measure(&[], r.process.cpu_seconds),
    },
    Family {
        name: "process_resident_memory_bytes",
        kind: Gauge,
        help: "Resident memory.",
        labels: &[],
        collect: |r, s| s.count(&[], r.process.resident_bytes),
    },
    Family {
        name: "process_open_fds",
        kind: Gauge,
        help: "Open file descriptors.",
        labels: &[],
        collect: |r, s| s.count(&[], r.process.open_fds),
    },
];

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

fn gap<'a>(reading: &Reading<'a>) -> Option<&'a Gap> {
    reading.status.ledger.before.as_ref()?.previous_run.as_ref()?.gap.as_ref()
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
