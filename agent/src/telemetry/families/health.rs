//! Health of the agent.

use super::{Counter, Family, Gauge, each_interface, seconds_of};

pub(super) const FAMILIES: &[Family] = &[
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
        help: "1 while every worker reads its ring, as /livez reports.",
        labels: &[],
        collect: |r, s| s.flag(&[], r.status.health.live.ok),
    },
    Family {
        name: "tap53_ready",
        kind: Gauge,
        help: "1 while the agent captures as configured and its sinks store records, as /readyz reports.",
        labels: &[],
        collect: |r, s| s.flag(&[], r.status.health.ready.ok),
    },
    Family {
        name: "tap53_worker_heartbeat_age_seconds",
        kind: Gauge,
        help: "Time since the worker last looked at its ring.",
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
        help: "1 if the file, the annotation or a command requests capture in this direction.",
        labels: &["interface", "direction"],
        collect: |r, s| each_interface(r, |of, wanted, _| s.flag(&of, wanted)),
    },
    Family {
        name: "tap53_interface_capturing",
        kind: Gauge,
        help: "1 if the direction is captured: a program is attached, enabled, and no program before it withholds packets.",
        labels: &["interface", "direction"],
        collect: |r, s| each_interface(r, |of, _, capturing| s.flag(&of, capturing)),
    },
    // Configuration.
    Family {
        name: "tap53_config_reloads_total",
        kind: Counter,
        help: "Reloads of the configuration file, by result.",
        labels: &["result"],
        collect: |r, s| {
            s.count(&["taken_up"], r.status.config.reloads);
            s.count(&["refused"], r.status.config.reloads_refused);
        },
    },
    Family {
        name: "tap53_config_last_reload_successful",
        kind: Gauge,
        help: "1 unless the current file was rejected and an earlier version is in force.",
        labels: &[],
        collect: |r, s| s.flag(&[], r.status.config.error.is_none()),
    },
    Family {
        name: "tap53_config_loaded_timestamp_seconds",
        kind: Gauge,
        help: "When the configuration in force was read, seconds since 1970 UTC.",
        labels: &[],
        collect: |r, s| s.measure(&[], seconds_of(&r.status.config.loaded_at)),
    },
    Family {
        name: "tap53_config_keys_waiting_for_restart",
        kind: Gauge,
        help: "Keys that changed in the file and need a restart.",
        labels: &[],
        collect: |r, s| s.count(&[], r.status.config.restart_needed.len() as u64),
    },
];
