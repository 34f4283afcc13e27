//! Owners of addresses and sockets.

use tap53_ledger::EndpointCounts;

use super::{Counter, Family, Gauge, Reading, each_watch, if_kubernetes, seconds};

/// Sum of a count over all workers.
fn endpoints(reading: &Reading<'_>, count: impl Fn(&EndpointCounts) -> u64) -> u64 {
    reading.workers.iter().map(|counts| count(&counts.endpoints)).sum()
}

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "tap53_kubernetes_enabled",
        kind: Gauge,
        help: "1 if the Kubernetes API is used to find the owners of addresses.",
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
        help: "Since when the watch may be stale, seconds since 1970 UTC; absent while it is connected.",
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
        help: "When the last event was received, seconds since 1970 UTC.",
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
        help: "Full lists; the first one is at the start.",
        labels: &["resource"],
        collect: |r, s| each_watch(r, |watch| s.count(&[watch.resource], watch.lists)),
    },
    Family {
        name: "tap53_kubernetes_watch_events_total",
        kind: Counter,
        help: "Events processed.",
        labels: &["resource"],
        collect: |r, s| each_watch(r, |watch| s.count(&[watch.resource], watch.events)),
    },
    Family {
        name: "tap53_kubernetes_watch_errors_total",
        kind: Counter,
        help: "Failed requests and broken streams.",
        labels: &["resource"],
        collect: |r, s| each_watch(r, |watch| s.count(&[watch.resource], watch.errors)),
    },
    Family {
        name: "tap53_kubernetes_objects",
        kind: Gauge,
        help: "Known live objects; server_pods are those of DNS servers on other nodes.",
        labels: &["resource"],
        collect: |r, s| {
            if_kubernetes(r, |of| {
                for (resource, known) in [
                    ("pods", of.pods),
                    ("server_pods", of.server_pods),
                    ("services", of.services),
                    ("nodes", of.nodes),
                ] {
                    s.count(&[resource], known as u64);
                }
            })
        },
    },
    Family {
        name: "tap53_kubernetes_claims",
        kind: Gauge,
        help: "Claims of addresses in memory: of live objects, and for some time of deleted ones.",
        labels: &[],
        collect: |r, s| if_kubernetes(r, |of| s.count(&[], of.claims as u64)),
    },
    Family {
        name: "tap53_kubernetes_claims_dropped_total",
        kind: Counter,
        help: "Claims of addresses that were dropped or not accepted, by reason.",
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
        help: "Jobs that could not be read: their pods have the Job as workload, not its CronJob.",
        labels: &[],
        collect: |r, s| if_kubernetes(r, |of| s.count(&[], of.jobs_failed)),
    },
    Family {
        name: "tap53_containers_followed",
        kind: Gauge,
        help: "1 if the cgroups of this machine are followed, by which records name containers.",
        labels: &[],
        collect: |r, s| s.flag(&[], r.enrichment.containers.root.is_some()),
    },
    Family {
        name: "tap53_containers_cgroups",
        kind: Gauge,
        help: "Cgroups of this machine in memory.",
        labels: &[],
        collect: |r, s| s.count(&[], r.enrichment.containers.cgroups as u64),
    },
    Family {
        name: "tap53_containers_cgroups_refused_total",
        kind: Counter,
        help: "Cgroups that were not remembered because containers.max_cgroups was reached.",
        labels: &[],
        collect: |r, s| s.count(&[], r.enrichment.containers.refused),
    },
    Family {
        name: "tap53_attribution_endpoints_total",
        kind: Counter,
        help: "Clients and servers of records, by whether the socket that sent their packet was seen.",
        labels: &["evidence"],
        collect: |r, s| {
            s.count(&["socket"], endpoints(r, |of| of.with_socket));
            s.count(&["address"], endpoints(r, |of| of.without_socket));
        },
    },
    Family {
        name: "tap53_attribution_unknown_cgroups_total",
        kind: Counter,
        help: "Clients and servers of records whose socket is of a cgroup that was not known.",
        labels: &[],
        collect: |r, s| s.count(&[], endpoints(r, |of| of.with_unknown_cgroup)),
    },
    Family {
        name: "tap53_attribution_conflicts_total",
        kind: Counter,
        help: "Clients and servers of records whose address belongs to another pod than their socket.",
        labels: &[],
        collect: |r, s| s.count(&[], endpoints(r, |of| of.in_conflict)),
    },
];
