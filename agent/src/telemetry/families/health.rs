//! Whether the agent is as it should be.

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
];
