//! The control socket, those who follow, and the process.

use super::{Counter, Family, Gauge};
use crate::version::SCHEMA_VERSION;

pub(super) const FAMILIES: &[Family] = &[
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
        help: "Connections and requests that were refused, by reason.",
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
        help: "Lines that were dropped because followers read too slowly.",
        labels: &[],
        collect: |r, s| s.count(&[], r.follower_lines_lost),
    },
    // Telemetry port.
    Family {
        name: "tap53_telemetry_connections_total",
        kind: Counter,
        help: "Connections at the telemetry port.",
        labels: &[],
        collect: |r, s| s.count(&[], r.telemetry.connections),
    },
    Family {
        name: "tap53_telemetry_requests_total",
        kind: Counter,
        help: "Requests with a complete head.",
        labels: &[],
        collect: |r, s| s.count(&[], r.telemetry.requests),
    },
    Family {
        name: "tap53_telemetry_connections_closed_total",
        kind: Counter,
        help: "Connections closed early, by reason. idle, unread: evicted for a newer connection before the request was complete, or before the response was read. busy: refused. timed_out: a deadline passed.",
        labels: &["reason"],
        collect: |r, s| {
            let of = &r.telemetry;
            for (reason, n) in [
                ("idle", of.idle),
                ("unread", of.unread),
                ("busy", of.busy),
                ("timed_out", of.timed_out),
            ] {
                s.count(&[reason], n);
            }
        },
    },
    // The log.
    Family {
        name: "tap53_log_lines_total",
        kind: Counter,
        help: "Lines written to the log.",
        labels: &["level"],
        collect: |r, s| {
            r.log_lines.written.iter().for_each(|(level, lines)| s.count(&[level], *lines))
        },
    },
    Family {
        name: "tap53_log_lines_suppressed_total",
        kind: Counter,
        help: "Lines suppressed because they repeated too often.",
        labels: &["level"],
        collect: |r, s| {
            r.log_lines.suppressed.iter().for_each(|(level, lines)| s.count(&[level], *lines))
        },
    },
    // The process.
    Family {
        name: "tap53_build_info",
        kind: Gauge,
        help: "Always 1; the labels have the version of the agent, the revision of its sources, and the version of the record's schema.",
        labels: &["version", "revision", "schema_version"],
        collect: |r, s| {
            let schema_version = SCHEMA_VERSION.to_string();
            s.flag(&[r.status.version, r.status.revision, &schema_version], true);
        },
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
